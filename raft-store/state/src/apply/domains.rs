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
            self.put_txn(txn);
            self.assign(turn, owner);
            return;
        }
        let id = change.domain();
        if let Some(domain) = self.domains.get(&id).cloned() {
            match change {
                DomainChange::Maintenance { .. } => self.maintain(&txn, domain),
                DomainChange::Activate { .. } => self.put_domain(Domain { state: DomainState::Active, ..domain }),
                DomainChange::Rename { name, .. } => self.rename_domain(turn, domain, name),
                DomainChange::Delete { .. } => self.delete_domain(turn, &txn, &domain),
                DomainChange::Detach { .. } | DomainChange::Attach(_) => {}
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
        domain.describing = Some(Box::new(Work { unassigned_since_ms, ..Work::default() }));
        self.put_domain(domain);
        self.assign(turn, owner);
    }

    /// A worker wrote the domain's name.
    pub(super) fn described(&mut self, id: DomainId) {
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
        });
        self.forget_sights(domain.id);
    }

    /// Workers see a domain only as long as it is known.
    fn forget_sights(&mut self, domain: DomainId) {
        let seeing: Vec<_> =
            self.workers.values().filter(|worker| worker.domains.contains_key(&domain)).cloned().collect();
        for mut worker in seeing {
            worker.domains.remove(&domain);
            self.put_worker(worker);
        }
    }

    /// A worker handed the domain over on the storage.
    pub(super) fn commit_domain_change(&mut self, attempt: &Attempt, change: &DomainChange) -> Outcome {
        match change {
            DomainChange::Detach { domain } => self.commit_domain_detach(*domain),
            DomainChange::Attach(attach) => self.commit_domain_attach(attempt, attach),
            _ => {}
        }
        Outcome { domain: Some(change.domain()), ..Outcome::default() }
    }

    fn commit_domain_detach(&mut self, id: DomainId) {
        let contents = self.contents_of(id);
        for disk in &contents.disks {
            self.remove_disk(disk.id);
        }
        for placement in &contents.placements {
            self.remove_placement(placement.id);
        }
        // Its own are nobody's now; what somebody outside uses all the same stays.
        let volumes: Vec<_> = contents.volumes.iter().map(|volume| volume.id).collect();
        self.forget_unused(&volumes);
        self.remove_domain(id);
        self.forget_sights(id);
    }

    fn commit_domain_attach(&mut self, attempt: &Attempt, attach: &AttachDomain) {
        let AttachDomain { domain, name, path, local, contents, renamed, .. } = attach.clone();
        let created_by = self.txn_of_attempt(attempt);
        self.put_domain(Domain {
            id: domain,
            name,
            path,
            local,
            created_by,
            created_ms: self.meta.clock_ms,
            adopted_epoch: None,
            state: DomainState::Active,
            describing: None,
            retention_ms: contents.retention_ms,
        });
        self.see_new_domain(attempt.worker, domain);
        for volume in contents.volumes {
            self.put_volume(volume);
        }
        for placement in contents.placements {
            self.put_placement(placement);
        }
        for disk in contents.disks {
            let placement = disk.placement;
            self.put_disk(disk);
            if renamed {
                self.want_projection(placement);
            }
        }
    }

    /// Who made or took a domain reaches it; its space is known with the first probe.
    pub(super) fn see_new_domain(&mut self, worker: WorkerId, domain: DomainId) {
        if let Some(mut worker) = self.workers.get(&worker).cloned() {
            let sight =
                DomainSight { error: None, total_bytes: 0, free_bytes: 0, file_system: String::new(), sequence: 0 };
            worker.domains.insert(domain, sight);
            self.put_worker(worker);
        }
    }

    fn txn_of_attempt(&self, attempt: &Attempt) -> sdm_proto::ids::TxnId {
        let owner = self.index.attempts.get(&attempt.token).copied();
        owner.and_then(|owner| self.txn_of(owner)).unwrap_or_default()
    }
}
