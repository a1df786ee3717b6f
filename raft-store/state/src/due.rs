//! What falls due by the passing of time: derived from rows, so that the leader knows when to
//! propose a Tick and `apply` finds what is due without a scan.

use crate::locks::LockSet;
use crate::settings::Settings;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::Work;
use serde::Deserialize;
use serde::Serialize;

/// Something with a due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Due {
    /// A wait for locks ends.
    LockWait(u64),
    /// Work is to be looked at: a retry, a missing worker, a missing other end.
    Work(Owner),
}

/// When a lock set is due.
pub(crate) fn of_lock(lock: &LockSet) -> Vec<(u64, Due)> {
    if lock.granted.is_some() { Vec::new() } else { vec![(lock.deadline_ms, Due::LockWait(lock.id))] }
}

/// When work is due. Deletions without an attempt are not: collectors look for those themselves.
pub(crate) fn of_work(owner: Owner, work: &Work, settings: &Settings) -> Vec<(u64, Due)> {
    let mut times = Vec::new();
    match &work.attempt {
        Some(attempt) => {
            if attempt.peer_deadline_ms > 0 {
                times.push(attempt.peer_deadline_ms);
            }
            if let Some(at) = hang_deadline_ms(owner, attempt, settings) {
                times.push(at);
            }
        }
        None if matches!(owner, Owner::Deletion(_)) => {}
        None => {
            if work.retry_at_ms > 0 {
                times.push(work.retry_at_ms);
            }
            times.push(work.unassigned_since_ms.saturating_add(settings.unassigned_max_ms));
        }
    }
    times.into_iter().map(|at| (at, Due::Work(owner))).collect()
}

/// When an attempt is given up because nothing more is to be expected of it: storage that stays unreachable, or a step
/// that takes longer than any step does.
pub(crate) fn hang_deadline_ms(owner: Owner, attempt: &Attempt, settings: &Settings) -> Option<u64> {
    let unreachable = (attempt.unreachable_since_ms > 0)
        .then(|| attempt.unreachable_since_ms.saturating_add(settings.unreachable_max_ms));
    let step = (!matches!(owner, Owner::Job(_))).then(|| attempt.assigned_ms.saturating_add(settings.step_max_ms));
    unreachable.into_iter().chain(step).min()
}
