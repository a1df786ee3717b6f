//! The lifeline: every member that follows holds a line to the leader, also when it has nothing to
//! forward. When the leader's process ends, however it ends, the kernel of its host breaks the line
//! and refuses new connections, milliseconds later and long before Raft's timers run out. Then this
//! member no longer counts on the leader's lease, and asks the others, who saw the same, for their
//! votes.
//!
//! Nothing is risked by a wrong conclusion. The election begins with a pre-vote, which every member
//! refuses that still hears from the leader, and changes nothing then; and Raft is safe whenever
//! elections are held. A host that loses power, or a network that drops packets, refuses nothing:
//! those are found out by the timers, as ever.

use crate::core::Core;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use std::io::ErrorKind;
use std::time::Duration;

/// A process that dies closes its connections one after the other, and its port among them: it is
/// tried so often, with this pause.
const PROBES: u32 = 10;
const PROBE_PAUSE: Duration = Duration::from_millis(15);

/// How long one probe may take: a port that is closed refuses within a round trip.
const PROBE_TIME: Duration = Duration::from_millis(300);

/// The members stand for election one after the other, in the order of their ids, so that their votes
/// are not split. The first has the majority by then, unless its log is behind.
const TURN: Duration = Duration::from_millis(80);

/// Pause before this member asks again: those that had not yet seen the leader's end have by then.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How often it asks. After that Raft's own timers go on.
const ASKED_MAX: u32 = 5;

/// Pause before a line that broke is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// Runs until the member closes.
pub(crate) async fn run(core: Core) {
    let mut leadership = core.inner.leadership.clone();
    let watch = async {
        loop {
            let known = leadership.borrow_and_update().clone();
            let changed =
                leadership.wait_for(|now| (now.leader, now.own, now.term) != (known.leader, known.own, known.term));
            let remote = known.remote_leader().filter(|(id, _)| *id != core.node_id());
            let hold = async {
                match remote {
                    Some((id, node)) => hold(&core, id, node).await,
                    None => {
                        core.inner.lines.close();
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
async fn hold(core: &Core, id: NodeId, node: &MemberNode) {
    loop {
        // Only a line that was open tells something by its end: where it never was, the leader may be
        // elsewhere.
        let broke = match core.inner.lines.to(&core.inner.peers, id, &node.address) {
            Ok(line) if line.calls_only() => std::future::pending().await,
            Ok(line) => {
                line.ended().await;
                line.was_open()
            }
            Err(refusal) => {
                tracing::debug!(%refusal, "no line to the leader");
                false
            }
        };
        if broke && is_gone(core, &node.address).await {
            tracing::info!(leader = node.name, "the leader's process is gone");
            stand(core, id).await;
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

/// Gives up the lease of a leader that is gone, and stands for election in turn.
async fn stand(core: &Core, gone: NodeId) {
    let raft = &core.inner.raft;
    let vote = raft.server_metrics().borrow_watched().vote;
    if !vote.committed || vote.leader_id.node_id != gone {
        return;
    }
    // Who is named as the successor would stand at once, whatever the others know; named is the one
    // that is gone, so that this only ends the lease here.
    if raft.handle_transfer_leader(TransferLeaderRequest::new(vote, gone, None)).await.is_err() {
        return;
    }
    let turn = {
        let leadership = core.inner.leadership.borrow();
        let voters = leadership.seats.iter().filter(|(id, seat)| seat.voter && **id != gone);
        voters.map(|(id, _)| *id).position(|id| id == core.node_id())
    };
    // A learner waits for the others.
    let Some(turn) = turn.and_then(|turn| u32::try_from(turn).ok()) else { return };
    tokio::time::sleep(TURN * turn).await;
    for _ in 0..ASKED_MAX {
        if raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
