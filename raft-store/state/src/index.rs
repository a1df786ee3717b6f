//! What is derived from the tables, and how work stands in it. Which row changed is told by `changes`.

use crate::contents::Contents;
use crate::due;
use crate::due::Due;
use crate::lock_queues::Ids;
use crate::lock_queues::LockQueues;
use crate::state::State;
use crate::touched::Touched;
use crate::volume_users::VolumeUsers;
use crate::work::Owner;
use crate::work::Work;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::ids::WorkerId;
use sdm_proto::names::Name;
use sdm_proto::token::Token;
use std::sync::Arc;

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
    /// The disks themselves.
    pub trashed_disks: imbl::OrdMap<DiskId, Token>,
    pub domain_names: imbl::OrdMap<Name, DomainId>,
    pub due: imbl::OrdSet<(u64, Due)>,
    /// Steps and jobs without a worker.
    pub pending: imbl::OrdSet<Owner>,
    /// Placements whose projection has no worker, by domain.
    pub waiting_projections: imbl::OrdSet<(DomainId, PlacementId)>,
    /// What hosts were given up at and may still write.
    pub late_writers: imbl::OrdSet<(WorkerId, Owner)>,
    pub attempts: imbl::OrdMap<Token, Owner>,
    /// A worker's attempts, those whose source it serves included.
    pub by_worker: imbl::OrdMap<WorkerId, imbl::OrdSet<(Token, Owner)>>,
    /// What lies in domains, and who reaches them.
    pub contents: Contents,
    /// What closed attempts left behind, by their transaction.
    pub attempt_garbage: imbl::OrdSet<(TxnId, Token)>,
    /// Garbage by where it lies, or what domain it is of.
    pub garbage_in: imbl::OrdSet<(DomainId, Token)>,
    /// Garbage by the attempt that made its names.
    pub garbage_by_maker: imbl::OrdSet<(Token, Token)>,
    /// Placements whose words are to be written, with or without a worker, by domain.
    pub projecting: imbl::OrdSet<(DomainId, PlacementId)>,
    /// Garbage that waits for its deletion.
    pub waiting_garbage: due::WaitingGarbage,
    /// Lock sets that are held.
    pub locks_held: usize,
    pub illegal_volumes: imbl::OrdSet<VolumeId>,
    /// What the entry that is being applied, or was last, changed.
    pub touched: Vec<Touched>,
    pub txns_by_age: imbl::OrdMap<u64, TxnId>,
    pub open_txns: imbl::OrdSet<TxnId>,
    /// The same by the entry in which they began.
    pub open_by_age: imbl::OrdSet<(u64, TxnId)>,
    /// Finished transactions by the entry that finished them.
    pub finished_txns: imbl::OrdMap<u64, imbl::OrdSet<TxnId>>,
    /// The same of those that did nothing: they are forgotten by themselves.
    pub finished_noops: imbl::OrdSet<(u64, TxnId)>,
    pub attachments_by_disk: imbl::OrdSet<(DiskId, Token)>,
    /// Attachments by where their disk lies: it stays there as long as it is attached.
    pub attachments_in: imbl::OrdSet<(DomainId, Token)>,
    pub attachments_by_worker: imbl::OrdSet<(WorkerId, Token)>,
    /// Attachments that end or change with a client's session.
    pub attachments_by_session: imbl::OrdSet<(u64, Token)>,
    pub unfenced_attachments: imbl::OrdSet<Token>,
    /// The same of clients' sessions, by what their openers drew: every session that is opened asks for its own.
    pub unfenced_by_nonce: imbl::OrdSet<(String, Token)>,
    /// Transactions for which a lost worker may still write in place.
    pub fencing_txns: imbl::OrdSet<TxnId>,
    /// Domains whose name on the storage is to be written anew.
    pub describing: imbl::OrdSet<DomainId>,
    /// Set while an entry is applied whose events are told: how many were.
    pub telling: Option<u32>,
}

impl State {
    fn waiting_projection(&self, owner: Owner) -> Option<(DomainId, PlacementId)> {
        let Owner::Projection(id) = owner else { return None };
        Some((self.domain_of_placement(id)?, id))
    }

    /// Keeps the indexes of work in step: of what was, and of what is.
    pub(crate) fn index_work(&mut self, owner: Owner, old: Option<Work>, new: Option<&Work>) {
        if let Some(new) = new {
            self.tell_work(owner, old.as_ref(), new);
        }
        if let Some(work) = old {
            for entry in due::of_work(owner, &work, &self.meta.settings) {
                self.index.due.remove(&entry);
            }
            self.index.pending.remove(&owner);
            for late in &work.late {
                self.index.late_writers.remove(&(late.worker, owner));
            }
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
        for late in &work.late {
            self.index.late_writers.insert((late.worker, owner));
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
}
