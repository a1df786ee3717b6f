//! What a leader finishes by itself: a change of the membership whose leader died in the middle, a seat
//! that was given to a member while it was removed, and a member that moved to another address. Each
//! look plans from what is committed; a plan that could not be done is made anew at the next look.

use super::Picture;
use crate::core::Core;
use crate::propose::write_here;
use openraft::ChangeMembers;
use sdm_proto::refusal::Refusal;
use sdm_raft_store::LeaderId;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use sdm_state::Command;
use sdm_state::State;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two looks. Nothing here is urgent: the cluster works meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// One thing to finish.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Repair {
    /// End a joint configuration.
    Settle,
    /// Remove the row of a member that is out of Raft's membership. It had a seat, else it would not
    /// have reported a start: it is not one that is about to join.
    DropRow(NodeId),
    /// Take the seat of a member that was removed: its admission and its removal crossed. Nobody takes
    /// calls of it any more, so as a voter it would only count against the majority.
    DropSeat(NodeId),
    /// Its row has another address than its seat.
    Move(NodeId, MemberNode),
}

fn plan(picture: &Picture, applied: &Picture, state: &State) -> Option<Repair> {
    if picture.joint {
        return Some(Repair::Settle);
    }
    let seated = |id: &NodeId| picture.nodes.contains_key(id) || applied.nodes.contains_key(id);
    let gone = state.members.values().find(|row| row.starts > 0 && !seated(&row.id));
    if let Some(row) = gone {
        return Some(Repair::DropRow(row.id));
    }
    // An id that the state does not know yet is none that was removed.
    if let Some(id) = picture.nodes.keys().find(|id| state.was_removed(**id)) {
        return Some(Repair::DropSeat(*id));
    }
    state.members.values().find_map(|row| {
        let seat = picture.nodes.get(&row.id)?;
        let node = MemberNode { address: row.address.clone(), ..seat.clone() };
        (node != *seat).then_some(Repair::Move(row.id, node))
    })
}

async fn execute(core: &Core, own: LeaderId, picture: &Picture, repair: Repair) -> Result<(), Refusal> {
    match repair {
        Repair::Settle => picture.settle(core).await.map(|_| ()),
        Repair::DropRow(id) => {
            tracing::info!(member = id, "its removal is finished");
            write_here(core, own, Command::RemoveMember { id }, rand::random()).await?;
            Ok(())
        }
        Repair::DropSeat(id) => {
            tracing::info!(member = id, "it was removed, and its seat goes, too");
            let one = BTreeSet::from([id]);
            let votes = picture.voters.contains(&id);
            let out = if votes { ChangeMembers::RemoveVoters(one) } else { ChangeMembers::RemoveNodes(one) };
            picture.change(core, out).await
        }
        Repair::Move(id, node) => {
            tracing::info!(member = id, name = node.name, address = node.address, "it is reached elsewhere now");
            picture.change(core, ChangeMembers::SetNodes(BTreeMap::from([(id, node)]))).await
        }
    }
}

/// Runs until the member closes; works while it leads.
pub(crate) async fn run(core: Core) {
    let mut leadership = core.inner.leadership.clone();
    let keep = async {
        while leadership.wait_for(|now| now.own.is_some()).await.is_ok() {
            tokio::time::sleep(LOOK_EVERY).await;
            look(&core).await;
        }
    };
    tokio::select! {
        () = keep => {}
        () = core.closing().cancelled() => {}
    }
}

async fn look(core: &Core) {
    // Whoever changes something now finishes it himself.
    let Ok(_alone) = core.inner.membership.try_lock() else { return };
    let Some(own) = core.inner.leadership.borrow().own else { return };
    let view = core.view();
    // Rows are those of this leadership at least.
    if view.applied.is_none_or(|at| at.leader_id != own) {
        return;
    }
    let picture = Picture::now(core);
    let Some(repair) = plan(&picture, &Picture::from(&view.membership), &view.state) else { return };
    if let Err(refusal) = execute(core, own, &picture, repair.clone()).await {
        tracing::debug!(?repair, %refusal, "to be tried again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_state::Reply;
    use sdm_state::command::AddMember;

    fn node(name: &str, address: &str) -> MemberNode {
        MemberNode { name: name.to_owned(), address: address.to_owned() }
    }

    #[test]
    fn what_a_dead_leader_left_is_finished_and_a_joining_member_is_left_alone() {
        let mut sample = Sample::new();
        let founder = sample.state.members.get(&1).expect("the founder").clone();
        let seat = node(founder.name.as_str(), &founder.address);
        let mut picture = Picture::default();
        picture.nodes.insert(1, seat.clone());
        picture.voters.insert(1);
        let at_rest = picture.clone();
        assert_eq!(plan(&picture, &picture, &sample.state), None);

        picture.joint = true;
        assert_eq!(plan(&picture, &at_rest, &sample.state), Some(Repair::Settle));

        sample.apply(Command::ReportMember { id: 1, version: String::new(), feature_level_max: 2 });
        sample.apply(Command::RaiseFeatureLevel { level: 2 });
        // No start was reported: it may be about to get its seat.
        let empty = Picture::default();
        assert_eq!(plan(&empty, &empty, &sample.state), None);
        sample.apply(Command::ReportStart { id: 1, starts: 1, address: founder.address.clone() });
        assert_eq!(plan(&empty, &empty, &sample.state), Some(Repair::DropRow(1)));
        assert_eq!(plan(&empty, &at_rest, &sample.state), None, "its going is not committed yet");
        assert_eq!(plan(&at_rest, &at_rest, &sample.state), None);

        sample.apply(Command::ReportStart { id: 1, starts: 2, address: "moved:1".to_owned() });
        let moved = Repair::Move(1, node(founder.name.as_str(), "moved:1"));
        assert_eq!(plan(&at_rest, &at_rest, &sample.state), Some(moved));
    }

    #[test]
    fn the_seat_of_a_member_that_was_removed_is_taken_and_that_of_a_later_one_is_not() {
        let mut sample = Sample::new();
        sample.apply(Command::ReportMember { id: 1, version: String::new(), feature_level_max: 2 });
        sample.apply(Command::RaiseFeatureLevel { level: 2 });
        let add = Command::AddMember(AddMember {
            name: "m2".parse().unwrap(),
            address: "m2:1".to_owned(),
            incarnation: "2".to_owned(),
            version: String::new(),
            feature_level_max: 2,
        });
        let Reply::Member(id) = sample.apply(add) else { panic!("it gets an id") };
        let founder = &sample.state.members.get(&1).expect("the founder").address;
        let mut picture = Picture::default();
        picture.nodes = [(1, node("m1", founder)), (id, node("m2", "m2:1"))].into();
        picture.voters = [1].into();
        assert_eq!(plan(&picture, &picture, &sample.state), None);
        sample.apply(Command::RemoveMember { id });
        assert_eq!(plan(&picture, &picture, &sample.state), Some(Repair::DropSeat(id)));
        picture.nodes.remove(&id);
        // Its row is in an entry that is not applied here yet.
        picture.nodes.insert(id + 1_000, node("m3", "m3:1"));
        assert_eq!(plan(&picture, &picture, &sample.state), None);
    }
}
