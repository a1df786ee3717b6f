//! A disk and its volumes as they are printed.

use super::list::Row;
use super::list::fields_text;
use crate::output::Report;
use crate::output::Table;
use crate::output::bytes_text;
use crate::output::or_dash;
use sdm_proto::wire::v1;
use serde::Serialize;

/// One disk.
#[derive(Serialize)]
pub struct DiskView {
    /// Its id for life.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Id of the domain where it lies.
    pub domain_id: String,
    /// That domain's name.
    pub domain: String,
    /// The folder that holds its chain.
    pub placement_id: String,
    /// Format of the leaf: raw or qcow2.
    pub format: String,
    /// What a virtual machine sees, in bytes.
    pub virtual_size: u64,
    /// Root of the chain first.
    pub volumes: Vec<VolumeView>,
    /// The transaction that made it.
    pub created_by: String,
    /// Its folder on the storage.
    pub path: String,
}

/// One volume of a disk.
#[derive(Serialize)]
pub struct VolumeView {
    id: String,
    format: String,
    virtual_size: u64,
    file_size: u64,
    allocated_bytes: u64,
    parent_id: Option<String>,
    legal: bool,
    blake3: Option<String>,
    path: String,
}

impl From<v1::Disk> for DiskView {
    fn from(disk: v1::Disk) -> Self {
        Self {
            id: disk.id,
            name: disk.name,
            domain_id: disk.domain_id,
            domain: disk.domain,
            placement_id: disk.placement_id,
            format: disk.format,
            virtual_size: disk.virtual_size,
            volumes: disk.volumes.into_iter().map(VolumeView::from).collect(),
            created_by: disk.created_by,
            path: disk.path,
        }
    }
}

impl From<v1::Volume> for VolumeView {
    fn from(volume: v1::Volume) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
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
        }
    }
}

impl DiskView {
    fn allocated_bytes(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.allocated_bytes).fold(0, u64::saturating_add)
    }
}

impl Row for DiskView {
    const HEADINGS: &'static [&'static str] = &["NAME", "DOMAIN", "FORMAT", ">SIZE", ">ON STORAGE", ">VOLUMES", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.domain.clone(),
            self.format.clone(),
            bytes_text(self.virtual_size),
            bytes_text(self.allocated_bytes()),
            self.volumes.len().to_string(),
            self.id.clone(),
        ]
    }
}

impl Report for DiskView {
    fn text(&self) -> String {
        let fields = [
            ("name", self.name.clone()),
            ("id", self.id.clone()),
            ("domain", format!("{} ({})", self.domain, self.domain_id)),
            ("format", self.format.clone()),
            ("size", format!("{} ({} bytes)", bytes_text(self.virtual_size), self.virtual_size)),
            ("placement", self.placement_id.clone()),
            ("path", self.path.clone()),
            ("created by", format!("txn {}", self.created_by)),
        ];
        let mut table = Table::new(&["VOLUME", "FORMAT", ">SIZE", ">FILE", ">ALLOCATED", "STATE", "PARENT", "BLAKE3"]);
        for volume in &self.volumes {
            table.row([
                volume.id.clone(),
                volume.format.clone(),
                bytes_text(volume.virtual_size),
                bytes_text(volume.file_size),
                bytes_text(volume.allocated_bytes),
                if volume.legal { "legal" } else { "illegal" }.to_owned(),
                or_dash(volume.parent_id.as_deref().unwrap_or_default()),
                or_dash(volume.blake3.as_deref().unwrap_or_default()),
            ]);
        }
        fields_text(&fields) + &table.render()
    }
}
