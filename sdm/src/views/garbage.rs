//! Garbage as it is printed.

use super::list::Fields;
use super::list::Row;
use crate::output::bytes_text;
use crate::output::clock_text;
use crate::output::or_dash;
use sdm_proto::wire::v1;
use serde::Serialize;

/// What lost its place in the catalog and waits for deletion.
#[derive(Clone, Serialize)]
pub struct GarbageView {
    /// Its id.
    pub id: String,
    /// Id of the domain where it lies.
    pub domain_id: String,
    /// That domain's name.
    pub domain: String,
    /// closed-attempt, superseded, deleted, orphan.
    pub kind: String,
    /// Names on the storage that it covers.
    pub names: Vec<String>,
    /// The transaction that left it.
    pub transaction_id: String,
    /// Why it is garbage.
    pub evidence: String,
    /// Cluster clock, milliseconds.
    pub due_ms: u64,
    /// trash, held, waiting, due or deleting.
    pub state: String,
    /// Who deletes it; null while nobody does.
    pub worker: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// Cluster clock, milliseconds; 0 when no retry is due.
    pub retry_at_ms: u64,
    /// Why the last try failed; empty otherwise.
    pub last_error: String,
    /// Bytes that it occupies.
    pub bytes: u64,
    /// Token of the attempt that made the names.
    pub made_by: String,
    /// Cluster clock, milliseconds: since when it is garbage.
    pub since_ms: u64,
    /// The deleted disk, where it is kept.
    pub disk_id: Option<String>,
    /// Its name.
    pub disk: Option<String>,
    /// Whether it can still be put back.
    pub restorable: bool,
    /// Set while nothing may delete it.
    pub hold: Option<HoldView>,
    /// Cluster clock, milliseconds, when its first deletion was assigned; 0 before. Known for disks.
    pub doomed_ms: u64,
    /// To whom.
    pub doomed_worker: Option<String>,
    /// What is in the way of its deletion; empty when nothing is.
    pub blocked_by: String,
    #[serde(skip)]
    clock_ms: u64,
}

/// That garbage is kept.
#[derive(Clone, Serialize)]
pub struct HoldView {
    /// Why.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// In which transaction.
    pub transaction_id: String,
    /// Cluster clock, milliseconds.
    pub since_ms: u64,
}

impl From<v1::Garbage> for GarbageView {
    fn from(garbage: v1::Garbage) -> Self {
        Self {
            id: garbage.id,
            domain_id: garbage.domain_id,
            domain: garbage.domain,
            kind: garbage.kind,
            names: garbage.names,
            transaction_id: garbage.transaction_id,
            evidence: garbage.evidence,
            due_ms: garbage.due_ms,
            state: garbage.state,
            worker: Some(garbage.worker).filter(|worker| !worker.is_empty()),
            attempts: garbage.attempts,
            retry_at_ms: garbage.retry_at_ms,
            last_error: garbage.last_error,
            bytes: garbage.bytes,
            made_by: garbage.made_by,
            since_ms: garbage.since_ms,
            disk_id: Some(garbage.disk_id).filter(|id| !id.is_empty()),
            disk: Some(garbage.disk).filter(|name| !name.is_empty()),
            restorable: garbage.restorable,
            hold: garbage.hold.map(|hold| HoldView {
                reason: hold.reason,
                by: hold.by,
                transaction_id: hold.transaction_id,
                since_ms: hold.since_ms,
            }),
            doomed_ms: garbage.doomed_ms,
            doomed_worker: Some(garbage.doomed_worker).filter(|worker| !worker.is_empty()),
            blocked_by: garbage.blocked_by,
            clock_ms: 0,
        }
    }
}

impl GarbageView {
    /// The same, with its times told against the cluster's clock.
    #[must_use]
    pub fn at(self, clock_ms: u64) -> Self {
        Self { clock_ms, ..self }
    }
}

impl Fields for GarbageView {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("garbage", self.id.clone()),
            ("kind", self.kind.clone()),
            ("state", self.state.clone()),
            ("evidence", self.evidence.clone()),
            ("domain", or_dash(&self.domain)),
            ("names", self.names.join(" ")),
            ("made by", format!("attempt {}", self.made_by)),
            ("transaction", self.transaction_id.clone()),
            ("bytes", bytes_text(self.bytes)),
            ("since", clock_text(self.since_ms, self.clock_ms)),
            ("due", clock_text(self.due_ms, self.clock_ms)),
        ];
        if let Some(disk) = &self.disk {
            let back = if self.restorable { format!("sdm gc trash restore {}", self.id) } else { "no".to_owned() };
            fields.extend([("disk", disk.clone()), ("restorable", back)]);
        }
        if let Some(worker) = &self.doomed_worker {
            let when = clock_text(self.doomed_ms, self.clock_ms);
            fields.push(("doomed", format!("its deletion was given to worker {worker} {when}")));
        }
        if let Some(hold) = &self.hold {
            let since = clock_text(hold.since_ms, self.clock_ms);
            fields.push(("held", format!("{since} by {}: {}   (txn {})", hold.by, hold.reason, hold.transaction_id)));
        }
        fields.extend([
            ("worker", or_dash(self.worker.as_deref().unwrap_or_default())),
            ("tries", self.attempts.to_string()),
            ("in the way", or_dash(&self.blocked_by)),
            ("last error", or_dash(&self.last_error)),
        ]);
        fields
    }
}

impl Row for GarbageView {
    const HEADINGS: &'static [&'static str] =
        &["GARBAGE", "KIND", "STATE", "DOMAIN", ">BYTES", "WORKER", ">TRIES", "EVIDENCE", "LAST ERROR"];
    const FIRST: &'static str = "what is deleted or superseded appears here until it is gone from the storage";

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.kind.clone(),
            self.state.clone(),
            self.domain.clone(),
            bytes_text(self.bytes),
            or_dash(self.worker.as_deref().unwrap_or_default()),
            self.attempts.to_string(),
            self.evidence.clone(),
            or_dash(&self.last_error),
        ]
    }
}
