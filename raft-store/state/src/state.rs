//! The state: all tables, and what may be read of them. `apply` decides, `changes` changes rows, `index`
//! is what is derived from them.

use crate::attachments::Attachment;
use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::catalog::Placement;
use crate::catalog::Volume;
use crate::due;
use crate::events::Event;
use crate::events::EventKey;
use crate::forgotten::Forgotten;
use crate::garbage::Garbage;
use crate::gc_plans::GcPlan;
use crate::hashes::HashPoint;
use crate::index::Index;
use crate::jobs::Job;
use crate::locks::LockSet;
use crate::locks::Unsettled;
use crate::members::AnnouncedMember;
use crate::members::Member;
use crate::members::RemovedMember;
use crate::projections::Projection;
use crate::sessions::Session;
use crate::settings::Settings;
use crate::suspension::Restored;
use crate::table::Table;
use crate::txns::Txn;
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
use std::collections::BTreeSet;

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
    /// Domains that were given up without a word to their storage.
    pub forgotten: Table<DomainId, Forgotten>,
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
            ("forgotten", self.forgotten.len(), self.forgotten.sum()),
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

    /// The same without these, which end before it is granted: as many are looked at as there are of them, and more.
    pub(crate) fn lock_blockers_but(&self, asked: &LockSet, but: &[(u64, TxnId)]) -> Vec<u64> {
        let but: BTreeSet<u64> = but.iter().map(|(lock, _)| *lock).collect();
        let mut found = self.index.lock_queues.blockers(asked, crate::locks::BLOCKERS_SHOWN + but.len());
        found.retain(|lock| !but.contains(lock));
        found.truncate(crate::locks::BLOCKERS_SHOWN);
        found
    }

    /// Whether it has to wait.
    #[must_use]
    pub fn is_blocked(&self, asked: &LockSet) -> bool {
        self.index.lock_queues.block(asked)
    }

    /// Where a placement lies, of a disk or in the trash.
    pub(crate) fn domain_of_placement(&self, id: PlacementId) -> Option<DomainId> {
        if let Some(placement) = self.placements.get(&id) {
            return Some(placement.domain);
        }
        Some(self.trash_at(id)?.placement.domain)
    }
}
