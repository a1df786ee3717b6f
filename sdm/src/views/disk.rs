//! A disk and its volumes as they are printed.

use super::AttachmentView;
use super::SnapshotView;
use super::list::Row;
use super::list::fields_text;
use super::volume::ReferenceView;
use super::volume::VolumeView;
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
    /// Whether its volumes are on the storage as the catalog has them. What is not can only be deleted.
    pub legal: bool,
    /// Root of the chain first.
    pub volumes: Vec<VolumeView>,
    /// The transaction that made it.
    pub created_by: String,
    /// Its folder on the storage.
    pub path: String,
    /// What users wrote about it; may be empty.
    pub description: String,
    /// Whether it is a template.
    pub template: bool,
    /// When it was made, on the cluster's clock.
    pub created_ms: u64,
    /// Its own snapshots, oldest first.
    pub snapshots: Vec<SnapshotView>,
    /// Other disks that use volumes of its chain; at most 100.
    pub shares_with: Vec<ReferenceView>,
    /// How many those are in all.
    pub shares_with_count: u64,
    /// Whether what oVirt would read about it is being rewritten.
    pub projection_pending: bool,
    /// Hosts that have it.
    pub attachments: Vec<AttachmentView>,
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
            legal: disk.volumes.iter().all(|volume| volume.legal),
            volumes: disk.volumes.into_iter().map(VolumeView::from).collect(),
            created_by: disk.created_by,
            path: disk.path,
            description: disk.description,
            template: disk.template,
            created_ms: disk.created_ms,
            snapshots: disk.snapshots.into_iter().map(SnapshotView::from).collect(),
            shares_with: disk.shares_with.into_iter().map(ReferenceView::from).collect(),
            shares_with_count: disk.shares_with_count,
            projection_pending: disk.projection_pending,
            attachments: disk.attachments.into_iter().map(AttachmentView::from).collect(),
        }
    }
}

fn legality(legal: bool) -> String {
    if legal { "legal" } else { "illegal" }.to_owned()
}

impl DiskView {
    fn kind(&self) -> &'static str {
        if self.template { "template" } else { "disk" }
    }

    fn allocated_bytes(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.allocated_bytes).fold(0, u64::saturating_add)
    }
}

impl Row for DiskView {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "KIND", "DOMAIN", "FORMAT", ">SIZE", ">ON STORAGE", ">VOLUMES", "STATE", "ID"];
    const FIRST: &'static str =
        "make one: sdm disk create NAME --domain DOMAIN --size 40GiB; a template: sdm template make DISK NAME";

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.kind().to_owned(),
            self.domain.clone(),
            self.format.clone(),
            bytes_text(self.virtual_size),
            bytes_text(self.allocated_bytes()),
            self.volumes.len().to_string(),
            legality(self.legal),
            self.id.clone(),
        ]
    }
}

impl Report for DiskView {
    fn text(&self) -> String {
        let snapshots: Vec<_> = self.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
        let mut sharers: Vec<_> = self.shares_with.iter().map(ReferenceView::word).collect();
        if self.shares_with_count > sharers.len() as u64 {
            sharers.push(format!("{} more", self.shares_with_count - sharers.len() as u64));
        }
        let host = |at: &AttachmentView| format!("{} ({}, {})", at.worker, at.access, at.state);
        let hosts: Vec<_> = self.attachments.iter().map(host).collect();
        let fields = [
            ("name", self.name.clone()),
            ("id", self.id.clone()),
            ("domain", format!("{} ({})", self.domain, self.domain_id)),
            ("format", self.format.clone()),
            ("size", format!("{} ({} bytes)", bytes_text(self.virtual_size), self.virtual_size)),
            ("state", legality(self.legal)),
            ("placement", self.placement_id.clone()),
            ("path", self.path.clone()),
            ("kind", self.kind().to_owned()),
            ("description", or_dash(&self.description)),
            ("snapshots", or_dash(&snapshots.join(", "))),
            ("shares with", or_dash(&sharers.join(", "))),
            ("attached to", or_dash(&hosts.join(", "))),
            ("oVirt's view", if self.projection_pending { "being written" } else { "up to date" }.to_owned()),
            ("created by", format!("txn {}", self.created_by)),
        ];
        let mut table = Table::new(&[
            "VOLUME",
            "FORMAT",
            ">SIZE",
            ">FILE",
            ">ALLOCATED",
            "ROLE",
            "SNAPSHOT",
            "STATE",
            "PARENT",
            "BLAKE3",
        ]);
        for volume in &self.volumes {
            table.row([
                volume.id.clone(),
                volume.format.clone(),
                bytes_text(volume.virtual_size),
                bytes_text(volume.file_size),
                bytes_text(volume.allocated_bytes),
                volume.role.clone(),
                or_dash(volume.snapshot.as_deref().unwrap_or_default()),
                if volume.legal { "legal" } else { "illegal" }.to_owned(),
                or_dash(volume.parent_id.as_deref().unwrap_or_default()),
                or_dash(volume.blake3.as_deref().unwrap_or_default()),
            ]);
        }
        fields_text(&fields) + &table.render()
    }
}
