//! Admission of a joined process into Raft's membership: a learner first, then, when it has caught
//! up, a voter. Done by the leader; asked again after any failure, it goes on where it was.

use crate::core::Core;
use crate::membership::Picture;
use crate::membership::refusal_of;
use crate::peers::within;
use crate::route::Attempt;
use crate::route::Leader;
use crate::route::at_leader;
use crate::route::not_leader;
use crate::route::stopping;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1::AdmitRequest;
use sdm_raft_store::LeaderId;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use sdm_state::State;
use sdm_state::members::Member;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How long one request may take at the leader: less than its asker waits.
const ADMIT_TIME: Duration = Duration::from_secs(50);

/// How long one request waits for the newcomer to catch up.
const CATCH_UP_TIME: Duration = Duration::from_secs(40);

/// Reason of the refusal when that was not long enough.
pub(crate) const NOT_CAUGHT_UP: &str = "NOT_CAUGHT_UP";

/// How far a learner may lag behind the leader and count as caught up: what the cluster replicates
/// within a moment. A voter that lags more would hold up every commit that needs it.
pub(crate) const LAG_ENTRIES_MAX: u64 = 100;

/// Admits a member. `forwarded`: another member sent this here, so here or nowhere.
///
/// # Errors
/// MEMBER_NOT_FOUND; NOT_LEADER or NO_QUORUM, to be tried again.
pub(crate) async fn admit(
    core: &Core,
    id: NodeId,
    stay_learner: bool,
    forwarded: bool,
) -> Result<&'static str, Refusal> {
    let deadline = Instant::now() + ADMIT_TIME;
    at_leader(core, deadline, |leader| async move {
        match leader {
            Leader::Here(own) => match admit_here(core, own, id, stay_learner).await {
                Ok(role) => Attempt::Done(role),
                // The asker shall hear why it waits, and asks again.
                Err(refusal) if refusal.reason == NOT_CAUGHT_UP => Attempt::Refused(refusal),
                Err(refusal) => Attempt::of_refusal(refusal),
            },
            Leader::There(..) if forwarded => Attempt::Refused(not_leader(core)),
            Leader::There(leader, node) => {
                let mut client = match core.inner.peers.member(leader, &node.address) {
                    Ok(client) => client,
                    Err(refusal) => return Attempt::Again(refusal),
                };
                let left = deadline.saturating_duration_since(Instant::now());
                let answer = client.admit(within(AdmitRequest { node_id: id, stay_learner }, left)).await;
                Attempt::of_call(answer).map(|answer| if answer.role == "voter" { "voter" } else { "learner" })
            }
        }
    })
    .await
}

async fn admit_here(core: &Core, leader: LeaderId, id: NodeId, stay_learner: bool) -> Result<&'static str, Refusal> {
    // Before this leadership's first entry is applied, the row may not be here yet.
    core.inner.stopwatch.started(leader).await;
    {
        let _alone = core.inner.membership.lock().await;
        refuse_lost_leadership(core, leader)?;
        let (node, stay_learner) = {
            let view = core.view();
            let row = joined(&view.state, id)?;
            (MemberNode { name: row.name.to_string(), address: row.address.clone() }, stay_learner || row.learner)
        };
        let picture = Picture::now(core);
        if !picture.nodes.contains_key(&id) {
            tracing::info!(member = id, name = node.name, address = node.address, "admitting a learner");
            core.inner.raft.add_learner(id, node, false).await.map_err(|error| refusal_of(core, error))?;
        }
        if stay_learner && !picture.voters.contains(&id) {
            return Ok("learner");
        }
    }
    caught_up(core, id, LAG_ENTRIES_MAX, CATCH_UP_TIME).await?;
    let _alone = core.inner.membership.lock().await;
    refuse_lost_leadership(core, leader)?;
    // It may have been removed meanwhile: a seat that nobody's row belongs to would vote for ever.
    joined(&core.view().state, id)?;
    let picture = Picture::now(core);
    // Of a voter this only finishes a change that an earlier leader left half done.
    if !picture.voters.contains(&id) || picture.joint {
        tracing::info!(member = id, "the learner has caught up and becomes a voter");
        picture.change(core, ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await?;
    }
    Ok("voter")
}

/// Who leads anew after somebody else did may not have applied yet what that one removed.
fn refuse_lost_leadership(core: &Core, leader: LeaderId) -> Result<(), Refusal> {
    if core.inner.leadership.borrow().own == Some(leader) { Ok(()) } else { Err(not_leader(core)) }
}

/// The row that a member got when it joined. A removal takes it away, so it holds only as long as no
/// change of the membership can come between.
fn joined(state: &State, id: NodeId) -> Result<&Member, Refusal> {
    state.members.get(&id).ok_or_else(|| {
        Refusal::new(Class::NotFound, "MEMBER_NOT_FOUND", format!("there is no member {id}"))
            .hint("it never joined this cluster, or was removed: use an empty data folder and --join")
    })
}

/// Waits until the member has the leader's log but for so many entries.
///
/// # Errors
/// NOT_CAUGHT_UP after this time; NOT_LEADER.
pub(crate) async fn caught_up(core: &Core, id: NodeId, lag_max: u64, time: Duration) -> Result<(), Refusal> {
    let wait = core.inner.raft.wait(None);
    let near = wait.metrics(
        |metrics| {
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).cloned().flatten());
            let last = metrics.last_log_index.unwrap_or_default();
            !metrics.state.is_leader() || matched.is_some_and(|at| at.index + lag_max >= last)
        },
        "a member has caught up",
    );
    let Ok(near) = tokio::time::timeout(time, near).await else {
        let seat = core.inner.leadership.borrow().seats.get(&id).cloned();
        let (name, address) = seat.map_or_else(Default::default, |seat| (seat.node.name, seat.node.address));
        let metrics = core.inner.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log.map_or(0, |id| id.index);
        let at = metrics.replication.as_ref().and_then(|all| all.get(&id).cloned().flatten()).map_or(0, |id| id.index);
        let message = format!(
            "{name} at {address} lacks {} entries of the log (it has {at} of {last}) and did not catch up within {time:?}",
            last.saturating_sub(at)
        );
        return Err(Refusal::new(Class::Unavailable, NOT_CAUGHT_UP, message).hint(
            "a large state takes a while; if it stays so, see that the members reach that address (--advertise)",
        ));
    };
    match near {
        Ok(metrics) if metrics.state.is_leader() => Ok(()),
        Ok(_) => Err(not_leader(core)),
        Err(_) => Err(stopping(core)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_state::Command;

    #[test]
    fn a_member_that_was_removed_while_it_was_admitted_gets_no_seat() {
        let mut sample = Sample::new();
        sample.apply(Command::ReportMember { id: 1, version: String::new(), feature_level_max: 2 });
        sample.apply(Command::RaiseFeatureLevel { level: 2 });
        assert_eq!(joined(&sample.state, 1).map(|row| row.id), Ok(1));
        sample.apply(Command::RemoveMember { id: 1 });
        let refusal = joined(&sample.state, 1).unwrap_err();
        assert_eq!((refusal.class, refusal.reason.as_str()), (Class::NotFound, "MEMBER_NOT_FOUND"));
    }
}
