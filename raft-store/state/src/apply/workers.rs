//! Changes of a worker's standing that operators ask for, and what a worker's return says about what
//! it had in hand.

use crate::apply::Turn;
use crate::events::Kind;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Txn;
use crate::workers::ConfirmedDown;
use crate::workers::Draining;
use crate::workers::Worker;
use crate::workers::WorkerChange;
use crate::workers::WorkerIdentity;
use sdm_proto::ids::WorkerId;
use std::collections::BTreeMap;

impl State {
    /// Needs no worker: done with this entry.
    pub(super) fn commit_worker_change(&mut self, turn: &mut Turn, txn: Txn, change: &WorkerChange) {
        let id = change.worker();
        if let Some(row) = self.workers.get(&id).cloned() {
            match change {
                WorkerChange::Drain { .. } => self.drain(&txn, row),
                WorkerChange::Undrain { .. } => self.undrain(turn, row),
                WorkerChange::Remove { .. } => self.remove_worker(turn, &row),
                WorkerChange::ConfirmDown { session, .. } => self.confirm_down(turn, &txn, row, *session),
            }
        }
        let object = format!("worker/{}", self.worker_word(id));
        self.tell(Kind::WorkerChanged, object, Some(txn.id), txn.summary.clone());
        let outcome = Outcome { worker: Some(id), ..Outcome::default() };
        self.end(turn, txn, Phase::Committed(outcome));
    }

    fn drain(&mut self, txn: &Txn, mut worker: Worker) {
        let (by, reason) = (txn.initiator.clone(), txn.reason.clone());
        match &mut worker.draining {
            None => worker.draining = Some(Draining { since_ms: self.meta.clock_ms, by, reason }),
            // Said again with a reason: that one counts, and since when stays.
            Some(known) if !reason.is_empty() && known.reason != reason => (known.by, known.reason) = (by, reason),
            Some(_) => return,
        }
        self.put_worker(worker);
    }

    fn undrain(&mut self, turn: &mut Turn, mut worker: Worker) {
        if worker.draining.take().is_some() {
            self.put_worker(worker);
            turn.workers_changed = true;
        }
    }

    fn remove_worker(&mut self, turn: &mut Turn, worker: &Worker) {
        if let Some(session) = worker.session {
            self.end_session(turn, session, "the worker was removed");
        }
        self.settle_late_writer(turn, worker.identity.id);
        self.forget_worker(worker.identity.id);
    }

    /// Takes a worker's row out; it is not live.
    pub(super) fn forget_worker(&mut self, id: WorkerId) {
        self.workers.remove(&id);
    }

    fn confirm_down(&mut self, turn: &mut Turn, txn: &Txn, mut worker: Worker, session: u64) {
        let (id, name) = (worker.identity.id, worker.identity.name.clone());
        let (by, reason) = (txn.initiator.clone(), txn.reason.clone());
        let evidence = format!("worker {name} (session {session}) was confirmed down by {by}: {reason}");
        worker.confirmed_down = Some(ConfirmedDown { session, at_ms: self.meta.clock_ms, by, reason });
        self.put_worker(worker);
        self.fence(turn, id, &evidence);
        turn.workers_changed = true;
    }

    /// The row of a worker that says hello, and what that proves about its earlier processes.
    pub(super) fn welcome(&mut self, turn: &mut Turn, identity: &WorkerIdentity, known: Option<&Worker>) {
        let old = known.map(|worker| &worker.identity);
        let same_machine = old.filter(|old| old.machine_id == identity.machine_id);
        let counts = self.meta.feature_level >= 2;
        // What an earlier process saw is not believed: the new one looks for itself.
        self.put_worker(Worker {
            identity: identity.clone(),
            session: Some(self.meta.applied_index),
            since_ms: self.meta.clock_ms,
            domains: BTreeMap::new(),
            draining: known.and_then(|worker| worker.draining.clone()),
            last_session: counts.then_some(self.meta.applied_index),
            // What was confirmed about an earlier session stays true of it.
            confirmed_down: known.and_then(|worker| worker.confirmed_down.clone()),
        });
        turn.workers_changed = true;
        match same_machine {
            Some(old) if old.boot_id != identity.boot_id => {
                let evidence = format!("the machine of worker {} was started anew", identity.name);
                self.fence(turn, identity.id, &evidence);
            }
            Some(_) => self.rejoin_in_place(identity.id),
            // A new one, or one that left nothing behind on the machine where it was.
            None => {}
        }
    }

    /// Whether something in the state needs this worker's row.
    pub(crate) fn is_needed(&self, worker: &Worker) -> bool {
        let id = worker.identity.id;
        self.attempts_of(id).next().is_some()
            || self.attachments_at(id).next().is_some()
            || self.txns_pinned_to(id).next().is_some()
            || !self.late_at(id).is_empty()
    }
}
