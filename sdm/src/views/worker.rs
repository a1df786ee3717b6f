//! A worker as it is printed.

use super::list::Row;
use crate::output::or_dash;
use sdm_proto::wire::v1;
use serde::Serialize;

/// One worker.
#[derive(Serialize)]
pub struct WorkerView {
    /// Its identity.
    pub id: String,
    /// Its name: a label.
    pub name: String,
    /// Where others reach it.
    pub address: String,
    /// live or lost.
    pub state: String,
    /// Its machine.
    pub machine_id: String,
    /// That machine's boot.
    pub boot_id: String,
    /// Path prefixes that it is for.
    pub reach: Vec<String>,
    /// Each domain, and whether it reaches it.
    pub domains: Vec<WorkerDomainView>,
    /// How much it has to do.
    pub assignments: u64,
    /// Its session.
    pub session_id: String,
    /// Cluster clock, milliseconds: since when it is live or lost.
    pub since_ms: u64,
    /// Its release.
    pub version: String,
}

/// How a worker sees one domain.
#[derive(Serialize)]
pub struct WorkerDomainView {
    domain_id: String,
    domain: String,
    reachable: bool,
    error: String,
    total_bytes: u64,
    free_bytes: u64,
}

impl From<v1::Worker> for WorkerView {
    fn from(worker: v1::Worker) -> Self {
        Self {
            id: worker.id,
            name: worker.name,
            address: worker.address,
            state: worker.state,
            machine_id: worker.machine_id,
            boot_id: worker.boot_id,
            reach: worker.reach,
            domains: worker.domains.into_iter().map(WorkerDomainView::from).collect(),
            assignments: worker.assignments,
            session_id: worker.session_id,
            since_ms: worker.since_ms,
            version: worker.version,
        }
    }
}

impl From<v1::WorkerDomain> for WorkerDomainView {
    fn from(domain: v1::WorkerDomain) -> Self {
        Self {
            domain_id: domain.domain_id,
            domain: domain.domain,
            reachable: domain.reachable,
            error: domain.error,
            total_bytes: domain.total_bytes,
            free_bytes: domain.free_bytes,
        }
    }
}

impl Row for WorkerView {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "STATE", "ADDRESS", ">ASSIGNMENTS", "REACHES", "DOES NOT REACH", "PREFIXES", "VERSION"];

    fn cells(&self) -> Vec<String> {
        let names = |reachable: bool| {
            let domains = self.domains.iter().filter(|domain| domain.reachable == reachable);
            or_dash(&domains.map(|domain| domain.domain.as_str()).collect::<Vec<_>>().join(","))
        };
        vec![
            self.name.clone(),
            self.state.clone(),
            self.address.clone(),
            self.assignments.to_string(),
            names(true),
            names(false),
            or_dash(&self.reach.join(",")),
            or_dash(&self.version),
        ]
    }
}
