//! Admitting a worker: it goes on with its live session or gets a new one, always after a
//! linearizable read, so that nothing it was told before by another member is newer than what it is
//! told here.

use super::hello::CheckedHello;
use crate::core::Core;
use crate::services::call::Call;
use sdm_proto::ids::WorkerId;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1::Welcome;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;

/// A worker that was let in.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Who.
    pub worker: WorkerId,
    /// Its session.
    pub session: SessionRef,
    /// What it is told first.
    pub welcome: Welcome,
}

/// Lets a worker in.
///
/// # Errors
/// Another cluster's, a name in use, no quorum.
pub(super) async fn admit(core: &Core, hello: CheckedHello) -> Result<Admitted, Refusal> {
    let call = Call::begin(core);
    let view = call.read().await?;
    check_cluster(&view.state, &hello.cluster_id, core.member_name().as_str())?;
    let worker = hello.identity.id;
    if let Some(session) = hello.session.filter(|session| is_live(&view.state, &hello, *session)) {
        renew(&call, session).await?;
        tracing::info!(%worker, session = session.id, "a worker goes on with its session");
        return Ok(admitted(core, &view.state, worker, session));
    }
    let open = OpenSession {
        // One process has one session: a repeated hello of the same process finds it again.
        nonce: hello.identity.process_nonce.clone(),
        owner: SessionOwner::Worker(hello.identity),
        ttl_ms: u64::try_from(limits::SESSION_TTL.as_millis()).unwrap_or(u64::MAX),
    };
    let answered = call.propose(Command::OpenSession(open)).await?;
    let Reply::Session { session, .. } = answered.reply else {
        let message = format!("opening a session was answered with: {}", answered.reply);
        return Err(Refusal::new(Class::Internal, "UNEXPECTED_REPLY", message));
    };
    if !owns(&answered.view.state, worker, session) {
        let message = "the session is not this worker's, or is over already";
        return Err(Refusal::new(Class::Unavailable, "SESSION_LOST", message).hint("say hello again"));
    }
    // One that an earlier hello opened has used up a part of its lease already.
    let opened_now = session.epoch == answered.index;
    if !opened_now {
        renew(&call, session).await?;
    }
    tracing::info!(%worker, session = session.id, opened_now, "a worker has its session");
    Ok(admitted(core, &answered.view.state, worker, session))
}

/// Has the leader count a session's lease from now on: the worker counts its own from its hello, and
/// must never believe in it for longer than the leader does.
async fn renew(call: &Call<'_>, session: SessionRef) -> Result<(), Refusal> {
    if call.keep_alive(session).await? {
        return Ok(());
    }
    let message = format!("session {} is over, or about to be", session.id);
    Err(Refusal::new(Class::Unavailable, "SESSION_LOST", message).hint("say hello again"))
}

fn check_cluster(state: &State, remembered: &str, member: &str) -> Result<(), Refusal> {
    let own = state.cluster_id().to_string();
    if remembered.is_empty() || remembered == own {
        return Ok(());
    }
    let message = format!("the worker belongs to cluster {remembered}, member {member} to cluster {own}");
    Err(Refusal::new(Class::Denied, "WRONG_CLUSTER", message)
        .hint(format!(
            "check --coordinators; if this cluster was restored from a backup of that one, admit the worker anew: its usual command with --readmit {own}"
        )))
}

/// Whether this very process holds this very session.
fn is_live(state: &State, hello: &CheckedHello, session: SessionRef) -> bool {
    let same_process = state
        .workers
        .get(&hello.identity.id)
        .is_some_and(|worker| worker.identity.process_nonce == hello.identity.process_nonce);
    same_process && owns(state, hello.identity.id, session)
}

/// Whether the session is open, and the worker's.
pub(super) fn owns(state: &State, worker: WorkerId, session: SessionRef) -> bool {
    let open = state.sessions.get(&session.id).is_some_and(|row| row.epoch == session.epoch);
    open && state.workers.get(&worker).is_some_and(|row| row.session == Some(session.id))
}

fn admitted(core: &Core, state: &State, worker: WorkerId, session: SessionRef) -> Admitted {
    let ttl_ms = state.sessions.get(&session.id).map_or(0, |row| row.ttl_ms);
    let welcome = Welcome {
        cluster_id: state.cluster_id().to_string(),
        pool_id: state.meta.pool_id.to_string(),
        // Calls between members and workers carry the epoch that the cluster was made with, for ever.
        epoch: core.identity().get().map_or(state.meta.epoch, |own| own.epoch),
        storage_epoch: state.meta.epoch,
        session_id: session.id.to_string(),
        session_epoch: session.epoch,
        ttl_ms,
        member: core.member_name().to_string(),
    };
    Admitted { worker, session, welcome }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use crate::sample::identity;

    fn hello(nonce: &str) -> CheckedHello {
        let mut identity = identity("a");
        identity.process_nonce = nonce.to_owned();
        CheckedHello { identity, cluster_id: String::new(), session: None }
    }

    #[test]
    fn only_the_same_process_goes_on_with_a_session_that_is_still_open() {
        let mut sample = Sample::new();
        let session = sample.session("a");
        assert!(is_live(&sample.state, &hello("nonce-a"), session));
        assert!(!is_live(&sample.state, &hello("another"), session));
        let other_epoch = SessionRef { epoch: session.epoch + 1, ..session };
        assert!(!is_live(&sample.state, &hello("nonce-a"), other_epoch));
        sample.lose("a");
        assert!(!is_live(&sample.state, &hello("nonce-a"), session));
    }

    #[test]
    fn a_worker_of_another_cluster_is_refused() {
        let sample = Sample::new();
        let own = sample.state.cluster_id().to_string();
        assert_eq!(check_cluster(&sample.state, "", "m1"), Ok(()));
        assert_eq!(check_cluster(&sample.state, &own, "m1"), Ok(()));
        let refusal = check_cluster(&sample.state, "0f0f0f0f-1111-4222-8333-444444444444", "m1").unwrap_err();
        assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Denied, "WRONG_CLUSTER"));
    }
}
