//! Changes of domains: most are done with their own entry; a detach and an attach first have a worker
//! hand the domain over on the storage.

use crate::apply::Turn;
use crate::catalog::Domain;
use crate::catalog::DomainState;
use crate::catalog::Maintenance;
use crate::domain_change::AttachDomain;
use crate::domain_change::DomainChange;
use crate::garbage::Garbage;
use crate::garbage::Kind;
use crate::garbage::Place;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Txn;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::Work;
use crate::workers::DomainSight;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::WorkerId;
use sdm_proto::names::Name;

impl State {
    /// Locked and allowed: done at once, or given to a worker.
    pub(super) fn start_domain_change(&mut self, turn: &mut Turn, mut txn: Txn, change: &DomainChange) {
        if change.has_step() {
            let owner = Owner::Step(txn.id);
            let unassigned_since_ms = self.meta.clock_ms;
            txn.step = Some(Work { unassigned_since_ms, in_place: true, ..Work::default() });
            txn.handover = self.first_handover(change);
            self.put_txn(txn);
            self.assign(turn, owner);
            return;
        }
        if let DomainChange::Forget { domain } = change {
            return self.forget_domain(turn, txn, *domain);
        }
        let id = change.domain();
        if let Some(domain) = self.domains.get(&id).cloned() {
            match change {
                DomainChange::Maintenance { .. } => self.maintain(&txn, domain),
                DomainChange::Activate { .. } => self.put_domain(Domain { state: DomainState::Active, ..domain }),
                DomainChange::Rename { name, .. } => self.rename_domain(turn, domain, name),
                DomainChange::Delete { .. } => self.delete_domain(turn, &txn, &domain),
                DomainChange::Detach { .. } | DomainChange::Attach(_) | DomainChange::Forget { .. } => {}
            }
        }
        let outcome = Outcome { domain: Some(id), ..Outcome::default() };
        self.end(turn, txn, Phase::Committed(outcome));
    }

    fn maintain(&mut self, txn: &Txn, mut domain: Domain) {
        if domain.state.is_active() {
            let (by, reason) = (txn.initiator.clone(), txn.reason.clone());
            domain.state =
                DomainState::Maintenance(Maintenance { since_ms: self.meta.clock_ms, by, reason, txn: txn.id });
            self.put_domain(domain);
        }
    }

    /// The catalog says it at once; the storage follows, and nobody waits for that.
    fn rename_domain(&mut self, turn: &mut Turn, mut domain: Domain, name: &Name) {
        if domain.name == *name {
            return;
        }
        let owner = Owner::Describe(domain.id);
        domain.name = name.clone();
        let unassigned_since_ms = self.meta.clock_ms;
        // What an earlier attempt still writes is an older name: this one's report alone ends it.
        self.leave_late_writer(owner);
        let late = self.work_of(owner).map(|work| work.late.clone()).unwrap_or_default();
        domain.describing = Some(Box::new(Work { unassigned_since_ms, late, ..Work::default() }));
        self.put_domain(domain);
        self.assign(turn, owner);
    }

    /// A worker wrote the domain's name.
    pub(super) fn described(&mut self, turn: &mut Turn, id: DomainId, attempt: &Attempt) {
        let owner = Owner::Describe(id);
        if !self.is_written_for_good(owner, attempt, 0) {
            if self.work_of(owner).is_some_and(|work| work.retry_at_ms <= self.meta.clock_ms) {
                self.assign(turn, owner);
            }
            return;
        }
        if let Some(mut domain) = self.domains.get(&id).cloned() {
            domain.describing = None;
            self.put_domain(domain);
        }
    }

    /// The domain is gone with this entry; its folder, in which nothing lies any more, is garbage. Its id is never used
    /// again, so a late deletion finds nothing of value.
    fn delete_domain(&mut self, turn: &mut Turn, txn: &Txn, domain: &Domain) {
        self.remove_domain(domain.id);
        let (path, local) = (domain.path.clone(), domain.local);
        let id = turn.next_token(self);
        self.put_garbage(Garbage {
            id,
            kind: Kind::Deleted,
            place: Place { domain: domain.id, path, local, whole_domain: true },
            placement: None,
            // The folder is known by the domain's own id.
            made_by: id,
            cluster: None,
            txn: txn.id,
            evidence: format!("the domain was deleted (transaction {})", txn.id),
            bytes: 0,
            since_ms: self.meta.clock_ms,
            due_ms: self.meta.clock_ms,
            work: Work::default(),
            trash: None,
            held: None,
            doomed: None,
            emptied: false,
        });
        self.forget_sights(domain.id);
    }

    /// Workers see a domain only as long as it is known.
    pub(super) fn forget_sights(&mut self, domain: DomainId) {
        let seeing: Vec<_> =
            self.workers.values().filter(|worker| worker.domains.contains_key(&domain)).cloned().collect();
        for mut worker in seeing {
            worker.domains.remove(&domain);
            self.put_worker(worker);
        }
    }

    /// The domain is taken, with the first of its disks, or all.
    pub(super) fn commit_domain_attach(&mut self, txn: &Txn, attempt: &Attempt, attach: &AttachDomain) {
        let AttachDomain { domain, name, path, local, contents, .. } = attach.clone();
        self.put_domain(Domain {
            id: domain,
            name,
            path,
            local,
            created_by: txn.id,
            created_ms: self.meta.clock_ms,
            adopted_epoch: None,
            state: DomainState::Arriving { txn: txn.id },
            describing: None,
            retention_ms: contents.retention_ms,
        });
        self.see_new_domain(attempt.worker, domain);
        self.put_contents(attach, contents);
    }

    /// Who made or took a domain reaches it; its space is known with the first probe.
    pub(super) fn see_new_domain(&mut self, worker: WorkerId, domain: DomainId) {
        if let Some(mut worker) = self.workers.get(&worker).cloned() {
            let sight = DomainSight {
                error: None,
                total_bytes: 0,
                free_bytes: 0,
                file_system: String::new(),
                sequence: 0,
                seen_ms: 0,
            };
            worker.domains.insert(domain, sight);
            self.put_worker(worker);
        }
    }
}
