//! Free ports on loopback, found by asking the kernel for them.

use crate::output::Failure;
use sdm_proto::refusal::Class;
use std::io;
use std::net::Ipv4Addr;
use std::net::TcpListener;

/// That many free addresses. They are free when this returns; another process could still take one
/// before ours binds it, and then says so in its log.
///
/// # Errors
/// The kernel gives none.
pub fn free_addresses(count: usize) -> Result<Vec<String>, Failure> {
    // All are held until all are known: the kernel would give the same one again.
    let listeners: io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    let addresses = listeners.and_then(|listeners| {
        listeners.iter().map(|listener| listener.local_addr().map(|address| address.to_string())).collect()
    });
    addresses.map_err(|error| {
        Failure::new(Class::Unavailable, "NO_PORT", format!("no port on 127.0.0.1 can be listened on: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn addresses_differ_and_can_be_bound() {
        let addresses = free_addresses(5).unwrap();
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 5);
        assert!(TcpListener::bind(&addresses[0]).is_ok());
    }
}
