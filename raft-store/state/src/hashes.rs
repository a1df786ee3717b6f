//! Comparing states: after every so many entries `apply` keeps the hash of the state, members enter
//! what they have, and from these rows each member derives whether it is one of those that have
//! parted. Members that apply the same entries have the same state; where they have not (a flipped
//! bit in memory, a defect of a build), nobody must go on deciding from the wrong one.
//!
//! A hash covers the rows of the hashes before it. What parted once stays visible in every later
//! hash, also when the row that was wrong is long gone.

use crate::command::Command;
use crate::state::State;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// How many of the last hashes are kept. A member that lags further behind than this many intervals
/// enters the next ones.
pub const HASHES_KEPT: usize = 8;

/// A state's hash.
pub type Hash = [u8; 32];

/// The state's hash after one entry, and what members entered about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HashPoint {
    /// The entry.
    pub index: u64,
    /// As this very state computed it.
    pub own: Hash,
    /// As members entered it, by their ids.
    pub reports: BTreeMap<u64, Hash>,
}

/// What the entered hashes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No difference is known, or only of a minority to which this state does not belong.
    Agrees,
    /// A majority of the voters has another hash: this state is not to be believed.
    Parted(Parted),
    /// Voters have different hashes, and none of these has a majority: nobody knows which is right.
    Split(Split),
}

/// This state differs from that of the majority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parted {
    /// After which entry.
    pub index: u64,
    /// This state's hash.
    pub own: Hash,
    /// That of the majority.
    pub majority: Hash,
    /// Who has it.
    pub with: Vec<u64>,
}

/// The voters do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// After which entry.
    pub index: u64,
    /// Who has which hash.
    pub hashes: BTreeMap<Hash, Vec<u64>>,
}

impl HashPoint {
    fn judge(&self, voters: &BTreeSet<u64>) -> Verdict {
        let mut hashes: BTreeMap<Hash, Vec<u64>> = BTreeMap::new();
        for (member, hash) in self.reports.iter().filter(|(member, _)| voters.contains(member)) {
            hashes.entry(*hash).or_default().push(*member);
        }
        match hashes.iter().find(|(_, with)| with.len() > voters.len() / 2) {
            Some((majority, _)) if *majority == self.own => Verdict::Agrees,
            Some((majority, with)) => {
                Verdict::Parted(Parted { index: self.index, own: self.own, majority: *majority, with: with.clone() })
            }
            None if hashes.len() > 1 => Verdict::Split(Split { index: self.index, hashes }),
            None => Verdict::Agrees,
        }
    }

    /// Whether a majority of these voters entered what this state has.
    fn has_majority(&self, voters: &BTreeSet<u64>) -> bool {
        let same = self.reports.iter().filter(|(member, hash)| voters.contains(member) && **hash == self.own);
        same.count() > voters.len() / 2
    }

    /// Whether all that was entered is what this state has.
    fn is_unanimous(&self) -> bool {
        self.reports.values().all(|hash| *hash == self.own)
    }
}

impl Command {
    /// Whether it is written also while states are split: what may end that, and decides nothing
    /// from the rows that may be wrong. Not even time passes meanwhile.
    #[must_use]
    pub fn passes_a_split(&self) -> bool {
        matches!(
            self,
            Self::Found(_) | Self::ReportMember { .. } | Self::ReportStateHash { .. } | Self::RemoveMember { .. }
        )
    }
}

impl State {
    /// What the entered hashes say about this state, with these voters. Those of others do not
    /// count: who was removed can no longer be in the way. Costs next to nothing while all agree.
    #[must_use]
    pub fn hash_verdict(&self, voters: impl FnOnce() -> BTreeSet<u64>) -> Verdict {
        if self.hashes.values().all(HashPoint::is_unanimous) {
            return Verdict::Agrees;
        }
        let voters = voters();
        let mut split = None;
        for point in self.hashes.values().rev() {
            match point.judge(&voters) {
                // What parted once stays visible in every later hash: whoever is right here was right
                // before, whatever those entered who have been removed or replaced since.
                Verdict::Agrees if point.has_majority(&voters) => break,
                Verdict::Agrees => {}
                Verdict::Split(found) => {
                    split.get_or_insert(found);
                }
                Verdict::Parted(parted) => return Verdict::Parted(parted),
            }
        }
        split.map_or(Verdict::Agrees, Verdict::Split)
    }

    /// The last hash that members compare, if there is one yet.
    #[must_use]
    pub fn last_hash_point(&self) -> Option<&HashPoint> {
        self.hashes.values().next_back()
    }
}

/// The hash as people see it.
#[must_use]
pub fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Hash = [1; 32];
    const B: Hash = [2; 32];
    const C: Hash = [3; 32];

    fn state(own: Hash, reports: &[(u64, Hash)]) -> State {
        let mut state = State::default();
        state.put_hash_point(HashPoint { index: 64, own, reports: reports.iter().copied().collect() });
        state
    }

    fn verdict(state: &State, voters: &[u64]) -> Verdict {
        state.hash_verdict(|| voters.iter().copied().collect())
    }

    #[test]
    fn the_minority_has_parted_and_the_majority_goes_on() {
        let reports = [(1, A), (2, A), (3, B)];
        assert_eq!(verdict(&state(A, &reports), &[1, 2, 3]), Verdict::Agrees);
        let parted = Verdict::Parted(Parted { index: 64, own: B, majority: A, with: vec![1, 2] });
        assert_eq!(verdict(&state(B, &reports), &[1, 2, 3]), parted);
        assert_eq!(verdict(&state(B, &reports[..2]), &[1, 2, 3]), parted, "its own report is not needed");
    }

    #[test]
    fn without_a_majority_it_is_a_split_until_a_vote_decides_or_a_voter_is_removed() {
        let two = state(A, &[(1, A), (2, B)]);
        let Verdict::Split(split) = verdict(&two, &[1, 2]) else { panic!("not split") };
        assert_eq!(split.hashes, BTreeMap::from([(A, vec![1]), (B, vec![2])]));
        assert_eq!(verdict(&two, &[1]), Verdict::Agrees);
        assert!(matches!(verdict(&two, &[1, 2, 3]), Verdict::Split(_)), "the third may take either side");
        assert!(matches!(verdict(&state(A, &[(1, A), (2, B), (3, C)]), &[1, 2, 3]), Verdict::Split(_)));
        assert!(matches!(verdict(&state(A, &[(1, A), (2, B), (3, A)]), &[1, 2, 3]), Verdict::Agrees));
    }

    #[test]
    fn who_does_not_vote_decides_nothing_and_may_have_parted_all_the_same() {
        let reports = [(1, A), (4, B), (5, B)];
        assert_eq!(verdict(&state(A, &reports), &[1]), Verdict::Agrees);
        assert!(matches!(verdict(&state(B, &reports), &[1]), Verdict::Parted(_)));
    }

    #[test]
    fn a_majority_at_a_later_entry_settles_what_was_before_and_a_minority_does_not() {
        let with = |later: &[(u64, Hash)]| {
            let mut state = state(A, &[(1, A), (2, B)]);
            state.put_hash_point(HashPoint { index: 128, own: C, reports: later.iter().copied().collect() });
            state
        };
        assert!(matches!(verdict(&with(&[(1, C)]), &[1, 2, 3]), Verdict::Split(split) if split.index == 64));
        assert_eq!(verdict(&with(&[(1, C), (3, C)]), &[1, 2, 3]), Verdict::Agrees);
        assert!(matches!(verdict(&with(&[(1, C), (3, B)]), &[1, 2, 3]), Verdict::Split(split) if split.index == 128));
    }

    #[test]
    fn half_of_the_voters_are_no_majority() {
        let reports = [(1, A), (2, A), (3, B), (4, B)];
        assert!(matches!(verdict(&state(A, &reports), &[1, 2, 3, 4]), Verdict::Split(_)));
    }
}
