//! The catalog: domains, disks, volumes and placements. It is the truth; storage holds the bytes.

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
    /// Whose layer.
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
}
