//! A worker as it is printed.

use super::AttachmentView;
use super::list::Fields;
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
    /// Since when, by whom and why it gets no new work; null unless it is drained.
    pub draining: Option<StandingView>,
    /// That its host was confirmed down, as of the session that it lost; null otherwise.
    pub confirmed_down: Option<StandingView>,
    /// Transactions for which it may still write in place although it is lost.
    pub fencing_transactions: Vec<String>,
    /// Disks that its host has attached; at most 100.
    pub attachments: Vec<AttachmentView>,
}

/// What an operator said about a worker.
#[derive(Serialize)]
pub struct StandingView {
    /// Cluster clock, milliseconds.
    pub since_ms: u64,
    /// Who said it.
    pub by: String,
    /// Why.
    pub reason: String,
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
            draining: worker.draining.map(|at| StandingView { since_ms: at.since_ms, by: at.by, reason: at.reason }),
            confirmed_down: worker.confirmed_down.map(|at| StandingView {
                since_ms: at.at_ms,
                by: at.by,
                reason: at.reason,
            }),
            fencing_transactions: worker.fencing_transactions,
            attachments: worker.attachments.into_iter().map(AttachmentView::from).collect(),
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

impl WorkerView {
    /// Its state, and what was said about that.
    #[must_use]
    pub fn state_words(&self) -> String {
        let said =
            |what: &str, at: &StandingView| format!("{}, {what} by {}: {}", self.state, at.by, or_dash(&at.reason));
        match (&self.confirmed_down, &self.draining) {
            (Some(down), _) => said("confirmed down", down),
            (None, Some(draining)) => said("drained", draining),
            (None, None) => self.state.clone(),
        }
    }
}

impl Fields for WorkerView {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("name", self.name.clone()),
            ("id", self.id.clone()),
            ("state", self.state_words()),
            ("session", format!("{}   (what `sdm worker confirm-down` asks for)", or_dash(&self.session_id))),
            ("address", self.address.clone()),
            ("machine", format!("{}   boot {}", self.machine_id, self.boot_id)),
            ("prefixes", or_dash(&self.reach.join(", "))),
            ("assignments", self.assignments.to_string()),
            ("version", or_dash(&self.version)),
        ];
        for domain in &self.domains {
            let state = if domain.reachable { "reached" } else { domain.error.as_str() };
            fields.push(("domain", format!("{}   {state}", domain.domain)));
        }
        for txn in &self.fencing_transactions {
            fields.push(("unfenced", format!("transaction {txn}: it may still write in place")));
        }
        for at in &self.attachments {
            fields.push(("attached", format!("disk {}   {}   {}   {}", at.disk, at.access, at.state, at.path)));
        }
        fields
    }
}

impl Row for WorkerView {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "STATE", "ADDRESS", ">ASSIGNMENTS", "REACHES", "DOES NOT REACH", "PREFIXES", "VERSION"];
    const FIRST: &'static str = "start one on each host with storage: `sdm worker`";

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
