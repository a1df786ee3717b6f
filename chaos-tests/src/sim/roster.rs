//! Who is a member of the simulated cluster, as far as whoever changes the membership was told, and which machines are to
//! run one. A member's process is not started again by itself: its machine looks here.

use super::plan::Plan;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// The machines for members, and what is known of each.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// Members of the cluster.
    pub members: BTreeSet<String>,
    /// Machines that are to run one, and through whom it joins; None: as the founder, or through the founder.
    pub running: BTreeMap<String, Option<String>>,
    /// Members whose removal was asked for: their processes may end by themselves.
    pub leaving: BTreeSet<String>,
    /// Members whose disk fails: their processes may end by themselves.
    pub sick: BTreeSet<String>,
}

impl Roster {
    /// At the start: the first so many.
    pub fn new(plan: &Plan) -> Self {
        let members: BTreeSet<String> = plan.member_names().into_iter().take(plan.members).collect();
        let running = members.iter().map(|name| (name.clone(), None)).collect();
        Self { members, running, ..Self::default() }
    }

    /// A machine that runs no member and is to run none.
    pub fn spare(&self, plan: &Plan) -> Option<String> {
        plan.member_names().into_iter().find(|name| !self.members.contains(name) && !self.running.contains_key(name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Workload;
    use super::*;

    #[test]
    fn a_machine_is_spare_once_its_member_was_removed_and_its_process_has_ended() {
        let plan = Plan { members: 3, spares: 0, ..Plan::draw(1, Workload::Locks) };
        let mut roster = Roster::new(&plan);
        assert_eq!(roster.spare(&plan), None);
        roster.members.remove("m2");
        assert_eq!(roster.spare(&plan), None, "its process still runs");
        roster.running.remove("m2");
        assert_eq!(roster.spare(&plan).as_deref(), Some("m2"));
    }
}
