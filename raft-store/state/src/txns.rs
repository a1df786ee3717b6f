//! Transactions: metadata operations with what they want, where they stand and what happened.
//! Finished ones stay for the window in which their request id is remembered.
//!
//! ```text
//!            locks free                 report of the winning attempt
//! Begin ──────────────▶ Running ──────────────────────────────────────▶ Committed
//!   │  └─▶ Waiting ──────▲   │ refusal, attempts used up, abort, nobody there
//!   │        │               └────────────────────────────────────────▶ Aborted
//!   └────────┴─ not allowed, wait over, changed meanwhile ────────────▶ Refused
//! ```

use crate::catalog::Format;
use crate::work::Work;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Refusal;
use serde::Deserialize;
use serde::Serialize;

/// What a transaction is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Spec {
    /// A new, empty domain.
    CreateDomain {
        /// Its name.
        name: Name,
        /// Where.
        path: String,
        /// Whether the path need not be a mount point.
        local: bool,
    },
    /// A new, empty disk.
    CreateDisk {
        /// Its name.
        name: Name,
        /// Where.
        domain: DomainId,
        /// Virtual size in bytes.
        size: u64,
        /// Of its volume.
        format: Format,
    },
    /// A disk from a file's bytes.
    ImportDisk {
        /// Its name.
        name: Name,
        /// Where.
        domain: DomainId,
        /// Of the file.
        format: Format,
        /// Length of the file.
        file_size: u64,
        /// Bytes of it that are not holes.
        allocated_bytes: u64,
    },
    /// A disk's bytes to a file.
    ExportDisk {
        /// Which.
        disk: DiskId,
    },
    /// A disk to another domain.
    MoveDisk {
        /// Which.
        disk: DiskId,
        /// Where to.
        to: DomainId,
    },
    /// Away with a disk.
    DeleteDisk {
        /// Which.
        disk: DiskId,
    },
    /// Nothing, by way of everything: a lock, a step, a worker that receives and reports it. Shows how
    /// long the cluster takes for the shortest transaction there is.
    Noop {
        /// What it locks, beneath `user/`.
        resource: String,
    },
}

impl Spec {
    /// The kind as users read it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateDomain { .. } => "domain-create",
            Self::CreateDisk { .. } => "disk-create",
            Self::ImportDisk { .. } => "disk-import",
            Self::ExportDisk { .. } => "disk-export",
            Self::MoveDisk { .. } => "disk-move",
            Self::DeleteDisk { .. } => "disk-delete",
            Self::Noop { .. } => "noop",
        }
    }
}

/// Where a transaction stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// For its locks: no marker, reservation, name or job yet.
    Waiting {
        /// Until when, on the cluster's clock.
        deadline_ms: u64,
    },
    /// Locked, marked, being done.
    Running,
    /// Done and visible.
    Committed(Outcome),
    /// Undone; nothing of it is visible.
    Aborted(Refusal),
    /// Never begun.
    Refused(Refusal),
}

impl Phase {
    /// As users read it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Running => "running",
            Self::Committed(_) => "committed",
            Self::Aborted(_) => "aborted",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether it has its outcome.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Running)
    }
}

/// What a committed transaction made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The domain it made or works in.
    pub domain: Option<DomainId>,
    /// The disk.
    pub disk: Option<DiskId>,
    /// Where the disk lies now.
    pub placement: Option<PlacementId>,
    /// Its chain.
    pub volumes: Vec<VolumeId>,
    /// Bytes moved.
    pub bytes: u64,
    /// BLAKE3 of the leaf's file.
    pub blake3: Option<[u8; 32]>,
}

/// What is being made: the marker that a commit converts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// The disk that is made or moved.
    pub disk: Option<DiskId>,
    /// Its volumes.
    pub volumes: Vec<VolumeId>,
}

/// Something that happened to a transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// On the cluster's clock.
    pub at_ms: u64,
    /// In which entry.
    pub index: u64,
    /// In words.
    pub text: String,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Txn {
    /// The request's id.
    pub id: TxnId,
    /// Hash of the request as the user gave it.
    pub request_hash: [u8; 32],
    /// Who asked, for people.
    pub initiator: String,
    /// Why, for the audit log.
    pub reason: String,
    /// What it is to do.
    pub spec: Spec,
    /// The same in words, with the names of that moment.
    pub summary: String,
    /// What it works on, in words ("disk/web-01").
    pub objects: Vec<String>,
    /// When and in which entry it began.
    pub began_ms: u64,
    /// In which entry it began.
    pub began_index: u64,
    /// Wall clock of the member that took the request, milliseconds since 1970; shown, never compared.
    #[serde(default)]
    pub began_unix_ms: u64,
    /// When it got its outcome; 0 before.
    pub finished_ms: u64,
    /// Last entry that changed it.
    pub changed_index: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Its lock set while it waits or runs: index of the entry that asked.
    pub lock: Option<u64>,
    /// What is being made.
    pub marker: Option<Marker>,
    /// Its short step, if it has one.
    pub step: Option<Work>,
    /// Its job, if it has one.
    pub job: Option<u64>,
    /// Attempts that its step or job took, once it is over ...
    #[serde(default)]
    pub attempts: u32,
    /// ... and the error of the last one that failed.
    #[serde(default)]
    pub last_error: Option<String>,
    /// What happened, oldest first.
    pub history: Vec<Event>,
}
