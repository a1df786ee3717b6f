//! Handing the leadership to a named successor, so that nobody waits for an election timeout.

use crate::core::Core;
use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use sdm_raft_store::NodeId;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long handing over may take: one vote round and a heartbeat.
const HAND_OVER_TIME: Duration = Duration::from_secs(2);

/// A successor must have answered a heartbeat within this time.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// How many entries a successor may lack when it is named: a busy cluster has so many on their way at
/// any moment, and they arrive within a fraction of an election timeout. Nothing is written until the
/// successor has them.
pub(super) const LAG_ENTRIES_MAX: u64 = 1_000;

/// The other voter that answered a moment ago and has the most of the log, if this member leads. None
/// when all of them are far behind.
pub(crate) fn successor(core: &Core) -> Option<NodeId> {
    core.inner.leadership.borrow().own?;
    let metrics = core.inner.raft.metrics();
    let metrics = metrics.borrow_watched();
    let voters: BTreeSet<NodeId> = metrics.membership_config.membership().voter_ids().collect();
    let heard = |id: &NodeId| {
        let acked = metrics.heartbeat.as_ref().and_then(|all| all.get(id)?.as_ref());
        acked.is_some_and(|at| at.elapsed() < HEARD_WITHIN)
    };
    let followers = metrics.replication.iter().flatten();
    let fit = followers.filter(|(id, _)| **id != metrics.id && voters.contains(id) && heard(id));
    let last = metrics.last_log_index.unwrap_or_default();
    let fit = fit.filter(|(_, matched)| matched.is_some_and(|at| at.index + LAG_ENTRIES_MAX >= last));
    fit.max_by_key(|(_, matched)| matched.map(|at| at.index)).map(|(id, _)| *id)
}

/// Has this member lead from now on; true when it does. It must not be far behind: a transfer is never
/// taken back. From here on this leader takes no more writes and sends no heartbeats, so when the
/// successor does not stand in time, the cluster waits until the others elect.
pub(crate) async fn transfer(core: &Core, to: NodeId) -> bool {
    tracing::info!(successor = to, "handing over the leadership");
    let mut leadership = core.inner.leadership.clone();
    if core.inner.raft.trigger().transfer_leader(to).await.is_err() {
        return false;
    }
    let over = leadership.wait_for(|now| now.own.is_none() && now.leader == Some(to));
    let handed = matches!(tokio::time::timeout(HAND_OVER_TIME, over).await, Ok(Ok(_)));
    tracing::info!(successor = to, handed, "the leadership");
    handed
}
