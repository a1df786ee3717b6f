//! A disk and its volumes as they are shown.

use super::hex;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Volume;

/// The disk, its chain root first.
pub(crate) fn disk(state: &State, disk: &Disk) -> v1::Disk {
    let domain = state.domain_of(disk);
    let path = domain.map_or_else(String::new, |domain| {
        format!("{}/{}/images/{}", domain.path.trim_end_matches('/'), domain.id, disk.placement)
    });
    let chain: Vec<&Volume> = disk.volumes.iter().filter_map(|id| state.volumes.get(id)).collect();
    let leaf = chain.last();
    v1::Disk {
        id: disk.id.to_string(),
        name: disk.name.to_string(),
        domain_id: domain.map(|domain| domain.id.to_string()).unwrap_or_default(),
        domain: domain.map(|domain| domain.name.to_string()).unwrap_or_default(),
        placement_id: disk.placement.to_string(),
        format: leaf.map(|leaf| leaf.format.word().to_owned()).unwrap_or_default(),
        virtual_size: leaf.map_or(0, |leaf| leaf.virtual_size),
        volumes: chain.iter().map(|row| volume(row, &path)).collect(),
        created_by: disk.created_by.to_string(),
        path,
    }
}

fn volume(volume: &Volume, folder: &str) -> v1::Volume {
    v1::Volume {
        id: volume.id.to_string(),
        format: volume.format.word().to_owned(),
        virtual_size: volume.virtual_size,
        file_size: volume.file_size,
        allocated_bytes: volume.allocated_bytes,
        parent_id: volume.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        legal: volume.legal,
        blake3: hex(volume.blake3),
        path: format!("{folder}/{}", volume.id),
    }
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
        assert_eq!(volume.blake3, "07".repeat(32));
    }
}
