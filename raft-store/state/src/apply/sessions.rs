//! Sessions and the locks that client sessions hold. A session's end releases its locks and its
//! waits; a worker's end closes its attempts, and their work goes to others.

use crate::apply::Turn;
use crate::command::AcquireLocks;
use crate::command::OpenSession;
use crate::command::SessionOwner;
use crate::command::SessionRef;
use crate::events::Kind;
use crate::locks::BLOCKERS_SHOWN;
use crate::locks::Granted;
use crate::locks::LockSet;
use crate::locks::Owner as LockOwner;
use crate::locks::Resource;
use crate::locks::joined;
use crate::reply::Reply;
use crate::sessions::Holder;
use crate::sessions::Session;
use crate::state::State;
use crate::workers::WorkerIdentity;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// Why a session ended whose holder wanted no more.
const CLOSED: &str = "it closed its session";

fn expired(session: SessionRef) -> Refusal {
    Refusal::new(Class::Precondition, "SESSION_EXPIRED", format!("session {} is over", session.id))
        .hint("open a new session; what the old one held is released")
}

impl State {
    /// The session, if this opening of it is the current one.
    pub(crate) fn live_session(&self, session: SessionRef) -> Result<&Session, Refusal> {
        let found = self.sessions.get(&session.id).filter(|found| found.epoch == session.epoch);
        found.ok_or_else(|| expired(session))
    }

    pub(super) fn open_session(&mut self, turn: &mut Turn, open: &OpenSession) -> Result<Reply, Refusal> {
        let known = self.index.nonces.get(open.nonce.as_str()).and_then(|id| self.sessions.get(id));
        if let Some(known) = known {
            return Ok(Reply::Session { session: known.reference(), ttl_ms: known.ttl_ms });
        }
        let settings = &self.meta.settings;
        if self.sessions.len() as u64 >= settings.sessions_max {
            let message = format!("{} sessions are open, more are not allowed", self.sessions.len());
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_SESSIONS", message).hint("close idle clients"));
        }
        let ttl_ms = open.ttl_ms.clamp(settings.session_ttl_min_ms, settings.session_ttl_max_ms);
        let holder = match &open.owner {
            SessionOwner::Client(label) => Holder::Client(label.clone()),
            SessionOwner::Worker(identity) => {
                self.admit_worker(turn, identity)?;
                Holder::Worker(identity.id)
            }
        };
        let id = self.meta.applied_index;
        let session = Session {
            id,
            epoch: id,
            holder,
            ttl_ms,
            opened_ms: self.meta.clock_ms,
            nonce: open.nonce.clone(),
            last_sequence: 0,
            last_reply: None,
            broken: Vec::new(),
        };
        let reference = session.reference();
        self.resume_attachments(&session);
        self.put_session(session);
        Ok(Reply::Session { session: reference, ttl_ms })
    }

    /// Makes the worker's row live; a session of an earlier process of the same folder ends, since
    /// the folder's lock proves that process gone.
    fn admit_worker(&mut self, turn: &mut Turn, identity: &WorkerIdentity) -> Result<(), Refusal> {
        let clash = self.workers.values().filter(|other| other.is_live()).find(|other| {
            let same_name = other.identity.name == identity.name && other.identity.id != identity.id;
            let copied_folder = other.identity.id == identity.id && other.identity.machine_id != identity.machine_id;
            same_name || copied_folder
        });
        if let Some(other) = clash {
            let message = format!(
                "worker {} is alive already, at {} (session {})",
                other.identity.name,
                other.identity.address,
                other.session.unwrap_or_default()
            );
            return Err(Refusal::new(Class::Conflict, "WORKER_NAME_IN_USE", message)
                .hint("choose another --name; if that process is gone, its session ends by itself within its lease")
                .blocker("worker", other.identity.id.to_string(), format!("machine {}", other.identity.machine_id)));
        }
        let known = self.workers.get(&identity.id).cloned();
        match &known {
            None => self.make_room_for_worker()?,
            Some(old) if self.meta.feature_level >= 2 => self.refuse_moved(old, identity)?,
            Some(_) => {}
        }
        if let Some(session) = known.as_ref().and_then(|worker| worker.session) {
            self.end_session(turn, session, "its process was replaced");
        }
        self.welcome(turn, identity, known.as_ref());
        Ok(())
    }

    fn make_room_for_worker(&mut self) -> Result<(), Refusal> {
        if (self.workers.len() as u64) < self.meta.settings.workers_max {
            return Ok(());
        }
        let lost = self.workers.values().filter(|worker| !worker.is_live() && !self.is_needed(worker));
        let Some(id) = lost.min_by_key(|worker| worker.since_ms).map(|worker| worker.identity.id) else {
            let message = format!("{} workers are live, more are not allowed", self.workers.len());
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_WORKERS", message));
        };
        self.forget_worker(id);
        Ok(())
    }

    pub(super) fn close_session(&mut self, turn: &mut Turn, session: SessionRef) -> Result<Reply, Refusal> {
        // Closed already is closed.
        if self.live_session(session).is_ok() {
            self.end_session(turn, session.id, CLOSED);
        }
        Ok(Reply::Done)
    }

    pub(super) fn expire_sessions(&mut self, turn: &mut Turn, sessions: &[SessionRef]) -> Result<Reply, Refusal> {
        for session in sessions {
            if self.live_session(*session).is_ok() {
                self.end_session(turn, session.id, "its session expired");
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn end_session(&mut self, turn: &mut Turn, id: u64, why: &str) {
        let Some(session) = self.sessions.get(&id).cloned() else { return };
        self.remove_session(id);
        let owned = self.index.session_locks.get(&id).cloned().unwrap_or_default();
        if let Holder::Client(label) = &session.holder
            && why != CLOSED
        {
            self.tell_session_lost(id, label, why);
        }
        for lock in owned.iter() {
            self.release_or_pass(turn, lock);
        }
        self.leave_attachments(id);
        if let Holder::Worker(worker) = session.holder {
            self.lose_worker(turn, worker, why);
        }
    }

    fn tell_session_lost(&mut self, id: u64, label: &str, why: &str) {
        let held: Vec<String> = self
            .locks_of_session(id)
            .iter()
            .filter(|lock| lock.granted.is_some())
            .take(BLOCKERS_SHOWN)
            .map(|lock| format!("{} (lock {})", self.resources_in_words(lock), lock.id))
            .collect();
        if !held.is_empty() {
            let text = format!("{label}: {why}; it held {}", held.join(", "));
            self.tell(Kind::SessionLost, format!("session/{id}"), None, text);
        }
    }

    fn lose_worker(&mut self, turn: &mut Turn, id: WorkerId, why: &str) {
        let Some(mut worker) = self.workers.get(&id).cloned() else { return };
        let name = worker.identity.name.clone();
        let session = worker.session.unwrap_or_default();
        if self.meta.feature_level >= 2 {
            worker.last_session = Some(session);
        }
        worker.session = None;
        worker.since_ms = self.meta.clock_ms;
        worker.domains.clear();
        self.put_worker(worker);
        turn.workers_changed = true;
        let attempts: Vec<_> = self.attempts_of(id).collect();
        for (token, owner) in attempts {
            if self.writes_in_place(owner) {
                self.leave_in_place(owner, id, session, why);
                continue;
            }
            self.leave_late_writer(owner);
            self.attempt_failed(turn, owner, &format!("worker {name} is lost: {why} (attempt {token})"), true);
        }
    }

    pub(super) fn acquire_locks(&mut self, turn: &mut Turn, acquire: &AcquireLocks) -> Result<Reply, Refusal> {
        if let Some(reply) = self.repeated(acquire.session, acquire.sequence)? {
            return Ok(reply);
        }
        if self.meta.feature_level >= 2 {
            self.client_of(acquire.session)?;
        }
        let reply = self.acquire_new(turn, acquire).unwrap_or_else(Reply::Refused);
        self.remember(acquire.session, acquire.sequence, &reply);
        Ok(reply)
    }

    fn acquire_new(&mut self, turn: &mut Turn, acquire: &AcquireLocks) -> Result<Reply, Refusal> {
        // The epoch of its token is not settled before the storage was read.
        self.refuse_suspended()?;
        let settings = &self.meta.settings;
        let size = acquire.resources.len() as u64;
        if size == 0 || size > settings.lock_set_max {
            let message = format!("a lock set has 1 to {} resources, not {size}", settings.lock_set_max);
            return Err(Refusal::new(Class::Invalid, "BAD_LOCK_SET", message));
        }
        let foreign = acquire.resources.iter().any(|(resource, _)| !matches!(resource, Resource::User(_)));
        if foreign && self.meta.feature_level < 2 {
            return Err(Refusal::new(Class::Invalid, "BAD_LOCK_SET", "a session locks user/… resources only")
                .hint("disks and domains are locked by the transactions that work on them"));
        }
        if self.locks.len() as u64 >= settings.locks_max {
            return Err(Refusal::new(Class::Exhausted, "TOO_MANY_LOCKS", "the lock table is full"));
        }
        let asked = LockSet {
            id: self.meta.applied_index,
            owner: LockOwner::Session(acquire.session.id),
            resources: if foreign {
                self.session_set(&acquire.resources)?
            } else {
                joined(acquire.resources.iter().cloned())
            },
            why: acquire.why.clone(),
            asked_ms: self.meta.clock_ms,
            deadline_ms: self.meta.clock_ms.saturating_add(acquire.wait_ms),
            granted: None,
            txn: None,
        };
        let blockers = self.lock_blockers(&asked);
        if blockers.is_empty() {
            let token = turn.next_token(self);
            let granted = Some(Granted { token, at_ms: self.meta.clock_ms });
            let id = asked.id;
            self.put_lock(LockSet { granted, ..asked });
            return Ok(Reply::Lock { id, token: Some(token) });
        }
        if acquire.wait_ms == 0 {
            return Err(self.tried_once(&asked, &blockers));
        }
        let id = asked.id;
        self.put_lock(asked);
        Ok(Reply::Lock { id, token: None })
    }

    fn tried_once(&self, asked: &LockSet, blockers: &[u64]) -> Refusal {
        if self.meta.feature_level < 2 {
            return self.locked_refusal(&asked.why, blockers);
        }
        let first = blockers.first().copied().unwrap_or_default();
        self.locked_refusal(&format!("lock {}", self.resources_in_words(asked)), blockers).hint(format!(
            "wait for it (--wait 5m), or see who holds it, and the safe ways out: sdm lock explain {first}"
        ))
    }

    pub(super) fn release_locks(
        &mut self,
        turn: &mut Turn,
        session: SessionRef,
        sequence: u64,
        lock: u64,
    ) -> Result<Reply, Refusal> {
        if let Some(reply) = self.repeated(session, sequence)? {
            return Ok(reply);
        }
        let lock = self.lock_meant(session, sequence, lock);
        let own = self.locks.get(&lock).is_some_and(|held| held.owner == LockOwner::Session(session.id));
        let broken = self.sessions.get(&session.id).and_then(|row| row.broken.iter().find(|gone| gone.lock == lock));
        let reply = if own {
            self.release_or_pass(turn, lock);
            Reply::Done
        } else if let Some(broken) = broken {
            let message = format!("lock {lock} was broken by {}: {}", broken.by, broken.reason);
            Reply::Refused(Refusal::new(Class::Precondition, "LOCK_BROKEN", message).hint("sdm lock list"))
        } else {
            let message = format!("session {} has no lock {lock}", session.id);
            Reply::Refused(Refusal::new(Class::NotFound, "LOCK_NOT_FOUND", message).hint("sdm lock list"))
        };
        self.remember(session, sequence, &reply);
        Ok(reply)
    }

    /// No lock set has the id 0: it stands for what the request before this one got or waits for, whose answer
    /// its session may never have heard.
    fn lock_meant(&self, session: SessionRef, sequence: u64, lock: u64) -> u64 {
        if lock != 0 || self.meta.feature_level < 2 {
            return lock;
        }
        let live = self.sessions.get(&session.id).filter(|live| live.last_sequence.checked_add(1) == Some(sequence));
        match live.and_then(|live| live.last_reply.as_ref()) {
            Some(Reply::Lock { id, .. }) => *id,
            _ => lock,
        }
    }

    /// Refuses a worker's session: its locks are those of the transactions it works for.
    fn client_of(&self, session: SessionRef) -> Result<(), Refusal> {
        match &self.live_session(session)?.holder {
            Holder::Client(_) => Ok(()),
            Holder::Worker(_) => {
                let message = format!("session {} is a worker's, not a client's", session.id);
                Err(Refusal::new(Class::Denied, "NOT_A_CLIENT", message).hint("open a session of its own"))
            }
        }
    }

    /// The answer to a request that was done already. Requests of a session are numbered, and each
    /// is sent only after the one before was answered.
    fn repeated(&self, session: SessionRef, sequence: u64) -> Result<Option<Reply>, Refusal> {
        let live = self.live_session(session)?;
        if sequence == live.last_sequence {
            return Ok(live.last_reply.clone());
        }
        if sequence < live.last_sequence {
            let message =
                format!("request {sequence} of session {} is older than its last, {}", session.id, live.last_sequence);
            return Err(Refusal::new(Class::Invalid, "REQUEST_TOO_OLD", message));
        }
        Ok(None)
    }

    fn remember(&mut self, session: SessionRef, sequence: u64, reply: &Reply) {
        if let Some(mut live) = self.sessions.get(&session.id).cloned() {
            live.last_sequence = sequence;
            live.last_reply = Some(reply.clone());
            self.put_session(live);
        }
    }
}
