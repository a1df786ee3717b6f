//! Taking and giving back lock sets. The grant is decided in `apply`; a request that has to wait is
//! followed in the applied state until it is granted or gone. Nothing is read to acquire: the
//! proposal's own answer says what became of it.

use super::catalog;
use super::request;
use super::session::unexpected;
use crate::core::Core;
use crate::services::call::Call;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::Touched;
use sdm_state::command::AcquireLocks;
use sdm_state::command::SessionRef;
use sdm_state::locks::LockSet;
use sdm_state::locks::Owner;
use sdm_state::locks::joined;
use std::time::Duration;

/// Longest silence while it waits. Then a linearizable read proves that this member still belongs to
/// the majority; where it fails the caller is sent to another member, which may know of the grant.
const PROOF_EVERY: Duration = Duration::from_secs(5);

/// A request that waits, as far as the state no longer remembers it when its wait is over.
struct Waiting {
    id: u64,
    session: SessionRef,
    asked: AcquireLocks,
}

/// What the applied state says of a request that waited.
enum Now {
    Waits,
    Granted(Token),
    Over(Refusal),
}

pub(super) async fn acquire(core: &Core, asked: v1::AcquireRequest) -> Result<v1::AcquireResponse, Refusal> {
    let session = request::session(asked.session)?;
    let sequence = request::sequence(asked.sequence)?;
    let asked = AcquireLocks {
        session,
        sequence,
        resources: catalog::lock_set(core, session, sequence, &asked.resources).await?,
        wait_ms: request::wait_ms(asked.wait_ms)?,
        why: request::why(asked.why)?,
    };
    if let Some(id) = known(&core.view().state, &asked) {
        // A repetition by a caller that goes on waiting makes no entry of its own. The read proves that
        // what this member knows of it is not too old.
        Call::begin(core).read().await?;
        let token = follow(core, &Waiting { id, session, asked }).await?;
        return Ok(granted(id, token));
    }
    let kept = (asked.wait_ms > 0).then(|| asked.clone());
    let call = Call::begin(core);
    let answered = call.propose_answer(Command::AcquireLocks(asked)).await?;
    match (answered.reply, kept) {
        (Reply::Lock { id, token: Some(token) }, _) => Ok(granted(id, token)),
        (Reply::Lock { id, token: None }, Some(asked)) => {
            tracing::debug!(session = session.id, lock = id, "a lock is waited for");
            call.applied_here(answered.index).await?;
            let token = follow(core, &Waiting { id, session, asked }).await?;
            Ok(granted(id, token))
        }
        (reply, _) => Err(unexpected(&reply)),
    }
}

/// The lock set of this very request, if this member has applied it and it may have to wait.
fn known(state: &State, asked: &AcquireLocks) -> Option<u64> {
    let session = state.sessions.get(&asked.session.id).filter(|row| row.epoch == asked.session.epoch)?;
    match session.last_reply {
        Some(Reply::Lock { id, .. }) if asked.wait_ms > 0 && session.last_sequence == asked.sequence => Some(id),
        _ => None,
    }
}

fn granted(id: u64, token: Token) -> v1::AcquireResponse {
    v1::AcquireResponse { lock_id: id.to_string(), token: token.to_string() }
}

async fn follow(core: &Core, waiting: &Waiting) -> Result<Token, Refusal> {
    let mut changes = core.watch_row(Touched::Lock(waiting.id));
    loop {
        // Watched since before it is loaded: what is applied in between wakes once more.
        match waiting.now(&core.view().state) {
            Now::Waits => {}
            Now::Granted(token) => return Ok(token),
            Now::Over(refusal) => return Err(refusal),
        }
        tokio::select! {
            biased;
            () = core.closing().cancelled() => return Err(closing(core)),
            () = changes.changed() => {}
            () = tokio::time::sleep(PROOF_EVERY) => {
                Call::begin(core).read().await?;
            }
        }
    }
}

impl Waiting {
    fn now(&self, state: &State) -> Now {
        if let Some(lock) = state.locks.get(&self.id) {
            return lock.granted.map_or(Now::Waits, |granted| Now::Granted(granted.token));
        }
        let session = state.sessions.get(&self.session.id).filter(|row| row.epoch == self.session.epoch);
        Now::Over(match session {
            None => Refusal::new(
                Class::Precondition,
                "SESSION_EXPIRED",
                format!("session {} ended while it waited for {}", self.session.id, self.words()),
            )
            .hint("open a new session, keep it alive, and ask again"),
            Some(row) if row.last_sequence > self.asked.sequence => Refusal::new(
                Class::Aborted,
                "LOCK_GIVEN_UP",
                format!("session {} stopped waiting for {} by a later request", self.session.id, self.words()),
            )
            .hint("ask again under a new sequence"),
            Some(row) => match &row.last_reply {
                Some(Reply::Refused(refusal)) if row.last_sequence == self.asked.sequence => refusal.clone(),
                _ => match row.broken.iter().find(|broken| broken.lock == self.id) {
                    Some(broken) => Refusal::new(
                        Class::Aborted,
                        "LOCK_BROKEN",
                        format!("its wait for {} was ended by {}: {}", self.words(), broken.by, broken.reason),
                    )
                    .hint("see sdm events --kind lock, then ask again"),
                    None => self.timeout(state),
                },
            },
        })
    }

    /// Its deadline has passed. Who is in the way is looked up now: the entry that ended the wait
    /// changed nothing else.
    fn timeout(&self, state: &State) -> Refusal {
        let asked = LockSet {
            id: self.id,
            owner: Owner::Session(self.session.id),
            resources: joined(self.asked.resources.iter().cloned()),
            why: self.asked.why.clone(),
            asked_ms: 0,
            deadline_ms: 0,
            granted: None,
            txn: None,
        };
        let blockers = state.lock_blockers(&asked);
        let mut refusal = state.locked_refusal(&format!("lock {}", self.words()), &blockers);
        refusal.class = Class::Timeout;
        refusal.reason = "LOCK_WAIT_TIMEOUT".to_owned();
        let waited = format!("waited {} s", self.asked.wait_ms.div_ceil(1000));
        refusal.message = if blockers.is_empty() {
            format!("{waited} for {}, which nobody holds any more", self.words())
        } else {
            format!("{waited}: {}", refusal.message)
        };
        let first = blockers.first().map_or_else(|| "sdm lock list".to_owned(), |id| format!("sdm lock explain {id}"));
        refusal.hint(format!("ask again, wait longer, or look at who holds it: {first}"))
    }

    /// The resources, in words: never more than a few.
    fn words(&self) -> String {
        let resources = &self.asked.resources;
        let mut words: Vec<String> = resources.iter().take(3).map(|(resource, _)| resource.to_string()).collect();
        if resources.len() > words.len() {
            words.push(format!("{} more", resources.len() - words.len()));
        }
        words.join(", ")
    }
}

fn closing(core: &Core) -> Refusal {
    let message = format!("member {} is shutting down; the request keeps its place in the queue", core.member_name());
    Refusal::new(Class::Unavailable, "MEMBER_STOPS", message).hint("repeat it under its sequence at another member")
}

pub(super) async fn release(core: &Core, asked: v1::ReleaseRequest) -> Result<v1::ReleaseResponse, Refusal> {
    let session = request::session(asked.session)?;
    let sequence = request::sequence(asked.sequence)?;
    // 0 names no lock: it stands for what the request before this one got.
    let lock = if asked.lock_id.is_empty() { 0 } else { request::lock_id(&asked.lock_id)? };
    match Call::begin(core).propose_answer(Command::ReleaseLocks { session, sequence, lock }).await {
        Ok(_) => Ok(v1::ReleaseResponse {}),
        // The request that is given up never came; from now on it is refused.
        Err(refusal) if lock == 0 && refusal.reason == "LOCK_NOT_FOUND" => Ok(v1::ReleaseResponse {}),
        Err(refusal) => Err(refusal),
    }
}
