//! The state: all tables, what is derived from them, and the only ways to change a row. `apply`
//! decides; this keeps rows and derived indexes in step.

use crate::attachments::Attachment;
use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::catalog::Placement;
use crate::catalog::Volume;
use crate::contents::Contents;
use crate::due;
use crate::due::Due;
use crate::events::Event;
use crate::events::EventKey;
use crate::garbage::Garbage;
use crate::garbage::Kind as GarbageKind;
use crate::gc_plans::GcPlan;
use crate::hashes::HashPoint;
use crate::jobs::Job;
use crate::lock_queues::Ids;
use crate::lock_queues::LockQueues;
use crate::locks::LockSet;
use crate::locks::Owner as LockOwner;
use crate::locks::Unsettled;
use crate::members::AnnouncedMember;
use crate::members::Member;
use crate::members::RemovedMember;
use crate::projections::Projection;
use crate::sessions::Session;
use crate::settings::Settings;
use crate::suspension::Restored;
use crate::table::Table;
use crate::touched::Touched;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::volume_users::VolumeUser;
use crate::volume_users::VolumeUsers;
use crate::work::Owner;
use crate::work::Work;
use crate::workers::Worker;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::PoolId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::ids::WorkerId;
use sdm_proto::names::Name;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;
use std::sync::Arc;

/// The one row of what concerns the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// None before the first entry.
    pub cluster_id: Option<ClusterId>,
    /// Outlives a restore.
    pub pool_id: PoolId,
    /// Rises with every restore.
    pub epoch: u64,
    /// The cluster's clock, in milliseconds.
    pub clock_ms: u64,
    /// Index of the last entry that was applied.
    pub applied_index: u64,
    /// Which behaviour of `apply` is in force.
    pub feature_level: u32,
    /// Index below which finished transactions were removed.
    pub prune_floor: u64,
    /// When the youngest of them had got its outcome: of what is older, nobody can say any more
    /// whether it was done.
    #[serde(default)]
    pub forgotten_ms: u64,
    /// Limits and policies.
    pub settings: Settings,
    /// Names under which somebody is expected to join.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announced_members: Vec<AnnouncedMember>,
    /// The members that were removed last, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed_members: Vec<RemovedMember>,
    /// Set in a cluster that was restored from a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// Resources that were released and whose waiters were not all looked at yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsettled: Vec<Unsettled>,
    /// Index of the last event that gave way to younger ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub events_floor: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What is derived from the tables; never stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub lock_queues: LockQueues,
    /// Lock sets of each client session.
    pub session_locks: imbl::OrdMap<u64, Ids>,
    /// Sessions by what their openers drew.
    pub nonces: imbl::OrdMap<Arc<str>, u64>,
    pub disk_names: imbl::OrdMap<Name, DiskId>,
    pub volume_users: VolumeUsers,
    /// Placements of disks in the trash.
    pub trashed: imbl::OrdMap<PlacementId, Token>,
    pub domain_names: imbl::OrdMap<Name, DomainId>,
    pub due: imbl::OrdSet<(u64, Due)>,
    /// Steps and jobs without a worker.
    pub pending: imbl::OrdSet<Owner>,
    /// Placements whose projection has no worker, by domain.
    pub waiting_projections: imbl::OrdSet<(DomainId, PlacementId)>,
    pub attempts: imbl::OrdMap<Token, Owner>,
    /// A worker's attempts, those whose source it serves included.
    pub by_worker: imbl::OrdMap<WorkerId, imbl::OrdSet<(Token, Owner)>>,
    /// What lies in domains, and who reaches them.
    pub contents: Contents,
    /// What closed attempts left behind, by their transaction.
    pub attempt_garbage: imbl::OrdSet<(TxnId, Token)>,
    /// Garbage that waits for its deletion.
    pub waiting_garbage: due::WaitingGarbage,
    /// Lock sets that are held.
    pub locks_held: usize,
    pub illegal_volumes: imbl::OrdSet<VolumeId>,
    /// What the entry that is being applied, or was last, changed.
    pub touched: Vec<Touched>,
    pub txns_by_age: imbl::OrdMap<u64, TxnId>,
    pub open_txns: imbl::OrdSet<TxnId>,
    /// Finished transactions by the entry that finished them.
    pub finished_txns: imbl::OrdMap<u64, imbl::OrdSet<TxnId>>,
    /// The same of those that did nothing: they are forgotten by themselves.
    pub finished_noops: imbl::OrdSet<(u64, TxnId)>,
    pub attachments_by_disk: imbl::OrdSet<(DiskId, Token)>,
    pub attachments_by_worker: imbl::OrdSet<(WorkerId, Token)>,
    /// Attachments that end or change with a client's session.
    pub attachments_by_session: imbl::OrdSet<(u64, Token)>,
    pub unfenced_attachments: imbl::OrdSet<Token>,
    /// Transactions for which a lost worker may still write in place.
    pub fencing_txns: imbl::OrdSet<TxnId>,
    /// Domains whose name on the storage is to be written anew.
    pub describing: imbl::OrdSet<DomainId>,
    /// Set while an entry is applied whose events are told: how many were.
    pub telling: Option<u32>,
}

/// The replicated state. A clone is O(1).
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What concerns the whole cluster.
    pub meta: Meta,
    /// Members, by id.
    pub members: Table<u64, Member>,
    /// Sessions, by id.
    pub sessions: Table<u64, Session>,
    /// Workers, by identity.
    pub workers: Table<WorkerId, Worker>,
    /// Lock sets, by the index of the entry that asked.
    pub locks: Table<u64, LockSet>,
    /// Storage domains.
    pub domains: Table<DomainId, Domain>,
    /// Disks.
    pub disks: Table<DiskId, Disk>,
    /// Volumes.
    pub volumes: Table<VolumeId, Volume>,
    /// Placements.
    pub placements: Table<PlacementId, Placement>,
    /// Transactions, finished ones within the window too.
    pub txns: Table<TxnId, Txn>,
    /// Jobs of running transactions.
    pub jobs: Table<u64, Job>,
    /// Garbage.
    pub garbage: Table<Token, Garbage>,
    /// Placements whose words on the storage are to be written anew.
    pub projections: Table<PlacementId, Projection>,
    /// Attachments of disks to hosts, by the token of their grant.
    pub attachments: Table<Token, Attachment>,
    /// The last plans of a collection, by the index of the entry that made them.
    pub gc_plans: Table<u64, GcPlan>,
    /// Hashes of the state after some of the last entries, by the index of those.
    pub hashes: Table<u64, HashPoint>,
    /// The last events, by entry and number within it.
    pub events: Table<EventKey, Event>,
    pub(crate) index: Index,
}

impl State {
    /// Index of the last entry that was applied.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.meta.applied_index
    }

    /// Id of the cluster; nil before it was founded.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.meta.cluster_id.unwrap_or_default()
    }

    /// Equal on two members exactly when their tables are.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("sdm 2026 state hash");
        // Encoding into memory; see Table for why a failure need not be told apart.
        hasher.update(&rmp_serde::to_vec_named(&self.meta).unwrap_or_default());
        let sums = [
            self.members.sum(),
            self.sessions.sum(),
            self.workers.sum(),
            self.locks.sum(),
            self.domains.sum(),
            self.disks.sum(),
            self.volumes.sum(),
            self.placements.sum(),
            self.txns.sum(),
            self.jobs.sum(),
            self.garbage.sum(),
        ];
        for lane in sums.iter().flatten() {
            hasher.update(&lane.to_le_bytes());
        }
        // Tables that came later count from their first row on: a state without one has the hash
        // that an older build computes.
        let later = [
            ("hashes", self.hashes.len(), self.hashes.sum()),
            ("gc plans", self.gc_plans.len(), self.gc_plans.sum()),
            ("projections", self.projections.len(), self.projections.sum()),
            ("attachments", self.attachments.len(), self.attachments.sum()),
            ("events", self.events.len(), self.events.sum()),
        ];
        for (name, _, sum) in later.iter().filter(|(_, rows, _)| *rows > 0) {
            hasher.update(name.as_bytes());
            for lane in sum {
                hasher.update(&lane.to_le_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// When the next thing falls due, on the cluster's clock.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        if self.is_suspended() {
            return None;
        }
        let settling = (!self.meta.unsettled.is_empty()).then_some(self.meta.clock_ms);
        settling.or_else(|| self.index.due.get_min().map(|(at, _)| *at))
    }

    /// The disk of this name.
    #[must_use]
    pub fn disk_named(&self, name: &Name) -> Option<&Disk> {
        self.disks.get(self.index.disk_names.get(name)?)
    }

    /// The domain of this name.
    #[must_use]
    pub fn domain_named(&self, name: &Name) -> Option<&Domain> {
        self.domains.get(self.index.domain_names.get(name)?)
    }

    /// Where a disk lies.
    #[must_use]
    pub fn domain_of(&self, disk: &Disk) -> Option<&Domain> {
        self.domains.get(&self.placements.get(&disk.placement)?.domain)
    }

    /// Transactions by rising age index, from this index on: the order in which they began.
    pub fn txns_from(&self, began_index: u64) -> impl Iterator<Item = &Txn> + '_ {
        self.index.txns_by_age.range(began_index..).filter_map(|(_, id)| self.txns.get(id))
    }

    /// Transactions without an outcome.
    #[must_use]
    pub fn open_txns(&self) -> usize {
        self.index.open_txns.len()
    }

    /// The attempts that this worker has, or whose source it serves, by rising token.
    pub fn attempts_of(&self, worker: WorkerId) -> impl Iterator<Item = (Token, Owner)> + '_ {
        self.index.by_worker.get(&worker).into_iter().flatten().copied()
    }

    /// Volumes that are not on the storage as the catalog has them.
    #[must_use]
    pub fn illegal_volumes(&self) -> usize {
        self.index.illegal_volumes.len()
    }

    /// Lock sets that are held; all others wait.
    #[must_use]
    pub fn locks_held(&self) -> usize {
        self.index.locks_held
    }

    /// Workers that are live.
    #[must_use]
    pub fn live_workers(&self) -> usize {
        self.index.contents.live().len()
    }

    /// Placements in a domain: as many as disks.
    #[must_use]
    pub fn disks_in(&self, domain: DomainId) -> u64 {
        self.index.contents.share(domain).placements
    }

    /// The disks in a domain, from this one on, by rising id.
    pub fn disks_in_from(&self, domain: DomainId, first: DiskId) -> impl Iterator<Item = &Disk> + '_ {
        self.index.contents.disks_from(domain, first).filter_map(|id| self.disks.get(&id))
    }

    /// Bytes in a domain that are promised to running jobs and not written yet.
    #[must_use]
    pub fn promised_bytes(&self, domain: DomainId) -> u64 {
        self.index.contents.share(domain).promised_bytes
    }

    /// Garbage that no attempt is deleting, by where it lies.
    #[must_use]
    pub fn waiting_garbage(&self) -> &due::WaitingGarbage {
        &self.index.waiting_garbage
    }

    /// The work of this owner.
    #[must_use]
    pub fn work_of(&self, owner: Owner) -> Option<&Work> {
        match owner {
            Owner::Step(txn) => self.txns.get(&txn)?.step.as_ref(),
            Owner::Job(job) => Some(&self.jobs.get(&job)?.work),
            Owner::Deletion(garbage) => Some(&self.garbage.get(&garbage)?.work),
            Owner::Projection(placement) => Some(&self.projections.get(&placement)?.work),
            Owner::Describe(domain) => self.domains.get(&domain)?.describing.as_deref(),
        }
    }

    /// The lock sets that this one waits for, as many as are worth naming.
    #[must_use]
    pub fn lock_blockers(&self, asked: &LockSet) -> Vec<u64> {
        self.index.lock_queues.blockers(asked, crate::locks::BLOCKERS_SHOWN)
    }

    /// Whether it has to wait.
    #[must_use]
    pub fn is_blocked(&self, asked: &LockSet) -> bool {
        self.index.lock_queues.block(asked)
    }

    fn waiting_projection(&self, owner: Owner) -> Option<(DomainId, PlacementId)> {
        let Owner::Projection(id) = owner else { return None };
        Some((self.domain_of_placement(id)?, id))
    }

    /// Where a placement lies, of a disk or in the trash.
    pub(crate) fn domain_of_placement(&self, id: PlacementId) -> Option<DomainId> {
        if let Some(placement) = self.placements.get(&id) {
            return Some(placement.domain);
        }
        Some(self.trash_at(id)?.placement.domain)
    }

    fn index_work(&mut self, owner: Owner, old: Option<Work>, new: Option<&Work>) {
        if let Some(new) = new {
            self.tell_work(owner, old.as_ref(), new);
        }
        if let Some(work) = old {
            for entry in due::of_work(owner, &work, &self.meta.settings) {
                self.index.due.remove(&entry);
            }
            self.index.pending.remove(&owner);
            if let Some(waiting) = self.waiting_projection(owner) {
                self.index.waiting_projections.remove(&waiting);
            }
            if let Some(attempt) = work.attempt {
                self.index.attempts.remove(&attempt.token);
                for worker in [Some(attempt.worker), attempt.source_worker].into_iter().flatten() {
                    let mut own = self.index.by_worker.remove(&worker).unwrap_or_default();
                    own.remove(&(attempt.token, owner));
                    if !own.is_empty() {
                        self.index.by_worker.insert(worker, own);
                    }
                }
            }
        }
        let Some(work) = new else { return };
        for entry in due::of_work(owner, work, &self.meta.settings) {
            self.index.due.insert(entry);
        }
        match &work.attempt {
            None if matches!(owner, Owner::Projection(_)) => {
                if let Some(waiting) = self.waiting_projection(owner) {
                    self.index.waiting_projections.insert(waiting);
                }
            }
            None if !matches!(owner, Owner::Deletion(_)) => {
                self.index.pending.insert(owner);
            }
            None => {}
            Some(attempt) => {
                self.index.attempts.insert(attempt.token, owner);
                for worker in [Some(attempt.worker), attempt.source_worker].into_iter().flatten() {
                    self.index.by_worker.entry(worker).or_default().insert((attempt.token, owner));
                }
            }
        }
    }

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
        self.domains.put(domain.id, domain);
    }

    /// Takes a domain out; nothing may lie in it any more.
    pub(crate) fn remove_domain(&mut self, id: DomainId) {
        let Some(domain) = self.domains.get(&id).cloned() else { return };
        self.index_work(Owner::Describe(id), domain.describing.as_deref().cloned(), None);
        self.index.describing.remove(&id);
        self.index.domain_names.remove(&domain.name);
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
            if matches!(txn.spec, Spec::Noop { .. }) {
                self.index.finished_noops.insert((txn.changed_index, txn.id));
            } else {
                self.index.finished_txns.entry(txn.changed_index).or_default().insert(txn.id);
            }
        } else {
            self.index.open_txns.insert(txn.id);
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
        self.projections.put(projection.placement, projection);
    }

    pub(crate) fn remove_projection(&mut self, placement: PlacementId) {
        let Some(projection) = self.projections.get(&placement) else { return };
        let old = projection.work.clone();
        self.index_work(Owner::Projection(placement), Some(old), None);
        self.projections.remove(&placement);
    }

    pub(crate) fn put_garbage(&mut self, garbage: Garbage) {
        self.tell_garbage(&garbage);
        let owner = Owner::Deletion(garbage.id);
        if let Some(old) = self.garbage.get(&garbage.id) {
            self.index.waiting_garbage.remove(old);
        }
        self.index.waiting_garbage.insert(&garbage);
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
        self.index.attempt_garbage.remove(&(garbage.txn, id));
        let old = garbage.work.clone();
        self.index_work(Owner::Deletion(id), Some(old), None);
        let freed = self.count_trash(id, None);
        self.garbage.remove(&id);
        self.forget_unused(&freed);
    }
}
