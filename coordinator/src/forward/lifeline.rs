//! The lifeline: every member that follows holds a line to the leader, also when it has nothing to
//! forward. When the leader's process ends, however it ends, the kernel of its host breaks the line
//! and refuses new connections, milliseconds later and long before Raft's timers run out. Then this
//! member asks the other voters whether they have lost the leader too. When a majority has, it no
//! longer counts on the leader's lease, and asks for votes.
//!
//! A member is not asked to see this in one moment: on a host that is busy, its own look or another's
//! answer may come too late. It looks again for as long as the leader that it had a line to refuses it
//! and nobody else leads, and stands again when votes were split.
//!
//! One member alone may be wrong: a firewall or a proxy refuses in the name of a leader that lives.
//! The lease that it gave up would not come back while the leader leads on, so that it would take part
//! in deposing it ever after; hence the question. Raft is safe whenever elections are held. A host that
//! loses power, or a network that drops packets, refuses nothing: those are found out by the timers,
//! as ever.

use crate::core::Core;
use crate::reachability;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::time::Instant;

/// A process that dies closes its connections one after the other, and its port among them: it is
/// tried so often, with this pause.
const PROBES: u32 = 10;
const PROBE_PAUSE: Duration = Duration::from_millis(15);

/// How long one probe may take: a port that is closed refuses within a round trip.
const PROBE_TIME: Duration = Duration::from_millis(300);

/// How long another member may take to say whether it has lost the leader, and for its own probe: when
/// asked about a leader that is gone it is answered within a round trip.
const ANSWER_TIME: Duration = Duration::from_millis(200);
const ANSWER_PROBE_TIME: Duration = Duration::from_millis(100);

/// For how long the others are asked when a line broke, and the pause before they are asked again: they
/// lose the leader within the same milliseconds, but not at once. Whoever was alone asks once a look.
const ASKING_TIME: Duration = Duration::from_secs(1);
const ASKING_PAUSE: Duration = Duration::from_millis(25);

/// The members stand for election one after the other, in the order of their ids, so that their votes
/// are not split. The first has the majority by then, unless its log is behind.
const TURN: Duration = Duration::from_millis(80);

/// Pause before this member asks again: those that had not yet seen the leader's end have by then.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How often it asks. After that it looks again.
const ASKED_MAX: u32 = 5;

/// What a vote takes, some syncs of a disk and a round trip: before, it is not called split. Doubled each
/// time, and drawn up to twice as long, so that members that stood together do not stand together again.
const VOTE_TIME: Duration = Duration::from_millis(250);

/// For how long after it stood a member stands again by itself. After that Raft's own timers go on.
const CANDIDACY: Duration = Duration::from_secs(10);

/// Pause before a line that broke is opened again, and its leader looked at.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// Runs until the member closes.
pub(crate) async fn run(core: Core) {
    let mut leadership = core.inner.leadership.clone();
    let watch = async {
        let mut stood = None;
        loop {
            let known = leadership.borrow_and_update().clone();
            let changed = leadership.wait_for(|now| now.term != known.term || !now.has_same_leader(&known));
            let remote = known.remote_leader().filter(|(id, _)| *id != core.node_id());
            let hold = async {
                match remote {
                    Some((id, node)) => hold(&core, id, node, &mut stood).await,
                    None => {
                        core.inner.lines.close();
                        if let Some(stood) = stood.filter(|_| known.leader.is_none()) {
                            stand_again(&core, stood).await;
                        }
                        std::future::pending().await
                    }
                }
            };
            tokio::select! {
                () = hold => {}
                changed = changed => if changed.is_err() { return },
            }
        }
    };
    tokio::select! {
        () = watch => {}
        () = core.closing().cancelled() => {}
    }
    core.inner.lines.close();
}

/// Holds a line to this leader, and acts when it breaks for good. Dropped when somebody else leads.
/// `stood`: when this member stood for election last.
async fn hold(core: &Core, id: NodeId, node: &MemberNode, stood: &mut Option<Instant>) {
    let (mut alone, mut said) = (false, false);
    loop {
        // Only a line that was open tells something by its end: where it never was, the leader may be
        // elsewhere.
        let had_line = match core.inner.lines.to(&core.inner.peers, id, &node.address) {
            Ok(line) if line.calls_only() => std::future::pending().await,
            Ok(line) => {
                line.ended().await;
                alone &= !line.was_open();
                line.reached()
            }
            Err(refusal) => {
                tracing::debug!(%refusal, "no line to the leader");
                false
            }
        };
        if had_line && is_gone(core, &node.address).await {
            let asking = if alone { Duration::ZERO } else { ASKING_TIME };
            if is_lost_by_majority(core, id, asking).await {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!(leader = node.name, "the leader's process is gone");
                }
                *stood = Some(Instant::now());
                stand(core, id).await;
            } else if !std::mem::replace(&mut alone, true) {
                core.inner.reachability.is_refused_alone();
                tracing::warn!(
                    leader = node.name,
                    address = node.address,
                    "connections to the leader are refused here, but no majority has lost it: see to the network"
                );
            }
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
}

/// Whether nothing listens there any more, as its host says.
async fn is_gone(core: &Core, address: &str) -> bool {
    for _ in 0..PROBES {
        match tokio::time::timeout(PROBE_TIME, core.transport().connect(address.to_owned())).await {
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return true,
            // Still there, or about to go.
            Ok(Ok(_)) => tokio::time::sleep(PROBE_PAUSE).await,
            _ => return false,
        }
    }
    false
}

/// Whether nothing listens there, by one try.
async fn is_refused(core: &Core, address: &str, time: Duration) -> bool {
    let tried = tokio::time::timeout(time, core.transport().connect(address.to_owned())).await;
    matches!(tried, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}

/// For a member that asks: whether this one has lost that leader. What is so now counts, not what was
/// a heartbeat ago.
pub(crate) async fn has_lost(core: &Core, leader: NodeId) -> bool {
    let address = {
        let leadership = core.inner.leadership.borrow();
        if leadership.leader != Some(leader) {
            return true;
        }
        // None: this member leads itself, or cannot know.
        let Some((_, node)) = leadership.remote_leader() else { return false };
        node.address.clone()
    };
    let line = core.inner.lines.to(&core.inner.peers, leader, &address);
    let holds = line.is_ok_and(|line| line.was_open() && line.ended().now_or_never().is_none());
    !holds && is_refused(core, &address, ANSWER_PROBE_TIME).await
}

/// Whether a majority of the voters has lost this leader, this member included, which has. They are asked
/// once, and again within this time.
async fn is_lost_by_majority(core: &Core, gone: NodeId, time: Duration) -> bool {
    let until = Instant::now() + time;
    loop {
        if ask_whether_lost(core, gone).await {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(ASKING_PAUSE).await;
    }
}

/// Asks the other voters once. Ends with the answer that makes the majority.
async fn ask_whether_lost(core: &Core, gone: NodeId) -> bool {
    let (configs, nodes) = {
        let metrics = core.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let nodes: BTreeMap<NodeId, MemberNode> = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        (membership.get_joint_config().clone(), nodes)
    };
    let mut lost = BTreeSet::from([core.node_id()]);
    let asked = nodes.iter().filter(|(id, _)| **id != gone && **id != core.node_id());
    let asked = asked.filter(|(id, _)| configs.iter().any(|config| config.contains(id)));
    let mut answers: FuturesUnordered<_> = asked
        .map(|(id, node)| async move { (*id, reachability::has_lost(core, *id, node, gone, ANSWER_TIME).await) })
        .collect();
    while !is_majority(&configs, &lost) {
        match answers.next().await {
            Some((id, true)) => _ = lost.insert(id),
            Some((_, false)) => {}
            None => return false,
        }
    }
    true
}

/// Whether these are a majority of each configuration: while the membership changes there are two.
fn is_majority(configs: &[BTreeSet<NodeId>], of: &BTreeSet<NodeId>) -> bool {
    !configs.is_empty() && configs.iter().all(|voters| voters.intersection(of).count() > voters.len() / 2)
}

/// Gives up the lease of a leader that is gone, and stands for election in turn.
async fn stand(core: &Core, gone: NodeId) {
    let raft = &core.inner.raft;
    let vote = raft.server_metrics().borrow_watched().vote;
    if !vote.committed || vote.leader_id.node_id != gone {
        return;
    }
    let turn = {
        let leadership = core.inner.leadership.borrow();
        let voters = leadership.seats.iter().filter(|(id, seat)| seat.voter && **id != gone);
        voters.map(|(id, _)| *id).position(|id| id == core.node_id())
    };
    // A learner waits for the others.
    let Some(turn) = turn.and_then(|turn| u32::try_from(turn).ok()) else { return };
    // Who is named as the successor would stand at once, whatever the others know; named is the one
    // that is gone, so that this only ends the lease here.
    if raft.handle_transfer_leader(TransferLeaderRequest::new(vote, gone, None)).await.is_err() {
        return;
    }
    tokio::time::sleep(TURN * turn).await;
    for _ in 0..ASKED_MAX {
        if raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Nobody leads, and this member stood lately: its votes were split, or lost on the way.
async fn stand_again(core: &Core, stood: Instant) {
    let mut time = VOTE_TIME;
    loop {
        let part = f64::from(rand::random::<u8>()) / f64::from(u8::MAX);
        tokio::time::sleep(time.mul_f64(1.0 + part)).await;
        time *= 2;
        if stood.elapsed() > CANDIDACY || core.inner.raft.trigger().elect(true).await.is_err() {
            return;
        }
        tracing::info!("nobody has a majority yet: it stands for election again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_one_of_each_configuration() {
        let set = |ids: &[NodeId]| ids.iter().copied().collect::<BTreeSet<NodeId>>();
        let three = [set(&[1, 2, 3])];
        assert!(!is_majority(&three, &set(&[3])));
        assert!(is_majority(&three, &set(&[2, 3])));
        assert!(!is_majority(&three, &set(&[3, 4, 5])), "who does not vote does not count");
        assert!(!is_majority(&[set(&[1, 2])], &set(&[2])));
        let joint = [set(&[1, 2, 3]), set(&[3, 4, 5])];
        assert!(!is_majority(&joint, &set(&[2, 3])));
        assert!(is_majority(&joint, &set(&[2, 3, 4])));
        assert!(!is_majority(&[], &set(&[1])));
    }
}
