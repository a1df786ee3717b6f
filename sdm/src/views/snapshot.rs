//! A snapshot as it is printed.

use super::list::Fields;
use super::list::Row;
use super::volume::ReferenceView;
use crate::output::bytes_text;
use crate::output::or_dash;
use crate::output::utc_text;
use sdm_proto::wire::v1;
use serde::Serialize;

/// One snapshot.
#[derive(Serialize)]
pub struct SnapshotView {
    /// Of its volume.
    pub id: String,
    /// Unique among those of its disk.
    pub name: String,
    description: String,
    disk_id: String,
    /// Name of its disk.
    pub disk: String,
    created_ms: u64,
    /// Milliseconds since 1970; 0 when it is not remembered any more.
    created_unix_ms: u64,
    /// The same in UTC, RFC 3339; null when it is not remembered any more.
    created_at: Option<String>,
    created_by: String,
    format: String,
    /// What a guest saw, in bytes.
    pub virtual_size: u64,
    allocated_bytes: u64,
    legal: bool,
    layers: u32,
    /// Other disks that use its volume; at most 100.
    shared_by: Vec<ReferenceView>,
    shared_by_count: u64,
    path: String,
}

impl From<v1::Snapshot> for SnapshotView {
    fn from(snapshot: v1::Snapshot) -> Self {
        Self {
            id: snapshot.id,
            name: snapshot.name,
            description: snapshot.description,
            disk_id: snapshot.disk_id,
            disk: snapshot.disk,
            created_ms: snapshot.created_ms,
            created_unix_ms: snapshot.created_unix_ms,
            created_at: Some(snapshot.created_unix_ms).filter(|ms| *ms > 0).map(utc_text),
            created_by: snapshot.created_by,
            format: snapshot.format,
            virtual_size: snapshot.virtual_size,
            allocated_bytes: snapshot.allocated_bytes,
            legal: snapshot.legal,
            layers: snapshot.layers,
            shared_by: snapshot.shared_by.into_iter().map(ReferenceView::from).collect(),
            shared_by_count: snapshot.shared_by_count,
            path: snapshot.path,
        }
    }
}

impl Row for SnapshotView {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "MADE", "FORMAT", ">SIZE", ">ALLOCATED", ">LAYERS", "STATE", ">SHARED BY", "DESCRIPTION", "ID"];
    const FIRST: &'static str = "make one: sdm snapshot create DISK NAME";

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            or_dash(self.created_at.as_deref().unwrap_or_default()),
            self.format.clone(),
            bytes_text(self.virtual_size),
            bytes_text(self.allocated_bytes),
            self.layers.to_string(),
            if self.legal { "legal" } else { "illegal" }.to_owned(),
            self.shared_by_count.to_string(),
            or_dash(&self.description),
            self.id.clone(),
        ]
    }
}

impl Fields for SnapshotView {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let sharers: Vec<_> = self.shared_by.iter().map(ReferenceView::word).collect();
        vec![
            ("name", self.name.clone()),
            ("id", self.id.clone()),
            ("disk", format!("{} ({})", self.disk, self.disk_id)),
            ("description", or_dash(&self.description)),
            ("made at", or_dash(self.created_at.as_deref().unwrap_or_default())),
            ("made by", format!("txn {}", self.created_by)),
            ("format", self.format.clone()),
            ("size", format!("{} ({} bytes)", bytes_text(self.virtual_size), self.virtual_size)),
            ("allocated", bytes_text(self.allocated_bytes)),
            ("layers", self.layers.to_string()),
            ("state", if self.legal { "legal" } else { "illegal" }.to_owned()),
            ("shared by", or_dash(&sharers.join(", "))),
            ("path", self.path.clone()),
        ]
    }
}
