//! What a detached domain carries along: the rows of the catalog that lie in it, so that a cluster that
//! attaches it knows its disks. Written to the domain before the rows leave the catalog; of a large domain in pieces, one
//! step after the other, because no command and no entry takes them all.

use crate::catalog::Disk;
use crate::catalog::Volume;
use crate::domain_change::AttachDomain;
use crate::domain_change::DomainChange;
use crate::domain_change::DomainContents;
use crate::state::State;
use crate::txns::Spec;
use crate::txns::Txn;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PoolId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use serde::Deserialize;
use serde::Serialize;

/// Form of the catalog; another one is refused by whoever reads it.
pub const DOMAIN_CATALOG_VERSION: u32 = 1;

/// What a detached domain says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainCatalog {
    /// Its form.
    pub version: u32,
    /// The pool that gave the domain up.
    pub pool: PoolId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its epoch then.
    pub epoch: u64,
    /// The domain.
    pub domain: DomainId,
    /// The entry that began its detach: no two detaches write the same catalog, all attempts of one do.
    #[serde(default)]
    pub detached_at: u64,
    /// Its name then.
    pub name: Name,
    /// What lies in it; of a large domain, the first part of it.
    pub contents: DomainContents,
    /// Which part this is: 0 is the head, which is written last and whose hash the domain's mark names.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub piece: u32,
    /// In the head: how many parts follow it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pieces: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// How far a domain's catalog was handed to its storage, or taken from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handover {
    /// The piece that the current step writes or reads; where it writes the head, how many were written before.
    pub piece: u32,
    /// The first disk of the piece that is written; None: the head, or pieces that are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DiskId>,
    /// What was taken of a domain is given back: it is not attached after all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gives_back: bool,
}

impl Txn {
    /// Whether its steps only read pieces of a catalog any more.
    #[must_use]
    pub fn reads_catalog(&self) -> bool {
        self.hands_over_to_us(false)
    }

    /// Whether it ends an attach: the mark of a domain that was taken without all of its disks is released again.
    #[must_use]
    pub fn gives_back(&self) -> bool {
        self.hands_over_to_us(true)
    }

    fn hands_over_to_us(&self, gives_back: bool) -> bool {
        let handover = self.handover.as_ref().filter(|handover| handover.gives_back == gives_back);
        handover.is_some() && matches!(self.spec, Spec::Domain(DomainChange::Attach(_)))
    }
}

/// What a piece weighs at most, in bytes of its text, roughly: it travels within one command and one frame to an I/O
/// process, and each of those takes some hundred kilobytes.
const PIECE_WEIGHT_MAX: usize = 128 << 10;

/// Bytes of text that a disk and its placement take besides their words ...
const DISK_WEIGHT: usize = 720;

/// ... a volume ...
const VOLUME_WEIGHT: usize = 520;

/// ... and what makes a snapshot of it.
const SNAPSHOT_WEIGHT: usize = 150;

/// Words may have to be escaped.
fn weight_of_words(words: &str) -> usize {
    words.len().saturating_mul(2)
}

fn weight_of_disk(disk: &Disk) -> usize {
    DISK_WEIGHT
        .saturating_add(weight_of_words(disk.name.as_str()))
        .saturating_add(weight_of_words(&disk.description))
        .saturating_add(disk.volumes.len().saturating_mul(40))
}

fn weight_of_volume(volume: &Volume) -> usize {
    let snapshot = volume.snapshot.as_ref().map_or(0, |snapshot| {
        SNAPSHOT_WEIGHT + weight_of_words(snapshot.name.as_str()) + weight_of_words(&snapshot.description)
    });
    VOLUME_WEIGHT.saturating_add(snapshot)
}

impl State {
    /// A part of what lies in a domain: the rows that go with its disks from this one on, as many as one entry takes in.
    /// A volume that several disks share goes with the first of them. Answers also where the next part begins.
    pub(crate) fn contents_from(&self, domain: DomainId, first: DiskId) -> (DomainContents, Option<DiskId>) {
        let rows_max = usize::try_from(self.meta.settings.domain_rows_max).unwrap_or(usize::MAX);
        let mut contents = DomainContents::default();
        let (mut rows, mut weight) = (0_usize, 0_usize);
        for disk in self.disks_in_from(domain, first) {
            let Some(placement) = self.placements.get(&disk.placement) else { continue };
            let is_own = |id: &&VolumeId| self.users_of(**id).next() == Some(disk.id);
            let volumes: Vec<&Volume> =
                disk.volumes.iter().filter(is_own).filter_map(|id| self.volumes.get(id)).collect();
            rows = rows.saturating_add(volumes.len()).saturating_add(2);
            weight = volumes.iter().fold(weight.saturating_add(weight_of_disk(disk)), |sum, volume| {
                sum.saturating_add(weight_of_volume(volume))
            });
            if !contents.disks.is_empty() && (rows > rows_max || weight > PIECE_WEIGHT_MAX) {
                return (contents, Some(disk.id));
            }
            let mut placement = placement.clone();
            placement.cluster = self.maker_of(&placement).or(Some(self.cluster_id()));
            contents.placements.push(placement);
            contents.volumes.extend(volumes.into_iter().cloned());
            contents.disks.push(disk.clone());
        }
        (contents, None)
    }

    /// A piece of the catalog of a domain as it is now, for the detach that began with this entry. The domain is locked
    /// for as long as its pieces are written, so together they are one moment.
    pub(crate) fn domain_catalog(
        &self,
        id: DomainId,
        detached_at: u64,
        handover: Option<&Handover>,
    ) -> Option<DomainCatalog> {
        let domain = self.domains.get(&id)?;
        let (piece, pieces, first) = match handover {
            None => (0, 0, DiskId::default()),
            Some(Handover { piece, from: Some(first), .. }) => (*piece, 0, *first),
            Some(Handover { piece, from: None, .. }) => (0, *piece, DiskId::default()),
        };
        let mut contents = self.contents_from(id, first).0;
        contents.retention_ms = domain.retention_ms.filter(|_| piece == 0);
        Some(DomainCatalog {
            version: DOMAIN_CATALOG_VERSION,
            pool: self.meta.pool_id,
            cluster: self.cluster_id(),
            epoch: self.meta.epoch,
            domain: id,
            detached_at,
            name: domain.name.clone(),
            contents,
            piece,
            pieces,
        })
    }

    /// The head of a catalog in pieces, as it was read from a domain that is not attached after all: the mark names it
    /// again, and the pieces lie there as they did.
    pub(crate) fn catalog_given_back(&self, attach: &AttachDomain) -> Option<DomainCatalog> {
        let more = attach.more.as_ref()?;
        let mut contents = attach.contents.clone();
        for disk in &mut contents.disks {
            if let Some(Ok(name)) = disk.name.as_str().strip_prefix(more.prefix.as_str()).map(str::parse) {
                disk.name = name;
            }
        }
        Some(DomainCatalog {
            version: DOMAIN_CATALOG_VERSION,
            pool: self.meta.pool_id,
            cluster: self.cluster_id(),
            epoch: self.meta.epoch,
            domain: attach.domain,
            detached_at: more.detached_at,
            name: attach.name.clone(),
            contents,
            piece: 0,
            pieces: more.pieces,
        })
    }
}
