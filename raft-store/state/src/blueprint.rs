//! Blueprints: the placement that a stage of a transaction builds, layer by layer. The plan shows it,
//! the order carries it to a worker, and the commit makes rows of it; all three derive it from the
//! catalog as it is under the transaction's locks, so it is stored nowhere.

use crate::assignments::From;
use crate::assignments::Layer;
use crate::catalog::Disk;
use crate::catalog::Format;
use crate::catalog::Snapshot;
use crate::catalog::Volume;
use crate::flattened_chain::flattened;
use crate::state::State;
use crate::txns::Marker;
use crate::txns::Spec;
use crate::txns::Txn;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;

/// A qcow2 image has whole sectors.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// A raw file is stored rounded up to this, whatever its length was when it was imported; what lies over it, or is
/// made of it, is as large as the file.
const RAW_BLOCK_BYTES: u64 = 4096;

/// What a qcow2 file holds besides data, at most: a header, an L1 table and refcounts of the largest disk ...
pub(crate) const QCOW2_FIXED_BYTES: u64 = 1 << 20;

/// ... and a share of its data for L2 tables and refcount blocks: 10 bytes for a cluster of 64 KiB, rounded up.
pub(crate) const QCOW2_SHARE: u64 = 4096;

/// A placement that is to be built.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Blueprint {
    /// Whose it will be.
    pub disk: DiskId,
    /// The disk's name.
    pub name: Name,
    /// What users wrote about it.
    pub description: String,
    /// Whether nobody will write any of its volumes.
    pub template: bool,
    /// Where.
    pub target: DomainId,
    /// What it is built from.
    pub source: Option<Source>,
    /// The chain, root first.
    pub layers: Vec<Layer>,
}

/// The placement that another one is built from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Source {
    pub domain: DomainId,
    pub placement: PlacementId,
    pub volumes: Vec<Volume>,
}

impl Source {
    fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.id == id)
    }
}

impl Blueprint {
    /// Bytes that building it takes of the target's file system, as far as can be known before.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| self.layer_bytes(layer, true)).fold(0, u64::saturating_add)
    }

    /// Bytes that building it moves.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| self.layer_bytes(layer, false)).fold(0, u64::saturating_add)
    }

    fn layer_bytes(&self, layer: &Layer, reserve: bool) -> u64 {
        let row = &layer.volume;
        let source = |id: &VolumeId| self.source.as_ref().and_then(|source| source.volume(*id));
        let data = match &layer.from {
            From::Link => return 0,
            From::Fresh if row.preallocated => return row.virtual_size,
            From::Fresh => return 0,
            From::Bytes(id) => {
                return source(id).map_or(0, |v| if reserve { v.allocated_bytes } else { v.file_size });
            }
            From::Flatten(ids) => {
                let allocated = ids.iter().filter_map(source).map(|volume| volume.allocated_bytes);
                allocated.fold(0, u64::saturating_add).min(row.virtual_size)
            }
        };
        match row.format {
            _ if !reserve => data,
            Format::Raw if row.preallocated => row.virtual_size,
            Format::Raw => data,
            Format::Qcow2 => data.saturating_add(data / QCOW2_SHARE).saturating_add(QCOW2_FIXED_BYTES),
        }
    }
}

/// A size that a volume of this format can have.
pub(crate) fn size_for(format: Format, bytes: u64) -> u64 {
    match format {
        Format::Raw => bytes,
        Format::Qcow2 => bytes.checked_next_multiple_of(RAW_BLOCK_BYTES).unwrap_or(bytes),
    }
}

/// A volume that stays the file that it is.
pub(crate) fn linked(volume: &Volume) -> Layer {
    Layer { volume: volume.clone(), from: From::Link }
}

/// A volume that is still to be made.
pub(crate) fn unmade(id: VolumeId, disk: DiskId, format: Format, virtual_size: u64) -> Volume {
    Volume {
        id,
        disk,
        parent: None,
        format,
        virtual_size: size_for(format, virtual_size),
        file_size: 0,
        allocated_bytes: 0,
        legal: true,
        blake3: None,
        preallocated: false,
        snapshot: None,
    }
}

/// The new leaf over a chain.
fn leaf_over(chain: &[Volume], id: VolumeId, disk: DiskId) -> Option<Layer> {
    let parent = chain.last()?;
    let row = unmade(id, disk, Format::Qcow2, parent.virtual_size);
    Some(Layer { volume: Volume { parent: Some(parent.id), ..row }, from: From::Fresh })
}

/// The chain up to and with this volume; all of it when none is named.
fn up_to(mut chain: Vec<Volume>, volume: Option<VolumeId>) -> Option<Vec<Volume>> {
    if let Some(volume) = volume {
        let at = chain.iter().position(|row| row.id == volume)?;
        chain.truncate(at + 1);
    }
    Some(chain)
}

impl State {
    /// The volumes of a disk, root first.
    pub(crate) fn chain(&self, disk: DiskId) -> impl Iterator<Item = &Volume> + '_ {
        let volumes = self.disks.get(&disk).map(|disk| disk.volumes.as_slice()).unwrap_or_default();
        volumes.iter().filter_map(|id| self.volumes.get(id))
    }

    /// What a guest sees the disk through, root first: as it is now, or as a snapshot froze it.
    pub(crate) fn seen_chain(&self, disk: DiskId, snapshot: Option<VolumeId>) -> Vec<&Volume> {
        let mut chain: Vec<&Volume> = self.chain(disk).collect();
        if let Some(at) = snapshot.and_then(|volume| chain.iter().position(|row| row.id == volume)) {
            chain.truncate(at + 1);
        }
        chain
    }

    /// Length of the file that an export makes of it.
    pub(crate) fn exported_bytes(&self, disk: DiskId, snapshot: Option<VolumeId>) -> u64 {
        match &self.seen_chain(disk, snapshot)[..] {
            [one] => one.file_size,
            chain => chain.last().map_or(0, |row| row.virtual_size),
        }
    }

    /// The rows of a disk's volumes, root first; None when one is missing: nothing is built from a part of a chain.
    pub(crate) fn whole_chain(&self, disk: &Disk) -> Option<Vec<Volume>> {
        disk.volumes.iter().map(|id| self.volumes.get(id).cloned()).collect()
    }

    fn source_of(&self, disk: &Disk) -> Option<Source> {
        let domain = self.domain_of(disk)?.id;
        Some(Source { domain, placement: disk.placement, volumes: self.whole_chain(disk)? })
    }

    /// Stages of an operation; each builds one placement.
    pub(crate) fn stages(&self, spec: &Spec) -> u32 {
        match spec {
            // What a live disk holds is frozen first, so that both may go on from there.
            Spec::CloneLinked { disk, snapshot: None, .. } => {
                if self.disks.get(disk).is_some_and(|disk| disk.template) { 1 } else { 2 }
            }
            // The bytes first, which can be given up at any time; then the chain, which cannot.
            Spec::DeleteSnapshot { in_place: true, .. } => 2,
            _ => 1,
        }
    }

    /// What a stage of an operation makes, with new ids. The entry's index makes them new even when a
    /// request id is used again after it was forgotten.
    pub(crate) fn marker(&self, id: TxnId, spec: &Spec, stage: u32) -> Option<Marker> {
        let index = self.meta.applied_index.to_be_bytes();
        let parts: [&[u8]; 3] = [self.meta.cluster_id.as_ref().map_or(&[], |id| id.bytes()), id.bytes(), &index];
        let new_disk = DiskId::derive("disk", &parts);
        let new_volume = VolumeId::derive("volume", &parts);
        let chain = |disk: &DiskId| self.disks.get(disk).map(|disk| disk.volumes.clone()).unwrap_or_default();
        let with_leaf = |mut volumes: Vec<VolumeId>, last: Option<&VolumeId>| {
            if let Some(at) = last.and_then(|last| volumes.iter().position(|id| id == last)) {
                volumes.truncate(at + 1);
            }
            volumes.push(new_volume);
            volumes
        };
        let (disk, volumes) = match spec {
            Spec::CreateDisk { .. } | Spec::ImportDisk { .. } | Spec::CopyDisk { .. } => (new_disk, vec![new_volume]),
            Spec::ExportDisk { disk } | Spec::MoveDisk { disk, .. } | Spec::ConvertDisk { disk, .. } => {
                (*disk, chain(disk))
            }
            // The one that a file is made of, or that lies uppermost of what it shows.
            Spec::ExportChain { disk, snapshot, .. } => {
                (*disk, self.seen_chain(*disk, *snapshot).last().map(|row| row.id).into_iter().collect())
            }
            Spec::FlattenDisk { disk } => (*disk, self.flattened_ids(*disk, &parts)),
            Spec::ResizeDisk { disk, .. } => (*disk, chain(disk).last().copied().into_iter().collect()),
            Spec::CreateSnapshot { disk, .. } => (*disk, with_leaf(chain(disk), None)),
            Spec::DeleteSnapshot { disk, volume, in_place: true } if stage == 0 => {
                (*disk, self.child_in_chain(*disk, *volume).map(|row| row.id).into_iter().collect())
            }
            Spec::DeleteSnapshot { disk, volume, .. } => {
                (*disk, chain(disk).into_iter().filter(|id| id != volume).collect())
            }
            Spec::RevertSnapshot { disk, volume, .. } => (*disk, with_leaf(chain(disk), Some(volume))),
            Spec::CloneLinked { disk, .. } if stage + 1 < self.stages(spec) => (*disk, with_leaf(chain(disk), None)),
            Spec::CloneLinked { disk, snapshot, .. } => (new_disk, with_leaf(chain(disk), snapshot.as_ref())),
            _ => return None,
        };
        Some(Marker { disk: Some(disk), volumes })
    }

    /// The placement that the transaction's current stage builds; None where it builds none, or not by layers.
    pub(crate) fn blueprint(&self, txn: &Txn) -> Option<Blueprint> {
        let marker = txn.marker.as_ref()?;
        let new_volume = *marker.volumes.last()?;
        match &txn.spec {
            Spec::CreateDisk { name, domain, size, format, preallocated, description } => {
                let row = unmade(new_volume, marker.disk?, *format, *size);
                Some(Blueprint {
                    disk: marker.disk?,
                    name: name.clone(),
                    description: description.clone(),
                    template: false,
                    target: *domain,
                    source: None,
                    layers: vec![Layer { volume: Volume { preallocated: *preallocated, ..row }, from: From::Fresh }],
                })
            }
            Spec::CopyDisk { .. } => self.blueprint_of_copy(txn, marker.disk?, new_volume),
            Spec::CloneLinked { disk, snapshot, name, description } => {
                let source = self.disks.get(disk)?;
                if txn.stage + 1 < self.stages(&txn.spec) {
                    return self.with_new_leaf(source, None, new_volume);
                }
                let clone = Disk {
                    id: marker.disk?,
                    name: name.clone(),
                    description: description.clone(),
                    template: false,
                    ..source.clone()
                };
                let placed = self.source_of(source)?;
                self.built_over(&clone, placed, *snapshot, new_volume)
            }
            Spec::ConvertDisk { disk, format, preallocated } => {
                let disk = self.disks.get(disk)?;
                let source = self.source_of(disk)?;
                let [old] = &source.volumes[..] else { return None };
                let volume = Volume {
                    preallocated: *preallocated,
                    snapshot: old.snapshot.clone(),
                    ..unmade(old.id, old.disk, *format, old.virtual_size)
                };
                let layers = vec![Layer { volume, from: From::Flatten(vec![old.id]) }];
                Some(of_disk(disk, source, layers))
            }
            // Nothing is built where nothing is to be done.
            Spec::FlattenDisk { disk } if !self.flattens_nothing(txn) => {
                let disk = self.disks.get(disk)?;
                let source = self.source_of(disk)?;
                let layers = flattened(disk, &source.volumes, marker)?;
                Some(of_disk(disk, source, layers))
            }
            Spec::CreateSnapshot { disk, name, description } => {
                let disk = self.disks.get(disk)?;
                let snapshot = Snapshot {
                    name: name.clone(),
                    description: description.clone(),
                    created_ms: self.meta.clock_ms,
                    txn: txn.id,
                };
                self.with_new_leaf(disk, Some(snapshot), new_volume)
            }
            Spec::DeleteSnapshot { disk, volume, in_place: false } => {
                let disk = self.disks.get(disk)?;
                let source = self.source_of(disk)?;
                let layers = merged(&source.volumes, *volume)?;
                Some(of_disk(disk, source, layers))
            }
            Spec::DeleteSnapshot { disk, volume, in_place: true } if txn.stage > 0 => {
                let disk = self.disks.get(disk)?;
                let source = self.source_of(disk)?;
                let layers = left_out(&source.volumes, *volume)?;
                Some(of_disk(disk, source, layers))
            }
            Spec::RevertSnapshot { disk, volume, .. } => {
                let disk = self.disks.get(disk)?;
                self.built_over(disk, self.source_of(disk)?, Some(*volume), new_volume)
            }
            _ => None,
        }
    }

    /// The disk with all it holds frozen, and a new leaf.
    fn with_new_leaf(&self, disk: &Disk, snapshot: Option<Snapshot>, leaf: VolumeId) -> Option<Blueprint> {
        let mut blueprint = self.built_over(disk, self.source_of(disk)?, None, leaf)?;
        if snapshot.is_some() {
            let frozen = blueprint.layers.iter_mut().rev().nth(1)?;
            frozen.volume.snapshot = snapshot;
        }
        Some(blueprint)
    }

    /// A disk that shares a chain, up to a volume of it, and has a new leaf over that.
    fn built_over(&self, disk: &Disk, source: Source, last: Option<VolumeId>, leaf: VolumeId) -> Option<Blueprint> {
        let chain = up_to(source.volumes.clone(), last)?;
        let mut layers: Vec<Layer> = chain.iter().map(linked).collect();
        layers.push(leaf_over(&chain, leaf, disk.id)?);
        Some(of_disk(disk, source, layers))
    }

    fn blueprint_of_copy(&self, txn: &Txn, new_disk: DiskId, new_volume: VolumeId) -> Option<Blueprint> {
        let Spec::CopyDisk { disk, snapshot, name, description, to, format, preallocated, template, .. } = &txn.spec
        else {
            return None;
        };
        let source = self.source_of(self.disks.get(disk)?)?;
        let chain = up_to(source.volumes.clone(), *snapshot)?;
        let seen = chain.last()?;
        let format = format.unwrap_or(seen.format);
        // A lone volume in the wanted form is copied as it is: what only its format knows survives.
        let as_it_is = chain.len() == 1 && seen.format == format && (seen.preallocated || !*preallocated);
        let from =
            if as_it_is { From::Bytes(seen.id) } else { From::Flatten(chain.iter().map(|row| row.id).collect()) };
        let row = unmade(new_volume, new_disk, format, seen.virtual_size);
        Some(Blueprint {
            disk: new_disk,
            name: name.clone(),
            description: description.clone(),
            template: *template,
            target: *to,
            layers: vec![Layer { volume: Volume { preallocated: *preallocated, ..row }, from }],
            source: Some(source),
        })
    }
}

fn of_disk(disk: &Disk, source: Source, layers: Vec<Layer>) -> Blueprint {
    Blueprint {
        disk: disk.id,
        name: disk.name.clone(),
        description: disk.description.clone(),
        template: disk.template,
        target: source.domain,
        layers,
        source: Some(source),
    }
}

/// The chain without a volume: the one above it takes what it holds, and its place. That one keeps its id, format
/// and virtual size, so whatever lies over it is right as it is.
fn merged(chain: &[Volume], gone: VolumeId) -> Option<Vec<Layer>> {
    let at = chain.iter().position(|row| row.id == gone)?;
    let (base, child) = (chain.get(at)?, chain.get(at + 1)?);
    let volume = Volume {
        parent: base.parent,
        legal: child.legal,
        snapshot: child.snapshot.clone(),
        ..unmade(child.id, child.disk, child.format, child.virtual_size)
    };
    let beneath = chain.iter().take(at).map(linked);
    let above = chain.iter().skip(at + 2).map(linked);
    let new = Layer { volume, from: From::Flatten(vec![base.id, child.id]) };
    Some(beneath.chain(std::iter::once(new)).chain(above).collect())
}

/// The chain without a volume that the one above it needs no more: that one lies over what this one lay over.
fn left_out(chain: &[Volume], gone: VolumeId) -> Option<Vec<Layer>> {
    let at = chain.iter().position(|row| row.id == gone)?;
    let (base, child) = (chain.get(at)?, chain.get(at + 1)?);
    let child = Volume { parent: base.parent, ..child.clone() };
    let beneath = chain.iter().take(at).map(linked);
    let above = chain.iter().skip(at + 2).map(linked);
    Some(beneath.chain(std::iter::once(linked(&child))).chain(above).collect())
}
