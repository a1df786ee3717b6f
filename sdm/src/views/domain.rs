//! A storage domain as it is printed.

use super::list::Fields;
use super::list::Row;
use crate::output::bytes_text;
use crate::output::or_dash;
use sdm_proto::wire::v1;
use serde::Serialize;

/// One storage domain.
#[derive(Serialize)]
pub struct DomainView {
    /// Its id for life.
    pub id: String,
    /// Its name.
    pub name: String,
    /// "file".
    pub r#type: String,
    /// Where it lies on the workers' hosts.
    pub path: String,
    /// Whether the path need not be a mount point.
    pub local: bool,
    /// reachable or unreachable.
    pub state: String,
    /// Why it is unreachable; empty otherwise.
    pub state_reason: String,
    /// Bytes of its file system; 0 while no worker has reported them.
    pub total_bytes: u64,
    /// Bytes free there; without a meaning while `total_bytes` is 0.
    pub free_bytes: u64,
    /// Bytes promised to running jobs.
    pub reserved_bytes: u64,
    /// How many disks lie in it.
    pub disks: u64,
    /// Live workers that reach it.
    pub workers: Vec<String>,
    /// The transaction that made it.
    pub created_by: String,
}

impl From<v1::Domain> for DomainView {
    fn from(domain: v1::Domain) -> Self {
        Self {
            id: domain.id,
            name: domain.name,
            r#type: domain.r#type,
            path: domain.path,
            local: domain.local,
            state: domain.state,
            state_reason: domain.state_reason,
            total_bytes: domain.total_bytes,
            free_bytes: domain.free_bytes,
            reserved_bytes: domain.reserved_bytes,
            disks: domain.disks,
            workers: domain.workers,
            created_by: domain.created_by,
        }
    }
}

impl DomainView {
    // A file system of no bytes is one of which nothing was reported.
    fn total_text(&self) -> String {
        if self.total_bytes == 0 { "-".to_owned() } else { bytes_text(self.total_bytes) }
    }

    fn free_text(&self) -> String {
        if self.total_bytes == 0 { "-".to_owned() } else { bytes_text(self.free_bytes) }
    }
}

impl Row for DomainView {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "TYPE", "STATE", ">FREE", ">TOTAL", ">DISKS", "WORKERS", "PATH", "WHY"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.r#type.clone(),
            self.state.clone(),
            self.free_text(),
            self.total_text(),
            self.disks.to_string(),
            or_dash(&self.workers.join(",")),
            self.path.clone(),
            self.state_reason.clone(),
        ]
    }
}

impl Fields for DomainView {
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.clone()),
            ("id", self.id.clone()),
            ("type", self.r#type.clone()),
            ("path", format!("{}{}", self.path, if self.local { "   (local: no mount point needed)" } else { "" })),
            ("state", format!("{}   {}", self.state, self.state_reason)),
            ("free", format!("{} of {}", self.free_text(), self.total_text())),
            ("reserved", bytes_text(self.reserved_bytes)),
            ("disks", self.disks.to_string()),
            ("workers", or_dash(&self.workers.join(", "))),
            ("created by", format!("txn {}", self.created_by)),
        ]
    }
}
