//! What operators do to locks: see one, give one back in its session's name, break one. A dry run asks the same
//! checks that `apply` asks, of a linearizable view, and proposes nothing.

use super::request;
use crate::core::Core;
use crate::services::call::Call;
use crate::services::present;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_state::Command;
use sdm_state::State;
use sdm_state::command::BreakLock;
use sdm_state::locks::LockSet;
use sdm_state::locks::Owner;

/// Longest words about who asks, in bytes: they are kept with the event.
const BY_BYTES_MAX: usize = 256;

fn shown(core: &Core, state: &State, lock: &LockSet) -> v1::Lock {
    present::lock(state, lock, core.shown_clock_ms(state))
}

/// What ends with the lock, in words.
fn would(state: &State, lock: &LockSet, verb: &str) -> Vec<String> {
    let mut lines = vec![format!(
        "lock {} on {} would be {verb} ({})",
        lock.id,
        state.resources_in_words(lock),
        state.owner_words(lock)
    )];
    if let (Owner::Session(_), Some(txn)) = (lock.owner, lock.txn) {
        lines.push(format!("it would pass to transaction {txn}, which runs under it, until that ends"));
    }
    if let Owner::Txn(txn) = lock.owner {
        lines.push(format!("transaction {txn} would be aborted"));
    }
    lines.extend(
        state
            .waiters_behind(lock, 8)
            .into_iter()
            .map(|waiter| format!("lock {} would wait for one fewer ({})", waiter.id, state.owner_words(waiter))),
    );
    lines
}

pub(super) async fn get(core: &Core, asked: v1::GetLockRequest) -> Result<v1::GetLockResponse, Refusal> {
    let id = request::lock_id(&asked.id)?;
    let view = Call::begin(core).read().await?;
    let state = &view.state;
    Ok(v1::GetLockResponse { lock: Some(shown(core, state, state.known_lock(id)?)), revision: state.applied_index() })
}

pub(super) async fn release_of(
    core: &Core,
    asked: v1::ReleaseLockOfRequest,
) -> Result<v1::ReleaseLockOfResponse, Refusal> {
    let id = request::lock_id(&asked.id)?;
    let session = asked.session.map(|key| request::session(Some(key))).transpose()?;
    let call = Call::begin(core);
    let view = call.read().await?;
    let state = &view.state;
    state.check_release(id, session)?;
    let row = state.known_lock(id)?;
    let lock = Some(shown(core, state, row));
    if asked.dry_run {
        return Ok(v1::ReleaseLockOfResponse { lock, would: would(state, row, "released") });
    }
    // Checked above: without a session it is refused.
    let session = request::session(asked.session)?;
    tracing::info!(lock = id, session = session.id, "a lock is given back by order");
    call.propose_answer(Command::ReleaseLockOf { session, lock: id }).await?;
    Ok(v1::ReleaseLockOfResponse { lock, would: Vec::new() })
}

pub(super) async fn break_lock(core: &Core, asked: v1::BreakLockRequest) -> Result<v1::BreakLockResponse, Refusal> {
    let id = request::lock_id(&asked.id)?;
    let reason = request::why(asked.reason)?;
    if reason.trim().is_empty() {
        return Err(Refusal::new(Class::Invalid, "REASON_MISSING", "a lock is broken with a reason only")
            .hint("say why: --reason TEXT; it is kept in the events"));
    }
    let by: String = asked.initiator.chars().filter(|c| !c.is_control()).take(BY_BYTES_MAX / 4).collect();
    let call = Call::begin(core);
    let view = call.read().await?;
    let state = &view.state;
    state.check_break(id)?;
    let row = state.known_lock(id)?;
    let lock = Some(shown(core, state, row));
    if asked.dry_run {
        return Ok(v1::BreakLockResponse { lock, would: would(state, row, "broken") });
    }
    tracing::warn!(lock = id, by, reason, "a lock is broken by order");
    call.propose_answer(Command::BreakLock(BreakLock { lock: id, reason, by })).await?;
    Ok(v1::BreakLockResponse { lock, would: Vec::new() })
}
