//! Request ids. Any UUID names a request; one that the cluster issued also carries the cluster's
//! clock (a UUID of version 8: 48 bits of milliseconds, then random bits), so a late copy can be
//! refused after its result was forgotten. What "late" means is the state's affair.

use crate::ids::TxnId;
use uuid::Uuid;

/// Makes an id that carries this clock.
#[must_use]
pub fn issue(clock_ms: u64, entropy: [u8; 16]) -> TxnId {
    let mut bytes = entropy;
    bytes[..6].copy_from_slice(&clock_ms.to_be_bytes()[2..]);
    TxnId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// The clock that an issued id carries, in milliseconds; None for any other UUID.
#[must_use]
pub fn issued_at_ms(id: TxnId) -> Option<u64> {
    let uuid: Uuid = id.uuid();
    if uuid.get_version_num() != 8 {
        return None;
    }
    let mut clock = [0; 8];
    clock[2..].copy_from_slice(&uuid.as_bytes()[..6]);
    Some(u64::from_be_bytes(clock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issued_id_carries_its_clock_and_a_plain_one_carries_none() {
        assert_eq!(issued_at_ms(issue(1_234_567, [7; 16])), Some(1_234_567));
        assert_ne!(issue(1, [7; 16]), issue(1, [8; 16]));
        assert_eq!(issued_at_ms(TxnId::from_uuid(uuid::Builder::from_random_bytes([9; 16]).into_uuid())), None);
    }
}
