//! How openraft runs here, and why. Everything it can do differently is said in one place.

use crate::snapshot::GROWTH_BYTES_MIN;
use openraft::Config;
use openraft::ConfigError;
use openraft::SnapshotPolicy;
use openraft::StepDownPolicy;
use std::sync::Arc;

/// Timers of Raft, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftTiming {
    /// Between two heartbeats of the leader.
    pub heartbeat_ms: u64,
    /// After at least this long without a leader, a member stands for election.
    pub election_min_ms: u64,
    /// After at most this long; also the leader's lease.
    pub election_max_ms: u64,
}

impl Default for RaftTiming {
    /// The least election timeout is also openraft's deadline for a vote's answer, and up to four syncs
    /// stand before that answer: a batch of the log that is under way, the vote's own, and as many of
    /// the witness. One second lets a disk take 250 ms for each; with less, a cluster on slow or busy
    /// disks could stay without a leader for as long as they are.
    ///
    /// A follower stands for election 3 to 4 s after it last heard from the leader, far longer than the
    /// processors of a machine are taken. A leader whose process ended is noticed long before, by its
    /// connections.
    fn default() -> Self {
        RaftTiming { heartbeat_ms: 150, election_min_ms: 1_000, election_max_ms: 2_000 }
    }
}

/// When the log is cut, and how short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogCut {
    /// Growth of the log below which no snapshot pays, in bytes.
    pub growth_bytes: u64,
    /// Entries that stay after a snapshot covers them.
    pub entries_kept: u64,
    /// Entries that are purged at once, at least.
    pub purge_entries: u64,
}

impl Default for LogCut {
    fn default() -> Self {
        LogCut { growth_bytes: GROWTH_BYTES_MIN, entries_kept: LOG_ENTRIES_KEPT, purge_entries: PURGE_ENTRIES_MIN }
    }
}

impl LogCut {
    /// Raft's configuration with these figures.
    #[must_use]
    pub fn applied_to(self, config: Config) -> Config {
        Config { max_in_snapshot_log_to_keep: self.entries_kept, purge_batch_size: self.purge_entries, ..config }
    }
}

/// Log entries that stay after a snapshot covers them: a follower that was away for a moment, or
/// that just got a snapshot, goes on from the log instead of asking for another snapshot.
const LOG_ENTRIES_KEPT: u64 = 10_000;

/// Entries purged at once: purging one by one would cost a write each.
const PURGE_ENTRIES_MIN: u64 = 1_000;

/// How far a follower may lag before a new learner counts as caught up.
const LAG_ENTRIES_MAX: u64 = 1_000;

/// Entries in one replication request; the byte limit of the log's reader usually ends it before.
const REPLICATION_ENTRIES_MAX: u64 = 4_096;

/// How long a whole snapshot may take to arrive and be installed. openraft's 200 ms is meant for
/// memory; this only ends what has hung, a stalled piece is noticed by the transport.
const SNAPSHOT_TIMEOUT_MS: u64 = 10 * 60 * 1_000;

/// How long a leader that was removed goes on, so that the others learn of it from the leader.
const REMOVED_LEADER_MS: u64 = 150;

/// The configuration for a member of this cluster.
///
/// # Errors
/// When the timing is impossible.
pub fn raft_config(cluster: &str, timing: RaftTiming) -> Result<Arc<Config>, ConfigError> {
    let config = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        max_payload_entries: REPLICATION_ENTRIES_MAX,
        replication_lag_threshold: LAG_ENTRIES_MAX,
        // Driven by bytes, see SnapshotTrigger.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: LOG_ENTRIES_KEPT,
        purge_batch_size: PURGE_ENTRIES_MIN,
        // Followers write while the leader does, instead of after the leader's turn: latency counts
        // here, batches form in the log's writer anyway.
        broadcast_submitted_on_append: Some(true),
        // A member that was cut off must not depose the leader when it comes back.
        enable_pre_vote: Some(true),
        // The state is in memory and the committed log id on disk lags: a leader that restarts must
        // be elected anew before it answers.
        enable_leader_restore: Some(false),
        removed_leader_step_down: StepDownPolicy::After(REMOVED_LEADER_MS),
        // Without it a leader that only some members hear can keep the others from electing one.
        quorum_loss_probe_interval: Some(2 * timing.election_max_ms),
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_timing_is_valid_and_the_dangerous_defaults_are_off() {
        let config = raft_config("c", RaftTiming::default()).expect("valid");
        assert!(config.election_timeout_min >= 1_000, "a vote's answer takes up to four syncs");
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
        assert!(config.purge_batch_size >= 1_000);
        assert!(config.install_snapshot_timeout >= 60_000);
    }

    #[test]
    fn an_impossible_timing_is_refused() {
        let timing = RaftTiming { heartbeat_ms: 5_000, ..RaftTiming::default() };
        assert!(raft_config("c", timing).is_err());
    }
}
