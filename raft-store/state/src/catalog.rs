//! The catalog: domains, disks, volumes and placements. It is the truth; storage holds the bytes.

use crate::work::Work;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;

/// A storage domain of type `file`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// For life; its folder's name.
    pub id: DomainId,
    /// Unique among domains.
    pub name: Name,
    /// The folder beneath which the domain's own folder lies.
    pub path: String,
    /// Whether the path need not be a mount point.
    pub local: bool,
    /// The transaction that made it.
    pub created_by: TxnId,
    /// When, on the cluster's clock.
    pub created_ms: u64,
    /// The epoch under which a restored cluster took the domain over; None where none had to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_epoch: Option<u64>,
    /// How long its deleted disks can be restored, in milliseconds; None: as long as the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
    /// Whether new work may begin in it.
    #[serde(default, skip_serializing_if = "DomainState::is_active")]
    pub state: DomainState,
    /// Set while its name on the storage may be another than here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub describing: Option<Box<Work>>,
}

/// Whether new work may begin in a domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum DomainState {
    /// It may.
    #[default]
    Active,
    /// Only what reads; whatever runs finishes.
    Maintenance(Maintenance),
    /// It is gone for users, with all that lies in it: its rows leave the catalog, so many with each entry.
    Leaving(Leaving),
    /// It is being attached: users see nothing of it before the last of its disks is there.
    Arriving {
        /// The transaction.
        txn: TxnId,
    },
}

impl DomainState {
    /// Whether new work may begin.
    #[must_use]
    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }

    /// Whether it is gone for users already, or not there yet.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        matches!(self, Self::Leaving(_) | Self::Arriving { .. })
    }
}

/// How far a domain has left the catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaving {
    /// Since when, on the cluster's clock.
    pub since_ms: u64,
    /// The transaction that waits for the end of it.
    pub txn: TxnId,
    /// Disks that have left.
    #[serde(default)]
    pub disks: u64,
    /// Rows of garbage that were given up.
    #[serde(default)]
    pub garbage: u64,
}

/// Since when and why a domain is in maintenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Maintenance {
    /// Since when, on the cluster's clock.
    pub since_ms: u64,
    /// Who wanted it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The transaction.
    pub txn: TxnId,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// For life.
    pub id: DiskId,
    /// Unique among disks.
    pub name: Name,
    /// Where its chain lies.
    pub placement: PlacementId,
    /// The chain, root first; never empty.
    pub volumes: Vec<VolumeId>,
    /// The transaction that made it.
    pub created_by: TxnId,
    /// When, on the cluster's clock.
    pub created_ms: u64,
    /// What users wrote about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Read-only for ever, the leaf too: a base for many linked clones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
}

/// Format of a volume's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The guest's bytes.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl Format {
    /// As users write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// One layer of a disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// For life; its file's name.
    pub id: VolumeId,
    /// The disk that made it, for life; clones of that disk may use it, too.
    pub disk: DiskId,
    /// The layer beneath.
    pub parent: Option<VolumeId>,
    /// Of its file.
    pub format: Format,
    /// What a guest sees, in bytes.
    pub virtual_size: u64,
    /// Length of the file.
    pub file_size: u64,
    /// Bytes allocated when last measured.
    pub allocated_bytes: u64,
    /// Whether it may be used.
    pub legal: bool,
    /// BLAKE3 of the file's bytes; valid until the next writable attachment.
    pub blake3: Option<[u8; 32]>,
    /// All its blocks are allocated, and stay so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preallocated: bool,
    /// Set when it is a snapshot of the disk that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
}

/// What a frozen volume of a chain is to users: how its disk was at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Unique among the snapshots of its disk.
    pub name: Name,
    /// What users wrote about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When, on the cluster's clock.
    pub created_ms: u64,
    /// The transaction that made it.
    pub txn: TxnId,
}

/// One folder of one domain, made by one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The folder's name; derived from the token.
    pub id: PlacementId,
    /// In which domain.
    pub domain: DomainId,
    /// Of which disk.
    pub disk: DiskId,
    /// Of the attempt that made it.
    pub token: Token,
    /// Of that attempt.
    pub txn: TxnId,
    /// The cluster whose log made it, where that is neither this one nor one before it: it came with a domain that was
    /// attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
}
