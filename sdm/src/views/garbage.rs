//! Garbage as it is printed.

use super::list::Row;
use crate::output::bytes_text;
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
    /// aborted, superseded, deleted, closed-attempt.
    pub kind: String,
    /// Names on the storage that it covers.
    pub names: Vec<String>,
    /// The transaction that left it.
    pub transaction_id: String,
    /// Why it is garbage.
    pub evidence: String,
    /// Cluster clock, milliseconds.
    pub due_ms: u64,
    /// waiting, due or deleting.
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
        }
    }
}

impl Row for GarbageView {
    const HEADINGS: &'static [&'static str] =
        &["GARBAGE", "KIND", "STATE", "DOMAIN", ">BYTES", "WORKER", ">TRIES", "EVIDENCE", "LAST ERROR"];

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
