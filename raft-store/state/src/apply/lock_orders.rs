//! What operators do to locks: give back one of a session that they name, or take one away from its owner. A lock
//! beneath `user/` protects what its users agreed on, so a reason is enough; any other may keep a writer off
//! storage, so it is broken only where the holder is proved to write no more.

use crate::apply::Turn;
use crate::command::BreakLock;
use crate::command::SessionRef;
use crate::events::Kind;
use crate::locks::LockSet;
use crate::locks::Owner as LockOwner;
use crate::locks::Resource;
use crate::reply::Reply;
use crate::sessions::BROKEN_KEPT;
use crate::sessions::BrokenLock;
use crate::state::State;
use crate::txns::Phase;
use crate::txns::Txn;
use crate::work::Work;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

fn precondition(reason: &str, message: String) -> Refusal {
    Refusal::new(Class::Precondition, reason, message)
}

impl State {
    /// The lock set of this id.
    ///
    /// # Errors
    /// There is none.
    pub fn known_lock(&self, id: u64) -> Result<&LockSet, Refusal> {
        self.locks.get(&id).ok_or_else(|| {
            Refusal::new(Class::NotFound, "LOCK_NOT_FOUND", format!("there is no lock {id}"))
                .hint("it was released, or never was: sdm lock list; what happened: sdm events --kind lock")
        })
    }

    /// Whether an operator may give it back in the name of this session.
    ///
    /// # Errors
    /// There is no such lock, it is somebody else's, or the session is not as it was quoted.
    pub fn check_release(&self, id: u64, session: Option<SessionRef>) -> Result<(), Refusal> {
        let lock = self.known_lock(id)?;
        let break_it = format!("sdm lock break {id} --reason WHY; first see what it protects: sdm lock explain {id}");
        match (lock.owner, session) {
            (LockOwner::Txn(txn), _) => {
                let message = format!("lock {id} is not a session's: it is held for {}", self.owner_words(lock));
                Err(precondition("LOCK_OF_TRANSACTION", message)
                    .hint(format!("end the transaction: sdm txn abort {txn}; or see: sdm lock explain {id}"))
                    .blocker("transaction", txn.to_string(), lock.why.clone()))
            }
            (LockOwner::Session(owner), Some(named)) if owner == named.id => {
                self.live_session(named).map(|_| ()).map_err(|refusal| refusal.hint("sdm lock list"))
            }
            (LockOwner::Session(_), Some(named)) => {
                let message = format!("lock {id} is not session {}'s: it is {}'s", named.id, self.owner_words(lock));
                Err(Refusal::new(Class::Denied, "LOCK_OF_ANOTHER", message)
                    .hint(format!("to take it away from its holder: {break_it}")))
            }
            (LockOwner::Session(_), None) => {
                let message = format!("lock {id} is {}'s, and a session's lock is given back in its name only", {
                    self.owner_words(lock)
                });
                Err(Refusal::new(Class::Denied, "SESSION_NOT_NAMED", message)
                    .hint(format!("name the session (--session ID) if it is yours; else {break_it}")))
            }
        }
    }

    pub(super) fn release_lock_of(
        &mut self,
        turn: &mut Turn,
        session: SessionRef,
        lock: u64,
    ) -> Result<Reply, Refusal> {
        self.check_release(lock, Some(session))?;
        self.release_or_pass(turn, lock);
        Ok(Reply::Done)
    }

    /// Whether an operator may break it. Nobody's word takes a catalog lock from a session: one whose holder is down
    /// ends by itself within its lease, and renewals are known to the leader alone, so the state cannot tell that one
    /// from one that goes on.
    ///
    /// # Errors
    /// `FENCE_REQUIRED` with the safe ways out, or why breaking is not what ends it.
    pub fn check_break(&self, id: u64) -> Result<(), Refusal> {
        let lock = self.known_lock(id)?;
        match lock.owner {
            LockOwner::Session(session) => self.check_break_of_session(lock, session),
            LockOwner::Txn(id) => match self.txns.get(&id) {
                Some(txn) => self.check_break_of_txn(lock, txn),
                None => Ok(()),
            },
        }
    }

    fn check_break_of_session(&self, lock: &LockSet, session: u64) -> Result<(), Refusal> {
        let id = lock.id;
        if let Some(txn) = lock.txn {
            let message = format!("transaction {txn} runs under lock {id}");
            return Err(precondition("TRANSACTION_UNDER_LOCK", message)
                .hint(format!("end it first: sdm txn abort {txn}; then break the lock"))
                .blocker("transaction", txn.to_string(), "runs under it"));
        }
        let users_own = lock.resources.keys().all(|resource| matches!(resource, Resource::User(_)));
        if lock.granted.is_none() || users_own {
            return Ok(());
        }
        let who = self.owner_words(lock);
        let seconds = self.sessions.get(&session).map_or(0, |row| row.ttl_ms.div_ceil(1000));
        let message = format!(
            "refusing to break lock {id} on {}: {who} has a lease that is renewed, or was within the last {seconds} s, so \
             its command may still write",
            self.resources_in_words(lock)
        );
        Err(precondition("FENCE_REQUIRED", message)
            .hint(format!(
                "end that command (its lock is released with it); when its host is down or cut off, there is nothing to \
                 do: the lease ends within {seconds} s of its last renewal, and the lock with it; see: sdm lock explain {id}"
            ))
            .blocker("session", session.to_string(), "live: its lease is renewed"))
    }

    fn check_break_of_txn(&self, lock: &LockSet, txn: &Txn) -> Result<(), Refusal> {
        let id = lock.id;
        let abort = format!("sdm txn abort {}", txn.id);
        if matches!(txn.phase, Phase::Waiting { .. }) {
            let message = format!("lock {id} is not held yet: transaction {} waits for it", txn.id);
            return Err(precondition("LOCK_NOT_HELD", message).hint(format!("to stop it from waiting: {abort}")));
        }
        // What broke off in place there may not be on the storage yet: its locks end no sooner than it does.
        let pinned = || {
            let worker = self.abort_awaits(txn)?;
            Some((worker, self.workers.get(&worker).and_then(|row| row.last_session()).unwrap_or_default()))
        };
        let Some((worker, session)) = self.writer_of(txn).or_else(pinned) else { return Ok(()) };
        if self.fenced(worker, session) {
            return Ok(());
        }
        let (name, live) = (self.worker_word(worker), self.workers.get(&worker).is_some_and(|row| row.is_live()));
        let (state, why) = if live { ("live", "works on it now") } else { ("lost, not fenced", "may still write") };
        let message = format!("refusing to break lock {id}: worker {name} is {state} and {why} ({})", txn.summary);
        let hint = if live {
            format!("end the transaction instead, which is safe at any time: {abort}")
        } else {
            format!(
                "bring worker {name} back, or, if you know that its host is down: sdm worker confirm-down {name} \
                 --session {session} --reason WHY"
            )
        };
        Err(precondition("FENCE_REQUIRED", message).hint(hint).blocker("worker", name, state))
    }

    /// Whether a worker, as of that session, is proved to write no more: an operator confirmed it down. (That it is back
    /// after another boot, or reports that its process was reaped, ends its attempts in that very entry: then nobody is
    /// asked any more.)
    #[must_use]
    pub fn fenced(&self, worker: sdm_proto::ids::WorkerId, session: u64) -> bool {
        let down = self.workers.get(&worker).and_then(|row| row.confirmed_down.as_ref());
        down.is_some_and(|down| down.session >= session)
    }

    /// Who may be writing for a transaction now, and in which session it was given that.
    #[must_use]
    pub fn writer_of(&self, txn: &Txn) -> Option<(sdm_proto::ids::WorkerId, u64)> {
        if let Some(fencing) = &txn.fencing {
            return Some((fencing.worker, fencing.session));
        }
        let work: &Work = txn.job.and_then(|job| self.jobs.get(&job)).map(|job| &job.work).or(txn.step.as_ref())?;
        let worker = work.attempt.as_ref()?.worker;
        let session = self.workers.get(&worker).and_then(|row| row.session).unwrap_or_default();
        Some((worker, session))
    }

    pub(super) fn break_lock(&mut self, turn: &mut Turn, order: &BreakLock) -> Result<Reply, Refusal> {
        if order.reason.trim().is_empty() {
            return Err(Refusal::new(Class::Invalid, "REASON_MISSING", "a lock is broken with a reason only")
                .hint("say why: --reason TEXT; it is kept in the events"));
        }
        self.check_break(order.lock)?;
        let lock = self.known_lock(order.lock)?.clone();
        let (resources, owner) = (self.resources_in_words(&lock), self.owner_words(&lock));
        let by = if order.by.is_empty() { "an operator" } else { &order.by };
        let text = format!("{resources} taken from {owner}, by {by}: {}", order.reason);
        self.tell(Kind::LockBroken, format!("lock/{}", lock.id), None, text);
        match lock.owner {
            LockOwner::Session(id) => {
                if let Some(mut session) = self.sessions.get(&id).cloned() {
                    session.broken.push(BrokenLock {
                        lock: lock.id,
                        at_ms: self.meta.clock_ms,
                        by: order.by.clone(),
                        reason: order.reason.clone(),
                    });
                    let excess = session.broken.len().saturating_sub(BROKEN_KEPT);
                    session.broken.drain(..excess);
                    self.put_session(session);
                }
                self.release(turn, lock.id);
            }
            LockOwner::Txn(id) => {
                let message = format!("its lock {} was broken by {by}: {}", lock.id, order.reason);
                let refusal = Refusal::new(Class::Aborted, "LOCK_BROKEN", message)
                    .hint("repeat it under a new request id (sdm request-id)");
                self.abort(turn, id, refusal, true);
            }
        }
        Ok(Reply::Done)
    }

    /// Gives a session's lock set back; one under which a transaction runs passes to that transaction, which keeps it
    /// to its end.
    pub(super) fn release_or_pass(&mut self, turn: &mut Turn, id: u64) {
        let Some(lock) = self.locks.get(&id) else { return };
        let Some(txn) = lock.txn.and_then(|txn| self.txns.get(&txn)).cloned() else {
            return self.release(turn, id);
        };
        let passed = LockSet { owner: LockOwner::Txn(txn.id), txn: None, why: txn.summary.clone(), ..lock.clone() };
        self.put_lock(passed);
        self.note_txn(txn.id, format!("lock {id} passed to it: the session that held it is over, or gave it back"));
    }

    /// A transaction is over: a lock set of its own is released, a session's goes on being held.
    pub(crate) fn give_back(&mut self, turn: &mut Turn, lock: u64) {
        match self.locks.get(&lock).cloned() {
            Some(held) if matches!(held.owner, LockOwner::Session(_)) => self.put_lock(LockSet { txn: None, ..held }),
            _ => self.release(turn, lock),
        }
    }
}
