//! The worker's lease, in plain numbers: it counts from the moment an acknowledged ping was *sent*,
//! on the boot-time clock, so it is over here before it is over in the cluster.

use std::collections::BTreeMap;

/// Pings within one TTL. Two may be lost before the third of the TTL is over after which another
/// member is tried.
const PINGS_PER_TTL: u64 = 6;

/// Pings without an answer that are remembered: those of one TTL, and again as many.
const PINGS_MAX: usize = 12;

/// Times are milliseconds of the clock.
#[derive(Debug, Default)]
pub(super) struct Lease {
    ttl_ms: u64,
    until_ms: u64,
    next_sequence: u64,
    sent: BTreeMap<u64, u64>,
}

impl Lease {
    /// A new or resumed session of this TTL, opened by an entry that was asked for at this time.
    pub(super) fn begin(&mut self, ttl_ms: u64, asked_ms: u64) {
        self.ttl_ms = ttl_ms;
        self.until_ms = asked_ms + ttl_ms;
        self.sent.clear();
    }

    /// A new connection for the same session: old pings are answered no more.
    pub(super) fn reconnected(&mut self, ttl_ms: u64) {
        self.ttl_ms = ttl_ms;
        self.sent.clear();
    }

    /// Draws the sequence number of a ping that is sent now.
    pub(super) fn ping(&mut self, now_ms: u64) -> u64 {
        self.next_sequence += 1;
        self.sent.insert(self.next_sequence, now_ms);
        while self.sent.len() > PINGS_MAX {
            self.sent.pop_first();
        }
        self.next_sequence
    }

    /// An answer came; true when it prolongs the lease.
    pub(super) fn pong(&mut self, sequence: u64) -> bool {
        let Some(sent_ms) = self.sent.remove(&sequence) else { return false };
        self.sent = self.sent.split_off(&sequence);
        self.until_ms = self.until_ms.max(sent_ms + self.ttl_ms);
        true
    }

    /// Whether it holds now.
    pub(super) fn holds(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }

    /// When it runs out.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Time between two pings.
    pub(super) fn ping_interval_ms(&self) -> u64 {
        (self.ttl_ms / PINGS_PER_TTL).max(1)
    }

    /// Time without an answer after which another member is tried.
    pub(super) fn patience_ms(&self) -> u64 {
        (self.ttl_ms / 3).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        let mut lease = Lease::default();
        lease.begin(9_000, 1_000);
        lease
    }

    #[test]
    fn it_counts_from_when_the_answered_ping_was_sent() {
        let mut lease = lease();
        let sequence = lease.ping(5_000);
        assert!(!lease.holds(10_000));
        assert!(lease.pong(sequence));
        assert!(lease.holds(13_999));
        assert!(!lease.holds(14_000));
    }

    #[test]
    fn a_ping_is_counted_once_and_an_unknown_answer_never() {
        let mut lease = lease();
        let (early, late) = (lease.ping(2_000), lease.ping(3_000));
        assert!(lease.pong(late));
        assert!(!lease.pong(early) && !lease.pong(late) && !lease.pong(99));
        assert_eq!(lease.until_ms(), 12_000);
    }

    #[test]
    fn answers_of_an_earlier_connection_do_not_count() {
        let mut lease = lease();
        let sequence = lease.ping(5_000);
        lease.reconnected(9_000);
        assert!(!lease.pong(sequence));
    }
}
