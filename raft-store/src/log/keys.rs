//! Keys of the log database. Entries order by index, then by piece; the few others begin with `m`.

/// All that is known besides the entries, see [`super::marks`].
pub(crate) const MARKS: &[u8] = b"mm";
/// Whose log this is.
pub(crate) const OWNER: &[u8] = b"mo";

const ENTRY: u8 = b'l';

/// Where the entry keys begin.
pub(crate) const ENTRIES_FROM: &[u8] = b"l";
/// Where the entry keys have ended.
pub(crate) const ENTRIES_TO: &[u8] = b"m";

/// The key of one piece of an entry.
pub(crate) fn piece(index: u64, piece: u16) -> [u8; 11] {
    let mut key = [ENTRY; 11];
    let (_, rest) = key.split_at_mut(1);
    let (high, low) = rest.split_at_mut(8);
    high.copy_from_slice(&index.to_be_bytes());
    low.copy_from_slice(&piece.to_be_bytes());
    key
}

/// The key at which the pieces of this entry and all later ones begin.
pub(crate) fn entry(index: u64) -> [u8; 11] {
    piece(index, 0)
}

/// Index and piece of an entry's key.
pub(crate) fn parse(key: &[u8]) -> Option<(u64, u16)> {
    let (first, rest) = key.split_first()?;
    let (high, low) = rest.split_at_checked(8)?;
    if *first != ENTRY {
        return None;
    }
    Some((u64::from_be_bytes(high.try_into().ok()?), u16::from_be_bytes(low.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_keys_order_by_index_then_piece_and_stay_in_their_range() {
        let keys = [piece(0, 0), piece(0, 1), piece(255, 9), piece(256, 0), piece(u64::MAX, u16::MAX)];
        assert!(keys.is_sorted());
        for key in keys {
            assert!(key.as_slice() >= ENTRIES_FROM && key.as_slice() < ENTRIES_TO);
            let (index, number) = parse(&key).expect("an entry's key");
            assert_eq!(key, piece(index, number));
        }
        assert_eq!(parse(MARKS), None);
    }
}
