//! What must hold after every entry. Tests and debug builds check it; a violation is a defect of
//! `apply`, never of its input.

use crate::attachments::Access;
use crate::attachments::AttachmentOwner;
use crate::garbage::Kind as GarbageKind;
use crate::locks::Owner as LockOwner;
use crate::locks::Unsettled;
use crate::state::State;
use crate::txns::Phase;
use crate::work::Owner;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Checks everything.
///
/// # Errors
/// One sentence for each thing that does not hold.
pub fn check(state: &State) -> Result<(), Vec<String>> {
    let mut wrong = Vec::new();
    locks_do_not_conflict(state, &mut wrong);
    waiters_wait_for_something(state, &mut wrong);
    open_txns_hold_their_locks(state, &mut wrong);
    jobs_belong_to_running_txns(state, &mut wrong);
    catalog_is_whole(state, &mut wrong);
    garbage_names_nothing_live(state, &mut wrong);
    trash_can_be_put_back(state, &mut wrong);
    attempts_are_unique_and_live(state, &mut wrong);
    crate::chain_rules::check(state, &mut wrong);
    attachments_agree(state, &mut wrong);
    indexes_match(state, &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn locks_do_not_conflict(state: &State, wrong: &mut Vec<String>) {
    let held: Vec<_> = state.locks.values().filter(|lock| lock.granted.is_some()).collect();
    let mut by_resource: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for lock in &held {
        for (resource, mode) in &lock.resources {
            by_resource.entry(resource).or_default().push((lock.id, *mode));
        }
    }
    for (resource, holders) in by_resource {
        for (at, (id, mode)) in holders.iter().enumerate() {
            for (other, other_mode) in &holders[at + 1..] {
                if !mode.agrees_with(*other_mode) {
                    wrong.push(format!("locks {id} ({mode}) and {other} ({other_mode}) both hold {resource}"));
                }
            }
        }
    }
}

fn waiters_wait_for_something(state: &State, wrong: &mut Vec<String>) {
    for lock in state.locks.values().filter(|lock| lock.granted.is_none()) {
        let is_next = |unsettled: &Unsettled| {
            lock.resources.contains_key(&unsettled.resource) && (unsettled.again || lock.id >= unsettled.from)
        };
        if !state.is_blocked(lock) && !state.meta.unsettled.iter().any(is_next) {
            wrong.push(format!("lock {} waits although nothing is in its way", lock.id));
        }
    }
}

fn open_txns_hold_their_locks(state: &State, wrong: &mut Vec<String>) {
    for txn in state.txns.values() {
        let lock = txn.lock.and_then(|id| state.locks.get(&id));
        let owned = lock.is_some_and(|lock| lock.owner == LockOwner::Txn(txn.id) || lock.txn == Some(txn.id));
        let granted = lock.is_some_and(|lock| lock.granted.is_some());
        let fine = match txn.phase {
            Phase::Running => owned && granted,
            Phase::Waiting { .. } => owned && !granted && txn.job.is_none() && txn.marker.is_none(),
            Phase::Committed(_) | Phase::Aborted(_) | Phase::Refused(_) => txn.lock.is_none() && txn.job.is_none(),
        };
        if !fine {
            wrong.push(format!(
                "transaction {} is {} with lock {:?} and job {:?}",
                txn.id,
                txn.phase.word(),
                txn.lock,
                txn.job
            ));
        }
        let works = txn.step.is_some() || txn.job.is_some() || state.is_leaving_for(txn);
        if matches!(txn.phase, Phase::Running) && !works {
            wrong.push(format!("transaction {} runs but nobody is to do anything for it", txn.id));
        }
    }
    for lock in state.locks.values() {
        let alive = match lock.owner {
            LockOwner::Txn(id) => state.txns.get(&id).is_some_and(|txn| txn.lock == Some(lock.id)),
            LockOwner::Session(id) => state.sessions.contains(&id),
        };
        let under =
            lock.txn.and_then(|id| state.txns.get(&id)).map(|txn| txn.lock == Some(lock.id) && txn.under.is_some());
        if lock.txn.is_some() && (under != Some(true) || !matches!(lock.owner, LockOwner::Session(_))) {
            wrong.push(format!("lock {} names a transaction that does not run under it", lock.id));
        }
        if !alive {
            wrong.push(format!("lock {} has no owner", lock.id));
        }
    }
}

fn jobs_belong_to_running_txns(state: &State, wrong: &mut Vec<String>) {
    for job in state.jobs.values() {
        if state.txns.get(&job.txn).is_none_or(|txn| txn.job != Some(job.id)) {
            wrong.push(format!("job {} belongs to no running transaction", job.id));
        }
    }
}

fn catalog_is_whole(state: &State, wrong: &mut Vec<String>) {
    for disk in state.disks.values() {
        let placed = state.placements.get(&disk.placement);
        if !placed.is_some_and(|p| p.disk == disk.id && state.domains.contains(&p.domain)) {
            wrong.push(format!("disk {} has no placement in a domain", disk.name));
        }
        let mut parent = None;
        for id in &disk.volumes {
            if state.volumes.get(id).is_none_or(|volume| volume.parent != parent) {
                wrong.push(format!("disk {} has a broken chain at {id}", disk.name));
            }
            parent = Some(*id);
        }
        if disk.volumes.is_empty() {
            wrong.push(format!("disk {} has no volume", disk.name));
        }
    }
    for volume in state.volumes.values() {
        if state.volume_users(volume.id).next().is_none() {
            wrong.push(format!("volume {} belongs to no disk", volume.id));
        }
    }
    for placement in state.placements.values() {
        if state.disks.get(&placement.disk).is_none_or(|disk| disk.placement != placement.id) {
            wrong.push(format!("placement {} belongs to no disk", placement.id));
        }
    }
}

fn garbage_names_nothing_live(state: &State, wrong: &mut Vec<String>) {
    for garbage in state.garbage.values() {
        if garbage.placement.is_some_and(|placement| state.placements.contains(&placement)) {
            wrong.push(format!("garbage {} names a live placement", garbage.id));
        }
        if garbage.place.whole_domain && state.domains.contains(&garbage.place.domain) {
            wrong.push(format!("garbage {} names a live domain", garbage.id));
        }
        if state.index.attempts.contains_key(&garbage.made_by) {
            wrong.push(format!("garbage {} names what a live attempt is making", garbage.id));
        }
    }
}

fn trash_can_be_put_back(state: &State, wrong: &mut Vec<String>) {
    for row in state.garbage.values() {
        let Some(trash) = &row.trash else { continue };
        let chain: Vec<_> = trash.volumes.iter().map(|volume| volume.id).collect();
        let whole = row.placement == Some(trash.placement.id)
            && row.made_by == trash.placement.token
            && row.place.domain == trash.placement.domain
            && trash.disk.placement == trash.placement.id
            && trash.disk.volumes == chain;
        if !whole || row.kind != GarbageKind::Deleted {
            wrong.push(format!("trash {} is not a whole deleted disk", row.id));
        }
        if chain.iter().any(|id| !state.volumes.contains(id)) {
            wrong.push(format!("trash {} lacks the rows of its volumes", row.id));
        }
        if state.disks.contains(&trash.disk.id) {
            wrong.push(format!("disk {} is in the trash and in the catalog", trash.disk.id));
        }
        if row.held.is_some() && row.work.attempt.is_some() {
            wrong.push(format!("garbage {} is held and being deleted", row.id));
        }
    }
    let settings = &state.meta.settings;
    for plan in state.gc_plans.values() {
        if plan.items.len() as u64 > settings.gc_plan_items_max {
            wrong.push(format!("plan {} has too many rows", plan.id));
        }
    }
    if state.gc_plans.len() as u64 > settings.gc_plans_max.max(1) {
        wrong.push("more plans are kept than may be".to_owned());
    }
}

fn attempts_are_unique_and_live(state: &State, wrong: &mut Vec<String>) {
    let mut tokens = BTreeSet::new();
    let steps = state.txns.values().filter(|txn| !txn.phase.is_final()).filter_map(|txn| txn.step.as_ref());
    let works = steps
        .chain(state.jobs.values().map(|job| &job.work))
        .chain(state.projections.values().map(|projection| &projection.work))
        .chain(state.domains.values().filter_map(|domain| domain.describing.as_deref()))
        .chain(state.garbage.values().map(|garbage| &garbage.work));
    for attempt in works.filter_map(|work| work.attempt.as_ref()) {
        if !tokens.insert(attempt.token) {
            wrong.push(format!("token {} was given twice", attempt.token));
        }
        // Work in place stays with a lost worker until that is fenced.
        let unfenced = state.index.attempts.get(&attempt.token).is_some_and(|owner| {
            let txn = state.txn_of(*owner).and_then(|txn| state.txns.get(&txn));
            state.writes_in_place(*owner) && txn.is_some_and(|txn| txn.fencing.is_some())
        });
        for worker in [Some(attempt.worker), attempt.source_worker].into_iter().flatten().filter(|_| !unfenced) {
            if !state.workers.get(&worker).is_some_and(crate::workers::Worker::is_live) {
                wrong.push(format!("attempt {} is with worker {worker}, which is not live", attempt.token));
            }
        }
    }
    let indexed: BTreeSet<_> = state.index.attempts.keys().copied().collect();
    if indexed != tokens {
        wrong.push("the index of attempts does not match the rows".to_owned());
    }
}

fn attachments_agree(state: &State, wrong: &mut Vec<String>) {
    let mut by_disk: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for attachment in state.attachments.values() {
        by_disk.entry(attachment.disk).or_default().push(attachment);
        let token = attachment.token;
        if !state.disks.contains(&attachment.disk) || !state.workers.contains(&attachment.worker) {
            wrong.push(format!("attachment {token} names a disk or a worker that is not there"));
        }
        if let AttachmentOwner::Session { id, .. } = &attachment.owner
            && !attachment.is_unfenced()
            && !state.sessions.contains(id)
        {
            wrong.push(format!("attachment {token} is for session {id}, which is over"));
        }
    }
    for (disk, attachments) in by_disk {
        let writers = attachments.iter().filter(|attachment| attachment.access == Access::Write).count();
        if writers > 0 && attachments.len() > 1 {
            wrong.push(format!("disk {disk} has {writers} writers among {} attachments", attachments.len()));
        }
    }
}

fn indexes_match(state: &State, wrong: &mut Vec<String>) {
    let Ok(fresh) = State::from_rows(state.to_rows()) else {
        wrong.push("the state does not read back from its rows".to_owned());
        return;
    };
    let same = fresh.index.lock_queues == state.index.lock_queues
        && fresh.index.session_locks == state.index.session_locks
        && fresh.index.nonces == state.index.nonces
        && fresh.index.disk_names == state.index.disk_names
        && fresh.index.volume_users == state.index.volume_users
        && fresh.index.trashed == state.index.trashed
        && fresh.index.waiting_projections == state.index.waiting_projections
        && fresh.index.late_writers == state.index.late_writers
        && fresh.index.domain_names == state.index.domain_names
        && fresh.index.due == state.index.due
        && fresh.index.pending == state.index.pending
        && fresh.index.attempts == state.index.attempts
        && fresh.index.by_worker == state.index.by_worker
        && fresh.index.txns_by_age == state.index.txns_by_age
        && fresh.index.open_txns == state.index.open_txns
        && fresh.index.contents == state.index.contents
        && fresh.index.waiting_garbage == state.index.waiting_garbage
        && fresh.index.trashed_disks == state.index.trashed_disks
        && fresh.index.garbage_in == state.index.garbage_in
        && fresh.index.garbage_by_maker == state.index.garbage_by_maker
        && fresh.index.projecting == state.index.projecting
        && fresh.index.open_by_age == state.index.open_by_age
        && fresh.index.attachments_in == state.index.attachments_in
        && fresh.index.attempt_garbage == state.index.attempt_garbage
        && fresh.index.locks_held == state.index.locks_held
        && fresh.index.illegal_volumes == state.index.illegal_volumes
        && fresh.index.finished_txns == state.index.finished_txns
        && fresh.index.attachments_by_disk == state.index.attachments_by_disk
        && fresh.index.attachments_by_worker == state.index.attachments_by_worker
        && fresh.index.attachments_by_session == state.index.attachments_by_session
        && fresh.index.unfenced_attachments == state.index.unfenced_attachments
        && fresh.index.unfenced_by_nonce == state.index.unfenced_by_nonce
        && fresh.index.fencing_txns == state.index.fencing_txns
        && fresh.index.describing == state.index.describing
        && fresh.index.finished_noops == state.index.finished_noops;
    if !same {
        wrong.push("the indexes differ from those built anew from the rows".to_owned());
    }
    if fresh.hash() != state.hash() {
        wrong.push("the hash differs from that of the rows read back".to_owned());
    }
    let deletions_pend = state.index.pending.iter().any(|owner| matches!(owner, Owner::Deletion(_)));
    if deletions_pend {
        wrong.push("a deletion is pending without a collector".to_owned());
    }
}
