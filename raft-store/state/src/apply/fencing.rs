//! Work that changes in place what lies there already. Once it is assigned it keeps its locks until
//! its worker reported, or is fenced: proved to write no more. Neither a lost session nor an abort
//! releases them.
//!
//! ```text
//!              session lost                 back on the same boot
//! assigned ─────────────────▶ fencing ──────────────────────────────▶ assigned
//!    │ reported                  │ machine started anew, or confirmed down
//!    ▼                           ▼
//!  done, or the next attempt   the next attempt elsewhere, or the abort that was asked for
//! ```

use crate::apply::Turn;
use crate::domain_change::DomainChange;
use crate::state::State;
use crate::txns::Fencing;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Owner;
use crate::work::Pin;
use crate::work::Work;
use crate::workers::Worker;
use crate::workers::WorkerIdentity;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

impl Spec {
    /// Whether its attempts change what lies there already.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        matches!(
            self,
            Self::ResizeDisk { .. }
                | Self::DeleteSnapshot { in_place: true, .. }
                | Self::Domain(DomainChange::Detach { .. } | DomainChange::Attach(_))
        )
    }
}

impl State {
    /// Transactions for which a lost worker may still write in place.
    pub fn fencing_txns(&self) -> impl Iterator<Item = &Txn> + '_ {
        self.index.fencing_txns.iter().filter_map(|id| self.txns.get(id))
    }

    /// Whether the next attempt of this work will change in place what lies there.
    pub(crate) fn will_write_in_place(&self, owner: Owner) -> bool {
        self.txn_of(owner)
            .and_then(|id| self.txns.get(&id))
            .is_some_and(|txn| txn.spec.is_in_place() && !txn.reads_catalog())
    }

    /// Whether an attempt is out that changes in place what lies there.
    pub(crate) fn writes_in_place(&self, owner: Owner) -> bool {
        self.work_of(owner).is_some_and(|work| work.in_place && work.attempt.is_some())
    }

    /// The worker is lost, which proves nothing: the attempt stays as it is.
    pub(crate) fn leave_in_place(&mut self, owner: Owner, worker: WorkerId, session: u64, why: &str) {
        let Some(mut txn) = self.txn_of(owner).and_then(|id| self.txns.get(&id)).cloned() else { return };
        let name = self.worker_word(worker);
        let since_ms = self.meta.clock_ms;
        txn.fencing = Some(Fencing { worker, session, since_ms, why: why.to_owned() });
        self.note(
            &mut txn,
            format!(
                "worker {name} is lost: {why}; it may still write in place, so nobody else does before it is fenced"
            ),
        );
        self.put_txn(txn);
    }

    /// It is to be aborted as soon as nobody writes in place any more; what is done by then is committed all the same,
    /// because a change in place has no way back.
    pub(crate) fn end_later(&mut self, id: TxnId, refusal: Refusal) {
        let Some(mut txn) = self.txns.get(&id).filter(|txn| txn.ending.is_none()).cloned() else { return };
        self.note(&mut txn, format!("to be aborted when its worker has reported or is fenced: {refusal}"));
        txn.ending = Some(refusal);
        self.put_txn(txn);
    }

    /// Whose word, or fencing, an abort of this transaction waits for; None when it would take effect at once.
    #[must_use]
    pub fn abort_awaits(&self, txn: &Txn) -> Option<WorkerId> {
        let work = self.work_of(txn.job.map_or(Owner::Step(txn.id), Owner::Job)).filter(|_| !txn.phase.is_final())?;
        let writer = work.attempt.as_ref().filter(|_| work.in_place).map(|attempt| attempt.worker);
        writer.or(work.pinned.as_ref().map(|pin| pin.worker))
    }

    /// The attempt has ended, by its own report or because its worker is fenced: from here on it is like any other.
    pub(crate) fn settle_in_place(&mut self, owner: Owner) {
        let Some(mut work) = self.work_of(owner).filter(|work| work.in_place).cloned() else { return };
        work.in_place = false;
        self.put_work(owner, work);
        self.end_fencing(owner);
    }

    /// It ended, but what it wrote may not be on the storage yet: until the host is fenced, the next attempt is made
    /// there, where its bytes are seen and can be synced.
    pub(crate) fn pin_in_place(&mut self, owner: Owner, worker: WorkerId, session: u64) {
        let Some(mut work) = self.work_of(owner).filter(|work| work.in_place).cloned() else { return };
        let Some(row) = self.workers.get(&worker) else { return };
        work.pinned = Some(Pin { worker, session, boot_id: row.identity.boot_id.clone() });
        self.put_work(owner, work);
    }

    /// What it wrote there is on the storage, or never will be: the next attempt may be made anywhere.
    pub(super) fn unpin(&mut self, owner: Owner) {
        let Some(mut work) = self.work_of(owner).filter(|work| work.pinned.is_some()).cloned() else { return };
        work.pinned = None;
        self.put_work(owner, work);
    }

    /// The worker that alone may make the next attempt; None when there is no such one, or it is fenced by now.
    pub(crate) fn pin_of(&self, work: &Work) -> Option<WorkerId> {
        let pin = work.pinned.as_ref()?;
        let row = self.workers.get(&pin.worker)?;
        (row.identity.boot_id == pin.boot_id && !self.fenced(pin.worker, pin.session)).then_some(pin.worker)
    }

    /// Transactions whose next attempt this worker alone may make.
    pub(crate) fn txns_pinned_to(&self, worker: WorkerId) -> impl Iterator<Item = TxnId> + '_ {
        let pinned = move |owner: &Owner| self.work_of(*owner).and_then(|work| self.pin_of(work)) == Some(worker);
        self.index.pending.iter().filter(move |owner| pinned(owner)).filter_map(|owner| self.txn_of(*owner))
    }

    /// Refuses the folder of a lost worker on another machine, while what that began on the old one is not over.
    pub(crate) fn refuse_moved(&self, old: &Worker, identity: &WorkerIdentity) -> Result<(), Refusal> {
        let (id, session) = (old.identity.id, old.last_session().unwrap_or_default());
        if old.identity.machine_id == identity.machine_id || self.fenced(id, session) {
            return Ok(());
        }
        let in_place = self.in_place_at(id).into_iter().filter_map(|owner| self.txn_of(owner));
        let writes = in_place.chain(self.txns_pinned_to(id)).next();
        let attached = self.attachments_at(id).next();
        let why = match (writes, attached) {
            (Some(txn), _) => format!("transaction {txn} wrote in place there"),
            (None, Some(attachment)) => format!("attachment {} gives it a disk there", attachment.token),
            (None, None) => return Ok(()),
        };
        let name = &old.identity.name;
        let message = format!(
            "worker {name} was on machine {} and comes from machine {}, but {why}, and nothing proves that the old \
             machine writes no more",
            old.identity.machine_id, identity.machine_id
        );
        Err(Refusal::new(Class::Precondition, "FENCE_REQUIRED", message)
            .hint(format!(
                "start it on the old machine, or, when that is down for sure: sdm worker confirm-down {name} --session \
                 {session} --reason TEXT; then start it here again"
            ))
            .blocker("worker", name.as_str(), "lost, not fenced"))
    }

    fn end_fencing(&mut self, owner: Owner) {
        if let Some(mut txn) = self.txn_of(owner).and_then(|id| self.txns.get(&id)).cloned()
            && txn.fencing.take().is_some()
        {
            self.put_txn(txn);
        }
    }

    /// The worker is back on the same boot: what it was doing in place is its own again, and it will say how it ended.
    pub(crate) fn rejoin_in_place(&mut self, worker: WorkerId) {
        let name = self.worker_word(worker);
        for owner in self.in_place_at(worker) {
            self.end_fencing(owner);
            if let Some(txn) = self.txn_of(owner) {
                self.note_txn(txn, format!("worker {name} is back and goes on"));
            }
        }
    }

    /// Nothing of what this worker had in hand writes any more: its work in place goes to others or ends, and what it
    /// held attached without an owner is free.
    pub(crate) fn fence(&mut self, turn: &mut Turn, worker: WorkerId, evidence: &str) {
        for owner in self.in_place_at(worker) {
            self.settle_in_place(owner);
            self.unpin(owner);
            self.attempt_failed(turn, owner, evidence, true);
        }
        self.release_pinned(turn, worker, evidence);
        self.settle_late_writer(turn, worker);
        self.free_unfenced_attachments(worker);
    }

    /// What waited for this host alone goes to others, or to the end that was asked for.
    fn release_pinned(&mut self, turn: &mut Turn, worker: WorkerId, evidence: &str) {
        let is_pinned = |owner: &&Owner| {
            let pin = self.work_of(**owner).and_then(|work| work.pinned.as_ref());
            pin.is_some_and(|pin| pin.worker == worker)
        };
        let pinned: Vec<Owner> = self.index.pending.iter().filter(is_pinned).copied().collect();
        for owner in pinned {
            self.unpin(owner);
            let Some(mut work) = self.work_of(owner).cloned() else { continue };
            // The time to find somebody begins now.
            work.unassigned_since_ms = self.meta.clock_ms;
            self.put_work(owner, work);
            let Some(id) = self.txn_of(owner) else { continue };
            self.note_txn(id, format!("it need not be gone on with there any more: {evidence}"));
            if let Some(ending) = self.txns.get(&id).and_then(|txn| txn.ending.clone()) {
                self.abort(turn, id, ending, true);
            }
        }
    }

    fn in_place_at(&self, worker: WorkerId) -> Vec<Owner> {
        self.attempts_of(worker).map(|(_, owner)| owner).filter(|owner| self.writes_in_place(*owner)).collect()
    }
}
