//! How transactions begin: the request's id first, then the plan, then the locks. Also how locks
//! are released and whoever waited for them goes on.

use crate::apply::Turn;
use crate::command::Begin;
use crate::domain_change::DomainChange;
use crate::jobs::Job;
use crate::locks::BLOCKERS_SHOWN;
use crate::locks::Granted;
use crate::locks::LockSet;
use crate::locks::Owner as LockOwner;
use crate::plan::Plan;
use crate::reply::Reply;
use crate::sessions::Holder;
use crate::shape::JobShape;
use crate::shape::Shape;
use crate::state::State;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Owner;
use crate::work::Work;
use crate::workers::Worker;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::request_id::issued_at_ms;

const NEW_ID: &str = "repeat it under a new request id (sdm request-id)";

impl State {
    pub(super) fn begin(&mut self, turn: &mut Turn, begin: &Begin) -> Result<Reply, Refusal> {
        if let Some(known) = self.txns.get(&begin.id) {
            return if known.request_hash == begin.request_hash {
                Ok(Reply::Txn(begin.id))
            } else {
                let message = format!("request id {} was used for another request: {}", begin.id, known.summary);
                Err(Refusal::new(Class::Conflict, "REQUEST_ID_REUSED", message).hint(NEW_ID))
            };
        }
        self.refuse_suspended()?;
        self.check_request_age(begin)?;
        if self.open_txns() as u64 >= self.meta.settings.open_txns_max {
            let message = format!("{} transactions are open, more are not allowed", self.open_txns());
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_TRANSACTIONS", message)
                .hint("wait until some of them end (sdm txn list)"));
        }
        let mut txn = self.new_txn(begin);
        // What it will run under is no obstacle to it.
        let own_lock = begin.under.and_then(|under| self.lock_of_token(&under).ok()).map(|lock| lock.id);
        match self.plan_admitted(&begin.spec, own_lock) {
            Ok(plan) => self.ask_for_locks(turn, txn, plan, begin),
            Err(refusal) => {
                self.note(&mut txn, format!("refused: {refusal}"));
                self.finish(txn, Phase::Refused(refusal));
            }
        }
        Ok(Reply::Txn(begin.id))
    }

    fn check_request_age(&self, begin: &Begin) -> Result<(), Refusal> {
        let (clock, window) = (self.meta.clock_ms, self.meta.settings.request_window_ms);
        let too_old = |message: String| Refusal::new(Class::Precondition, "REQUEST_TOO_OLD", message).hint(NEW_ID);
        if clock > begin.not_after_ms {
            let late = clock - begin.not_after_ms;
            return Err(too_old(format!("this copy of request {} came {late} ms too late", begin.id)));
        }
        if matches!(begin.spec, Spec::Noop { .. }) {
            // Nothing is done twice where nothing is done: its result may be forgotten.
            return Ok(());
        }
        // Results are forgotten by number too. Whoever looked the id up, or had it issued, no later than
        // the youngest forgotten result cannot know that this one was not among them.
        let forgotten = self.meta.prune_floor > 0;
        if forgotten && begin.looked_up_ms <= self.meta.forgotten_ms {
            return Err(too_old(format!("since request {} was looked up, results were forgotten", begin.id)));
        }
        let Some(issued) = issued_at_ms(begin.id) else { return Ok(()) };
        if issued.saturating_add(window) < clock || (forgotten && issued <= self.meta.forgotten_ms) {
            return Err(too_old(format!("request id {} was issued longer ago than results are remembered", begin.id)));
        }
        if issued > clock.saturating_add(window) {
            let message = format!("request id {} was not issued by this cluster", begin.id);
            return Err(Refusal::new(Class::Invalid, "REQUEST_ID_FOREIGN", message).hint(NEW_ID));
        }
        Ok(())
    }

    /// A transaction as it begins, without locks or work.
    pub(crate) fn new_txn(&self, begin: &Begin) -> Txn {
        Txn {
            id: begin.id,
            request_hash: begin.request_hash,
            initiator: begin.initiator.clone(),
            reason: begin.reason.clone(),
            spec: begin.spec.clone(),
            summary: begin.spec.kind().to_owned(),
            objects: Vec::new(),
            began_ms: self.meta.clock_ms,
            began_index: self.meta.applied_index,
            began_unix_ms: begin.unix_ms,
            finished_ms: 0,
            changed_index: self.meta.applied_index,
            phase: Phase::Running,
            lock: None,
            marker: None,
            step: None,
            job: None,
            attempts: 0,
            last_error: None,
            history: Vec::new(),
            under: None,
            vouched_by: None,
            stage: 0,
            built: Vec::new(),
            fencing: None,
            ending: None,
            handover: None,
        }
    }

    fn ask_for_locks(&mut self, turn: &mut Turn, mut txn: Txn, plan: Plan, begin: &Begin) {
        txn.summary = plan.summary;
        txn.objects = plan.objects;
        match begin.under.map(|under| (under.token, self.lock_under(&under, &plan.locks))) {
            None => {}
            Some((token, Ok(None))) => {
                txn.under = Some(token);
                txn.vouched_by = begin.under.and_then(|under| self.lock_of_token(&under).ok()).map(|lock| lock.id);
            }
            Some((token, Ok(Some(lock)))) => {
                if let Some(held) = self.locks.get(&lock).cloned() {
                    self.put_lock(LockSet { txn: Some(txn.id), ..held });
                }
                txn.lock = Some(lock);
                txn.under = Some(token);
                return self.start(turn, txn);
            }
            Some((_, Err(refusal))) => {
                self.note(&mut txn, format!("refused: {refusal}"));
                return self.finish(txn, Phase::Refused(refusal));
            }
        }
        let asked = LockSet {
            id: self.meta.applied_index,
            owner: LockOwner::Txn(txn.id),
            resources: plan.locks,
            why: txn.summary.clone(),
            asked_ms: self.meta.clock_ms,
            deadline_ms: self.meta.clock_ms.saturating_add(begin.lock_wait_ms),
            granted: None,
            txn: None,
        };
        let mut blockers = self.lock_blockers(&asked);
        if let Spec::Domain(DomainChange::Forget { domain }) = txn.spec {
            blockers = self.lock_blockers_but(&asked, &self.ending_with_domain(domain));
            if blockers.is_empty() {
                self.end_with_domain(turn, domain);
            }
        }
        if blockers.is_empty() {
            let granted = Some(Granted { token: turn.next_token(self), at_ms: self.meta.clock_ms });
            txn.lock = Some(asked.id);
            self.put_lock(LockSet { granted, ..asked });
            self.start(turn, txn);
        } else if begin.lock_wait_ms == 0 {
            let refusal = self.locked_refusal(&txn.summary, &blockers);
            self.note(&mut txn, format!("refused: {refusal}"));
            self.finish(txn, Phase::Refused(refusal));
        } else {
            let text = format!("waits for {}", self.lock_words(&blockers));
            self.note(&mut txn, text);
            txn.lock = Some(asked.id);
            txn.phase = Phase::Waiting { deadline_ms: asked.deadline_ms };
            self.put_lock(asked);
            self.put_txn(txn);
        }
    }

    /// What holds or precedes, in words: never longer than a few names.
    pub(crate) fn lock_words(&self, locks: &[u64]) -> String {
        let named = locks.iter().take(3).filter_map(|id| self.locks.get(id));
        let mut words: Vec<String> =
            named.map(|lock| format!("{} (lock {})", self.owner_words(lock), lock.id)).collect();
        if locks.len() > words.len() {
            words.push(format!("{} more", locks.len() - words.len()));
        }
        words.join(", ")
    }

    /// The owner of a lock set in words.
    #[must_use]
    pub fn owner_words(&self, lock: &LockSet) -> String {
        match lock.owner {
            LockOwner::Txn(id) => format!("transaction {id}, {}", lock.why),
            LockOwner::Session(id) => match self.sessions.get(&id).map(|session| &session.holder) {
                // Such words get into outcomes, which members of the first level must word alike.
                Some(Holder::Client(label)) if self.meta.feature_level >= 2 && !label.is_empty() => {
                    let why = if lock.why.is_empty() { String::new() } else { format!(", {}", lock.why) };
                    format!("session {id} ({label}{why})")
                }
                _ => format!("session {id}, {}", lock.why),
            },
        }
    }

    /// That it cannot be done now: which lock sets are in the way, whose, and since when.
    #[must_use]
    pub fn locked_refusal(&self, what: &str, blockers: &[u64]) -> Refusal {
        let message = format!("cannot {what}: it is locked by {}", self.lock_words(blockers));
        let hint = match blockers.first() {
            Some(first) if self.meta.feature_level >= 2 => {
                format!(
                    "wait for it (--wait-lock 5m), or see who holds it, and the safe ways out: sdm lock explain {first}"
                )
            }
            _ => "wait for it (--wait-lock 5m), or look at it: sdm lock list, sdm txn list".to_owned(),
        };
        let mut refusal = Refusal::new(Class::Precondition, "LOCKED", message).hint(hint);
        for lock in blockers.iter().filter_map(|id| self.locks.get(id)) {
            let since = lock.granted.map_or(lock.asked_ms, |granted| granted.at_ms);
            let seconds = self.meta.clock_ms.saturating_sub(since) / 1000;
            let state = if lock.granted.is_some() { "held" } else { "asked for" };
            let what = if self.meta.feature_level >= 2 {
                format!(", on {}", self.resources_in_words(lock))
            } else {
                String::new()
            };
            refusal = refusal.blocker(
                "lock",
                lock.id.to_string(),
                format!("{state} for {seconds} s by {}{what}", self.owner_words(lock)),
            );
        }
        refusal
    }

    /// Locked: the marker, the reservation and the work. The catalog is asked once more, because a
    /// waiting request may meet another world than the one it was planned in.
    fn start(&mut self, turn: &mut Turn, mut txn: Txn) {
        txn.phase = Phase::Running;
        txn.marker = self.marker(txn.id, &txn.spec, txn.stage);
        if let Err(refusal) = self.check_start(&txn) {
            txn.marker = None;
            self.note(&mut txn, format!("refused: {refusal}"));
            return self.end(turn, txn, Phase::Refused(refusal));
        }
        self.note(&mut txn, "locks granted");
        match txn.spec.clone() {
            Spec::DeleteDisk { disk } => self.commit_delete(turn, txn, disk),
            Spec::Garbage(order) => self.commit_garbage_order(turn, txn, order),
            Spec::Domain(change) => self.start_domain_change(turn, txn, &change),
            Spec::Attachment(change) => self.commit_attachment(turn, txn, &change),
            Spec::Worker(change) => self.commit_worker_change(turn, txn, &change),
            Spec::RenameDisk { .. }
            | Spec::DescribeDisk { .. }
            | Spec::SetVolumeLegality { .. }
            | Spec::RepairProjection { .. } => self.commit_words(turn, txn),
            Spec::FlattenDisk { disk } if self.flattens_nothing(&txn) => self.commit_unchanged(turn, txn, disk),
            _ => self.start_stage(turn, txn),
        }
    }

    /// The work of the transaction's current stage, whose marker it has.
    pub(super) fn start_stage(&mut self, turn: &mut Turn, txn: Txn) {
        match self.shape(&txn) {
            Shape::Job(shape) => self.start_job(turn, txn, shape),
            Shape::InPlace { .. } => {
                self.forget_hash_of_written(&txn);
                self.start_step(turn, txn);
            }
            Shape::Anywhere | Shape::AtPath { .. } | Shape::Step { .. } => self.start_step(turn, txn),
            Shape::Instant => {
                let message = format!("{} has nothing that a worker could do", txn.spec.kind());
                let refusal = Refusal::new(Class::Internal, "NO_SHAPE", message);
                self.end(turn, txn, Phase::Aborted(refusal));
            }
        }
    }

    pub(crate) fn check_start(&self, txn: &Txn) -> Result<(), Refusal> {
        match (self.shape(txn), &txn.spec) {
            (_, Spec::Domain(DomainChange::Activate { domain })) => self.check_reachable(*domain),
            (Shape::Instant, _) => Ok(()),
            (Shape::Anywhere, _) => self.check_any_worker(),
            (Shape::AtPath { path, .. }, _) => self.check_path_owner(&path),
            (Shape::Step { domain, .. }, _) => self.check_reachable(domain),
            (Shape::InPlace { domain, more_bytes, .. }, _) => {
                self.check_reachable(domain)?;
                self.check_space(domain, more_bytes)
            }
            (Shape::Job(job), _) => {
                for domain in [job.source, job.target].into_iter().flatten() {
                    self.check_reachable(domain)?;
                }
                if let (Some(source), Some(target), false) = (job.source, job.target, job.pull) {
                    self.check_common_worker(source, target)?;
                }
                let space = job.target.map_or(Ok(()), |target| self.check_space(target, job.reserved_bytes));
                space.map_err(|refusal| self.name_in_place(&txn.spec, refusal))
            }
        }
    }

    fn check_any_worker(&self) -> Result<(), Refusal> {
        if self.workers.values().any(Worker::takes_work) {
            return Ok(());
        }
        let message = "no worker is live, and a noop is received and reported by one";
        Err(Refusal::new(Class::Precondition, "NO_LIVE_WORKER", message)
            .hint("start a worker (sdm worker --help), then repeat under a new request id"))
    }

    fn check_path_owner(&self, path: &str) -> Result<(), Refusal> {
        if self.workers.values().any(|worker| worker.takes_work() && worker.owns_path(path)) {
            return Ok(());
        }
        let message = format!("no live worker owns the path {path}");
        let mut refusal = Refusal::new(Class::Precondition, "NO_WORKER_FOR_PATH", message)
            .hint("start a worker whose --reach covers it (sdm worker list), then repeat under a new request id");
        for worker in self.workers.values().take(BLOCKERS_SHOWN) {
            let state = if worker.is_live() { "live" } else { "lost" };
            let reach =
                if worker.identity.reach.is_empty() { "all".to_owned() } else { worker.identity.reach.join(", ") };
            refusal = refusal.blocker("worker", worker.identity.name.as_str(), format!("{state}, reaches {reach}"));
        }
        Err(refusal)
    }

    pub(super) fn start_step(&mut self, turn: &mut Turn, mut txn: Txn) {
        let owner = Owner::Step(txn.id);
        txn.step = Some(Work { unassigned_since_ms: self.meta.clock_ms, ..Work::default() });
        self.put_txn(txn);
        self.assign(turn, owner);
    }

    fn start_job(&mut self, turn: &mut Turn, mut txn: Txn, shape: JobShape) {
        let work = Work { unassigned_since_ms: self.meta.clock_ms, ..Work::default() };
        // The lock set's id is the index of the entry that asked: one transaction, one job, one id.
        // Under a client's lock set one may follow the other: there it is the index of the entry that began it.
        let id = txn.lock.filter(|_| txn.under.is_none()).unwrap_or(txn.began_index);
        let JobShape { source, target, total_bytes, reserved_bytes, .. } = shape;
        txn.job = Some(id);
        let job = Job { id, txn: txn.id, target, source, total_bytes, reserved_bytes, work };
        self.put_txn(txn);
        self.put_job(job);
        self.assign(turn, Owner::Job(id));
    }

    /// Takes a lock set out of the table; whoever waits for it is looked at before the entry ends.
    pub(crate) fn release(&mut self, turn: &mut Turn, lock: u64) {
        if let Some(lock) = self.remove_lock(lock) {
            turn.released.push(lock);
        }
    }

    /// Its turn has come: nothing is in its way any more.
    pub(super) fn grant_waiting(&mut self, turn: &mut Turn, asked: LockSet) {
        let granted = Some(Granted { token: turn.next_token(self), at_ms: self.meta.clock_ms });
        let (owner, lock) = (asked.owner, asked.id);
        let locks = asked.resources.clone();
        self.put_lock(LockSet { granted, ..asked });
        let id = match owner {
            LockOwner::Txn(id) => id,
            LockOwner::Session(session) => return self.granted_to_session(turn, lock, session),
        };
        let Some(mut txn) = self.txns.get(&id).cloned() else { return };
        let changed = |cause: String| {
            Refusal::new(
                Class::Precondition,
                "CHANGED_WHILE_WAITING",
                format!("while it waited for its locks, things changed: {cause}"),
            )
            .hint(format!("look again, then {NEW_ID}"))
        };
        if let Err(refusal) = self.check_vouched(&txn) {
            self.note(&mut txn, format!("refused: {refusal}"));
            return self.end(turn, txn, Phase::Refused(refusal));
        }
        match self.plan_admitted(&txn.spec, Some(lock)) {
            Ok(plan) if plan.locks == locks => self.start(turn, txn),
            // A name that is taken, or a thing that is gone, is that to whoever waited, too: who comes first is chance,
            // and the loser is told the same either way.
            Err(mut refusal) if self.meta.feature_level >= 2 && refusal.class != Class::Precondition => {
                refusal.message = format!("while it waited for its locks, things changed: {}", refusal.message);
                self.note(&mut txn, format!("refused: {refusal}"));
                self.end(turn, txn, Phase::Refused(refusal));
            }
            other => {
                let cause =
                    other.map_or_else(|refusal| refusal.message, |_| "it would need other locks now".to_owned());
                let refusal = changed(cause);
                self.note(&mut txn, format!("refused: {refusal}"));
                self.end(turn, txn, Phase::Refused(refusal));
            }
        }
    }
}
