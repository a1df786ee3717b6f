//! What must hold of chains, of what shares them, and of what is done with them. A part of the
//! invariants: a violation is a defect of `apply`, never of its input.

use crate::attachments::Access;
use crate::catalog::Disk;
use crate::catalog::Format;
use crate::catalog::Volume;
use crate::state::State;
use crate::txns::Phase;
use crate::volume_users::VolumeUser;
use std::collections::BTreeSet;

/// Checks them all.
pub(crate) fn check(state: &State, wrong: &mut Vec<String>) {
    chains_are_whole(state, wrong);
    every_leaf_is_one_placements(state, wrong);
    what_is_shared_lies_in_one_domain(state, wrong);
    templates_are_never_written(state, wrong);
    projections_are_of_live_placements(state, wrong);
    stages_wait_for_their_last(state, wrong);
    fencing_holds_its_locks(state, wrong);
}

fn chains_are_whole(state: &State, wrong: &mut Vec<String>) {
    for disk in state.disks.values() {
        let mut parent: Option<&Volume> = None;
        for id in &disk.volumes {
            let Some(row) = state.volumes.get(id) else {
                wrong.push(format!("disk {} has lost its volume {id}", disk.name));
                break;
            };
            if row.parent != parent.map(|parent| parent.id) {
                wrong.push(format!("disk {} has a broken chain at {id}", disk.name));
            }
            if row.parent.is_some() && row.format != Format::Qcow2 {
                wrong.push(format!("volume {id} of disk {} has a parent and is {}", disk.name, row.format.word()));
            }
            if parent.is_some_and(|parent| parent.virtual_size > row.virtual_size) {
                wrong.push(format!("volume {id} of disk {} ends before its parent", disk.name));
            }
            parent = Some(row);
        }
        let names: Vec<_> = state.snapshots_of(disk).filter_map(|row| Some(&row.snapshot.as_ref()?.name)).collect();
        let different: BTreeSet<_> = names.iter().collect();
        if different.len() < names.len() {
            wrong.push(format!("disk {} has two snapshots of one name", disk.name));
        }
    }
}

/// Guests write leaves, so no other placement that is live, or may be again, holds the same file.
fn every_leaf_is_one_placements(state: &State, wrong: &mut Vec<String>) {
    let trashed = state.garbage.values().filter_map(|row| row.trash.as_ref()).map(|trash| &trash.disk);
    for disk in state.disks.values().chain(trashed).filter(|disk| !disk.template) {
        let users = disk.volumes.last().map_or(0, |leaf| state.volume_users(*leaf).count());
        if users != 1 {
            wrong.push(format!("the leaf of disk {} has {users} users", disk.name));
        }
    }
}

/// A shared volume is one file with several names, and there are no such names across domains.
fn what_is_shared_lies_in_one_domain(state: &State, wrong: &mut Vec<String>) {
    let domain_of = |user: VolumeUser| match user {
        VolumeUser::Disk(disk) => state.disks.get(&disk).and_then(|disk| state.domain_of(disk)).map(|domain| domain.id),
        VolumeUser::Trash(garbage) => state.garbage.get(&garbage).map(|row| row.place.domain),
    };
    for volume in state.volumes.values() {
        let domains: BTreeSet<_> = state.volume_users(volume.id).filter_map(domain_of).collect();
        if domains.len() > 1 {
            wrong.push(format!("volume {} is shared by disks of {} domains", volume.id, domains.len()));
        }
    }
}

fn templates_are_never_written(state: &State, wrong: &mut Vec<String>) {
    let is_template = |disk: Option<&Disk>| disk.is_some_and(|disk| disk.template);
    for attachment in state.attachments.values() {
        if attachment.access == Access::Write && is_template(state.disks.get(&attachment.disk)) {
            wrong.push(format!("attachment {} writes a template", attachment.token));
        }
    }
}

fn projections_are_of_live_placements(state: &State, wrong: &mut Vec<String>) {
    for projection in state.projections.values() {
        if state.domain_of_placement(projection.placement).is_none() {
            wrong.push(format!("projection of {} outlived its placement", projection.placement));
        }
    }
}

fn stages_wait_for_their_last(state: &State, wrong: &mut Vec<String>) {
    for txn in state.txns.values() {
        let open = matches!(txn.phase, Phase::Running);
        // The first stage of a merge in place builds nothing.
        let builds = if txn.is_merge_in_place() { 0 } else { txn.stage };
        let fine = if open { u32::try_from(txn.built.len()) == Ok(builds) } else { txn.built.is_empty() };
        if !fine {
            let (id, word, stage) = (txn.id, txn.phase.word(), txn.stage);
            wrong.push(format!("transaction {id} is {word} at stage {stage} with {} built", txn.built.len()));
        }
        for built in &txn.built {
            if state.placements.contains(&built.placement) {
                wrong.push(format!("placement {} is in the catalog before its transaction ended", built.placement));
            }
        }
    }
}

fn fencing_holds_its_locks(state: &State, wrong: &mut Vec<String>) {
    for txn in state.txns.values().filter(|txn| txn.fencing.is_some()) {
        let held = txn.lock.and_then(|id| state.locks.get(&id)).is_some_and(|lock| lock.granted.is_some());
        let attempt = txn.step.as_ref().filter(|step| step.in_place).and_then(|step| step.attempt.as_ref());
        let same = attempt.map(|attempt| attempt.worker) == txn.fencing.as_ref().map(|fencing| fencing.worker);
        if !(held && same && matches!(txn.phase, Phase::Running)) {
            wrong.push(format!("transaction {} waits for a fence without locks or without an attempt", txn.id));
        }
    }
}
