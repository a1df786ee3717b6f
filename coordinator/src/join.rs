//! Becoming a member: an id is asked for at any member, then, once this process serves, its
//! admission. Both are repeated until they are answered; a repetition changes nothing twice.

use crate::core::Core;
use crate::error::MemberError;
use crate::peers::PeerChannel;
use crate::peers::Peers;
use crate::peers::within;
use crate::route::ASK_THERE;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::channel;
use sdm_proto::status::from_status;
use sdm_proto::status::refusal_in;
use sdm_proto::wire::internal::v1::AdmitRequest;
use sdm_proto::wire::internal::v1::JoinRequest;
use sdm_proto::wire::internal::v1::JoinResponse;
use sdm_proto::wire::internal::v1::member_service_client::MemberServiceClient;
use sdm_proto::wire::v1::transfer_service_server;
use sdm_raft_store::Identity;
use sdm_state::members::FEATURE_LEVEL_MAX;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

/// Pause before the next try, doubled each time ...
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// ... up to this: an operator who just started the other member does not want to wait.
const RETRY_MAX: Duration = Duration::from_secs(3);

/// A wait that lasts tells its cause again after this long.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// How long an id may take: an election and a proposal.
const JOIN_TIME: Duration = Duration::from_secs(20);

/// How long one try of an admission may take. It waits until this member has caught up, which may
/// take longer: then it is asked again, and nothing is lost.
const ADMIT_TIME: Duration = Duration::from_secs(60);

/// How long somebody who answered already may take to say what it is.
const ASK_TIME: Duration = Duration::from_secs(2);

/// The version that this build shows to others.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Asks for an id until it gets one.
///
/// # Errors
/// The cluster refuses for good.
pub(crate) async fn ask_for_id(
    peers: &Peers,
    name: &Name,
    via: &str,
    address: &str,
    incarnation: Uuid,
) -> Result<Identity, MemberError> {
    // Refused at once where it is no address.
    peers.stranger(via).map_err(MemberError::Refused)?;
    let request = JoinRequest {
        name: name.to_string(),
        address: address.to_owned(),
        incarnation: incarnation.to_string(),
        feature_level_max: FEATURE_LEVEL_MAX,
        version: VERSION.to_owned(),
    };
    let mut at = via.to_owned();
    let response = until_answered(&format!("join the cluster of {via}"), async || {
        let mut client = peers.stranger(&at)?;
        let call = client.join(within(request.clone(), JOIN_TIME));
        let outcome = answer(peers, JOIN_TIME, &at, call).await;
        if let Some(next) = outcome.as_ref().err().and_then(elsewhere) {
            tracing::info!(from = at, to = next, "asking another member of that cluster");
            at = next;
        }
        outcome
    })
    .await?;
    identity(name, incarnation, &response)
}

/// Where a member that stops says that others are.
fn elsewhere(refusal: &Refusal) -> Option<String> {
    let stops = refusal.reason == "MEMBER_STOPPING";
    refusal.blockers.iter().find(|blocker| stops && blocker.kind == ASK_THERE).map(|blocker| blocker.id.clone())
}

fn identity(name: &Name, incarnation: Uuid, response: &JoinResponse) -> Result<Identity, MemberError> {
    let unreadable = |what: &str| {
        let message = format!("the answer to the join carries no {what}");
        MemberError::Refused(
            Refusal::new(Class::Unsupported, "BAD_MESSAGE", message).hint("use the same version of sdm"),
        )
    };
    Ok(Identity {
        cluster_id: response.cluster_id.parse().map_err(|_| unreadable("cluster id"))?,
        pool_id: response.pool_id.parse().map_err(|_| unreadable("pool id"))?,
        epoch: response.epoch,
        node_id: response.node_id,
        name: name.to_string(),
        incarnation,
    })
}

/// Asks to be admitted until it is done: as a learner, then as a voter unless it stays one.
///
/// # Errors
/// The cluster refuses for good.
pub(crate) async fn ask_for_admission(core: &Core, via: &str, stay_learner: bool) -> Result<String, MemberError> {
    let request = AdmitRequest { node_id: core.node_id(), stay_learner };
    until_answered("be admitted", async || {
        let (address, mut client) = whom_to_ask(core, via)?;
        let call = client.admit(within(request, ADMIT_TIME));
        answer(&core.inner.peers, ADMIT_TIME, &address, call).await
    })
    .await
    .map(|response| response.role)
}

/// The leader, once this member knows it; before that the member it joined at.
fn whom_to_ask(core: &Core, via: &str) -> Result<(String, MemberServiceClient<PeerChannel>), Refusal> {
    let leader = core.inner.leadership.borrow().remote_leader().map(|(id, node)| (id, node.address.clone()));
    match leader {
        Some((id, address)) if id != core.node_id() => {
            let client = core.inner.peers.member(id, &address)?;
            Ok((address, client))
        }
        _ => Ok((via.to_owned(), core.inner.peers.stranger(via)?)),
    }
}

async fn answer<T>(
    peers: &Peers,
    time: Duration,
    address: &str,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(time, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if status.code() == Code::Unimplemented && refusal_in(&status).is_none() => {
            Err(no_member(peers, address).await)
        }
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => {
            let message = format!("{address} did not answer within {} s", time.as_secs());
            Err(Refusal::new(Class::Unavailable, "UNREACHABLE", message))
        }
    }
}

/// Something answers that knows no joins.
async fn no_member(peers: &Peers, address: &str) -> Refusal {
    let what = if is_worker(peers, address).await { "a worker" } else { "something that is no member of sdm" };
    Refusal::new(
        Class::Invalid,
        "NOT_A_MEMBER",
        format!("--join: {what} answers at {address}, and only members take joins"),
    )
    .hint("give the address of a member: `sdm member list` shows them; a worker's own is not one")
}

/// Whether a worker's services are there.
async fn is_worker(peers: &Peers, address: &str) -> bool {
    let Ok(channel) = channel(peers.transport(), address) else { return false };
    let service = transfer_service_server::SERVICE_NAME.to_owned();
    let asked = async move { HealthClient::new(channel).check(HealthCheckRequest { service }).await };
    matches!(tokio::time::timeout(ASK_TIME, asked).await, Ok(Ok(_)))
}

/// Whether the same question may be answered later.
fn may_change(refusal: &Refusal) -> bool {
    matches!(refusal.class, Class::Unavailable | Class::Timeout | Class::Aborted | Class::Internal)
}

async fn until_answered<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, Refusal>) -> Result<T, MemberError> {
    let mut pause = RETRY_FIRST;
    let mut said: Option<(Instant, String)> = None;
    loop {
        let refusal = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(refusal) if may_change(&refusal) => refusal,
            Err(refusal) => return Err(MemberError::Refused(refusal)),
        };
        // The operator shall see why it waits, whenever he looks, and not each try.
        let is_news = said.as_ref().is_none_or(|(at, last)| *last != refusal.reason || at.elapsed() >= SAY_AGAIN);
        if is_news {
            tracing::warn!(reason = refusal.reason, "cannot {what} yet, trying on: {refusal}");
            said = Some((Instant::now(), refusal.reason));
        }
        // Members that were started together shall not ask together for ever.
        let jitter = f64::from(rand::random::<u8>()) / 512.0;
        tokio::time::sleep(pause.mul_f64(0.75 + jitter)).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_member_that_stops_sends_elsewhere() {
        let refusal = |reason: &str| {
            Refusal::new(Class::Unavailable, reason, "")
                .blocker("member", "a", "does not answer")
                .blocker(ASK_THERE, "b:7400", "member b")
        };
        assert_eq!(elsewhere(&refusal("MEMBER_STOPPING")).as_deref(), Some("b:7400"));
        assert_eq!(elsewhere(&refusal("NO_QUORUM")), None);
        assert_eq!(elsewhere(&Refusal::new(Class::Unavailable, "MEMBER_STOPPING", "")), None);
    }
}
