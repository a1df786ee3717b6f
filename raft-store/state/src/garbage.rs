//! Garbage: names on storage that lost their place in the catalog, with the evidence for it. Once
//! a deletion is assigned nothing restores it.

use crate::catalog::Disk;
use crate::catalog::Placement;
use crate::catalog::Volume;
use crate::state::State;
use crate::work::Work;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::WorkerId;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;

/// Why something is garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Names of an attempt that did not win.
    ClosedAttempt,
    /// A placement that a newer one replaced.
    Superseded,
    /// The placement of a deleted disk.
    Deleted,
    /// Found on storage by an audit: made by an attempt that did not win, and forgotten.
    Orphan,
}

impl Kind {
    /// As users read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ClosedAttempt => "closed-attempt",
            Self::Superseded => "superseded",
            Self::Deleted => "deleted",
            Self::Orphan => "orphan",
        }
    }

    /// All of them, as users write them.
    pub const ALL: [Self; 4] = [Self::ClosedAttempt, Self::Superseded, Self::Deleted, Self::Orphan];
}

/// Where the names are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The domain. When `whole_domain` is set, one that never came to be.
    pub domain: DomainId,
    /// The domain's path.
    pub path: String,
    /// Whether the path need not be a mount point.
    pub local: bool,
    /// The names are of the domain's own folder, beneath `path`.
    pub whole_domain: bool,
}

/// Garbage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Garbage {
    /// Its id.
    pub id: Token,
    /// Why.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// Published name, if it can have one.
    pub placement: Option<PlacementId>,
    /// The attempt that made the names: the dot name derives from it, and the published folder
    /// must carry it.
    pub made_by: Token,
    /// The cluster whose names these are; None: this one. Set when the cluster is restored from a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// Of which transaction.
    pub txn: TxnId,
    /// In words.
    pub evidence: String,
    /// Bytes it frees, as far as known.
    pub bytes: u64,
    /// Since when, and from when it may be deleted, on the cluster's clock.
    pub since_ms: u64,
    /// From when it may be deleted.
    pub due_ms: u64,
    /// Its deletions; doomed once one was assigned.
    pub work: Work,
    /// What a restore puts back, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash: Option<Box<Trashed>>,
    /// Nothing deletes it while this is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Hold>,
    /// The first deletion that was assigned: from then on nothing restores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doomed: Option<Doomed>,
    /// Of a whole domain: a deletion found it, proved it and emptied it. What is left is an empty folder under the
    /// deletion's own name, by which a repetition knew that it was there; the next attempt takes that away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emptied: bool,
}

/// A deleted disk as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trashed {
    /// Its row.
    pub disk: Disk,
    /// Of its whole chain, root first; some may be other disks' as well.
    pub volumes: Vec<Volume>,
    /// Where it lay, and lies.
    pub placement: Placement,
}

/// That garbage is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Why, in words.
    pub reason: String,
    /// Who said so, for people.
    pub by: String,
    /// The transaction in which it was said.
    pub txn: TxnId,
    /// When, on the cluster's clock.
    pub since_ms: u64,
}

/// That a deletion was assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doomed {
    /// When, on the cluster's clock.
    pub at_ms: u64,
    /// To whom.
    pub worker: WorkerId,
}

impl State {
    /// Garbage in a domain, and of a domain's own folder, by rising id.
    pub fn garbage_in(&self, domain: DomainId) -> impl Iterator<Item = &Garbage> + '_ {
        let from = (domain, Token::default());
        let own = self.index.garbage_in.range(from..).take_while(move |(of, _)| *of == domain);
        own.filter_map(|(_, id)| self.garbage.get(id))
    }

    /// Whether there is garbage of what an attempt made.
    pub(crate) fn has_garbage_of(&self, maker: Token) -> bool {
        let mut own = self.index.garbage_by_maker.range((maker, Token::default())..);
        own.next().is_some_and(|(of, _)| *of == maker)
    }
}

impl Garbage {
    /// Whether it is the folder of a domain that was deleted: it goes in two attempts.
    #[must_use]
    pub fn is_deleted_domain(&self) -> bool {
        self.place.whole_domain && self.kind == Kind::Deleted
    }

    /// Whether a deletion was assigned, now or before.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.doomed.is_some() || self.work.attempts > 0
    }
}
