//! The lock table. A request names its whole lock set; it is granted all at once and kept to the
//! end, never extended. It waits only for holders and for earlier waiters whose modes conflict with
//! its own: no deadlock, no starvation, and no convoy behind one hung domain.

use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// How a resource is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// Means to read something beneath.
    IntentShared,
    /// Means to change something beneath.
    IntentExclusive,
    /// Reads.
    Shared,
    /// Changes.
    Exclusive,
}

impl Mode {
    /// Whether two owners may hold the resource in these modes together.
    #[must_use]
    pub fn agrees_with(self, other: Self) -> bool {
        use Mode::Exclusive;
        use Mode::IntentExclusive;
        use Mode::Shared;
        !matches!(
            (self, other),
            (Exclusive, _) | (_, Exclusive) | (IntentExclusive, Shared) | (Shared, IntentExclusive)
        )
    }

    /// The weakest mode that allows what both allow (IX and S make X: there is no SIX here).
    #[must_use]
    pub fn joined_with(self, other: Self) -> Self {
        use Mode::Exclusive;
        use Mode::IntentExclusive;
        use Mode::Shared;
        match (self, other) {
            (IntentExclusive, Shared) | (Shared, IntentExclusive) => Exclusive,
            (a, b) => a.max(b),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IntentShared => "IS",
            Self::IntentExclusive => "IX",
            Self::Shared => "S",
            Self::Exclusive => "X",
        })
    }
}

/// What can be locked. Volumes are locked through their disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Resource {
    /// A storage domain.
    Domain(DomainId),
    /// A disk.
    Disk(DiskId),
    /// A name that is being given ("disk/web-01", "domain/nfs2", "path//srv/a").
    Name(String),
    /// Whatever users choose.
    User(String),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(id) => write!(f, "domain/{id}"),
            Self::Disk(id) => write!(f, "disk/{id}"),
            Self::Name(name) => write!(f, "name/{name}"),
            Self::User(name) => write!(f, "user/{name}"),
        }
    }
}

/// Who holds a lock set or waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owner {
    /// A client's session.
    Session(u64),
    /// A transaction.
    Txn(TxnId),
}

/// A lock set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockSet {
    /// Index of the entry that asked: also its place in every queue.
    pub id: u64,
    /// Whose.
    pub owner: Owner,
    /// The whole set, joined per resource.
    pub resources: BTreeMap<Resource, Mode>,
    /// What for, in words.
    pub why: String,
    /// When it was asked for, on the cluster's clock.
    pub asked_ms: u64,
    /// Until when it waits.
    pub deadline_ms: u64,
    /// Set once it is held.
    pub granted: Option<Granted>,
    /// The transaction that runs under it, where it is a session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<TxnId>,
}

/// That a lock set is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Fencing token.
    pub token: Token,
    /// Since when.
    pub at_ms: u64,
}

/// Joins what is asked for per resource.
pub fn joined(resources: impl IntoIterator<Item = (Resource, Mode)>) -> BTreeMap<Resource, Mode> {
    let mut set: BTreeMap<Resource, Mode> = BTreeMap::new();
    for (resource, mode) in resources {
        set.entry(resource).and_modify(|have| *have = have.joined_with(mode)).or_insert(mode);
    }
    set
}

/// Blockers that a refusal names: it is kept with the transaction, and its details must fit the headers of an answer.
pub const BLOCKERS_SHOWN: usize = 8;

/// Resources of a lock set that a sentence names.
const RESOURCES_SHOWN: usize = 3;

impl LockSet {
    /// The resources in words: never more than a few.
    #[must_use]
    pub fn resource_words(&self) -> String {
        resource_words(self.resources.keys())
    }
}

/// Resources in words: never more than a few.
pub fn resource_words<'a>(resources: impl ExactSizeIterator<Item = &'a Resource>) -> String {
    let more = resources.len().saturating_sub(RESOURCES_SHOWN);
    let mut words: Vec<String> = resources.take(RESOURCES_SHOWN).map(Resource::to_string).collect();
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

/// A resource whose waiters were not all looked at when a lock on it was released: one entry does only so
/// much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    /// Which.
    pub resource: Resource,
    /// Id of the first lock set that was not looked at.
    pub from: u64,
    /// Another lock on it was released meanwhile: the look begins again when it is over.
    pub again: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mode::Exclusive as X;
    use Mode::IntentExclusive as IX;
    use Mode::IntentShared as IS;
    use Mode::Shared as S;

    #[test]
    fn modes_agree_as_in_the_textbook_and_symmetrically() {
        let agreeing = [(IS, IS), (IS, IX), (IS, S), (IX, IX), (S, S)];
        for a in [IS, IX, S, X] {
            for b in [IS, IX, S, X] {
                let expected = agreeing.contains(&(a, b)) || agreeing.contains(&(b, a));
                assert_eq!(a.agrees_with(b), expected, "{a} with {b}");
            }
        }
    }

    #[test]
    fn a_joined_mode_conflicts_with_whatever_either_conflicted_with() {
        for a in [IS, IX, S, X] {
            for b in [IS, IX, S, X] {
                for other in [IS, IX, S, X] {
                    let joined = a.joined_with(b);
                    assert!(
                        !joined.agrees_with(other) || (a.agrees_with(other) && b.agrees_with(other)),
                        "{a}+{b}={joined}"
                    );
                }
            }
        }
        assert_eq!(IX.joined_with(S), X);
    }
}
