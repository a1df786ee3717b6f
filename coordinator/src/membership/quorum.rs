//! Whether a set of voters can go on: pure, so that each refusal is a test.

use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_raft_store::NodeId;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Who answers, and why the others do not.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// Everybody by name.
    pub names: BTreeMap<NodeId, String>,
    /// Why a member does not answer. Who is not in it answers.
    pub silent: BTreeMap<NodeId, String>,
}

impl Reach {
    fn name(&self, id: NodeId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("member {id}"))
    }

    fn list(&self, ids: &[NodeId]) -> String {
        let names: Vec<String> = ids.iter().map(|id| self.name(*id)).collect();
        names.join(", ")
    }

    pub fn answers(&self, id: NodeId) -> bool {
        !self.silent.contains_key(&id)
    }
}

/// Refuses a change after which these voters had no majority that answers. `doing`: "removing c".
pub(super) fn keep_majority(doing: &str, voters: &BTreeSet<NodeId>, reach: &Reach) -> Result<(), Refusal> {
    if voters.is_empty() {
        let message = format!("{doing} would leave no voter: a cluster has at least one");
        return Err(Refusal::new(Class::Precondition, "LAST_VOTER", message).hint(
            "join another member first (`sdm coordinator --join`), or `sdm member replace` this one with a learner",
        ));
    }
    let (answering, silent): (Vec<NodeId>, Vec<NodeId>) = voters.iter().partition(|id| reach.answers(**id));
    let needed = voters.len() / 2 + 1;
    if answering.len() >= needed {
        return Ok(());
    }
    let who = if answering.is_empty() { "nobody".to_owned() } else { reach.list(&answering) };
    let message = format!(
        "{doing} would leave {} voters, of which {} answer ({who}) and {} do not ({}): a majority is {needed}",
        voters.len(),
        answering.len(),
        silent.len(),
        reach.list(&silent),
    );
    let mut refusal = Refusal::new(Class::Precondition, "QUORUM_WOULD_BE_LOST", message).hint(format!(
        "start {} first; what is lost for good is removed first (`sdm member remove`), and where the majority itself is lost, `sdm backup restore` makes a new cluster",
        reach.list(&silent)
    ));
    for id in silent {
        let why = reach.silent.get(&id).cloned().unwrap_or_default();
        refusal = refusal.blocker("member", reach.name(id), format!("does not answer: {why}"));
    }
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(silent: &[NodeId]) -> Reach {
        let names = ["a", "b", "c", "d", "e"].iter().zip(1..).map(|(name, id)| (id, (*name).to_owned())).collect();
        Reach { names, silent: silent.iter().map(|id| (*id, "Connection refused".to_owned())).collect() }
    }

    fn left(voters: &[NodeId], silent: &[NodeId]) -> Result<(), Refusal> {
        keep_majority("removing c", &voters.iter().copied().collect(), &reach(silent))
    }

    #[test]
    fn a_majority_of_those_that_stay_must_answer() {
        assert_eq!(left(&[1, 2], &[]), Ok(()));
        assert_eq!(left(&[1, 2, 3], &[2]), Ok(()));
        assert_eq!(left(&[1], &[]), Ok(()));
        let refusal = left(&[1, 2], &[2]).unwrap_err();
        assert_eq!(refusal.reason, "QUORUM_WOULD_BE_LOST");
        assert_eq!(
            refusal.message,
            "removing c would leave 2 voters, of which 1 answer (a) and 1 do not (b): a majority is 2"
        );
        assert_eq!(refusal.blockers.len(), 1);
        assert!(refusal.hint.contains("start b first") && refusal.hint.contains("sdm backup restore"), "{refusal}");
        assert!(left(&[1, 2, 3, 4], &[3, 4]).is_err(), "half is no majority");
    }

    #[test]
    fn the_last_voter_stays() {
        assert_eq!(left(&[], &[]).unwrap_err().reason, "LAST_VOTER");
    }
}
