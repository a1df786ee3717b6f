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
    /// Plans of a collection that are kept: each is up to a few hundred kilobytes ...
    #[serde(skip_serializing_if = "is_gc_plans_max_default")]
    pub gc_plans_max: u64,
    /// ... of so many rows at most: what one entry looks at ...
    #[serde(skip_serializing_if = "is_gc_plan_items_max_default")]
    pub gc_plan_items_max: u64,
    /// ... and for so long may they be carried out.
    #[serde(skip_serializing_if = "is_gc_plan_kept_default")]
    pub gc_plan_kept_ms: u64,
    /// Members compare the hashes of their states after so many entries; 0: never. Seldom enough that
    /// the entries with the hashes are a thousandth of all.
    #[serde(skip_serializing_if = "is_first_state_hash_every")]
    pub state_hash_every: u64,
    /// Attachments of disks to hosts: bounds memory and snapshots.
    #[serde(skip_serializing_if = "is_attachments_max_default")]
    pub attachments_max: u64,
    /// Disks, volumes and placements that leave or come with a domain: they travel in one command and are put or removed
    /// by one entry.
    #[serde(skip_serializing_if = "is_domain_rows_max_default")]
    pub domain_rows_max: u64,
    /// Events that are kept: a watcher that was away for some minutes of a busy cluster misses none, and they take a few
    /// megabytes.
    #[serde(skip_serializing_if = "is_events_max_default")]
    pub events_max: u64,
    /// Volumes in a disk's chain: each one more costs the guest a lookup, and QEMU a file that is open.
    #[serde(skip_serializing_if = "is_chain_max_default")]
    pub chain_max: u64,
    /// How often words on the storage are looked at again that a host which was given up may still change: seldom enough
    /// that a host which is gone for good costs nothing to speak of.
    #[serde(skip_serializing_if = "is_late_writers_look_default")]
    pub late_writers_look_ms: u64,
    /// Whether snapshots may be deleted in place. No command sets it: not before the whole has been run with real
    /// processes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub merges_in_place: bool,
}

const LATE_WRITERS_LOOK_MS_DEFAULT: u64 = 10 * 60_000;

/// The first level knew no such setting: with its default it must encode to the same bytes.
fn is_late_writers_look_default(value: &u64) -> bool {
    *value == LATE_WRITERS_LOOK_MS_DEFAULT
}

const CHAIN_MAX_DEFAULT: u64 = 32;

/// The first level knew no such setting: with its default it must encode to the same bytes.
fn is_chain_max_default(value: &u64) -> bool {
    *value == CHAIN_MAX_DEFAULT
}

/// Clusters of the first release have no such setting, and get this one when their feature level is
/// raised: it never changes.
const STATE_HASH_EVERY: u64 = 4_096;

fn is_first_state_hash_every(every: &u64) -> bool {
    *every == STATE_HASH_EVERY
}

const ATTACHMENTS_MAX_DEFAULT: u64 = 100_000;

/// Of the first level as well: with its default the setting must encode to the same bytes.
fn is_attachments_max_default(value: &u64) -> bool {
    *value == ATTACHMENTS_MAX_DEFAULT
}

const DOMAIN_ROWS_MAX_DEFAULT: u64 = 600;

/// The same.
fn is_domain_rows_max_default(value: &u64) -> bool {
    *value == DOMAIN_ROWS_MAX_DEFAULT
}

const EVENTS_MAX_DEFAULT: u64 = 8_192;

/// The first level knew no events: with its default the setting must encode to the same bytes.
fn is_events_max_default(value: &u64) -> bool {
    *value == EVENTS_MAX_DEFAULT
}

const GC_PLANS_MAX_DEFAULT: u64 = 16;
const GC_PLAN_ITEMS_MAX_DEFAULT: u64 = 1_000;
const GC_PLAN_KEPT_MS_DEFAULT: u64 = 30 * 60_000;

// The first level knew no plans: with their defaults the settings must encode to the same bytes.
fn is_gc_plans_max_default(value: &u64) -> bool {
    *value == GC_PLANS_MAX_DEFAULT
}

fn is_gc_plan_items_max_default(value: &u64) -> bool {
    *value == GC_PLAN_ITEMS_MAX_DEFAULT
}

fn is_gc_plan_kept_default(value: &u64) -> bool {
    *value == GC_PLAN_KEPT_MS_DEFAULT
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
            gc_plans_max: GC_PLANS_MAX_DEFAULT,
            gc_plan_items_max: GC_PLAN_ITEMS_MAX_DEFAULT,
            gc_plan_kept_ms: GC_PLAN_KEPT_MS_DEFAULT,
            state_hash_every: STATE_HASH_EVERY,
            attachments_max: ATTACHMENTS_MAX_DEFAULT,
            domain_rows_max: DOMAIN_ROWS_MAX_DEFAULT,
            events_max: EVENTS_MAX_DEFAULT,
            chain_max: CHAIN_MAX_DEFAULT,
            late_writers_look_ms: LATE_WRITERS_LOOK_MS_DEFAULT,
            merges_in_place: false,
        }
    }
}
