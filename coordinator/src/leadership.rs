//! Who leads, as this member knows it: openraft's server metrics in the few words that the rest of
//! the member needs. A leader that died stays "known" until another one is elected: who wants to
//! be sure asks a quorum (`read`).

use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use sdm_raft_store::LeaderId;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use sdm_raft_store::Raft;
use sdm_raft_store::TypeConfig;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use tokio::sync::watch;

/// One member in Raft's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Its name and address.
    pub node: MemberNode,
    /// Whether it votes; else it is a learner.
    pub voter: bool,
}

/// Who leads whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// The term that this member has seen last.
    pub term: u64,
    /// The leader that this member knows.
    pub leader: Option<NodeId>,
    /// This member's own leadership, if it leads.
    pub own: Option<LeaderId>,
    /// Everyone in the membership, this member included once it is one.
    pub seats: BTreeMap<NodeId, Seat>,
    /// The sets of voters, of each of which a majority is needed: two while the voters change.
    pub voters: Vec<BTreeSet<NodeId>>,
}

impl Leadership {
    fn of(metrics: &RaftServerMetrics<TypeConfig>) -> Self {
        let vote = &metrics.vote;
        let leads = metrics.state.is_leader() && vote.committed && vote.leader_id.node_id == metrics.id;
        let membership = metrics.membership_config.membership();
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let seat = |(id, node): (&NodeId, &MemberNode)| (*id, Seat { node: node.clone(), voter: voters.contains(id) });
        Self {
            term: vote.leader_id.term,
            leader: metrics.current_leader,
            own: leads.then_some(vote.leader_id),
            seats: membership.nodes().map(seat).collect(),
            voters: membership.get_joint_config().clone(),
        }
    }

    /// Address of the leader, unless it is this member or its address is unknown.
    pub fn remote_leader(&self) -> Option<(NodeId, &MemberNode)> {
        let id = self.leader.filter(|_| self.own.is_none())?;
        self.seats.get(&id).map(|seat| (id, &seat.node))
    }

    /// Whether the same member leads here, at the same place. A member that joins hears of its leader before
    /// it knows from the log where that one is.
    pub fn has_same_leader(&self, other: &Self) -> bool {
        (self.leader, self.own) == (other.leader, other.own) && self.remote_leader() == other.remote_leader()
    }

    /// The leader's name, for people.
    pub fn leader_name(&self) -> Option<&str> {
        self.seats.get(&self.leader?).map(|seat| seat.node.name.as_str())
    }
}

/// Starts to watch. The task ends with Raft, which drops the channel's sender.
pub(crate) fn watch_leadership(
    raft: &Raft,
) -> (watch::Receiver<Leadership>, impl Future<Output = ()> + Send + 'static) {
    let mut metrics = raft.server_metrics();
    let (sender, receiver) = watch::channel(Leadership::of(&metrics.borrow_watched()));
    let follow = async move {
        loop {
            let now = Leadership::of(&metrics.borrow_and_update());
            sender.send_if_modified(|known| {
                if (known.leader, known.own) != (now.leader, now.own) {
                    let name = now.leader_name().unwrap_or("nobody");
                    tracing::info!(term = now.term, leader = name, own = now.own.is_some(), "leadership");
                }
                let changed = *known != now;
                *known = now;
                changed
            });
            if metrics.changed().await.is_err() {
                return;
            }
        }
    };
    (receiver, follow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_whose_place_is_learned_later_is_another_one() {
        let heard = Leadership { term: 3, leader: Some(1), ..Leadership::default() };
        let node = |address: &str| MemberNode { name: "a".to_owned(), address: address.to_owned() };
        let at = |address: &str| {
            let seats = BTreeMap::from([(1, Seat { node: node(address), voter: true })]);
            Leadership { seats, ..heard.clone() }
        };
        assert!(!at("a:1").has_same_leader(&heard));
        assert!(!at("b:1").has_same_leader(&at("a:1")), "it moved");
        let mut grown = at("a:1");
        grown.seats.insert(2, Seat { node: node("c:1"), voter: false });
        assert!(grown.has_same_leader(&at("a:1")), "whoever else belongs to the cluster");
    }
}
