//! The leader's stopwatch: where the stamps of entries come from. It starts at the cluster's clock
//! when the leader's own first entry is applied, runs on this machine's boot-time clock, and never
//! runs ahead of what `apply` would take: cut once, it starts again from the cut, so time that was
//! lost (a suspended machine, a cluster without quorum) is never caught up in a jump that would
//! expire everything at once.

use sdm_proto::seams::Clock;
use sdm_raft_store::LeaderId;
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Running {
    leader: LeaderId,
    base_ms: u64,
    started_at_ms: u64,
    /// No time passes until the next stamp that moves it, which starts from the cluster's clock.
    stands: bool,
}

/// The stopwatch of this member's leadership, while it has one.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    clock: Arc<dyn Clock>,
    running: watch::Sender<Option<Running>>,
}

impl Stopwatch {
    /// One that stands still.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, running: watch::Sender::new(None) }
    }

    /// Starts it for this leadership at the cluster's clock.
    pub fn start(&self, leader: LeaderId, clock_ms: u64) {
        let started_at_ms = self.clock.now_ms();
        self.running.send_replace(Some(Running { leader, base_ms: clock_ms, started_at_ms, stands: false }));
    }

    /// Lets no time pass until the next stamp, and gives none up to then to it either: while nobody
    /// knows which state is right, nothing may fall due by it.
    pub fn stand(&self) {
        self.running.send_if_modified(|running| {
            if let Some(running) = running.as_mut() {
                running.stands = true;
            }
            false
        });
    }

    /// The stamp for an entry of this leadership that is written while the stopwatch stands.
    pub fn standing_stamp(&self, leader: LeaderId, applied_ms: u64) -> Option<u64> {
        self.stand();
        let runs = self.running.borrow().is_some_and(|running| running.leader == leader);
        runs.then_some(applied_ms)
    }

    /// Stops it: no more stamps.
    pub fn stop(&self) {
        self.running.send_replace(None);
    }

    /// Waits until it runs for this leadership. Drop the future when the leadership ends.
    pub async fn started(&self, leader: LeaderId) {
        let mut running = self.running.subscribe();
        // The sender lives in `self`: the wait cannot fail.
        let _ = running.wait_for(|running| running.is_some_and(|running| running.leader == leader)).await;
    }

    /// A stamp for an entry of this leadership. `applied_ms` is the cluster's clock as applied
    /// here, `step_max_ms` how far one entry may move it. None when it does not run for this
    /// leadership.
    pub fn stamp(&self, leader: LeaderId, applied_ms: u64, step_max_ms: u64) -> Option<u64> {
        let mut stamp = None;
        let now = self.clock.now_ms();
        self.running.send_if_modified(|running| {
            let Some(running) = running.as_mut().filter(|running| running.leader == leader) else { return false };
            if running.stands {
                *running = Running { leader, base_ms: applied_ms, started_at_ms: now, stands: false };
            }
            let reading = running.base_ms.saturating_add(now.saturating_sub(running.started_at_ms));
            let limit = applied_ms.saturating_add(step_max_ms);
            if reading > limit {
                *running = Running { leader, base_ms: limit, started_at_ms: now, stands: false };
            }
            stamp = Some(reading.min(limit));
            false
        });
        stamp
    }

    /// When the boot-time clock will show this moment of the cluster's clock.
    pub fn when(&self, leader: LeaderId, cluster_ms: u64) -> Option<u64> {
        let running = (*self.running.borrow()).filter(|running| running.leader == leader)?;
        Some(running.started_at_ms.saturating_add(cluster_ms.saturating_sub(running.base_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_proto::seams::SimulatedClock;

    const STEP: u64 = 120_000;

    fn leader(term: u64) -> LeaderId {
        LeaderId { term, node_id: 1 }
    }

    fn running() -> (SimulatedClock, Stopwatch) {
        let clock = SimulatedClock::default();
        clock.advance(5_000);
        let stopwatch = Stopwatch::new(Arc::new(clock.clone()));
        stopwatch.start(leader(1), 1_000_000);
        (clock, stopwatch)
    }

    #[test]
    fn it_starts_at_the_clusters_clock_and_runs_with_the_boot_clock() {
        let (clock, stopwatch) = running();
        assert_eq!(stopwatch.stamp(leader(1), 1_000_000, STEP), Some(1_000_000));
        clock.advance(700);
        assert_eq!(stopwatch.stamp(leader(1), 1_000_000, STEP), Some(1_000_700));
        assert_eq!(stopwatch.when(leader(1), 1_001_000), Some(6_000));
    }

    #[test]
    fn lost_time_is_cut_and_never_caught_up() {
        let (clock, stopwatch) = running();
        clock.advance(10 * STEP);
        assert_eq!(stopwatch.stamp(leader(1), 1_000_000, STEP), Some(1_000_000 + STEP));
        clock.advance(10);
        assert_eq!(stopwatch.stamp(leader(1), 1_000_000 + STEP, STEP), Some(1_000_000 + STEP + 10));
    }

    #[test]
    fn time_that_passes_while_it_stands_is_nobodys() {
        let (clock, stopwatch) = running();
        clock.advance(700);
        assert_eq!(stopwatch.standing_stamp(leader(1), 1_000_000), Some(1_000_000));
        clock.advance(50_000);
        assert_eq!(stopwatch.standing_stamp(leader(1), 1_000_000), Some(1_000_000));
        assert_eq!(stopwatch.standing_stamp(leader(2), 1_000_000), None);
        clock.advance(50_000);
        assert_eq!(stopwatch.stamp(leader(1), 1_000_000, STEP), Some(1_000_000), "it starts anew");
        clock.advance(10);
        assert_eq!(stopwatch.stamp(leader(1), 1_000_000, STEP), Some(1_000_010));
    }

    #[test]
    fn another_leadership_gets_no_stamp() {
        let (_clock, stopwatch) = running();
        assert_eq!(stopwatch.stamp(leader(2), 1_000_000, STEP), None);
        stopwatch.stop();
        assert_eq!(stopwatch.stamp(leader(1), 1_000_000, STEP), None);
    }
}
