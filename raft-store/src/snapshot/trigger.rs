//! When a snapshot pays: once the log grew by as much as the last snapshot holds, so that a restart
//! replays at most about as much as it loads, and snapshots cost at most about as much as the log.

use super::transfers::Transfers;
use crate::types::Raft;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// Growth below which a snapshot never pays: replaying this takes a fraction of a second.
pub(crate) const GROWTH_BYTES_MIN: u64 = 4 << 20;

/// Growth at which a snapshot pays however large the last one was: the log stays on the disk.
const GROWTH_BYTES_MAX: u64 = 256 << 20;

/// Growth up to which a snapshot on its way to a peer holds up the next one. Past it the disk counts
/// more than a peer that takes so long.
const HELD_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, Default)]
struct Growth {
    /// In place of the constant.
    pays_from: Option<u64>,
    /// Bytes of entries appended since the start, and in the log before it.
    appended: u64,
    /// `appended` as of the last snapshot.
    covered: u64,
    snapshot_bytes: u64,
    /// Snapshots that are being built.
    building: u32,
    transfers: Transfers,
}

impl Growth {
    fn due(&self) -> bool {
        let least = self.pays_from.unwrap_or(GROWTH_BYTES_MIN).min(GROWTH_BYTES_MAX);
        let threshold = self.snapshot_bytes.clamp(least, GROWTH_BYTES_MAX);
        let growth = self.appended.saturating_sub(self.covered);
        self.building == 0
            && growth >= threshold
            && (growth >= HELD_BYTES_MAX || !self.transfers.need_the_log(Instant::now()))
    }
}

/// Knows how far the log grew since the last snapshot. Clones share it.
#[derive(Clone, Debug)]
pub struct SnapshotTrigger(Arc<watch::Sender<Growth>>);

impl Default for SnapshotTrigger {
    fn default() -> Self {
        SnapshotTrigger(Arc::new(watch::Sender::new(Growth::default())))
    }
}

/// A snapshot that is being built; it covers the log as it was at its start.
#[derive(Debug)]
pub(crate) struct Building {
    trigger: SnapshotTrigger,
    covers: u64,
}

impl Building {
    /// It is published and has this many bytes.
    pub(crate) fn published(self, bytes: u64) {
        self.trigger.taken(self.covers, bytes);
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.trigger.0.send_if_modified(|growth| {
            growth.building = growth.building.saturating_sub(1);
            growth.due()
        });
    }
}

impl SnapshotTrigger {
    /// The trigger of a member that sends these snapshots.
    pub(crate) fn new(transfers: Transfers) -> Self {
        SnapshotTrigger(Arc::new(watch::Sender::new(Growth { transfers, ..Growth::default() })))
    }

    /// Growth below which no snapshot pays, where it is another than usual.
    pub fn pays_from(&self, growth_bytes: u64) {
        self.0.send_if_modified(|growth| {
            growth.pays_from = Some(growth_bytes);
            growth.due()
        });
    }

    /// Whether a snapshot pays now.
    pub fn should_snapshot(&self) -> bool {
        self.0.borrow().due()
    }

    pub(crate) fn appended(&self, bytes: u64) {
        self.0.send_if_modified(|growth| {
            growth.appended += bytes;
            growth.due()
        });
    }

    pub(crate) fn building(&self) -> Building {
        let mut covers = 0;
        self.0.send_if_modified(|growth| {
            growth.building += 1;
            covers = growth.appended;
            false
        });
        Building { trigger: self.clone(), covers }
    }

    /// A snapshot of all that was appended is there.
    pub(crate) fn installed(&self, bytes: u64) {
        let covers = self.0.borrow().appended;
        self.taken(covers, bytes);
    }

    fn taken(&self, covers: u64, bytes: u64) {
        self.0.send_if_modified(|growth| {
            growth.covered = growth.covered.max(covers);
            growth.snapshot_bytes = bytes;
            false
        });
    }
}

/// Takes a snapshot whenever one pays, until Raft ends.
pub async fn drive_snapshots(raft: Raft, trigger: SnapshotTrigger) {
    let mut growth = trigger.0.subscribe();
    loop {
        if growth.borrow_and_update().due() && raft.trigger().snapshot().await.is_err() {
            return;
        }
        // The next append or the end of a build looks again: Raft may have had nothing to cover.
        if growth.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_pays_when_the_log_grew_by_the_size_of_the_last_one() {
        let trigger = SnapshotTrigger::default();
        trigger.appended(GROWTH_BYTES_MIN - 1);
        assert!(!trigger.should_snapshot());
        trigger.appended(1);
        assert!(trigger.should_snapshot());
        let building = trigger.building();
        assert!(!trigger.should_snapshot(), "one is being built");
        trigger.appended(10);
        building.published(2 * GROWTH_BYTES_MIN);
        trigger.appended(2 * GROWTH_BYTES_MIN - 11);
        assert!(!trigger.should_snapshot());
        trigger.appended(1);
        assert!(trigger.should_snapshot());
    }

    #[test]
    fn a_snapshot_on_its_way_holds_up_the_next_one_until_the_log_is_too_long() {
        let transfers = Transfers::default();
        let trigger = SnapshotTrigger::new(transfers.clone());
        let _transfer = transfers.begin();
        trigger.appended(HELD_BYTES_MAX - 1);
        assert!(!trigger.should_snapshot());
        trigger.appended(1);
        assert!(trigger.should_snapshot());
    }

    #[test]
    fn a_build_that_failed_leaves_the_snapshot_due() {
        let trigger = SnapshotTrigger::default();
        trigger.appended(GROWTH_BYTES_MIN);
        drop(trigger.building());
        assert!(trigger.should_snapshot());
    }
}
