//! What an I/O process can be told to do.
//!
//! Names and tokens come ready made: whoever writes an order derived them from the entry that assigned it.

use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use super::FileHash;

/// One order: a step of a transaction, an attempt of a job, or the source side of a pull or an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Is the domain there and ours, and how much room has it? Changes nothing.
    ProbeDomain(DomainRoot),
    /// Make the folder of a new domain.
    CreateDomain(CreateDomain),
    /// Make a placement with empty volumes.
    CreateDisk(CreateDisk),
    /// Make a placement with volumes whose bytes exist elsewhere (import, move, pull).
    BuildPlacement(BuildPlacement),
    /// Make a placement of which each volume comes from somewhere else (snapshot, merge, revert, clone, conversion).
    BuildChain(BuildChain),
    /// Make the leaf of a published placement larger, in place.
    ResizeVolume(ResizeVolume),
    /// Give a layer of a published placement what the one beneath it holds, in place.
    MergeInPlace(MergeInPlace),
    /// Write the `.meta` files of a published placement anew.
    ProjectPlacement(ProjectPlacement),
    /// Send the volumes of a published placement through the outgoing port (export, the source of a pull).
    SendPlacement(SendPlacement),
    /// Delete everything one token may have left in a domain.
    DeletePlacement(DeletePlacement),
    /// Delete what the creation of a domain left that did not win.
    DeleteDomain(DeleteDomain),
    /// Read what lies in a domain, whichever cluster of the pool has it. Changes nothing.
    InspectDomain(InspectDomain),
    /// Take a domain over from an earlier cluster of the pool.
    AdoptDomain(AdoptDomain),
    /// Write another name into a domain.
    RenameDomain(RenameDomain),
    /// Give a domain up.
    DetachDomain(DetachDomain),
    /// Write a piece of a domain's catalog.
    WriteCatalog(WriteCatalog),
    /// Read one.
    ReadCatalog(ReadCatalog),
    /// Take a domain over that no pool has.
    AttachDomain(AttachDomain),
    /// Delete the whole folder of a domain.
    FormatDomain(FormatDomain),
    /// Compare placements with what the catalog says of them. Changes nothing.
    CheckPlacements(CheckPlacements),
}

impl Order {
    /// The domain that the order changes or reads; for a copy, its target. For logs and for choosing a process.
    pub fn domain(&self) -> &DomainRoot {
        match self {
            Self::ProbeDomain(domain) => domain,
            Self::CreateDomain(order) => &order.domain,
            Self::CreateDisk(order) => &order.placement.domain,
            Self::BuildPlacement(order) => &order.placement.domain,
            Self::BuildChain(order) => &order.placement.domain,
            Self::ResizeVolume(order) => &order.domain,
            Self::MergeInPlace(order) => &order.domain,
            Self::ProjectPlacement(order) => &order.domain,
            Self::SendPlacement(order) => &order.domain,
            Self::DeletePlacement(order) => &order.domain,
            Self::DeleteDomain(order) => &order.domain,
            Self::InspectDomain(order) => &order.domain,
            Self::AdoptDomain(order) => &order.domain,
            Self::RenameDomain(order) => &order.domain,
            Self::DetachDomain(order) => &order.domain,
            Self::WriteCatalog(order) => &order.domain,
            Self::ReadCatalog(order) => &order.domain,
            Self::AttachDomain(order) => &order.domain,
            Self::FormatDomain(order) => &order.domain,
            Self::CheckPlacements(order) => &order.domain,
        }
    }
}

/// Where a domain lies, and the identity that must be found there before anything is believed or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRoot {
    /// The folder that holds the domain's folder: `<path>/<domain>/{dom_md,images}`.
    pub path: PathBuf,
    /// SDUUID.
    pub domain: Uuid,
    /// POOL_UUID.
    pub pool: Uuid,
    /// The Raft cluster that owns the domain. A restore from backup draws a new one.
    pub cluster: Uuid,
    /// The cluster's epoch. Rises with a restore from backup.
    pub epoch: u64,
}

/// Whether a domain's path has to be a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mounting {
    /// The path must be one: an unmounted NFS share must not fill the root disk.
    Required,
    /// The user said that a plain local folder is meant.
    Local,
}

/// Make a domain's folder aside and publish it with one rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateDomain {
    /// The domain to be.
    pub domain: DomainRoot,
    /// Token of the step, recorded in `dom_md/.sdm`.
    pub token: String,
    /// Folder under `path` in which the domain is built, `.sdm-<token>`.
    pub dot_name: String,
    /// Must the path be a mount point?
    pub mounting: Mounting,
    /// The domain's name, written as DESCRIPTION (cut to 50 bytes).
    pub description: String,
}

/// A placement to be made: all the names and facts that go into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPlacement {
    /// The domain that gets it.
    pub domain: DomainRoot,
    /// Its final folder name under `images/`.
    pub placement: Uuid,
    /// The folder under `images/` in which it is built, `.sdm-<token>`.
    pub dot_name: String,
    /// Token of the attempt or step, recorded in the placement's `.sdm`.
    pub token: String,
    /// Transaction, recorded likewise.
    pub transaction: String,
    /// The disk, recorded likewise.
    pub disk: Option<Uuid>,
    /// The disk's name, which goes into DESCRIPTION of each `.meta`.
    pub disk_name: String,
    /// What users wrote about the disk, which goes there too, as far as it fits.
    pub disk_description: String,
    /// CTIME of the `.meta` files, in seconds since 1970. Display only.
    pub created_at_s: u64,
    /// The chain's volumes, base first. At least one.
    pub volumes: Vec<VolumeSpec>,
}

/// Format of a volume's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeFormat {
    /// The guest's bytes as they are.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

/// A volume's place in its chain (VOLTYPE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeRole {
    /// The writable end of the chain; exactly one per placement.
    Leaf,
    /// Has a child in this chain.
    Internal,
    /// A template's volume.
    Shared,
}

/// One volume of a placement to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Its file name.
    pub volume: Uuid,
    /// Its format. Never probed.
    pub format: VolumeFormat,
    /// Its parent in the chain (PUUID).
    pub parent: Option<Uuid>,
    /// Its place in the chain.
    pub role: VolumeRole,
    /// SEQ: rises along the chain from 1.
    pub sequence: u32,
    /// What a guest sees, in bytes. Needed to create; for an import it is found out (raw: the file's size).
    pub virtual_bytes: Option<u64>,
    /// For a raw volume whose size is not a multiple of 4 KiB: its size before rounding.
    pub true_bytes: Option<u64>,
    /// All its blocks are reserved (TYPE=PREALLOCATED).
    pub preallocated: bool,
    /// It must not be used (LEGALITY=ILLEGAL).
    pub illegal: bool,
    /// The file hash that the source must have, where one is known.
    pub expected_hash: Option<FileHash>,
    /// For an import: how many bytes the stream must announce, because room was reserved for these and no more.
    pub announced_bytes: Option<u64>,
}

/// Make a placement with empty volumes of `virtual_bytes` each. A volume with a parent is not possible yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateDisk {
    /// The placement to be.
    pub placement: NewPlacement,
}

/// Make a placement from bytes that exist elsewhere. The files' bytes are kept exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPlacement {
    /// The placement to be.
    pub placement: NewPlacement,
    /// Where the bytes come from.
    pub source: Source,
}

/// Make a placement of which each volume comes from somewhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildChain {
    /// The placement to be, its volumes as they shall be.
    pub placement: NewPlacement,
    /// What it is built from; none when every volume is new.
    pub source: Option<SourceChain>,
    /// Where each volume of the placement comes from, in their order.
    pub layers: Vec<LayerSource>,
    /// A linked volume that lies over another one than in the source from now on: its header is made to say so, in place,
    /// before anything is built. What a guest sees through it is the same over either.
    pub rebase: Option<Uuid>,
}

/// A published placement in a domain that this host reaches, and the chain in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceChain {
    /// Where it lies. Links need the same domain as the placement to be.
    pub at: LocalPlacement,
    /// Its volumes, base first, as the catalog has them.
    pub volumes: Vec<SourceVolume>,
}

/// A volume of a source chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceVolume {
    /// Its file name.
    pub volume: Uuid,
    /// Its format. Never probed.
    pub format: VolumeFormat,
    /// The hash that its file must have, where one is known.
    pub expected_hash: Option<FileHash>,
}

/// Where a volume of a chain to be comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerSource {
    /// A hard link of the same volume in the source; where links are lacking, its bytes.
    Link,
    /// New and empty, over the volume beneath.
    Fresh,
    /// The bytes of a volume of the source.
    Bytes {
        /// That volume.
        volume: Uuid,
    },
    /// What a guest sees through these volumes of the source, base first, written anew over the volume beneath.
    Flatten {
        /// Those volumes: neighbours in the source's chain.
        volumes: Vec<Uuid>,
    },
}

/// Make the leaf of a published placement larger, in place. It can never get smaller by this, however late it takes
/// effect. Done again, it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeVolume {
    /// The domain.
    pub domain: DomainRoot,
    /// The placement's folder name under `images/`.
    pub placement: Uuid,
    /// The token that its `.sdm` must carry.
    pub token: String,
    /// The volume.
    pub volume: Uuid,
    /// Its format. Never probed.
    pub format: VolumeFormat,
    /// The volume beneath it.
    pub parent: Option<Uuid>,
    /// Reserve the new blocks.
    pub preallocated: bool,
    /// What a guest is to see, in bytes.
    pub virtual_bytes: u64,
    /// Token of the attempt: what it writes anew lies under a name of its own until then.
    pub attempt: String,
}

/// Give the uppermost of these volumes whatever the one beneath it holds and it does not. A guest sees the same as before,
/// over that one and over the one beneath that. Begun again, it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeInPlace {
    /// The domain.
    pub domain: DomainRoot,
    /// The placement's folder name under `images/`.
    pub placement: Uuid,
    /// The token that its `.sdm` must carry.
    pub token: String,
    /// The chain from its base to the volume that is written, the last one; at least two. The hashes are not looked at.
    pub volumes: Vec<SourceVolume>,
    /// Write nothing; make durable what earlier attempts of this host wrote.
    pub settle_only: bool,
}

/// Write the `.meta` files of a published placement anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectPlacement {
    /// The domain.
    pub domain: DomainRoot,
    /// The placement's folder name under `images/`.
    pub placement: Uuid,
    /// The token that its `.sdm` must carry.
    pub token: String,
    /// The disk's name.
    pub disk_name: String,
    /// What users wrote about the disk.
    pub disk_description: String,
    /// The chain's volumes, base first.
    pub volumes: Vec<VolumeSpec>,
    /// Token of the attempt: what it writes anew lies under a name of its own until then.
    pub attempt: String,
}

/// Where the bytes of a placement to be come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A placement in a domain that this host reaches too.
    Local(LocalPlacement),
    /// The incoming port, fed by another worker that reads the source placement.
    Pull,
    /// The incoming port, fed by a user's command: checked (format, tables) before anything is published.
    Import,
}

/// A published placement and the evidence that it is the one meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPlacement {
    /// Its domain.
    pub domain: DomainRoot,
    /// Its folder name under `images/`.
    pub placement: Uuid,
    /// The token that its `.sdm` must carry. Empty where the reader does not know it: then the `.sdm` must be of
    /// this pool, and its own cluster and token must derive the folder's very name.
    pub token: String,
}

/// Read volumes of a published placement and send them through the outgoing port, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendPlacement {
    /// The domain.
    pub domain: DomainRoot,
    /// The placement's folder name under `images/`.
    pub placement: Uuid,
    /// The token that its `.sdm` must carry. Empty where the reader does not know it: then the `.sdm` must be of
    /// this pool, and its own cluster and token must derive the folder's very name.
    pub token: String,
    /// What to send, base first.
    pub volumes: Vec<SentVolume>,
    /// Instead of the only volume's file: a raw image of what a guest sees through these, base first and that one last.
    pub flattened: Vec<SourceVolume>,
}

/// A volume to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentVolume {
    /// Its file name.
    pub volume: Uuid,
    /// Send only so many bytes (an export gives a raw volume back as long as it was before rounding).
    pub true_bytes: Option<u64>,
    /// The hash that the whole file must have, where one is known.
    pub expected_hash: Option<FileHash>,
}

/// Delete what one token made: first the dot name, then the published name. Idempotent.
///
/// This order closes a race: a late writer that still publishes finds its dot folder gone, or has published
/// before, and then the second half finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletePlacement {
    /// The domain.
    pub domain: DomainRoot,
    /// The folder in which the placement was built, `.sdm-<token>`.
    pub dot_name: String,
    /// The published folder's name; None leaves whatever is published alone.
    pub placement: Option<Uuid>,
    /// The token that a published folder's `.sdm` must carry; anything else is refused and left alone.
    pub token: String,
    /// The dot name of this deletion's own token: what is deleted is renamed to it first.
    pub deletion_dot_name: String,
}

/// Delete the folder of a domain that was made, or half made, by a creation that did not win: first the dot name, then
/// the domain's own folder. Refused while a placement lies in it. Idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteDomain {
    /// The domain.
    pub domain: DomainRoot,
    /// The folder under `path` in which it was built, `.sdm-<token>`.
    pub dot_name: String,
    /// The token that its `dom_md/.sdm` must carry; anything else is refused and left alone.
    pub token: String,
    /// The dot name of this deletion's own token.
    pub deletion_dot_name: String,
    /// Must the path be a mount point? So it was when the domain was to be made.
    pub mounting: Mounting,
}

/// Read what lies in a domain after a restore from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectDomain {
    /// The domain. Only its path, id and pool must fit.
    pub domain: DomainRoot,
    /// Only names after this one, in their order. Empty at first.
    pub after: String,
    /// Also a domain that no pool has.
    pub free_too: bool,
    /// Read the volumes' `.meta` files too.
    pub volumes: bool,
}

/// Write this cluster's id and epoch into a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptDomain {
    /// The domain, with the cluster and the epoch that are to be written.
    pub domain: DomainRoot,
    /// Clusters that it may be taken from. One of another cluster is refused and left alone.
    pub from: Vec<Uuid>,
}

/// Write another name into a domain's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameDomain {
    /// The domain.
    pub domain: DomainRoot,
    /// The name, written as DESCRIPTION (cut to 50 bytes).
    pub description: String,
    /// Token of the attempt: what it writes anew lies under a name of its own until then.
    pub attempt: String,
}

/// Give a domain up: no pool has it afterwards. Its disks stay in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachDomain {
    /// The domain.
    pub domain: DomainRoot,
    /// Written beside, for a later attach: what the cluster knows of its disks. Empty: nothing is written.
    pub catalog: String,
    /// Token of the attempt: what it writes anew lies under a name of its own until then.
    pub attempt: String,
}

/// Write a further piece of the catalog of a domain that is about to be given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCatalog {
    /// The domain.
    pub domain: DomainRoot,
    /// Which piece, from 1.
    pub piece: u32,
    /// Its text.
    pub catalog: String,
}

/// Read such a piece of a domain that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCatalog {
    /// The domain.
    pub domain: DomainRoot,
    /// Which piece, from 1.
    pub piece: u32,
}

/// Take a domain over that no pool has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachDomain {
    /// The domain, with the pool, cluster and epoch that are to be written.
    pub domain: DomainRoot,
    /// Token of the step, recorded in `dom_md/.sdm`.
    pub token: String,
    /// The domain's name from now on.
    pub description: String,
    /// Also one that sdm did not make.
    pub foreign: bool,
    /// BLAKE3 of the catalog that the domain's mark must name, in hexadecimal digits; empty: it must name none.
    pub catalog_blake3: String,
}

/// Delete the whole folder of a domain, with every placement in it that is this cluster's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatDomain {
    /// The domain.
    pub domain: DomainRoot,
    /// The dot name of this deletion's own token, under `path`.
    pub dot_name: String,
    /// Delete what is not this cluster's too.
    pub unknown_names_too: bool,
    /// Must the path be a mount point?
    pub mounting: Mounting,
    /// It is on record that the domain was found and emptied: what is left of it, an empty folder under the dot name, goes.
    pub emptied: bool,
}

/// Compare placements with what the catalog says of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckPlacements {
    /// The domain.
    pub domain: DomainRoot,
    /// The placements.
    pub placements: Vec<ExpectedPlacement>,
    /// Hash the files whose hash is known.
    pub hashes: bool,
}

/// A placement as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedPlacement {
    /// Its folder name under `images/`.
    pub placement: Uuid,
    /// The token that its `.sdm` must carry; empty: the `.sdm` must derive the folder's name.
    pub token: String,
    /// The disk's name.
    pub disk_name: String,
    /// Its volumes, base first.
    pub volumes: Vec<VolumeSpec>,
}
