//! Volumes and snapshots as they are shown: single layers, who uses them and where they lie.

use super::disk::folder;
use super::domain_word;
use super::hex;
use sdm_proto::ids::DiskId;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Volume;

/// Users of a volume that are named: a template may have thousands, and an answer has a limit.
pub(super) const USERS_SHOWN: usize = 100;

/// The volume, with its path at the disk that made it or, if that is gone, at its first user.
pub(crate) fn volume(state: &State, volume: &Volume) -> v1::Volume {
    let maker = state.disks.get(&volume.disk).filter(|disk| disk.volumes.contains(&volume.id));
    let user = maker.or_else(|| state.users_of(volume.id).find_map(|id| state.disks.get(&id)));
    volume_at(state, volume, &user.map(|disk| folder(state, disk)).unwrap_or_default())
}

/// The volume as it lies in a folder.
pub(super) fn volume_at(state: &State, volume: &Volume, folder: &str) -> v1::Volume {
    let users = state.users_of(volume.id);
    v1::Volume {
        id: volume.id.to_string(),
        format: volume.format.word().to_owned(),
        virtual_size: volume.virtual_size,
        file_size: volume.file_size,
        allocated_bytes: volume.allocated_bytes,
        parent_id: volume.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        legal: volume.legal,
        blake3: hex(volume.blake3),
        path: if folder.is_empty() { String::new() } else { format!("{folder}/{}", volume.id) },
        preallocated: volume.preallocated,
        role: role(state, volume).to_owned(),
        snapshot: volume.snapshot.as_ref().map(|snapshot| snapshot.name.to_string()).unwrap_or_default(),
        made_by: Some(made_by(state, volume.disk)),
        users: users.take(USERS_SHOWN).map(|id| reference(state, id)).collect(),
        users_count: state.users_of(volume.id).count() as u64,
    }
}

/// Each place where it lies.
pub(crate) fn places(state: &State, volume: &Volume) -> Vec<v1::VolumePlace> {
    let users = state.users_of(volume.id).filter_map(|id| state.disks.get(&id));
    let place = |disk: &Disk| {
        let domain = state.domain_of(disk).map(|domain| domain.id);
        v1::VolumePlace {
            disk: Some(reference(state, disk.id)),
            domain_id: domain.map(|id| id.to_string()).unwrap_or_default(),
            domain: domain.map(|id| domain_word(state, id)).unwrap_or_default(),
            placement_id: disk.placement.to_string(),
            path: format!("{}/{}", folder(state, disk), volume.id),
            projection_pending: state.projections.get(&disk.placement).is_some(),
        }
    };
    users.take(USERS_SHOWN).map(place).collect()
}

/// A disk's own snapshots, oldest first.
pub(crate) fn snapshots(state: &State, disk: &Disk) -> Vec<v1::Snapshot> {
    let chain = disk.volumes.iter().filter_map(|id| state.volumes.get(id));
    chain.filter(|volume| volume.disk == disk.id).filter_map(|volume| snapshot(state, disk, volume)).collect()
}

/// A snapshot of this disk; None where the volume is none.
pub(crate) fn snapshot(state: &State, disk: &Disk, volume: &Volume) -> Option<v1::Snapshot> {
    let snapshot = volume.snapshot.as_ref()?;
    let place = disk.volumes.iter().position(|id| *id == volume.id)?;
    let sharers = || state.users_of(volume.id).filter(|id| *id != disk.id);
    Some(v1::Snapshot {
        id: volume.id.to_string(),
        name: snapshot.name.to_string(),
        description: snapshot.description.clone(),
        disk_id: disk.id.to_string(),
        disk: disk.name.to_string(),
        created_ms: snapshot.created_ms,
        created_by: snapshot.txn.to_string(),
        created_unix_ms: state.txns.get(&snapshot.txn).map_or(0, |txn| txn.began_unix_ms),
        format: volume.format.word().to_owned(),
        virtual_size: volume.virtual_size,
        allocated_bytes: volume.allocated_bytes,
        legal: volume.legal,
        layers: u32::try_from(place + 1).unwrap_or(u32::MAX),
        shared_by: sharers().take(USERS_SHOWN).map(|id| reference(state, id)).collect(),
        shared_by_count: sharers().count() as u64,
        path: format!("{}/{}", folder(state, disk), volume.id),
    })
}

/// A disk by id and name; the id alone when it is gone.
pub(super) fn reference(state: &State, id: DiskId) -> v1::DiskReference {
    let name = state.disks.get(&id).map(|disk| disk.name.to_string()).unwrap_or_default();
    v1::DiskReference { id: id.to_string(), name }
}

fn made_by(state: &State, id: DiskId) -> v1::DiskReference {
    reference(state, id)
}

/// What others on the storage are told that it is.
fn role(state: &State, volume: &Volume) -> &'static str {
    let users = || state.users_of(volume.id).filter_map(|id| state.disks.get(&id));
    let Some(first) = users().next() else { return "internal" };
    if users().any(|disk| disk.template) {
        return "shared";
    }
    if first.volumes.last() == Some(&volume.id) {
        return "leaf";
    }
    let domain = state.domain_of(first).map(|domain| domain.id);
    let shared = domain.is_some_and(|id| !state.shared_in(id, first.id, std::iter::once(volume.id)).is_empty());
    if shared { "shared" } else { "internal" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_volume_shows_its_users_and_each_place() {
        let sample = Sample::with_disk();
        let disk = sample.disk("web-01");
        let row = sample.state.volumes.get(&disk.volumes[0]).unwrap();
        let shown = volume(&sample.state, row);
        assert_eq!((shown.users_count, shown.users[0].name.as_str()), (1, "web-01"));
        assert_eq!(shown.made_by.unwrap().name, "web-01");
        let places = places(&sample.state, row);
        assert_eq!((places.len(), places[0].domain.as_str()), (1, "nfs1"));
        assert_eq!(places[0].path, shown.path);
        assert!(snapshot(&sample.state, disk, row).is_none());
    }
}
