//! What becomes of an order.
//!
//! [`Outcome::Refused`] is definite: a repetition meets the same. [`Outcome::Failed`] may well succeed when tried again.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use super::FileHash;

/// The end of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done and durable.
    Done(Done),
    /// Not done, and a repetition would not change that.
    Refused(Refusal),
    /// Not done; may be tried again.
    Failed(Failure),
    /// The cancel flag was seen. What was made so far lies under the attempt's dot name.
    Stopped,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// The domain was found to be ours.
    DomainProbed(DomainReport),
    /// The domain exists under its final name.
    DomainCreated(DomainReport),
    /// The placement is durable under its final name.
    Placed(PlacementReport),
    /// Everything was sent and hashed.
    Sent(PlacementReport),
    /// Neither the dot name nor the published name exists any more.
    Deleted(DeletionReport),
    /// A page of what lies in the domain.
    Inspected(InspectionPage),
    /// The domain carries the order's cluster and epoch, durably.
    Adopted,
    /// The volume is at least as large as asked, durably.
    Resized(PlacementReport),
    /// A volume holds what the one beneath it held.
    Merged(PlacementReport),
    /// The `.meta` files say what the order said, durably.
    Projected,
    /// The domain says what the order said, durably.
    DomainChanged,
    /// A piece of a domain's catalog.
    CatalogRead(String),
    /// What is not as the catalog says.
    Checked(Vec<Finding>),
}

/// Whose a domain is that was inspected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainState {
    /// Of the pool asked for.
    #[default]
    Ours,
    /// Nobody's: sdm gave it up.
    Released,
    /// Nobody's, and made by others.
    Free,
}

/// One thing that is not as the catalog says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The placement.
    pub placement: Uuid,
    /// The volume, when it is about one.
    pub volume: Option<Uuid>,
    /// What kind of thing.
    pub reason: FindingReason,
    /// In words.
    pub words: String,
}

/// Kinds of findings. Their texts are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FindingReason {
    /// No such folder.
    PlacementMissing,
    /// The folder's mark is missing, or another's.
    MarkWrong,
    /// No such file.
    VolumeMissing,
    /// The file, or what its header says, is smaller than the catalog says.
    SizeWrong,
    /// The `.meta` file is missing or says something else: a projection mends it.
    MetadataWrong,
    /// The file is not what its format says, or damaged.
    FormatWrong,
    /// Whoever wrote the image last did not close it: QEMU repairs it when it opens it.
    NotClosed,
    /// The file's bytes are not those whose hash is known.
    HashWrong,
    /// Something else lies in the folder.
    UnknownName,
    /// The storage failed.
    Unreadable,
}

impl FindingReason {
    /// The reason as it stands in messages and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlacementMissing => "PLACEMENT_MISSING",
            Self::MarkWrong => "MARK_WRONG",
            Self::VolumeMissing => "VOLUME_MISSING",
            Self::SizeWrong => "SIZE_WRONG",
            Self::MetadataWrong => "METADATA_WRONG",
            Self::FormatWrong => "FORMAT_WRONG",
            Self::NotClosed => "NOT_CLOSED",
            Self::HashWrong => "HASH_WRONG",
            Self::UnknownName => "UNKNOWN_NAME",
            Self::Unreadable => "UNREADABLE",
        }
    }
}

/// A domain's room and traits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainReport {
    /// Size of its file system.
    pub total_bytes: u64,
    /// What an unprivileged writer can still use of it.
    pub free_bytes: u64,
    /// Same text, same file system (on one host): two domains on one disk count its space once.
    pub file_system: String,
    /// Allocation unit of the file system.
    pub block_bytes: u32,
}

/// Whose a domain is, and a page of the names under its `images/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectionPage {
    /// The cluster that has it.
    pub cluster: Uuid,
    /// The epoch in which that took it.
    pub epoch: u64,
    /// Names in their order.
    pub images: Vec<FoundImage>,
    /// Ask on after this name; none: that was all.
    pub next_after: Option<String>,
    /// Whose it is.
    pub state: DomainState,
    /// What it calls itself.
    pub description: String,
    /// What the last detach wrote of its disks; on the first page only.
    pub catalog: String,
}

/// A name under `images/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundImage {
    /// The name.
    pub name: String,
    /// What it names.
    pub kind: FoundKind,
}

/// What a name under `images/` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoundKind {
    /// A placement that proves to be a cluster's of this pool: its mark derives its very name.
    Placement {
        /// That cluster.
        cluster: Uuid,
        /// Token of the attempt that made it.
        token: String,
        /// Its transaction.
        transaction: String,
        /// Volumes whose files are there.
        volumes: Vec<Uuid>,
        /// The epoch of that cluster.
        epoch: u64,
        /// The disk, as the mark says.
        disk: Option<Uuid>,
        /// Where asked for: the volumes in detail, base first.
        details: Vec<FoundVolume>,
    },
    /// A folder of others whose volumes have `.meta` files; only in a domain that no pool has.
    Image {
        /// The volumes, base first.
        details: Vec<FoundVolume>,
    },
    /// Being built or deleted, or left by that.
    DotName,
    /// Neither; in words.
    Other(String),
}

/// A volume's file and its `.meta`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundVolume {
    /// Its file name.
    pub volume: Uuid,
    /// Size of its file.
    pub file_bytes: u64,
    /// What its file takes.
    pub allocated_bytes: u64,
    /// How many names the file has.
    pub links: u64,
    /// What its `.meta` says, or why that cannot be read.
    pub metadata: Result<FoundMetadata, String>,
}

/// What a `.meta` file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundMetadata {
    /// FORMAT.
    pub format: super::VolumeFormat,
    /// CAP.
    pub virtual_bytes: u64,
    /// PUUID.
    pub parent: Option<Uuid>,
    /// SEQ.
    pub sequence: u32,
    /// VOLTYPE.
    pub role: super::VolumeRole,
    /// LEGALITY is ILLEGAL.
    pub illegal: bool,
    /// TYPE is PREALLOCATED.
    pub preallocated: bool,
    /// The disk's name, as far as it fitted.
    pub disk_name: String,
    /// What users wrote about it, as far as it fitted.
    pub disk_description: String,
}

/// The volumes of a placement that was made or sent, in the order's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementReport {
    /// One per volume of the order.
    pub volumes: Vec<VolumeReport>,
}

/// A volume's facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// Its file name.
    pub volume: Uuid,
    /// Size of its file.
    pub file_bytes: u64,
    /// What its file takes on the file system (blocks of an open extent included).
    pub allocated_bytes: u64,
    /// What a guest sees.
    pub virtual_bytes: u64,
    /// For a raw volume that was rounded up: its size before.
    pub true_bytes: Option<u64>,
    /// Hash of its file. None for a volume that was created empty.
    pub hash: Option<FileHash>,
    /// What the check of a qcow2 file found. None for raw, and where the bytes were not checked.
    pub qcow2: Option<Qcow2Facts>,
}

/// What the full check of a qcow2 file found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qcow2Facts {
    /// 2 or 3.
    pub version: u32,
    /// What a guest sees.
    pub virtual_bytes: u64,
    /// Size of a cluster.
    pub cluster_bytes: u64,
    /// `zlib` or `zstd`: how compressed clusters, if any, are compressed.
    pub compression: String,
    /// Names of feature bits that are set, such as `extended-l2`, `lazy-refcounts`, `bitmaps`.
    pub features: Vec<String>,
    /// Internal snapshots.
    pub snapshots: u32,
    /// Persistent bitmaps.
    pub bitmaps: u32,
    /// Clusters that are counted as used but that nothing refers to. Harmless.
    pub leaked_clusters: u64,
    /// Clusters of guest data that are stored, compressed ones included.
    pub data_clusters: u64,
}

/// What a deletion took away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionReport {
    /// Files unlinked. 0 when all was gone already.
    pub files: u32,
    /// Bytes that they took (a hard-linked one's are not counted).
    pub freed_bytes: u64,
}

/// Why an order was refused, for people (`message`, `hint`) and for programs (`code`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason.
    pub code: RefusalCode,
    /// What was found, where.
    pub message: String,
    /// What to do about it. May be empty.
    pub hint: String,
    /// For `NO_SPACE`: bytes of data that were still to be written.
    pub missing_bytes: Option<u64>,
}

/// Why something failed that may succeed later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was tried, on what, and its causes, in one line.
    pub message: String,
    /// What to do about it. May be empty.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// Reasons for a refusal. Their texts are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RefusalCode {
    /// The order contradicts itself or names something impossible.
    InvalidOrder,
    /// The domain's path does not exist.
    PathMissing,
    /// The domain's path is no folder.
    NotADirectory,
    /// The domain's path cannot be written by the worker.
    NotWritable,
    /// The domain's path is no mount point, and `--local` was not given.
    NotAMountPoint,
    /// Another domain of this pool lies at the path.
    DomainPathInUse,
    /// A domain of another pool of sdm lies at the path.
    OtherPoolsDomain,
    /// A domain of oVirt lies at the path.
    ForeignDomain,
    /// The domain belongs to another cluster or another epoch of this pool.
    OtherClustersDomain,
    /// The path is there but the domain is not.
    DomainMissing,
    /// The domain's own files cannot be understood.
    DomainCorrupt,
    /// The placement to be read is not there.
    PlacementMissing,
    /// The volume to be read is not there.
    VolumeMissing,
    /// The placement is there, but made by another token than the order says.
    EvidenceMismatch,
    /// Something lies in the domain that must not be there: a symbolic link, a FIFO, a device, an unknown name.
    UnexpectedEntry,
    /// Another process uses the volume.
    VolumeInUse,
    /// The volume has another name too: it must not be changed in place.
    VolumeShared,
    /// A volume still lies over the layer that was to be left out: nothing of the chain was changed.
    NotRebased,
    /// The file system cannot do what the order needs.
    StorageUnsupported,
    /// The domain was given up: no pool has it.
    DomainReleased,
    /// The domain belongs to a pool, and cannot be taken.
    DomainTaken,
    /// The domain was detached anew since its catalog was read.
    CatalogChanged,
    /// The file system has no room left.
    NoSpace,
    /// What was read is not what it should be.
    HashMismatch,
    /// The stream of pieces breaks its own rules.
    StreamInvalid,
    /// The size is not possible: zero, or past the limit.
    SizeInvalid,
    /// The stream announces another size than its transaction did.
    SizeMismatch,
    /// An import of nothing.
    ImageEmpty,
    /// Not a qcow2 file, or one that breaks the format's rules.
    Qcow2Invalid,
    /// A qcow2 feature or size that cannot be verified.
    Qcow2Unsupported,
    /// The qcow2 file names a backing file.
    Qcow2BackingFile,
    /// The qcow2 file keeps its data in another file.
    Qcow2DataFile,
    /// The qcow2 file is encrypted.
    Qcow2Encrypted,
    /// Tables or clusters lie outside the qcow2 file.
    Qcow2Truncated,
    /// The qcow2 file was not closed properly.
    Qcow2Dirty,
    /// The qcow2 file is marked corrupt, or its tables contradict each other.
    Qcow2Corrupt,
}

impl RefusalCode {
    /// The code as it stands in messages and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidOrder => "INVALID_ORDER",
            Self::PathMissing => "PATH_MISSING",
            Self::NotADirectory => "NOT_A_DIRECTORY",
            Self::NotWritable => "NOT_WRITABLE",
            Self::NotAMountPoint => "NOT_A_MOUNT_POINT",
            Self::DomainPathInUse => "DOMAIN_PATH_IN_USE",
            Self::OtherPoolsDomain => "OTHER_POOLS_DOMAIN",
            Self::ForeignDomain => "FOREIGN_DOMAIN",
            Self::OtherClustersDomain => "OTHER_CLUSTERS_DOMAIN",
            Self::DomainMissing => "DOMAIN_MISSING",
            Self::DomainCorrupt => "DOMAIN_CORRUPT",
            Self::PlacementMissing => "PLACEMENT_MISSING",
            Self::VolumeMissing => "VOLUME_MISSING",
            Self::EvidenceMismatch => "EVIDENCE_MISMATCH",
            Self::UnexpectedEntry => "UNEXPECTED_ENTRY",
            Self::VolumeInUse => "VOLUME_IN_USE",
            Self::VolumeShared => "VOLUME_SHARED",
            Self::NotRebased => "NOT_REBASED",
            Self::StorageUnsupported => "STORAGE_UNSUPPORTED",
            Self::DomainReleased => "DOMAIN_RELEASED",
            Self::DomainTaken => "DOMAIN_TAKEN",
            Self::CatalogChanged => "CATALOG_CHANGED",
            Self::NoSpace => "NO_SPACE",
            Self::HashMismatch => "HASH_MISMATCH",
            Self::StreamInvalid => "STREAM_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::SizeMismatch => "SIZE_MISMATCH",
            Self::ImageEmpty => "IMAGE_EMPTY",
            Self::Qcow2Invalid => "QCOW2_INVALID",
            Self::Qcow2Unsupported => "QCOW2_UNSUPPORTED",
            Self::Qcow2BackingFile => "QCOW2_BACKING_FILE",
            Self::Qcow2DataFile => "QCOW2_DATA_FILE",
            Self::Qcow2Encrypted => "QCOW2_ENCRYPTED",
            Self::Qcow2Truncated => "QCOW2_TRUNCATED",
            Self::Qcow2Dirty => "QCOW2_DIRTY",
            Self::Qcow2Corrupt => "QCOW2_CORRUPT",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusals_code_has_one_text_in_messages_and_in_json() {
        for code in [RefusalCode::NotAMountPoint, RefusalCode::Qcow2BackingFile, RefusalCode::OtherPoolsDomain] {
            let json = serde_json::to_string(&code).expect("a code serializes");
            assert_eq!(json, format!("\"{}\"", code.as_str()));
        }
    }
}
