//! The only ways to change a row: each keeps what is derived from the tables in step, and tells the
//! events. Whether a change is right is decided in `apply`.

use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::catalog::Placement;
use crate::catalog::Volume;
use crate::due;
use crate::forgotten::Forgotten;
use crate::garbage::Garbage;
use crate::garbage::Kind as GarbageKind;
use crate::gc_plans::GcPlan;
use crate::hashes::HashPoint;
use crate::jobs::Job;
use crate::locks::LockSet;
use crate::locks::Owner as LockOwner;
use crate::members::Member;
use crate::projections::Projection;
use crate::sessions::Session;
use crate::state::State;
use crate::touched::Touched;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::volume_users::VolumeUser;
use crate::work::Owner;
use crate::workers::Worker;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::token::Token;

impl State {
    pub(crate) fn put_member(&mut self, member: Member) {
        self.tell_member(&member);
        self.members.put(member.id, member);
    }

    pub(crate) fn put_session(&mut self, session: Session) {
        // A session's row is written with each of its requests, its nonce never changes.
        if self.index.nonces.get(session.nonce.as_str()) != Some(&session.id) {
            self.index.nonces.insert(session.nonce.as_str().into(), session.id);
        }
        self.sessions.put(session.id, session);
    }

    /// Takes a session out, and nothing of what it held.
    pub(crate) fn remove_session(&mut self, id: u64) {
        if let Some(session) = self.sessions.get(&id) {
            self.index.nonces.remove(session.nonce.as_str());
        }
        self.sessions.remove(&id);
    }

    pub(crate) fn put_worker(&mut self, worker: Worker) {
        self.tell_worker(&worker);
        if let Some(old) = self.workers.get(&worker.identity.id) {
            self.index.contents.leave(old);
        }
        self.index.contents.arrive(&worker);
        self.workers.put(worker.identity.id, worker);
    }

    pub(crate) fn put_lock(&mut self, lock: LockSet) {
        self.touch_lock(lock.id, Some(lock.granted.is_some()));
        if let Some(old) = self.locks.get(&lock.id) {
            for entry in due::of_lock(old) {
                self.index.due.remove(&entry);
            }
            self.index.lock_queues.remove(old);
            if let LockOwner::Session(session) = old.owner
                && old.owner != lock.owner
                && let Some(own) = self.index.session_locks.get_mut(&session)
            {
                own.remove(lock.id);
                if own.is_empty() {
                    self.index.session_locks.remove(&session);
                }
            }
        }
        for entry in due::of_lock(&lock) {
            self.index.due.insert(entry);
        }
        self.index.lock_queues.insert(&lock);
        if let LockOwner::Session(session) = lock.owner {
            self.index.session_locks.entry(session).or_default().insert(lock.id);
        }
        self.locks.put(lock.id, lock);
    }

    pub(crate) fn remove_lock(&mut self, id: u64) -> Option<LockSet> {
        let lock = self.locks.get(&id)?.clone();
        self.touch_lock(id, None);
        for entry in due::of_lock(&lock) {
            self.index.due.remove(&entry);
        }
        self.index.lock_queues.remove(&lock);
        if let LockOwner::Session(session) = lock.owner
            && let Some(own) = self.index.session_locks.get_mut(&session)
        {
            own.remove(id);
            if own.is_empty() {
                self.index.session_locks.remove(&session);
            }
        }
        self.locks.remove(&id);
        Some(lock)
    }

    pub(crate) fn put_domain(&mut self, domain: Domain) {
        self.tell_domain(&domain);
        let old = self.domains.get(&domain.id);
        if let Some(old) = old.filter(|old| old.name != domain.name) {
            self.index.domain_names.remove(&old.name);
        }
        let old_work = old.and_then(|old| old.describing.as_deref().cloned());
        self.index_work(Owner::Describe(domain.id), old_work, domain.describing.as_deref());
        if domain.describing.is_some() {
            self.index.describing.insert(domain.id);
        } else {
            self.index.describing.remove(&domain.id);
        }
        self.index.domain_names.insert(domain.name.clone(), domain.id);
        for entry in self.domains.get(&domain.id).into_iter().flat_map(due::of_domain) {
            self.index.due.remove(&entry);
        }
        if let Some(entry) = due::of_domain(&domain) {
            self.index.due.insert(entry);
        }
        self.domains.put(domain.id, domain);
    }

    /// Takes a domain out; nothing may lie in it any more.
    pub(crate) fn remove_domain(&mut self, id: DomainId) {
        let Some(domain) = self.domains.get(&id).cloned() else { return };
        self.index_work(Owner::Describe(id), domain.describing.as_deref().cloned(), None);
        self.index.describing.remove(&id);
        self.index.domain_names.remove(&domain.name);
        if let Some(entry) = due::of_domain(&domain) {
            self.index.due.remove(&entry);
        }
        self.domains.remove(&id);
    }

    pub(crate) fn put_disk(&mut self, disk: Disk) {
        self.tell_disk(&disk);
        if let Some(old) = self.disks.get(&disk.id).filter(|old| old.name != disk.name) {
            self.index.disk_names.remove(&old.name);
        }
        self.index.disk_names.insert(disk.name.clone(), disk.id);
        let old = self.disks.get(&disk.id).map(|old| old.volumes.as_slice()).unwrap_or_default();
        self.index.volume_users.change(VolumeUser::Disk(disk.id), old, &disk.volumes);
        self.disks.put(disk.id, disk);
    }

    pub(crate) fn remove_disk(&mut self, id: DiskId) {
        if let Some(disk) = self.disks.get(&id) {
            let name = disk.name.clone();
            self.index.disk_names.remove(&name);
            self.index.volume_users.change(VolumeUser::Disk(id), &disk.volumes, &[]);
            self.tell_disk_gone(&name, id);
        }
        self.disks.remove(&id);
    }

    pub(crate) fn put_volume(&mut self, volume: Volume) {
        if volume.legal {
            self.index.illegal_volumes.remove(&volume.id);
        } else {
            self.index.illegal_volumes.insert(volume.id);
        }
        self.volumes.put(volume.id, volume);
    }

    pub(crate) fn remove_volume(&mut self, id: &VolumeId) {
        self.index.illegal_volumes.remove(id);
        self.volumes.remove(id);
    }

    pub(crate) fn put_placement(&mut self, placement: Placement) {
        self.tell_placement(&placement, true);
        if let Some(old) = self.placements.get(&placement.id) {
            self.index.contents.unplace(old);
        }
        self.index.contents.place(&placement);
        self.placements.put(placement.id, placement);
    }

    pub(crate) fn remove_placement(&mut self, id: PlacementId) {
        if let Some(old) = self.placements.get(&id).cloned() {
            self.index.contents.unplace(&old);
            self.tell_placement(&old, false);
        }
        self.placements.remove(&id);
    }

    pub(crate) fn put_txn(&mut self, mut txn: Txn) {
        txn.changed_index = self.meta.applied_index;
        self.touch(Touched::Txn(txn.id));
        self.tell_txn(&txn);
        let old = self.txns.get(&txn.id).and_then(|old| old.step.clone());
        // A finished transaction's step has nothing left to wait for.
        let step = txn.step.as_ref().filter(|_| !txn.phase.is_final());
        self.index_work(Owner::Step(txn.id), old, step);
        self.index.txns_by_age.insert(txn.began_index, txn.id);
        if txn.fencing.is_some() && !txn.phase.is_final() {
            self.index.fencing_txns.insert(txn.id);
        } else {
            self.index.fencing_txns.remove(&txn.id);
        }
        if txn.phase.is_final() {
            self.index.open_txns.remove(&txn.id);
            self.index.open_by_age.remove(&(txn.began_index, txn.id));
            if matches!(txn.spec, Spec::Noop { .. }) {
                self.index.finished_noops.insert((txn.changed_index, txn.id));
            } else {
                self.index.finished_txns.entry(txn.changed_index).or_default().insert(txn.id);
            }
        } else {
            self.index.open_txns.insert(txn.id);
            self.index.open_by_age.insert((txn.began_index, txn.id));
        }
        self.txns.put(txn.id, txn);
    }

    pub(crate) fn remove_finished_txn(&mut self, finished_index: u64, id: TxnId) {
        if let Some(txn) = self.txns.get(&id) {
            self.index.txns_by_age.remove(&txn.began_index);
        }
        let mut same = self.index.finished_txns.remove(&finished_index).unwrap_or_default();
        same.remove(&id);
        if !same.is_empty() {
            self.index.finished_txns.insert(finished_index, same);
        }
        self.index.finished_noops.remove(&(finished_index, id));
        self.txns.remove(&id);
    }

    pub(crate) fn put_job(&mut self, job: Job) {
        if let Some(old) = self.jobs.get(&job.id) {
            self.index.contents.unpromise(old);
        }
        self.index.contents.promise(&job);
        self.touch(Touched::Txn(job.txn));
        let old = self.jobs.get(&job.id).map(|old| old.work.clone());
        self.index_work(Owner::Job(job.id), old, Some(&job.work));
        self.jobs.put(job.id, job);
    }

    pub(crate) fn remove_job(&mut self, id: u64) {
        let Some(job) = self.jobs.get(&id) else { return };
        self.index.contents.unpromise(job);
        let (txn, old) = (job.txn, job.work.clone());
        self.touch(Touched::Txn(txn));
        self.index_work(Owner::Job(id), Some(old), None);
        self.jobs.remove(&id);
    }

    pub(crate) fn put_forgotten(&mut self, forgotten: Forgotten) {
        self.forgotten.put(forgotten.domain, forgotten);
    }

    pub(crate) fn put_gc_plan(&mut self, plan: GcPlan) {
        self.gc_plans.put(plan.id, plan);
    }

    pub(crate) fn remove_gc_plan(&mut self, id: u64) {
        self.gc_plans.remove(&id);
    }

    pub(crate) fn put_hash_point(&mut self, point: HashPoint) {
        self.hashes.put(point.index, point);
    }

    pub(crate) fn remove_hash_point(&mut self, index: u64) {
        self.hashes.remove(&index);
    }

    pub(crate) fn put_projection(&mut self, projection: Projection) {
        let owner = Owner::Projection(projection.placement);
        let old = self.projections.get(&projection.placement).map(|old| old.work.clone());
        self.index_work(owner, old, Some(&projection.work));
        if let Some(domain) = self.domain_of_placement(projection.placement) {
            self.index.projecting.insert((domain, projection.placement));
        }
        self.projections.put(projection.placement, projection);
    }

    pub(crate) fn remove_projection(&mut self, placement: PlacementId) {
        let Some(projection) = self.projections.get(&placement) else { return };
        let old = projection.work.clone();
        self.index_work(Owner::Projection(placement), Some(old), None);
        if let Some(domain) = self.domain_of_placement(placement) {
            self.index.projecting.remove(&(domain, placement));
        }
        self.projections.remove(&placement);
    }

    pub(crate) fn put_garbage(&mut self, garbage: Garbage) {
        self.tell_garbage(&garbage);
        let owner = Owner::Deletion(garbage.id);
        if let Some(old) = self.garbage.get(&garbage.id) {
            self.index.waiting_garbage.remove(old);
        }
        self.index.waiting_garbage.insert(&garbage);
        // What it names, where and of whom never changes.
        self.index.garbage_in.insert((garbage.place.domain, garbage.id));
        self.index.garbage_by_maker.insert((garbage.made_by, garbage.id));
        if garbage.kind == GarbageKind::ClosedAttempt {
            self.index.attempt_garbage.insert((garbage.txn, garbage.id));
        }
        let old = self.garbage.get(&garbage.id).map(|old| old.work.clone());
        self.index_work(owner, old, Some(&garbage.work));
        let freed = self.count_trash(garbage.id, garbage.trash.as_deref());
        self.garbage.put(garbage.id, garbage);
        self.forget_unused(&freed);
    }

    pub(crate) fn remove_garbage(&mut self, id: Token) {
        let gone = self.garbage.get(&id).and_then(|garbage| garbage.placement);
        if let Some(gone) = gone.filter(|gone| !self.placements.contains(gone)) {
            self.remove_projection(gone);
        }
        let Some(garbage) = self.garbage.get(&id) else { return };
        self.index.waiting_garbage.remove(garbage);
        self.index.garbage_in.remove(&(garbage.place.domain, id));
        self.index.garbage_by_maker.remove(&(garbage.made_by, id));
        self.index.attempt_garbage.remove(&(garbage.txn, id));
        let old = garbage.work.clone();
        self.index_work(Owner::Deletion(id), Some(old), None);
        let freed = self.count_trash(id, None);
        self.garbage.remove(&id);
        self.forget_unused(&freed);
    }
}
