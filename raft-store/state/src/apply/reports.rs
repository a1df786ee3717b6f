//! What workers report: their domains, and what became of attempts. Only the current attempt of a
//! piece of work is believed; whatever an earlier one says comes too late.

use crate::apply::Turn;
use crate::apply::merging::NOT_REBASED;
use crate::command::SessionRef;
use crate::events::Kind;
use crate::garbage::Kind as GarbageKind;
use crate::reply::Reply;
use crate::sessions::Holder;
use crate::shape::Shape;
use crate::state::State;
use crate::txns::Spec;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::Report;
use crate::work::VolumeResult;
use crate::workers::DomainReport;
use crate::workers::DomainSight;
use sdm_proto::failpoint;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;

/// Workers of failed attempts that are kept: those of the attempts that one transaction has, both ends of a pull.
const FAILED_AT_KEPT: usize = 12;

/// What a worker says of a leaf that an older placement links as well: that one is garbage, and its deletion is on its
/// way, so the next attempt may find it gone.
const LEAF_LINKED: &str = "VOLUME_SHARED";

/// What a worker says of a process that died.
const PROCESS_DIED: &str = "PROCESS_DIED";

/// What a worker says of a call to the storage that failed after the order had begun.
const IO_FAILED: &str = "IO_FAILED";

/// Refusals of work in place on a volume that a worker comes to only after it has made durable what an earlier attempt left
/// on its host. Any other may have come before.
const SETTLED_FIRST: [&str; 16] = [
    NOT_REBASED,
    "VOLUME_IN_USE",
    LEAF_LINKED,
    "STORAGE_UNSUPPORTED",
    "NO_SPACE",
    "SIZE_INVALID",
    "IMAGE_EMPTY",
    "QCOW2_INVALID",
    "QCOW2_UNSUPPORTED",
    "QCOW2_BACKING_FILE",
    "QCOW2_DATA_FILE",
    "QCOW2_ENCRYPTED",
    "QCOW2_TRUNCATED",
    "QCOW2_DIRTY",
    "QCOW2_CORRUPT",
    "HASH_MISMATCH",
];

/// Whether an attempt ended after it may have written something that is not synced.
fn broke_off(report: &Report) -> bool {
    match report {
        Report::Stopped => true,
        Report::Failed { reason, .. } => reason == PROCESS_DIED || reason == IO_FAILED,
        _ => false,
    }
}

impl State {
    fn worker_of(&self, session: SessionRef) -> Result<WorkerId, Refusal> {
        match self.live_session(session)?.holder {
            Holder::Worker(worker) => Ok(worker),
            Holder::Client(_) => {
                let message = format!("session {} is a client's, not a worker's", session.id);
                Err(Refusal::new(Class::Denied, "NOT_A_WORKER", message))
            }
        }
    }

    pub(super) fn report_domains(
        &mut self,
        turn: &mut Turn,
        session: SessionRef,
        items: &[DomainReport],
    ) -> Result<Reply, Refusal> {
        let id = self.worker_of(session)?;
        let Some(mut worker) = self.workers.get(&id).cloned() else { return Ok(Reply::Done) };
        let seen_ms = if self.meta.feature_level >= 2 { self.meta.clock_ms } else { 0 };
        for item in items {
            let newest = worker.domains.get(&item.domain).map_or(0, |sight| sight.sequence);
            if self.domains.contains(&item.domain) && item.sight.sequence >= newest {
                worker.domains.insert(item.domain, DomainSight { seen_ms, ..item.sight.clone() });
            }
        }
        self.put_worker(worker);
        turn.workers_changed = true;
        self.wake_late_writer(id);
        let attempts: Vec<_> = self.attempts_of(id).collect();
        for (_, owner) in attempts {
            self.judge_storage(owner);
        }
        Ok(Reply::Done)
    }

    /// Whether the workers of an attempt still reach the storage that it needs.
    fn judge_storage(&mut self, owner: Owner) {
        let Some(mut attempt) = self.work_of(owner).and_then(|work| work.attempt.clone()) else { return };
        let (source, target) = self.domains_of(owner);
        let reader = attempt.source_worker.unwrap_or(attempt.worker);
        let needed = [(reader, source), (attempt.worker, target)];
        let reached = needed.into_iter().all(|(worker, domain)| {
            let worker = self.workers.get(&worker);
            domain.is_none_or(|domain| worker.is_some_and(|worker| worker.reaches(domain)))
        });
        let since = match (reached, attempt.unreachable_since_ms) {
            (true, _) => 0,
            (false, 0) => self.meta.clock_ms.max(1),
            (false, since) => since,
        };
        if since != attempt.unreachable_since_ms {
            attempt.unreachable_since_ms = since;
            self.put_attempt(owner, attempt);
        }
    }

    /// The domains that a piece of work reads and writes; none for a domain that is only being made.
    fn domains_of(&self, owner: Owner) -> (Option<DomainId>, Option<DomainId>) {
        match owner {
            Owner::Step(txn) => match self.txns.get(&txn).map(|txn| self.shape(txn)) {
                Some(Shape::Step { domain, .. } | Shape::InPlace { domain, .. }) => (None, Some(domain)),
                _ => (None, None),
            },
            Owner::Job(id) => self.jobs.get(&id).map_or((None, None), |job| (job.source, job.target)),
            Owner::Describe(id) => (None, Some(id)),
            Owner::Projection(id) => (None, self.domain_of_placement(id)),
            Owner::Deletion(id) => {
                let place = self.garbage.get(&id).map(|garbage| &garbage.place);
                (None, place.filter(|place| !place.whole_domain).map(|place| place.domain))
            }
        }
    }

    pub(super) fn report_attempt(
        &mut self,
        turn: &mut Turn,
        session: SessionRef,
        token: Token,
        report: &Report,
    ) -> Result<Reply, Refusal> {
        let worker = self.worker_of(session)?;
        let closed = || {
            Refusal::new(
                Class::Precondition,
                "ATTEMPT_CLOSED",
                format!("attempt {token} is closed; what it made is garbage"),
            )
        };
        let mut known = self.index.attempts.get(&token).copied();
        if known.is_none() && failpoint::skips("plant.closed-report") {
            known = self.work_that_follows(token);
        }
        let owner = known.ok_or_else(closed)?;
        let attempt = self.work_of(owner).and_then(|work| work.attempt.clone()).ok_or_else(closed)?;
        let serves_source = attempt.source_worker == Some(worker) && attempt.worker != worker;
        if attempt.worker != worker && !serves_source && !failpoint::skips("plant.closed-report") {
            return Err(closed());
        }
        let ends = !matches!(report, Report::Checkpoint { .. } | Report::Peer { .. });
        if ends && !serves_source {
            if broke_off(report) {
                self.pin_in_place(owner, worker, session.id);
            } else if self.settles(owner, report) {
                self.unpin(owner);
            }
            self.settle_in_place(owner);
        }
        match report {
            Report::Failed { reason, message, hint } => {
                let lost = self.lost_before_detach(owner, worker, reason, message);
                if let (Some(refusal), Some(txn)) = (lost, self.txn_of(owner)) {
                    self.abort(turn, txn, refusal, true);
                    return Ok(Reply::Done);
                }
                let text = format!("{message} [{reason}]{}{hint}", if hint.is_empty() { "" } else { "; " });
                let who = self.worker_word(worker);
                self.attempt_failed(turn, owner, &format!("attempt {token} failed at worker {who}: {text}"), true);
            }
            Report::Stopped => {
                let who = self.worker_word(worker);
                self.attempt_failed(turn, owner, &format!("attempt {token} was stopped at worker {who}"), true);
            }
            Report::Refused(refusal) => self.attempt_refused(turn, owner, worker, refusal),
            // The source of a pull has nothing else to say: the one who pulls reports the rest.
            _ if serves_source => {}
            Report::Checkpoint { durable_bytes } => self.checkpoint(owner, attempt, *durable_bytes),
            Report::Peer { connected } => self.peer_changed(owner, attempt, *connected),
            Report::Done { volumes, bytes } => self.attempt_done(turn, owner, &attempt, volumes, *bytes),
            Report::Catalog { detached_at, piece, contents } => {
                self.take_piece(turn, owner, (*detached_at, *piece), contents);
            }
        }
        Ok(Reply::Done)
    }

    /// A bug that tests plant: whose work it was that this attempt was closed of.
    fn work_that_follows(&self, closed: Token) -> Option<Owner> {
        let txn = self.garbage.values().find(|garbage| garbage.made_by == closed)?.txn;
        let step = self.txns.get(&txn).filter(|txn| txn.step.is_some()).map(|txn| Owner::Step(txn.id));
        step.or_else(|| self.jobs.values().find(|job| job.txn == txn).map(|job| Owner::Job(job.id)))
    }

    /// Whether whoever comes to such an end has made durable first what an earlier attempt left there.
    fn settles(&self, owner: Owner, report: &Report) -> bool {
        let txn = self.txn_of(owner).and_then(|id| self.txns.get(&id));
        match report {
            Report::Done { .. } => true,
            // What is written of a domain itself are small files, each of them durable before it gets its name.
            Report::Refused(_) if txn.is_some_and(|txn| matches!(txn.spec, Spec::Domain(_))) => true,
            Report::Refused(refusal) => SETTLED_FIRST.contains(&refusal.reason.as_str()),
            _ => false,
        }
    }

    fn put_attempt(&mut self, owner: Owner, attempt: Attempt) {
        if let Some(mut work) = self.work_of(owner).cloned() {
            work.attempt = Some(attempt);
            self.put_work(owner, work);
        }
    }

    fn checkpoint(&mut self, owner: Owner, mut attempt: Attempt, durable_bytes: u64) {
        attempt.checkpoint_bytes = durable_bytes;
        self.put_attempt(owner, attempt);
    }

    fn peer_changed(&mut self, owner: Owner, mut attempt: Attempt, connected: bool) {
        let was_connected = attempt.peer_deadline_ms == 0;
        if connected == was_connected {
            // Reports are repeated: the time to wait for a command must not begin anew with each.
            return;
        }
        let now = self.meta.clock_ms;
        attempt.peer_deadline_ms = if connected { 0 } else { now + self.meta.settings.peer_absence_max_ms };
        self.put_attempt(owner, attempt);
        if let Some(txn) = self.txn_of(owner) {
            let text = if connected {
                "the command's byte stream is connected"
            } else {
                "the command's byte stream broke off"
            };
            self.note_txn(txn, text);
        }
    }

    fn attempt_done(&mut self, turn: &mut Turn, owner: Owner, attempt: &Attempt, volumes: &[VolumeResult], bytes: u64) {
        match self.txn_of(owner) {
            Some(txn) => self.commit(turn, txn, attempt, volumes, bytes),
            None => {
                if let Owner::Projection(id) = owner {
                    self.projected(turn, id, attempt);
                }
                if let Owner::Describe(id) = owner {
                    self.described(turn, id, attempt);
                }
                if let Owner::Deletion(id) = owner {
                    if self.was_emptied(turn, id) {
                        return;
                    }
                    let gone = self.garbage.get(&id).map(|garbage| garbage.txn);
                    self.tell(Kind::GarbageCollected, format!("garbage/{id}"), gone, "deleted from the storage");
                    let row = self.garbage.get(&id).filter(|row| row.kind == GarbageKind::ClosedAttempt);
                    let txn = row.and_then(|row| self.txns.get(&row.txn));
                    // Its transaction may wait for the space.
                    turn.workers_changed |=
                        self.meta.feature_level >= 2 && txn.is_some_and(|txn| !txn.phase.is_final());
                    self.remove_garbage(id);
                }
            }
        }
    }

    fn attempt_refused(&mut self, turn: &mut Turn, owner: Owner, worker: WorkerId, refusal: &Refusal) {
        let Some(txn) = self.txn_of(owner) else {
            let who = self.worker_word(worker);
            return self.attempt_failed(turn, owner, &format!("refused at worker {who}: {refusal}"), false);
        };
        // What an earlier attempt wrote there may still come to the storage.
        let is_pinned = self.work_of(owner).is_some_and(|work| work.pinned.is_some());
        if is_pinned || refusal.reason == LEAF_LINKED {
            let who = self.worker_word(worker);
            return self.attempt_failed(turn, owner, &format!("refused at worker {who}: {refusal}"), false);
        }
        if refusal.reason == NOT_REBASED {
            return self.end_whatever_is_written(turn, txn, refusal.clone());
        }
        let domain_path = self.txns.get(&txn).is_some_and(|txn| matches!(txn.spec, Spec::CreateDomain { .. }));
        // A domain's path is looked at before anything is made there, so such a refusal leaves no
        // names, unless space ran out later.
        let leaves_names = !domain_path || refusal.class == Class::Exhausted;
        if domain_path && refusal.reason == "PATH_MISSING" && self.try_another(turn, owner, worker, refusal) {
            return;
        }
        self.abort(turn, txn, self.leading_on(txn, refusal.clone()), leaves_names);
    }

    /// A local path may exist on another worker's host: each that owns it is asked once.
    fn try_another(&mut self, turn: &mut Turn, owner: Owner, worker: WorkerId, refusal: &Refusal) -> bool {
        self.close_attempt(turn, owner, &refusal.message, false);
        let Some(mut work) = self.work_of(owner).cloned() else { return false };
        work.excluded.push(worker);
        work.last_error = Some(refusal.to_string());
        self.put_work(owner, work);
        self.assign(turn, owner)
    }

    /// The attempt is over without a result: its names are garbage, and another one follows after
    /// a pause that grows, up to a limit.
    pub(crate) fn attempt_failed(&mut self, turn: &mut Turn, owner: Owner, error: &str, leaves_names: bool) {
        let tried = self.work_of(owner).and_then(|work| work.attempt.clone());
        self.close_attempt(turn, owner, error, leaves_names);
        let Some(mut work) = self.work_of(owner).cloned() else { return };
        for worker in tried.into_iter().flat_map(|attempt| [Some(attempt.worker), attempt.source_worker]).flatten() {
            work.failed_at.push(worker);
        }
        work.failed_at.drain(..work.failed_at.len().saturating_sub(FAILED_AT_KEPT));
        let settings = &self.meta.settings;
        let doublings = work.attempts.saturating_sub(1).min(32);
        let pause = settings.retry_first_ms.saturating_mul(1 << doublings).min(settings.retry_max_ms);
        work.retry_at_ms = self.meta.clock_ms.saturating_add(pause);
        work.last_error = Some(error.to_owned());
        let used_up = work.attempts >= settings.attempts_max;
        let attempts = work.attempts;
        self.put_work(owner, work);
        let Some(txn) = self.txn_of(owner) else { return };
        // To give a domain back is tried again: it is what an abort does.
        let ending = self.txns.get(&txn).filter(|txn| !txn.gives_back()).and_then(|txn| txn.ending.clone());
        if let Some(ending) = ending {
            return self.abort(turn, txn, ending, true);
        }
        if used_up {
            let message = format!("{attempts} attempts failed; the last one: {error}");
            let refusal = Refusal::new(Class::Aborted, "ATTEMPTS_USED_UP", message)
                .hint("mend the cause, then repeat under a new request id");
            let refusal = if error.contains(LEAF_LINKED) { self.name_held(txn, refusal) } else { refusal };
            return self.abort(turn, txn, refusal, true);
        }
        self.note_txn(txn, format!("{error}; next attempt in {} s", pause.div_ceil(1000)));
    }
}
