//! What users have done about garbage: trash that comes back or goes for good, rows that are held,
//! plans of a collection that are made, looked at and carried out as they stand, orphans that an audit
//! found. Each is a transaction without work for a worker: its first entry decides it.

use crate::garbage::Kind;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::names::Name;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;

/// Orphans, or rows of trash, that one order names at most: it stays far below the largest command.
pub const NAMED_MAX: usize = 256;

/// Longest retention: longer ones are meant as "for ever", for which there is `hold`.
pub const RETENTION_MAX_MS: u64 = 3_650 * 24 * 3_600_000;

/// An order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GarbageOrder {
    /// A deleted disk back, as it was.
    RestoreDisk {
        /// Its garbage.
        garbage: Token,
        /// Its new name; None: the one that it had.
        name: Option<Name>,
    },
    /// Trash away before its retention is over.
    PurgeTrash {
        /// Which; at most `NAMED_MAX`.
        garbage: Vec<Token>,
    },
    /// Nothing deletes it until it is given free.
    Hold {
        /// Which.
        garbage: Token,
        /// Why, in words.
        reason: String,
    },
    /// Gives it free.
    Unhold {
        /// Which.
        garbage: Token,
    },
    /// Writes down what would be deleted, row by row.
    PlanCollection {
        /// Only in this domain.
        domain: Option<DomainId>,
        /// Only of this kind.
        kind: Option<Kind>,
        /// Trash as well whose retention is not over.
        trash: bool,
    },
    /// Has deleted what a plan names.
    ApplyPlan {
        /// The plan.
        plan: u64,
        /// Do the rest where some rows are not what they were; else nothing is done then.
        skip_changed: bool,
    },
    /// What an audit found on storage and nobody owns becomes garbage.
    AdoptOrphans {
        /// Where.
        domain: DomainId,
        /// Which; at most `NAMED_MAX`.
        orphans: Vec<Orphan>,
    },
    /// How long deleted disks of a domain can be restored.
    SetRetention {
        /// The domain.
        domain: DomainId,
        /// In milliseconds; None: what the cluster's settings say.
        retention_ms: Option<u64>,
    },
}

/// Names on storage that an attempt made which did not win.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Orphan {
    /// The attempt's: both names derive from it.
    pub token: Token,
    /// Its transaction, as the mark in the folder says; None where there is no mark yet.
    pub txn: Option<TxnId>,
    /// Bytes that lie there, as far as known.
    pub bytes: u64,
    /// What was seen, in words.
    pub evidence: String,
}

impl GarbageOrder {
    /// The kind as users read it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RestoreDisk { .. } => "trash-restore",
            Self::PurgeTrash { .. } => "trash-purge",
            Self::Hold { .. } => "gc-hold",
            Self::Unhold { .. } => "gc-unhold",
            Self::PlanCollection { .. } => "gc-plan",
            Self::ApplyPlan { .. } => "gc-apply",
            Self::AdoptOrphans { .. } => "gc-audit",
            Self::SetRetention { .. } => "domain-set",
        }
    }
}
