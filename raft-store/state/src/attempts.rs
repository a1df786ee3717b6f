//! Giving work to workers and taking it back. Closing an attempt makes garbage of every name it
//! could have made, in the same entry.

use crate::apply::Turn;
use crate::garbage::Garbage;
use crate::garbage::Kind;
use crate::garbage::Place;
use crate::shape::JobShape;
use crate::shape::Shape;
use crate::state::State;
use crate::txns::Event;
use crate::txns::Txn;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::Work;
use sdm_proto::failpoint;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::WorkerId;

impl State {
    pub(crate) fn put_work(&mut self, owner: Owner, work: Work) {
        match owner {
            Owner::Step(id) => {
                if let Some(mut txn) = self.txns.get(&id).cloned() {
                    txn.step = Some(work);
                    self.put_txn(txn);
                }
            }
            Owner::Job(id) => {
                if let Some(mut job) = self.jobs.get(&id).cloned() {
                    job.work = work;
                    self.put_job(job);
                }
            }
            Owner::Projection(id) => {
                if let Some(mut projection) = self.projections.get(&id).cloned() {
                    projection.work = work;
                    self.put_projection(projection);
                }
            }
            Owner::Describe(id) => {
                if let Some(mut domain) = self.domains.get(&id).filter(|domain| domain.describing.is_some()).cloned() {
                    domain.describing = Some(Box::new(work));
                    self.put_domain(domain);
                }
            }
            Owner::Deletion(id) => {
                if let Some(mut garbage) = self.garbage.get(&id).cloned() {
                    garbage.work = work;
                    self.put_garbage(garbage);
                }
            }
        }
    }

    /// The transaction of this work; None for a deletion, which goes on without one.
    pub(crate) fn txn_of(&self, owner: Owner) -> Option<TxnId> {
        match owner {
            Owner::Step(id) => Some(id),
            Owner::Job(id) => self.jobs.get(&id).map(|job| job.txn),
            Owner::Deletion(_) | Owner::Projection(_) | Owner::Describe(_) => None,
        }
    }

    /// A current attempt, and whose work it is.
    #[must_use]
    pub fn attempt(&self, token: sdm_proto::token::Token) -> Option<(Owner, &Attempt)> {
        let owner = *self.index.attempts.get(&token)?;
        Some((owner, self.work_of(owner)?.attempt.as_ref()?))
    }

    /// A worker's name and id in words.
    #[must_use]
    pub fn worker_word(&self, id: WorkerId) -> String {
        self.workers.get(&id).map_or_else(|| id.to_string(), |worker| worker.identity.name.to_string())
    }

    /// Adds to a transaction's history; the middle gives way when it is full, so that both the
    /// beginning and the end of the story stay.
    pub(crate) fn note(&self, txn: &mut Txn, text: impl Into<String>) {
        let most = usize::try_from(self.meta.settings.history_max).unwrap_or(usize::MAX).max(2);
        while txn.history.len() >= most {
            txn.history.remove(most / 2);
        }
        let event = Event { at_ms: self.meta.clock_ms, index: self.meta.applied_index, text: text.into() };
        txn.history.push(event);
    }

    pub(crate) fn note_txn(&mut self, id: TxnId, text: impl Into<String>) {
        if let Some(mut txn) = self.txns.get(&id).cloned() {
            self.note(&mut txn, text);
            self.put_txn(txn);
        }
    }

    /// Gives the work to a worker, if one suits; else it stays pending and says so once.
    pub(crate) fn assign(&mut self, turn: &mut Turn, owner: Owner) -> bool {
        if self.is_suspended() {
            return false;
        }
        let Some(mut work) = self.work_of(owner).cloned().filter(|work| work.attempt.is_none()) else { return false };
        if self.meta.feature_level >= 2 && work.attempts > 0 && self.frees_own_space(turn, owner) {
            // Looked at again when that is gone, or after a while.
            work.retry_at_ms = self.meta.clock_ms.saturating_add(self.meta.settings.retry_first_ms);
            self.put_work(owner, work);
            return false;
        }
        let Some(choice) = self.choose_worker(owner) else {
            if work.unassigned_since_ms == 0 {
                work.unassigned_since_ms = self.meta.clock_ms;
                self.put_work(owner, work);
            }
            return false;
        };
        if let Owner::Deletion(id) = owner
            && let Some(placement) = self.garbage.get(&id).and_then(|garbage| garbage.placement)
        {
            // Nothing is to be said any more of what goes.
            self.remove_projection(placement);
        }
        let mut token = turn.next_token(self);
        if failpoint::skips("plant.names-again") {
            let txn = self.txn_of(owner);
            let before =
                self.garbage.values().find(|garbage| garbage.kind == Kind::ClosedAttempt && Some(garbage.txn) == txn);
            token = before.map_or(token, |garbage| garbage.made_by);
        }
        work.attempts += 1;
        work.in_place = self.will_write_in_place(owner);
        work.retry_at_ms = 0;
        work.unassigned_since_ms = 0;
        let streams = self.needs_peer(owner);
        let settles = self.is_to_settle(owner);
        work.attempt = Some(Attempt {
            token,
            number: work.attempts,
            worker: choice.worker,
            source_worker: choice.source_worker,
            assigned_ms: self.meta.clock_ms,
            ticket: token.ticket(&turn.entropy, "stream"),
            checkpoint_bytes: 0,
            unreachable_since_ms: 0,
            settles,
            peer_deadline_ms: if streams { self.meta.clock_ms + self.meta.settings.peer_absence_max_ms } else { 0 },
        });
        let number = work.attempts;
        let worker = self.worker_word(choice.worker);
        let source = choice.source_worker.map(|id| format!(", which pulls from worker {}", self.worker_word(id)));
        let text = format!("attempt {number} ({token}) assigned to worker {worker}{}", source.unwrap_or_default());
        let attempt = work.attempt.clone();
        self.put_work_and_note(owner, work, text);
        if failpoint::skips("plant.collect-running")
            && let (Some((place, txn)), Some(attempt)) = (self.place_of(owner), attempt)
        {
            self.put_names(turn, place, txn, &attempt, "planted");
        }
        true
    }

    /// The work, and what its transaction's history says about it. A step stands in its transaction's
    /// own row, which is written once.
    fn put_work_and_note(&mut self, owner: Owner, work: Work, text: String) {
        if let Owner::Step(id) = owner {
            if let Some(mut txn) = self.txns.get(&id).cloned() {
                txn.step = Some(work);
                self.note(&mut txn, text);
                self.put_txn(txn);
            }
            return;
        }
        self.put_work(owner, work);
        if let Some(txn) = self.txn_of(owner) {
            self.note_txn(txn, text);
        }
    }

    /// Whether a command sends or reads the bytes.
    fn needs_peer(&self, owner: Owner) -> bool {
        let Owner::Job(id) = owner else { return false };
        let txn = self.jobs.get(&id).and_then(|job| self.txns.get(&job.txn));
        txn.is_some_and(|txn| matches!(self.shape(txn), Shape::Job(JobShape { peer: true, .. })))
    }

    /// Where an attempt of this owner makes names; None when it makes none that could stay.
    fn place_of(&self, owner: Owner) -> Option<(Place, TxnId)> {
        let in_domain = |id: DomainId| {
            let domain = self.domains.get(&id)?;
            Some(Place { domain: id, path: domain.path.clone(), local: domain.local, whole_domain: false })
        };
        match owner {
            Owner::Step(id) => match self.shape(self.txns.get(&id)?) {
                Shape::Step { domain, builds: true } | Shape::InPlace { domain, builds: true, .. } => {
                    Some((in_domain(domain)?, id))
                }
                Shape::AtPath { path, local, makes: true } => {
                    let domain = self.work_of(owner)?.attempt.as_ref()?.token.domain(self.cluster_id());
                    Some((Place { domain, path, local, whole_domain: true }, id))
                }
                _ => None,
            },
            Owner::Job(id) => {
                let job = self.jobs.get(&id)?;
                Some((in_domain(job.target?)?, job.txn))
            }
            // Deletions of one garbage share its own dot name, so a closed one leaves nothing new.
            Owner::Deletion(_) => None,
            // It writes into a published folder, and leaves no name behind.
            Owner::Projection(_) | Owner::Describe(_) => None,
        }
    }

    /// Closes the current attempt: from now on its reports are refused and its names are garbage.
    pub(crate) fn close_attempt(&mut self, turn: &mut Turn, owner: Owner, evidence: &str, leaves_names: bool) {
        let place = self.place_of(owner).filter(|_| leaves_names);
        let Some(mut work) = self.work_of(owner).cloned() else { return };
        let Some(attempt) = work.attempt.take() else { return };
        work.unassigned_since_ms = self.meta.clock_ms;
        self.put_work(owner, work);
        let Some((place, txn)) = place else { return };
        self.put_names(turn, place, txn, &attempt, evidence);
    }

    /// Every name that the attempt could have made is garbage.
    fn put_names(&mut self, turn: &mut Turn, place: Place, txn: TxnId, attempt: &Attempt, evidence: &str) {
        let placement = Some(attempt.token.placement(self.cluster_id())).filter(|_| !place.whole_domain);
        self.put_garbage(Garbage {
            id: turn.next_token(self),
            kind: Kind::ClosedAttempt,
            place,
            placement,
            made_by: attempt.token,
            cluster: None,
            txn,
            evidence: evidence.to_owned(),
            bytes: attempt.checkpoint_bytes,
            since_ms: self.meta.clock_ms,
            due_ms: self.meta.clock_ms,
            work: Work::default(),
            trash: None,
            held: None,
            doomed: None,
            emptied: false,
        });
    }

    /// Gives pending work to workers, as far as one entry may.
    pub(crate) fn assign_pending(&mut self, turn: &mut Turn) {
        let most = usize::try_from(self.meta.settings.work_per_entry).unwrap_or(usize::MAX);
        let now = self.meta.clock_ms;
        let mut assigned = 0;
        for owner in self.index.pending.clone() {
            let Some(mut work) = self.work_of(owner).filter(|work| work.retry_at_ms <= now).cloned() else { continue };
            if assigned < most {
                assigned += usize::from(self.assign(turn, owner));
            } else {
                // Due at once: the next Tick goes on with it.
                work.retry_at_ms = now.max(1);
                self.put_work(owner, work);
            }
        }
        self.assign_projections(turn, most.saturating_sub(assigned));
    }
}
