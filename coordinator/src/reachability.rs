//! Who answers: every other member is asked at once what it is. Status shows it, and a refusal for
//! want of a quorum names who is missing.

use crate::core::Core;
use crate::peers::within;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::wire::internal::v1::PingRequest;
use sdm_proto::wire::internal::v1::PingResponse;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a member may take to answer: it does nothing but look at itself.
pub(crate) const PING_TIME: Duration = Duration::from_secs(1);

/// Many requests fail at the same moment when the quorum is lost: they share what one of them saw.
const RECENT: Duration = Duration::from_secs(1);

/// What another member answered.
#[derive(Clone, Debug)]
pub(crate) struct Ping {
    pub id: NodeId,
    pub node: MemberNode,
    pub answer: Result<PingResponse, Refusal>,
}

/// A verdict counts as old news within this time after it ...
const LOST_LATELY: Duration = Duration::from_secs(2);

/// ... when whoever got it had waited at least this long, longer than an election, or when it only
/// confirmed an earlier one.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// How long the next request is held then. A command asks twice or more, and its user shall not wait
/// anew each time. A leader that is found meanwhile is asked all the same.
const HELD_WHEN_LOST: Duration = Duration::from_millis(1500);

fn is_lately(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < LOST_LATELY
}

/// What was seen last.
#[derive(Debug, Default)]
pub(crate) struct Reachability {
    last: Mutex<Option<(Instant, Arc<Vec<Ping>>)>>,
    /// When somebody found out, after a long wait, that no majority can be reached.
    lost: std::sync::Mutex<Option<Instant>>,
    /// How often connections to the leader were refused here while the others still had it.
    refused_alone: AtomicU64,
}

impl Reachability {
    /// Connections to the leader are refused here, and no majority has lost it.
    pub fn is_refused_alone(&self) {
        self.refused_alone.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was found out.
    pub fn refused_alone(&self) -> u64 {
        self.refused_alone.load(Ordering::Relaxed)
    }

    fn judged(&self, lost: bool, waited: Duration, now: Instant) {
        let mut known = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let confirmed = known.is_some_and(|at| is_lately(at, now));
        if !lost || waited >= LOST_AFTER || confirmed {
            *known = lost.then_some(now);
        }
    }

    /// Until when a request with this deadline is held while nobody leads.
    pub fn held_until(&self, deadline: Instant, now: Instant) -> Instant {
        let lost = *self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match lost.filter(|at| is_lately(*at, now)) {
            Some(_) => deadline.min(now + HELD_WHEN_LOST),
            None => deadline,
        }
    }

    /// Asks everyone, unless that was done a moment ago.
    pub async fn recent(&self, core: &Core, time: Duration) -> Arc<Vec<Ping>> {
        let mut last = self.last.lock().await;
        if let Some((at, pings)) = last.as_ref().filter(|(at, _)| at.elapsed() < RECENT) {
            tracing::trace!(age = ?at.elapsed(), "reachability is recent");
            return Arc::clone(pings);
        }
        let pings = Arc::new(ping_all(core, time).await);
        *last = Some((Instant::now(), Arc::clone(&pings)));
        pings
    }
}

/// Everyone who belongs to the cluster, this member left out: Raft's membership, and those that
/// were given an id and are not in it yet.
pub(crate) fn others(core: &Core) -> BTreeMap<NodeId, MemberNode> {
    let view = core.view();
    let joined = view
        .state
        .members
        .values()
        .map(|member| (member.id, MemberNode { name: member.name.to_string(), address: member.address.clone() }));
    let joined: BTreeMap<NodeId, MemberNode> = joined.collect();
    let leadership = core.inner.leadership.borrow();
    let mut all: BTreeMap<NodeId, MemberNode> =
        leadership.seats.iter().map(|(id, seat)| (*id, seat.node.clone())).collect();
    // A member that moved says so in its row first.
    all.extend(joined);
    all.remove(&core.node_id());
    all
}

/// Asks everyone at once.
pub(crate) async fn ping_all(core: &Core, time: Duration) -> Vec<Ping> {
    let asked = others(core).into_iter().map(|(id, node)| async move {
        let answer = ping(core, id, &node.address, 0, time).await;
        Ping { id, node, answer }
    });
    futures_util::future::join_all(asked).await
}

/// Whether another member has lost that leader too. One that does not answer in time has not.
pub(crate) async fn has_lost(core: &Core, id: NodeId, node: &MemberNode, leader: NodeId, time: Duration) -> bool {
    ping(core, id, &node.address, leader, time).await.is_ok_and(|answer| answer.leader_lost)
}

/// `leader`: whom to ask about besides, or 0.
async fn ping(core: &Core, id: NodeId, address: &str, leader: NodeId, time: Duration) -> Result<PingResponse, Refusal> {
    let mut client = core.inner.peers.member(id, address)?;
    match tokio::time::timeout(time, client.ping(within(PingRequest { leader }, time))).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => {
            let message = format!("{address} did not answer within {} ms", time.as_millis());
            Err(Refusal::new(Class::Unavailable, "UNREACHABLE", message))
        }
    }
}

/// A member by its name, and by the id that other messages call it by.
fn named(name: &str, id: NodeId) -> String {
    format!("{name} (id {id})")
}

/// The refusal for want of a leader that a quorum follows. `last` is what the last try met.
pub(crate) async fn no_quorum(core: &Core, waited: Duration, last: Option<&Refusal>, time: Duration) -> Refusal {
    let pings = core.inner.reachability.recent(core, time).await;
    let leadership = core.inner.leadership.borrow().clone();
    let votes = |id: NodeId| leadership.seats.get(&id).is_some_and(|seat| seat.voter);
    let voters = leadership.seats.values().filter(|seat| seat.voter).count();
    let (answered, silent): (Vec<&Ping>, Vec<&Ping>) =
        pings.iter().filter(|ping| votes(ping.id)).partition(|ping| ping.answer.is_ok());
    let reached = answered.len() + usize::from(votes(core.node_id()));
    let needed = voters / 2 + 1;
    let names: Vec<String> = silent.iter().map(|ping| named(&ping.node.name, ping.id)).collect();
    let who = if names.is_empty() { String::new() } else { format!(", but not {}", names.join(", ")) };
    let last_known = leadership.leader.zip(leadership.leader_name());
    let last_known = last_known.map_or_else(|| "nobody".to_owned(), |(id, name)| named(name, id));
    let why = last.map_or_else(String::new, |last| format!("; the last try met: {}", last.message));
    let message = format!(
        "no leader that a majority follows within {:.1} s: member {} reaches {reached} of {voters} voters, itself included{who} (the last leader known is {last_known}{why})",
        waited.as_secs_f64(),
        named(core.member_name().as_str(), core.node_id()),
    );
    core.inner.reachability.judged(reached < needed, waited, Instant::now());
    let mut refusal = Refusal::new(Class::Unavailable, "NO_QUORUM", message).hint(format!(
        "a majority of the voters ({needed} of {voters}) must run and reach each other: start the members named, or mend the network; `sdm status` shows who answers",
    ));
    for ping in pings.iter() {
        if let Err(error) = &ping.answer {
            refusal = refusal.blocker(
                "member",
                ping.node.name.clone(),
                format!("id {}, at {}: {}", ping.id, ping.node.address, error.message),
            );
        }
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_again_right_after_a_long_wait_in_vain_does_not_wait_as_long_again() {
        let reachability = Reachability::default();
        let now = Instant::now();
        let deadline = now + Duration::from_secs(60);
        reachability.judged(true, Duration::from_secs(3), now);
        assert_eq!(reachability.held_until(deadline, now), deadline, "an election may take as long");
        reachability.judged(true, LOST_AFTER, now);
        assert_eq!(reachability.held_until(deadline, now), now + HELD_WHEN_LOST);
        assert_eq!(reachability.held_until(now, now), now);
        let later = now + LOST_LATELY / 2;
        reachability.judged(true, HELD_WHEN_LOST, later);
        assert_eq!(reachability.held_until(deadline, now + LOST_LATELY), now + LOST_LATELY + HELD_WHEN_LOST);
        let later = later + LOST_LATELY;
        assert_eq!(reachability.held_until(deadline, later), deadline);
        reachability.judged(true, LOST_AFTER, later);
        reachability.judged(false, LOST_AFTER, later);
        assert_eq!(reachability.held_until(deadline, later), deadline, "a majority is reached again");
    }
}
