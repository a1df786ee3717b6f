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

use crate::attachments::AttachmentChange;
use crate::catalog::Format;
use crate::domain_catalog::Handover;
use crate::domain_change::DomainChange;
use crate::garbage_order::GarbageOrder;
use crate::work::VolumeResult;
use crate::work::Work;
use crate::workers::WorkerChange;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::ids::WorkerId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
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
        /// Whether all blocks of its file are allocated at once.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        preallocated: bool,
        /// What users write about it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        description: String,
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
    /// What a guest sees of a disk, or of a snapshot of it, to a file: a lone volume as it is, a chain as one raw image.
    ExportChain {
        /// Which.
        disk: DiskId,
        /// A snapshot of it; None: as it is now.
        snapshot: Option<VolumeId>,
        /// A chain may become one image.
        collapse: bool,
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
    /// Another name for a disk.
    RenameDisk {
        /// Which.
        disk: DiskId,
        /// Its new name.
        name: Name,
    },
    /// Other words about a disk.
    DescribeDisk {
        /// Which.
        disk: DiskId,
        /// The words; may be empty.
        description: String,
    },
    /// A larger disk: its leaf grows in place.
    ResizeDisk {
        /// Which.
        disk: DiskId,
        /// Its new virtual size in bytes.
        size: u64,
    },
    /// A new disk, or a template, of one volume with what a guest sees in a disk or a snapshot of it.
    CopyDisk {
        /// Which.
        disk: DiskId,
        /// A snapshot of it; None: as it is now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<VolumeId>,
        /// Name of the new one.
        name: Name,
        /// What users write about it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        description: String,
        /// Where.
        to: DomainId,
        /// Of its volume; None: that of the source's leaf.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<Format>,
        /// Whether all blocks of its file are allocated at once.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        preallocated: bool,
        /// Whether a chain may become one volume: the copy has no snapshots.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        collapse: bool,
        /// Whether a template is made.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        template: bool,
    },
    /// A new disk that shares what is frozen in another one's chain.
    CloneLinked {
        /// Of which disk.
        disk: DiskId,
        /// A snapshot of it; None: as it is now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<VolumeId>,
        /// Name of the new one.
        name: Name,
        /// What users write about it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        description: String,
    },
    /// A disk's only volume in another format.
    ConvertDisk {
        /// Which.
        disk: DiskId,
        /// Of its volume then.
        format: Format,
        /// Whether all blocks of its file are allocated.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        preallocated: bool,
    },
    /// A disk that shares nothing any more, and has no layer but its own snapshots and its leaf.
    FlattenDisk {
        /// Which.
        disk: DiskId,
    },
    /// Freezes what a disk holds now under a name.
    CreateSnapshot {
        /// Of which disk.
        disk: DiskId,
        /// Unique among its snapshots.
        name: Name,
        /// What users write about it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        description: String,
    },
    /// Away with a snapshot: its volume and the one above become one.
    DeleteSnapshot {
        /// Of which disk.
        disk: DiskId,
        /// Its frozen volume.
        volume: VolumeId,
        /// Whether nothing is to be written anew: for want of space.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        in_place: bool,
    },
    /// A disk as it was at a snapshot.
    RevertSnapshot {
        /// Which.
        disk: DiskId,
        /// The snapshot's frozen volume.
        volume: VolumeId,
        /// Whether snapshots that are newer may go.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        discard_newer: bool,
    },
    /// Whether a volume may be used.
    SetVolumeLegality {
        /// Of which disk.
        disk: DiskId,
        /// Which.
        volume: VolumeId,
        /// Whether it may.
        legal: bool,
    },
    /// Writes anew what a disk's placement says to others.
    RepairProjection {
        /// Of which disk.
        disk: DiskId,
    },
    /// A change of a storage domain itself.
    Domain(DomainChange),
    /// A change of a disk's attachments.
    Attachment(AttachmentChange),
    /// A change of a worker's standing.
    Worker(WorkerChange),
    /// Something about garbage.
    Garbage(GarbageOrder),
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
            Self::ExportDisk { .. } | Self::ExportChain { .. } => "disk-export",
            Self::MoveDisk { .. } => "disk-move",
            Self::DeleteDisk { .. } => "disk-delete",
            Self::RenameDisk { .. } => "disk-rename",
            Self::DescribeDisk { .. } => "disk-describe",
            Self::ResizeDisk { .. } => "disk-resize",
            Self::CopyDisk { template: true, .. } => "template-make",
            Self::CopyDisk { .. } => "disk-copy",
            Self::CloneLinked { .. } => "disk-clone",
            Self::ConvertDisk { .. } => "disk-convert",
            Self::FlattenDisk { .. } => "disk-flatten",
            Self::CreateSnapshot { .. } => "snapshot-create",
            Self::DeleteSnapshot { .. } => "snapshot-delete",
            Self::RevertSnapshot { .. } => "snapshot-revert",
            Self::SetVolumeLegality { .. } => "volume-legality",
            Self::RepairProjection { .. } => "projection-repair",
            Self::Domain(change) => change.kind(),
            Self::Attachment(change) => change.kind(),
            Self::Worker(change) => change.kind(),
            Self::Garbage(order) => order.kind(),
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
    /// The attachment that it gave or took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Token>,
    /// The worker whose standing it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// The trash out of which a disk that it deleted can be put back ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash: Option<Token>,
    /// ... for so long after it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_ms: Option<u64>,
}

/// What is being made: the marker that a commit converts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// The disk that is made or moved.
    pub disk: Option<DiskId>,
    /// Its volumes.
    pub volumes: Vec<VolumeId>,
}

/// A placement that an earlier stage of a transaction built: published, and in the catalog with the commit of the
/// last stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Built {
    /// Where.
    pub domain: DomainId,
    /// Which.
    pub placement: PlacementId,
    /// Of the attempt that made it.
    pub token: Token,
    /// What was being made.
    pub marker: Marker,
    /// Its volumes as they lie there.
    pub volumes: Vec<VolumeResult>,
}

/// That a lost worker may still write in place for a transaction: nothing else may happen to what it locks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fencing {
    /// The worker.
    pub worker: WorkerId,
    /// Its session when it was lost.
    pub session: u64,
    /// Since when, on the cluster's clock.
    pub since_ms: u64,
    /// How it was lost.
    pub why: String,
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
    /// The client's token under which it was begun: its locks are those of that client's session, unless they are its
    /// own and the token vouches for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<Token>,
    /// The client's lock set of that token, where it takes locks of its own beside: that one must still be held when
    /// they are granted, and when it commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouched_by: Option<u64>,
    /// Which of its stages is being done, from 0: each builds one placement.
    #[serde(default, skip_serializing_if = "is_first_stage")]
    pub stage: u32,
    /// What the stages before it built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub built: Vec<Built>,
    /// Set while a lost worker may still write in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing: Option<Fencing>,
    /// Set when it is to be aborted as soon as nobody writes in place any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Refusal>,
    /// How far the catalog of a domain that is detached or attached has been written or read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_first_stage(stage: &u32) -> bool {
    *stage == 0
}

impl Txn {
    /// The phase as users read it.
    #[must_use]
    pub fn phase_word(&self) -> &'static str {
        if self.fencing.is_some() && !self.phase.is_final() { "fencing" } else { self.phase.word() }
    }
}
