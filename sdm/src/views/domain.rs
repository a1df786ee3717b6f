//! A storage domain as it is printed.

use super::list::Fields;
use super::list::Row;
use crate::output::age_text;
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
    /// How long ago these were reported, in milliseconds of the cluster's clock; null while that is not known.
    pub space_age_ms: Option<u64>,
    /// Bytes promised to running jobs.
    pub reserved_bytes: u64,
    /// How many disks lie in it.
    pub disks: u64,
    /// Live workers that reach it.
    pub workers: Vec<String>,
    /// Since when, by whom and why it is in maintenance; null otherwise.
    pub maintenance: Option<MaintenanceView>,
    /// Whether its name on the storage is being rewritten.
    pub projection_pending: bool,
    /// The transaction that made it.
    pub created_by: String,
    /// How long its deleted disks can be restored, in milliseconds.
    pub retention_ms: u64,
    /// Whether that was set for it, and is not the cluster's default.
    pub retention_is_own: bool,
}

/// Why a domain is in maintenance.
#[derive(Serialize)]
pub struct MaintenanceView {
    /// Cluster clock, milliseconds.
    pub since_ms: u64,
    /// Who wanted it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The transaction.
    pub transaction_id: String,
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
            space_age_ms: Some(domain.space_age_ms).filter(|age| *age > 0),
            reserved_bytes: domain.reserved_bytes,
            disks: domain.disks,
            workers: domain.workers,
            created_by: domain.created_by,
            maintenance: domain.maintenance.map(|at| MaintenanceView {
                since_ms: at.since_ms,
                by: at.by,
                reason: at.reason,
                transaction_id: at.transaction_id,
            }),
            projection_pending: domain.projection_pending,
            retention_ms: domain.retention_ms,
            retention_is_own: domain.retention_is_own,
        }
    }
}

impl DomainView {
    // A file system of no bytes is one of which nothing was reported.
    fn total_text(&self) -> String {
        if self.total_bytes == 0 { "-".to_owned() } else { bytes_text(self.total_bytes) }
    }

    fn retention_text(&self) -> String {
        let kept = if self.retention_ms == 0 { "none".to_owned() } else { age_text(self.retention_ms) };
        format!("{kept}{}", if self.retention_is_own { "" } else { "   (the cluster's default)" })
    }

    fn why(&self) -> String {
        match &self.maintenance {
            Some(at) => format!("by {} {} {}", or_dash(&at.by), at.reason, self.state_reason).trim_end().to_owned(),
            None => self.state_reason.clone(),
        }
    }

    /// How old the figures are: changes of less than 64 MiB or 1 % are not reported, and others after seconds.
    fn age_text(&self) -> String {
        self.space_age_ms
            .map_or(String::new(), |age| format!("   (reported {} ago; less than 64 MiB may differ)", age_text(age)))
    }

    fn free_text(&self) -> String {
        if self.total_bytes == 0 { "-".to_owned() } else { bytes_text(self.free_bytes) }
    }
}

impl Row for DomainView {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "TYPE", "STATE", ">FREE", ">TOTAL", ">DISKS", "WORKERS", "PATH", "WHY"];
    const FIRST: &'static str = "make one: sdm domain create NAME --path PATH";

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
            self.why(),
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
            ("state", format!("{}   {}", self.state, self.why())),
            ("free", format!("{} of {}{}", self.free_text(), self.total_text(), self.age_text())),
            ("reserved", bytes_text(self.reserved_bytes)),
            ("disks", self.disks.to_string()),
            ("workers", or_dash(&self.workers.join(", "))),
            ("retention", self.retention_text()),
            ("created by", format!("txn {}", self.created_by)),
        ]
    }
}
