//! Linearizable reads on any member: one round confirms with a quorum that the leader still leads
//! and how far the log was committed; when this member has applied that much, its own view
//! answers. Rounds are shared by all readers that wait when one starts. No lease is trusted: a
//! clock that runs wrong costs nothing.

use crate::core::Core;
use crate::peers::within;
use crate::reachability;
use crate::route::Attempt;
use crate::route::Leader;
use crate::route::at_leader;
use crate::route::not_leader;
use crate::route::report_time;
use crate::route::stopping;
use crate::route::unless_ending;
use openraft::errors::LinearizableReadError;
use openraft::errors::RaftError;
use openraft::raft::ReadPolicy;
use sdm_proto::failpoint;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1::ReadIndexRequest;
use sdm_proto::wire::internal::v1::ReadIndexResponse;
use sdm_raft_store::LeaderId;
use sdm_raft_store::LogId;
use sdm_raft_store::NodeId;
use sdm_raft_store::StateView;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one try at a leader may take: a heartbeat round and a hop, with room for a busy disk.
/// A leader that lost its quorum answers by itself after its lease.
const TRY_TIME: Duration = Duration::from_secs(3);

/// See `Core::read`.
pub(crate) async fn read(core: &Core, deadline: Instant) -> Result<Arc<StateView>, Refusal> {
    if failpoint::skips("plant.read-index") {
        return Ok(core.view());
    }
    let begun = Instant::now();
    let at = confirmed(core, deadline).await?;
    let applied = tokio::time::timeout_at(deadline, core.inner.view.wait_applied(at.index));
    match unless_ending(core, applied).await? {
        Ok(view) => Ok(view),
        Err(_) => {
            let own = core.view().applied_index().unwrap_or_default();
            let message = format!(
                "member {} has applied entries up to {own}, the answer needs {}, and {:.1} s were not enough",
                core.member_name(),
                at.index,
                begun.elapsed().as_secs_f64()
            );
            Err(Refusal::new(Class::Timeout, "MEMBER_BEHIND", message).hint("ask another endpoint, or again later"))
        }
    }
}

/// A log id that covers everything committed before this call; its leader led after this call.
pub(crate) async fn confirmed(core: &Core, deadline: Instant) -> Result<LogId, Refusal> {
    let begun = Instant::now();
    let report_time = report_time(deadline);
    match core.inner.reads.ask((), deadline - report_time).await {
        Some(answer) => answer,
        None if core.closing().is_cancelled() => Err(stopping(core)),
        None => Err(reachability::no_quorum(core, begun.elapsed(), None, report_time).await),
    }
}

/// One round, for `rounds::drive`.
pub(crate) async fn round(core: Core, deadline: Instant) -> Result<LogId, Refusal> {
    at_leader(&core, deadline, |leader| {
        let core = &core;
        async move {
            let trying = async {
                match leader {
                    Leader::Here(_) => confirm_here(core).await,
                    Leader::There(id, node) => match core.inner.peers.member(id, &node.address) {
                        Ok(mut client) => {
                            Attempt::of_call(client.read_index(within(ReadIndexRequest {}, TRY_TIME)).await)
                                .map(|response| from_wire(&response))
                        }
                        Err(refusal) => Attempt::Again(refusal),
                    },
                }
            };
            match tokio::time::timeout(TRY_TIME, trying).await {
                Ok(attempt) => attempt,
                Err(_) => Attempt::Again(Refusal::new(
                    Class::Unavailable,
                    "LEADER_SILENT",
                    format!("the leader did not answer within {} s", TRY_TIME.as_secs()),
                )),
            }
        }
    })
    .await
}

async fn confirm_here(core: &Core) -> Attempt<LogId> {
    match core.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Attempt::Done(*linearizer.read_log_id().log_id()),
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(missing))) => {
            Attempt::Again(not_followed(core, &missing.got))
        }
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Attempt::Again(not_leader(core)),
        Err(RaftError::Fatal(_)) => Attempt::Again(stopping(core)),
    }
}

/// This member leads, and too few voters follow.
fn not_followed(core: &Core, followed_by: &BTreeSet<NodeId>) -> Refusal {
    let leadership = core.inner.leadership.borrow();
    let voters: Vec<_> = leadership.seats.iter().filter(|(_, seat)| seat.voter).collect();
    let silent = voters.iter().filter(|(id, _)| **id != core.node_id() && !followed_by.contains(id));
    let silent: Vec<&str> = silent.map(|(_, seat)| seat.node.name.as_str()).collect();
    let message = format!(
        "{} led and has no majority any more: {} of {} voters did not confirm it ({})",
        core.member_name(),
        silent.len(),
        voters.len(),
        silent.join(", ")
    );
    Refusal::new(Class::Unavailable, "NO_QUORUM", message)
}

/// The leader's side of a round that another member asked for. Rounds of its own readers and of
/// other members share heartbeats inside Raft.
pub(crate) async fn confirm_for_peer(core: &Core) -> Result<ReadIndexResponse, Refusal> {
    match tokio::time::timeout(TRY_TIME, confirm_here(core)).await {
        Ok(Attempt::Done(at)) => {
            Ok(ReadIndexResponse { term: at.leader_id.term, node_id: at.leader_id.node_id, index: at.index })
        }
        Ok(Attempt::Again(refusal) | Attempt::Refused(refusal)) => Err(refusal),
        Err(_) => Err(not_leader(core)),
    }
}

fn from_wire(response: &ReadIndexResponse) -> LogId {
    LogId { leader_id: LeaderId { term: response.term, node_id: response.node_id }, index: response.index }
}
