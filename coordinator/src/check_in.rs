//! Whether this process is still the member that its folder says, asked of the others: before it votes
//! or takes entries, and now and then while it runs. A member that was removed stops; so does one
//! whose folder is an old copy, because what it acknowledged since is missing in it.
//!
//! What the others know: how often the folder was started (in their state, and in the entries of their
//! logs that are not applied yet); a leader also how far the member's log was durable. A restart waits
//! for so many of them that, with itself, they are a majority (while the voters change: of the old ones
//! and of the new ones): with fewer it could do nothing anyway.
//! What only members that are away know, nobody can say: an old copy whose last start was reported to
//! them alone is taken for the real one.

use crate::core::Core;
use crate::peers::within;
use crate::reachability;
use crate::route::report_time;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::async_runtime::WatchReceiver;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::wire::internal::v1::CheckInRequest;
use sdm_proto::wire::internal::v1::CheckInResponse;
use sdm_raft_store::LeaderId;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use sdm_state::Command;
use sdm_state::Reply;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long one member may take to answer: it does little more than look at itself.
const ASK_TIME: Duration = Duration::from_secs(1);

/// How long those that did not answer yet are waited for when enough have: the more are heard the better.
const LATE_TIME: Duration = Duration::from_millis(200);

/// Pause before all are asked again, doubled each time ...
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// ... up to this: members that are started together shall not wait for each other's pauses.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A wait that lasts is told again after this long.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Between two looks of a member that runs ...
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// ... and of one that has no seat any more.
const LOOK_SOON: Duration = Duration::from_millis(300);

/// How long a report may take.
const REPORT_TIME: Duration = Duration::from_secs(4);

/// Refusals that mean that this process must not go on.
const DECISIVE: [&str; 2] = [REMOVED_MEMBER, OLD_COPY];

/// What members say to one that was removed.
pub(crate) const REMOVED_MEMBER: &str = "REMOVED_MEMBER";

const OLD_COPY: &str = "OLD_COPY";

/// What a member says to one of another cluster.
const WRONG_CLUSTER: &str = "WRONG_CLUSTER";

/// What a member says of itself when it checks in.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Drawn when its folder became a member.
    pub incarnation: String,
    /// Where the others reach it.
    pub address: String,
    /// This start's number; until it takes part, that of the start before.
    pub starts: AtomicU64,
    /// What its folder held when it started.
    pub begin: Begin,
}

/// What a folder held when its process started.
#[derive(Debug, Default)]
pub(crate) struct Begin {
    /// Index of the last entry; None: there was none, and no snapshot.
    pub log_end: Option<u64>,
    /// Whom it had voted for, and in which term.
    pub vote: Option<LeaderId>,
    /// Starts of members in entries that were not applied yet.
    pub unapplied_starts: BTreeMap<NodeId, u64>,
}

fn request(core: &Core, is_start: bool) -> CheckInRequest {
    let standing = &core.inner.standing;
    let vote = standing.begin.vote;
    CheckInRequest {
        node_id: core.node_id(),
        incarnation: standing.incarnation.clone(),
        starts: standing.starts.load(Ordering::Acquire),
        address: standing.address.clone(),
        // Of a log that grows meanwhile it says nothing.
        last_index: if is_start { standing.begin.log_end.unwrap_or_default() } else { u64::MAX },
        term: vote.map_or(0, |vote| vote.term),
        vote_node_id: vote.map_or(0, |vote| vote.node_id),
    }
}

/// Waits until enough of the others know nothing against this process. `via`: one more to ask.
///
/// # Errors
/// `REMOVED_MEMBER`, `OLD_COPY`: it must not go on.
pub(crate) async fn before_voting(core: &Core, via: Option<&str>) -> Result<(), Refusal> {
    let mut pause = RETRY_FIRST;
    let mut said: Option<Instant> = None;
    if core.inner.standing.begin.log_end.is_some() {
        // Raft tells of the membership in its log a moment after it began.
        _ = core.inner.leadership.clone().wait_for(|now| !now.seats.is_empty()).await;
    }
    loop {
        let voters = core.inner.leadership.borrow().voters.clone();
        let answered = ask_all(core, via, &voters).await?;
        if are_enough(core.node_id(), &voters, &answered) {
            return Ok(());
        }
        if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            tracing::warn!(
                ?answered,
                ?voters,
                "waiting for other members: they know whether this folder is the one used last"
            );
            said = Some(Instant::now());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Whether a voter and those that answered it are a majority of each set of voters. Asked for more than
/// Raft needs, members that could elect would wait for one that is gone. A learner hears one voter.
fn are_enough(own: NodeId, voters: &[BTreeSet<NodeId>], answered: &BTreeSet<NodeId>) -> bool {
    if voters.iter().any(|set| set.contains(&own)) {
        let heard = |set: &BTreeSet<NodeId>| set.iter().filter(|id| **id == own || answered.contains(id)).count();
        voters.iter().all(|set| heard(set) > set.len() / 2)
    } else {
        voters.iter().all(BTreeSet::is_empty) || voters.iter().any(|set| !set.is_disjoint(answered))
    }
}

/// The others that know nothing against it.
async fn ask_all(core: &Core, via: Option<&str>, voters: &[BTreeSet<NodeId>]) -> Result<BTreeSet<NodeId>, Refusal> {
    let request = request(core, true);
    let others = reachability::others(core).into_iter().map(|(id, node)| (Some(id), node.address));
    let asked = others.chain(via.map(|via| (None, via.to_owned())));
    let asking = |(id, address)| {
        let request = request.clone();
        async move { (id, ask(core, id, address, request).await) }
    };
    let mut asked: FuturesUnordered<_> = asked.map(asking).collect();
    let mut answered = BTreeSet::new();
    // What the operator named may belong to somebody else: that is waited for.
    let mut via_is_open = via.is_some();
    let enough = !via_is_open && are_enough(core.node_id(), voters, &answered);
    let mut until = Instant::now() + if enough { LATE_TIME } else { ASK_TIME };
    while let Ok(Some((asked_id, answer))) = tokio::time::timeout_at(until, asked.next()).await {
        via_is_open &= asked_id.is_some();
        match answer {
            Ok(id) => answered.extend(id),
            Err(refusal) if DECISIVE.contains(&refusal.reason.as_str()) => return Err(refusal),
            Err(refusal) if asked_id.is_none() && refusal.reason == WRONG_CLUSTER => {
                return Err(of_another_cluster(via.unwrap_or_default(), &refusal));
            }
            Err(refusal) => tracing::debug!(%refusal, "no answer to the check-in"),
        }
        if !via_is_open && are_enough(core.node_id(), voters, &answered) {
            until = until.min(Instant::now() + LATE_TIME);
        }
    }
    Ok(answered)
}

/// The folder is a member's, and `--join` names a member of another cluster: one of them is a mistake.
fn of_another_cluster(via: &str, theirs: &Refusal) -> Refusal {
    let message =
        format!("the data folder holds a member of another cluster than the one to join at {via}: {}", theirs.message);
    Refusal::new(Class::Precondition, WRONG_CLUSTER, message).hint(
        "to go on as the member that the folder holds, leave out --join or name one of its own cluster; to join the \
         other cluster, give a new or an empty --data-dir",
    )
}

/// Asks one; answers with who it was.
async fn ask(
    core: &Core,
    id: Option<NodeId>,
    address: String,
    request: CheckInRequest,
) -> Result<Option<NodeId>, Refusal> {
    let mut client = match id {
        Some(id) => core.inner.peers.member(id, &address)?,
        None => core.inner.peers.stranger(&address)?,
    };
    match tokio::time::timeout(ASK_TIME, client.check_in(within(request, ASK_TIME))).await {
        Ok(Ok(answer)) => {
            let answer = answer.into_inner();
            // It may be the only way to hear where the leader is now.
            Ok(Some(answer.node_id))
        }
        // An earlier build: it knows of no starts.
        Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => Ok(id),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => {
            let message = format!("{address} did not answer within {} ms", ASK_TIME.as_millis());
            Err(Refusal::new(Class::Unavailable, "UNREACHABLE", message))
        }
    }
}

fn old_copy(core: &Core, id: NodeId, why: &str) -> Refusal {
    let name = core.view().state.members.get(&id).map_or_else(|| format!("member {id}"), |row| row.name.to_string());
    let message = format!("the data folder of {name} is an old copy: {why}");
    Refusal::new(Class::Precondition, OLD_COPY, message).hint(format!(
        "start it on the folder that it used last; if that is lost: `sdm member remove {name}`, then start it on an empty folder with --join"
    ))
}

/// This member's answer to another one.
///
/// # Errors
/// What that one must not go on for. (The guard in front has refused it if it was removed.)
pub(crate) async fn answer(core: &Core, request: &CheckInRequest) -> Result<CheckInResponse, Refusal> {
    let id = request.node_id;
    let view = core.view();
    let row = view.state.members.get(&id);
    if let Some(row) = row.filter(|row| row.incarnation != request.incarnation) {
        return Err(old_copy(core, id, &format!("it was made as another folder of member {id}, at {}", row.address)));
    }
    let applied = row.map_or(0, |row| row.starts);
    let unapplied = core.inner.standing.begin.unapplied_starts.get(&id).copied().unwrap_or_default();
    let known = applied.max(unapplied);
    if known > request.starts {
        let why = format!("it was started {} times, and the cluster knows of {known} starts", request.starts);
        return Err(old_copy(core, id, &why));
    }
    refuse_short_log(core, request)?;
    let moved = row.is_some_and(|row| row.address != request.address) && !request.address.is_empty();
    if !request.address.is_empty() {
        core.inner.peers.found_at(id, &request.address);
    }
    if moved {
        // It may not be heard by the leader before that knows the new address.
        let command = Command::ReportStart { id, starts: known, address: request.address.clone() };
        if view.state.check_feature_level(&command).is_ok() {
            let core = core.clone();
            tokio::spawn(async move {
                let reported = core.propose(command, Instant::now() + REPORT_TIME).await;
                tracing::info!(member = id, reported = reported.is_ok(), "a member is reached elsewhere now");
            });
        }
    }
    let leadership = core.inner.leadership.borrow();
    let leader = leadership.leader.and_then(|id| Some((id, leadership.seats.get(&id)?.node.address.clone())));
    let (leader_id, leader_address) = leader.unwrap_or_default();
    Ok(CheckInResponse { node_id: core.node_id(), leader_id, leader_address })
}

/// A leader knows how far another log was durable.
fn refuse_short_log(core: &Core, request: &CheckInRequest) -> Result<(), Refusal> {
    let id = request.node_id;
    if let Some(lost) = core.inner.peers.acknowledgements().reverted(id) {
        return Err(old_copy(core, id, &format!("its log had entry {lost}, and has it no more")));
    }
    let Some(own) = core.inner.leadership.borrow().own else { return Ok(()) };
    let matched = core.inner.raft.data_metrics().borrow_watched().replication.as_ref().and_then(|all| *all.get(&id)?);
    match matched.map(|matched| matched.index).filter(|matched| is_short(own, *matched, request)) {
        Some(matched) => {
            let why = format!("its log ends at entry {}, and it had acknowledged {matched}", request.last_index);
            Err(old_copy(core, id, &why))
        }
        None => Ok(()),
    }
}

/// Whether a log lacks what it acknowledged to this leadership. Only a later leadership may have cut it
/// since, and there may be several in one term.
fn is_short(own: LeaderId, acknowledged: u64, request: &CheckInRequest) -> bool {
    let voted = LeaderId { term: request.term, node_id: request.vote_node_id };
    acknowledged > request.last_index && voted <= own
}

/// Looks now and then whether this process is still a member, and tells the cluster of its start and its
/// address. Returns when it must not go on.
pub(crate) async fn stay(core: &Core) -> Refusal {
    let mut leadership = core.inner.leadership.clone();
    let mut turn = 0;
    loop {
        report(core).await;
        let others = reachability::others(core);
        let asked: Option<(NodeId, MemberNode)> = others.into_iter().nth(turn);
        turn = if asked.is_some() { turn + 1 } else { 0 };
        if let Some((id, node)) = asked {
            match ask(core, Some(id), node.address, request(core, false)).await {
                Err(refusal) if DECISIVE.contains(&refusal.reason.as_str()) => return refusal,
                Err(refusal) => tracing::debug!(%refusal, "no answer to the check-in"),
                Ok(_) => {}
            }
        }
        let own = core.node_id();
        if leadership.borrow().seats.contains_key(&own) {
            let unseated = leadership.wait_for(|now| !now.seats.contains_key(&own));
            // Whether the time is over or the seat is gone: it looks again.
            _ = tokio::time::timeout(LOOK_EVERY, unseated).await;
        } else {
            tokio::time::sleep(LOOK_SOON).await;
        }
    }
}

/// Tells the cluster what it does not know yet. Only with a seat that is committed: a start that was
/// reported means that there was one.
async fn report(core: &Core) {
    let standing = &core.inner.standing;
    let starts = standing.starts.load(Ordering::Acquire);
    let view = core.view();
    let Some(row) = view.state.members.get(&core.node_id()) else { return };
    let seated = view.membership.membership().get_node(&core.node_id()).is_some();
    if !seated || row.starts > starts || (row.starts == starts && row.address == standing.address) {
        return;
    }
    let command = Command::ReportStart { id: core.node_id(), starts, address: standing.address.clone() };
    if view.state.check_feature_level(&command).is_err() {
        return;
    }
    let deadline = Instant::now() + REPORT_TIME;
    let proposing = core.propose(command, deadline - report_time(deadline));
    match proposing.await.map(|proposed| proposed.reply) {
        Ok(Reply::Refused(refusal)) | Err(refusal) => tracing::debug!(%refusal, "this start is not reported yet"),
        Ok(_) => tracing::info!(start = starts, address = standing.address, "the cluster knows this start"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enough(own: NodeId, voters: &[&[NodeId]], answered: &[NodeId]) -> bool {
        let set = |ids: &[NodeId]| ids.iter().copied().collect();
        are_enough(own, &voters.iter().map(|ids| set(ids)).collect::<Vec<_>>(), &set(answered))
    }

    #[test]
    fn a_voter_hears_enough_others_to_be_a_majority_with_them() {
        assert!(enough(1, &[&[1]], &[]));
        assert!(!enough(1, &[&[1, 2]], &[]));
        assert!(enough(1, &[&[1, 2]], &[2]));
        assert!(!enough(1, &[&[1, 2, 3]], &[]));
        assert!(enough(1, &[&[1, 2, 3]], &[3]));
        assert!(!enough(1, &[&[1, 2, 3]], &[9]), "a learner knows less");
        assert!(!enough(1, &[&[1, 2, 3, 4]], &[2]), "half is no majority");
        assert!(enough(1, &[&[1, 2, 3, 4, 5]], &[2, 3]));
    }

    #[test]
    fn a_learner_hears_one_voter() {
        assert!(enough(9, &[], &[]), "it knows of nobody yet");
        assert!(!enough(9, &[&[1, 2, 3]], &[8]));
        assert!(enough(9, &[&[1, 2, 3]], &[2]));
    }

    #[test]
    fn while_the_voters_change_it_hears_a_majority_of_the_old_and_of_the_new_ones_and_no_more() {
        // 3 is replaced with 4, and both are away.
        let replacing: &[&[NodeId]] = &[&[1, 2, 3], &[1, 2, 4]];
        assert!(enough(1, replacing, &[2]));
        assert!(!enough(1, replacing, &[]));
        assert!(!enough(1, replacing, &[3]), "a majority of the old ones alone");
        assert!(enough(1, replacing, &[3, 4]));
        // Who leaves counts among the old ones only.
        assert!(!enough(3, replacing, &[1]));
        assert!(enough(3, replacing, &[1, 2]));
        assert!(!enough(1, &[&[1], &[1, 2, 3]], &[]), "alone no more");
    }

    #[test]
    fn only_a_later_leadership_may_have_cut_a_log() {
        let own = LeaderId { term: 5, node_id: 2 };
        let ends_at = |last_index, term, vote_node_id| CheckInRequest {
            last_index,
            term,
            vote_node_id,
            ..CheckInRequest::default()
        };
        assert!(is_short(own, 80, &ends_at(79, 5, 2)));
        assert!(!is_short(own, 80, &ends_at(80, 5, 2)));
        assert!(is_short(own, 80, &ends_at(79, 5, 1)), "an earlier leadership of the same term");
        assert!(!is_short(own, 80, &ends_at(79, 5, 3)), "a later leadership of the same term");
        assert!(!is_short(own, 80, &ends_at(79, 6, 1)));
        assert!(is_short(own, 80, &ends_at(79, 5, 0)), "an earlier build names nobody");
    }
}
