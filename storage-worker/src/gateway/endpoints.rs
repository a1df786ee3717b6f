//! Which member to try next, and how long to wait before.

use rand::RngExt;

/// First wait after all members were tried once.
const BACKOFF_FIRST_MS: u64 = 100;
/// Longest wait: a worker is back within seconds after the cluster is.
const BACKOFF_MAX_MS: u64 = 3_000;

/// The members' addresses in turn.
#[derive(Debug)]
pub(super) struct Endpoints {
    addresses: Vec<String>,
    next: usize,
    failures: u32,
}

impl Endpoints {
    /// Begins anywhere, so that many workers spread over the members.
    pub(super) fn new(addresses: Vec<String>) -> Self {
        let next = if addresses.is_empty() { 0 } else { rand::rng().random_range(0..addresses.len()) };
        Self { addresses, next, failures: 0 }
    }

    /// The next one.
    pub(super) fn draw(&mut self) -> String {
        let address = self.addresses.get(self.next).cloned().unwrap_or_default();
        self.next = (self.next + 1) % self.addresses.len().max(1);
        address
    }

    /// One of them welcomed us.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// One of them failed; answers with how long to wait, in milliseconds. Each member is tried
    /// once without waiting.
    pub(super) fn failed(&mut self) -> u64 {
        self.failures = self.failures.saturating_add(1);
        let rounds = usize::try_from(self.failures).unwrap_or(usize::MAX) / self.addresses.len().max(1);
        if rounds == 0 {
            return 0;
        }
        let doublings = u32::try_from(rounds - 1).unwrap_or(u32::MAX).min(16);
        let longest = (BACKOFF_FIRST_MS << doublings).min(BACKOFF_MAX_MS);
        rand::rng().random_range(longest / 2..=longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_tried_at_once_and_then_with_growing_waits() {
        let mut endpoints = Endpoints::new(vec!["a:1".into(), "b:1".into(), "c:1".into()]);
        let mut drawn: Vec<String> = (0..3).map(|_| endpoints.draw()).collect();
        drawn.sort();
        assert_eq!(drawn, ["a:1", "b:1", "c:1"]);
        assert_eq!((endpoints.failed(), endpoints.failed()), (0, 0));
        assert!((50..=100).contains(&endpoints.failed()));
        for _ in 0..1000 {
            assert!(endpoints.failed() <= BACKOFF_MAX_MS);
        }
        endpoints.succeeded();
        assert_eq!(endpoints.failed(), 0);
    }
}
