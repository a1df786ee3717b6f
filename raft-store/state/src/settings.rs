//! Limits and policies that `apply` obeys. They live in the state, not in the program, so that
//! members of different builds decide alike. The cluster's first entry
//! carries them. The default of a field that is added later must be what held before there was the field.

use serde::Deserialize;
use serde::Serialize;

/// Limits and policies, each with its reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// One entry moves the clock by this much at most, so a stopwatch that jumped (a suspended
    /// machine) cannot expire everything at once.
    pub clock_step_max_ms: u64,
    /// Shortest lease: below it an election alone would end every session.
    pub session_ttl_min_ms: u64,
    /// Longest lease: how long a dead client can hold a lock.
    pub session_ttl_max_ms: u64,
    /// Open sessions: bounds the leader's keepalive work.
    pub sessions_max: u64,
    /// Open transactions, waiting ones included: bounds every scan and the snapshot.
    pub open_txns_max: u64,
    /// Finished transactions that are kept, by number ...
    pub finished_txns_max: u64,
    /// ... and by age: how long a request id is remembered at most.
    pub request_window_ms: u64,
    /// Finished transactions that did nothing (kind noop) and are kept beside those: so a measurement does not push the
    /// results of others out, and a late repetition does nothing once more.
    #[serde(skip_serializing_if = "is_finished_noops_default")]
    pub finished_noops_max: u64,
    /// Lock sets of all sessions.
    pub locks_max: u64,
    /// Resources in one lock set.
    pub lock_set_max: u64,
    /// Attempts of one step or job before the transaction aborts.
    pub attempts_max: u32,
    /// First pause between attempts; doubled each time ...
    pub retry_first_ms: u64,
    /// ... up to this.
    pub retry_max_ms: u64,
    /// How long a transaction may be without a worker before it aborts.
    pub unassigned_max_ms: u64,
    /// How long an import or export waits for its command.
    pub peer_absence_max_ms: u64,
    /// How long an attempt may stay with a worker that reports its storage unreachable: a mount that hangs
    /// for good must not keep the transaction's locks.
    pub unreachable_max_ms: u64,
    /// How long a step or a deletion may take: it makes or unlinks a few files, so longer means a hang that
    /// no probe sees (a path that is no domain yet).
    pub step_max_ms: u64,
    /// Domains: all that one worker probes fits one message.
    pub domains_max: u64,
    /// Disks: bounds memory and snapshots.
    pub disks_max: u64,
    /// Workers, lost ones included; the one lost longest gives way.
    pub workers_max: u64,
    /// Members, those without a vote included.
    pub members_max: u64,
    /// Share of a file system that stays free, in thousandths.
    pub space_floor_permille: u64,
    /// Rows that one entry prunes or assigns at most; the rest come with the next Tick.
    pub work_per_entry: u64,
    /// How long a deleted disk could be restored.
    pub retention_ms: u64,
    /// Largest virtual size of a disk: what qcow2 and ext4 both hold.
    pub disk_bytes_max: u64,
    /// Events kept in one transaction's history.
    pub history_max: u64,
    /// Members compare the hashes of their states after so many entries; 0: never. Seldom enough that
    /// the entries with the hashes are a thousandth of all.
    #[serde(skip_serializing_if = "is_first_state_hash_every")]
    pub state_hash_every: u64,
}

/// Clusters of the first release have no such setting, and get this one when their feature level is
/// raised: it never changes.
const STATE_HASH_EVERY: u64 = 4_096;

fn is_first_state_hash_every(every: &u64) -> bool {
    *every == STATE_HASH_EVERY
}

const FINISHED_NOOPS_DEFAULT: u64 = 1_000;

/// The first level knew no such setting: with its default it must encode to the same bytes.
fn is_finished_noops_default(value: &u64) -> bool {
    *value == FINISHED_NOOPS_DEFAULT
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            clock_step_max_ms: 120_000,
            session_ttl_min_ms: 3_000,
            session_ttl_max_ms: 600_000,
            sessions_max: 10_000,
            open_txns_max: 10_000,
            finished_txns_max: 10_000,
            finished_noops_max: FINISHED_NOOPS_DEFAULT,
            request_window_ms: 24 * 3_600_000,
            locks_max: 100_000,
            lock_set_max: 64,
            attempts_max: 6,
            retry_first_ms: 1_000,
            retry_max_ms: 60_000,
            unassigned_max_ms: 600_000,
            peer_absence_max_ms: 60_000,
            unreachable_max_ms: 60_000,
            step_max_ms: 300_000,
            domains_max: 1_000,
            disks_max: 1_000_000,
            workers_max: 1_000,
            members_max: 64,
            space_floor_permille: 10,
            work_per_entry: 256,
            retention_ms: 0,
            disk_bytes_max: 16 << 40,
            history_max: 64,
            state_hash_every: STATE_HASH_EVERY,
        }
    }
}
