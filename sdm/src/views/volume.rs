//! A volume as it is printed: in its disk's table, and alone with each place where it lies.

use super::list::fields_text;
use crate::output::Report;
use crate::output::Table;
use crate::output::bytes_text;
use crate::output::or_dash;
use sdm_proto::wire::v1;
use serde::Serialize;

/// One volume of a disk.
#[derive(Serialize)]
pub struct VolumeView {
    pub(super) id: String,
    pub(super) format: String,
    pub(super) virtual_size: u64,
    pub(super) file_size: u64,
    pub(super) allocated_bytes: u64,
    pub(super) parent_id: Option<String>,
    pub(super) legal: bool,
    pub(super) blake3: Option<String>,
    pub(super) path: String,
    pub(super) preallocated: bool,
    /// leaf, internal or shared.
    pub(super) role: String,
    /// Name of the snapshot that it is.
    pub(super) snapshot: Option<String>,
    pub(super) made_by: Option<ReferenceView>,
    /// Disks that use it; at most 100.
    pub(super) users: Vec<ReferenceView>,
    pub(super) users_count: u64,
}

/// A disk in a word.
#[derive(Serialize)]
pub struct ReferenceView {
    /// Its id.
    pub id: String,
    /// Its name; null when it is gone.
    pub name: Option<String>,
}

impl From<v1::DiskReference> for ReferenceView {
    fn from(v1::DiskReference { id, name }: v1::DiskReference) -> Self {
        Self { id, name: some(name) }
    }
}

impl ReferenceView {
    pub(super) fn word(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{} (gone)", self.id))
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<v1::Volume> for VolumeView {
    fn from(volume: v1::Volume) -> Self {
        Self {
            id: volume.id,
            format: volume.format,
            virtual_size: volume.virtual_size,
            file_size: volume.file_size,
            allocated_bytes: volume.allocated_bytes,
            parent_id: some(volume.parent_id),
            legal: volume.legal,
            blake3: some(volume.blake3),
            path: volume.path,
            preallocated: volume.preallocated,
            role: volume.role,
            snapshot: some(volume.snapshot),
            made_by: volume.made_by.map(ReferenceView::from),
            users: volume.users.into_iter().map(ReferenceView::from).collect(),
            users_count: volume.users_count,
        }
    }
}

/// A volume alone.
#[derive(Serialize)]
pub struct VolumeStory {
    volume: VolumeView,
    places: Vec<PlaceView>,
    revision: u64,
}

/// One place of a volume.
#[derive(Serialize)]
struct PlaceView {
    disk: Option<ReferenceView>,
    domain_id: String,
    domain: String,
    placement_id: String,
    path: String,
    projection_pending: bool,
}

impl VolumeStory {
    /// What a member answered.
    #[must_use]
    pub fn of(volume: v1::Volume, places: Vec<v1::VolumePlace>, revision: u64) -> Self {
        let place = |place: v1::VolumePlace| PlaceView {
            disk: place.disk.map(ReferenceView::from),
            domain_id: place.domain_id,
            domain: place.domain,
            placement_id: place.placement_id,
            path: place.path,
            projection_pending: place.projection_pending,
        };
        Self { volume: volume.into(), places: places.into_iter().map(place).collect(), revision }
    }
}

impl Report for VolumeStory {
    fn text(&self) -> String {
        let volume = &self.volume;
        let fields = [
            ("volume", volume.id.clone()),
            ("state", if volume.legal { "legal" } else { "illegal: it may not be used" }.to_owned()),
            ("role", volume.role.clone()),
            ("snapshot", or_dash(volume.snapshot.as_deref().unwrap_or_default())),
            ("format", format!("{}{}", volume.format, if volume.preallocated { ", preallocated" } else { "" })),
            ("size", format!("{} ({} bytes)", bytes_text(volume.virtual_size), volume.virtual_size)),
            (
                "file",
                format!("{} long, {} allocated", bytes_text(volume.file_size), bytes_text(volume.allocated_bytes)),
            ),
            ("parent", or_dash(volume.parent_id.as_deref().unwrap_or_default())),
            ("made by", volume.made_by.as_ref().map_or_else(|| "-".to_owned(), ReferenceView::word)),
            ("blake3", or_dash(volume.blake3.as_deref().unwrap_or_default())),
        ];
        let mut table = Table::new(&["DISK", "DOMAIN", "OVIRT'S VIEW", "PATH"]);
        for place in &self.places {
            let disk = place.disk.as_ref().map_or_else(|| "-".to_owned(), ReferenceView::word);
            let view = if place.projection_pending { "being written" } else { "up to date" };
            table.row([disk, place.domain.clone(), view.to_owned(), place.path.clone()]);
        }
        fields_text(&fields) + &table.render()
    }
}
