//! A disk as it is shown, with its chain and with whom it shares that.

use super::domain_word;
use super::volume::reference;
use super::volume::snapshots;
use super::volume::volume_at;
use crate::services::present::volume::USERS_SHOWN;
use sdm_proto::ids::DiskId;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Volume;
use std::collections::BTreeSet;

/// The disk, its chain root first.
pub(crate) fn disk(state: &State, disk: &Disk) -> v1::Disk {
    let domain = state.domain_of(disk).map(|domain| domain.id);
    let path = folder(state, disk);
    let chain: Vec<&Volume> = disk.volumes.iter().filter_map(|id| state.volumes.get(id)).collect();
    let leaf = chain.last();
    let sharers = sharers(state, disk);
    v1::Disk {
        id: disk.id.to_string(),
        name: disk.name.to_string(),
        domain_id: domain.map(|id| id.to_string()).unwrap_or_default(),
        domain: domain.map(|id| domain_word(state, id)).unwrap_or_default(),
        placement_id: disk.placement.to_string(),
        format: leaf.map(|leaf| leaf.format.word().to_owned()).unwrap_or_default(),
        virtual_size: leaf.map_or(0, |leaf| leaf.virtual_size),
        volumes: chain.iter().map(|row| volume_at(state, row, &path)).collect(),
        created_by: disk.created_by.to_string(),
        path,
        description: disk.description.clone(),
        template: disk.template,
        created_ms: disk.created_ms,
        snapshots: snapshots(state, disk),
        shares_with: sharers.iter().take(USERS_SHOWN).map(|id| reference(state, *id)).collect(),
        shares_with_count: sharers.len() as u64,
        projection_pending: state.projections.get(&disk.placement).is_some(),
        attachments: state.attachments_of(disk.id).map(|row| super::attachment(state, row)).collect(),
    }
}

/// Where its files lie.
pub(super) fn folder(state: &State, disk: &Disk) -> String {
    state.domain_of(disk).map_or_else(String::new, |domain| {
        format!("{}/{}/images/{}", domain.path.trim_end_matches('/'), domain.id, disk.placement)
    })
}

/// Other disks that use volumes of its chain.
fn sharers(state: &State, disk: &Disk) -> BTreeSet<DiskId> {
    disk.volumes.iter().flat_map(|id| state.users_of(*id)).filter(|id| *id != disk.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_disk_shows_where_its_files_lie() {
        let sample = Sample::with_disk();
        let row = sample.disk("web-01");
        let shown = disk(&sample.state, row);
        assert_eq!((shown.domain.as_str(), shown.format.as_str(), shown.virtual_size), ("nfs1", "raw", 1 << 20));
        assert_eq!(shown.path, format!("/srv/nfs1/{}/images/{}", shown.domain_id, shown.placement_id));
        let [volume] = shown.volumes.as_slice() else { panic!("one volume, not {:?}", shown.volumes) };
        assert_eq!(volume.path, format!("{}/{}", shown.path, volume.id));
        assert_eq!((volume.blake3.as_str(), volume.role.as_str()), ("07".repeat(32).as_str(), "leaf"));
        assert_eq!((shown.shares_with_count, shown.snapshots.len()), (0, 0));
    }
}
