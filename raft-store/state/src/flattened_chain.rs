//! What is left of a chain when its disk is flattened: the leaf and the disk's own snapshots. Every other layer -
//! another disk's, or one that was frozen for a clone that is gone - is taken into the one above it; and what others
//! go on using gets a copy under a new id, so that nothing is shared any more.
//!
//! ```text
//!   before   t (template's) ◄─ s (own snapshot, a clone uses it) ◄─ x (frozen for a clone) ◄─ leaf
//!   after                      s' = what is seen through t, s    ◄─ leaf = what is seen through x, leaf
//! ```
//! Which ids stay is decided once, when the transaction begins, and written down in its marker: others may stop
//! sharing while it runs, nobody can begin to. All else follows from that and from the chain, which is under its lock.

use crate::assignments::From;
use crate::assignments::Layer;
use crate::blueprint::linked;
use crate::blueprint::unmade;
use crate::catalog::Disk;
use crate::catalog::Volume;
use crate::state::State;
use crate::txns::Marker;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::volume_users::VolumeUser;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::VolumeId;

/// A volume that a flattened disk keeps.
pub(crate) struct Kept<'a> {
    /// Its row.
    pub volume: &'a Volume,
    /// Whether others use it, too: then a copy takes its place.
    pub shared: bool,
}

fn is_kept(disk: &Disk, volume: &Volume) -> bool {
    disk.volumes.last() == Some(&volume.id) || (volume.disk == disk.id && volume.snapshot.is_some())
}

impl State {
    /// The volumes that a disk keeps when it is flattened, root first; the last one is its leaf.
    pub(crate) fn kept_volumes<'a>(&'a self, disk: &'a Disk) -> impl Iterator<Item = Kept<'a>> + 'a {
        let kept = self.chain(disk.id).filter(|row| is_kept(disk, row));
        kept.map(|volume| Kept { volume, shared: self.is_used_beside(disk, volume.id) })
    }

    /// Whether anybody but this disk uses a volume: another disk, or one in the trash.
    pub(crate) fn is_used_beside(&self, disk: &Disk, volume: VolumeId) -> bool {
        self.volume_users(volume).any(|user| user != VolumeUser::Disk(disk.id))
    }

    /// Whether a disk shares nothing and has no layer but its own snapshots and its leaf.
    pub(crate) fn is_flat(&self, disk: &Disk) -> bool {
        self.kept_volumes(disk).filter(|kept| !kept.shared).count() == disk.volumes.len()
    }

    /// The ids of a flattened disk's volumes, root first; new ones are made of these parts.
    pub(crate) fn flattened_ids(&self, disk: DiskId, parts: &[&[u8]; 3]) -> Vec<VolumeId> {
        let Some(disk) = self.disks.get(&disk) else { return Vec::new() };
        let id = |(at, kept): (u32, Kept<'_>)| {
            let [cluster, txn, index] = parts;
            let place = at.to_be_bytes();
            if kept.shared { VolumeId::derive("volume", &[cluster, txn, index, &place]) } else { kept.volume.id }
        };
        (0..).zip(self.kept_volumes(disk)).map(id).collect()
    }

    /// Whether the transaction is to flatten a disk with which nothing is to be done.
    pub(crate) fn flattens_nothing(&self, txn: &Txn) -> bool {
        let Spec::FlattenDisk { disk } = &txn.spec else { return false };
        let chain = self.disks.get(disk).map(|disk| &disk.volumes);
        chain.is_some() && chain == txn.marker.as_ref().map(|marker| &marker.volumes)
    }
}

/// The layers of a flattened disk, whose ids stand in the marker, from its chain as it is now.
pub(crate) fn flattened(disk: &Disk, chain: &[Volume], marker: &Marker) -> Option<Vec<Layer>> {
    let mut layers: Vec<Layer> = Vec::new();
    // Those that go into the next layer that is kept.
    let mut group: Vec<&Volume> = Vec::new();
    for row in chain {
        group.push(row);
        if !is_kept(disk, row) {
            continue;
        }
        let id = *marker.volumes.get(layers.len())?;
        let parent = layers.last().map(|layer| layer.volume.id);
        layers.push(kept_layer(&group, row, id, parent));
        group.clear();
    }
    (group.is_empty() && layers.len() == marker.volumes.len()).then_some(layers)
}

/// The layer that takes the place of a volume and of those beneath it that are not kept.
fn kept_layer(group: &[&Volume], top: &Volume, id: VolumeId, parent: Option<VolumeId>) -> Layer {
    // A header names the volume beneath by its id: while that stays, so may the file.
    let as_it_is = group.len() == 1 && top.parent == parent;
    if as_it_is && id == top.id {
        return linked(top);
    }
    let row = unmade(id, top.disk, top.format, top.virtual_size);
    let volume = Volume { parent, legal: top.legal, snapshot: top.snapshot.clone(), ..row };
    let from =
        if as_it_is { From::Bytes(top.id) } else { From::Flatten(group.iter().map(|volume| volume.id).collect()) };
    Layer { volume, from }
}
