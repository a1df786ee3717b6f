//! Sessions of clients: opened under a nonce, renewed at the leader, closed.

use super::request;
use crate::core::Core;
use crate::services::call::Call;
use sdm_proto::limits::SESSION_TTL;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::sessions::Holder;

/// A session's key on the wire.
fn key(session: SessionRef) -> v1::SessionKey {
    v1::SessionKey { id: session.id, epoch: session.epoch }
}

pub(super) async fn open(core: &Core, asked: v1::OpenSessionRequest) -> Result<v1::OpenSessionResponse, Refusal> {
    let nonce = request::nonce(&asked.nonce)?;
    let owner = SessionOwner::Client(request::label(asked.label)?);
    let ttl_default = u64::try_from(SESSION_TTL.as_millis()).unwrap_or(u64::MAX);
    let ttl_ms = if asked.ttl_ms == 0 { ttl_default } else { asked.ttl_ms };
    let answered = Call::begin(core).propose(Command::OpenSession(OpenSession { owner, ttl_ms, nonce })).await?;
    let Reply::Session { session, ttl_ms } = answered.reply else { return Err(unexpected(&answered.reply)) };
    tracing::debug!(session = session.id, ttl_ms, "a client's session is open");
    let cluster_id = answered.view.state.cluster_id().to_string();
    Ok(v1::OpenSessionResponse { session: Some(key(session)), ttl_ms, cluster_id })
}

pub(super) async fn keep_alive(core: &Core, asked: v1::KeepAliveRequest) -> Result<v1::KeepAliveResponse, Refusal> {
    let renewed = Call::begin(core).keep_all_alive(request::sessions(asked.sessions)?).await?;
    let view = core.view();
    let rows = renewed.iter().filter_map(|session| view.state.sessions.get(&session.id));
    let broken = rows.flat_map(|row| &row.broken).map(|broken| v1::BrokenLock {
        lock_id: broken.lock.to_string(),
        by: broken.by.clone(),
        reason: broken.reason.clone(),
    });
    let broken = broken.collect();
    Ok(v1::KeepAliveResponse { acknowledged: renewed.into_iter().map(key).collect(), broken })
}

pub(super) async fn close(core: &Core, asked: v1::CloseSessionRequest) -> Result<v1::CloseSessionResponse, Refusal> {
    let session = request::session(asked.session)?;
    // A worker says goodbye by itself. This member's view is enough: who knows a session's id has it
    // from an entry that is applied, here or soon here.
    let view = core.view();
    if let Some(Holder::Worker(worker)) = view.state.sessions.get(&session.id).map(|row| &row.holder) {
        let message = format!("session {} is worker {worker}'s, no client's", session.id);
        return Err(Refusal::new(Class::Denied, "NOT_A_CLIENT", message).hint("stop the worker to end its session"));
    }
    Call::begin(core).propose_answer(Command::CloseSession(session)).await?;
    Ok(v1::CloseSessionResponse {})
}

/// An answer that this command never gets.
pub(super) fn unexpected(reply: &Reply) -> Refusal {
    Refusal::new(Class::Internal, "UNEXPECTED_REPLY", format!("the cluster answered with {reply}"))
        .hint("upgrade this member to the release of the others")
}
