//! A job and its live progress as they are printed.

use super::list::Row;
use crate::output::bytes_text;
use crate::output::or_dash;
use crate::output::percent_text;
use sdm_proto::wire::v1;
use serde::Serialize;

/// One job: the long, data-moving part of a transaction.
#[derive(Serialize)]
pub struct JobView {
    /// Its id.
    pub id: String,
    /// The transaction that it works for.
    pub transaction_id: String,
    /// What kind.
    pub kind: String,
    /// unassigned, running, waiting for sender.
    pub state: String,
    /// Who does it; null while unassigned.
    pub worker: Option<String>,
    /// Who reads the source when it is pulled; null otherwise.
    pub source_worker: Option<String>,
    /// Number of the attempt.
    pub attempt: u32,
    /// Its fencing token.
    pub token: String,
    /// Bytes to do.
    pub total_bytes: u64,
    /// Bytes that are durable.
    pub checkpoint_bytes: u64,
    /// Bytes reserved for it.
    pub reserved_bytes: u64,
    /// Cluster clock, milliseconds; 0 when no retry is due.
    pub retry_at_ms: u64,
    /// Why the last attempt failed; empty otherwise.
    pub last_error: String,
    /// Live, when the worker answered; null otherwise.
    pub progress: Option<ProgressView>,
    /// The job in words.
    pub summary: String,
}

/// How far an attempt is right now.
#[derive(Serialize)]
pub struct ProgressView {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes to do.
    pub total_bytes: u64,
    /// Bytes that are durable.
    pub checkpoint_bytes: u64,
    /// Moving average.
    pub bytes_per_second: u64,
    /// copy, verify, check, publish ...
    pub phase: String,
    /// Number of the attempt.
    pub attempt: u32,
}

impl From<v1::JobProgress> for ProgressView {
    fn from(progress: v1::JobProgress) -> Self {
        let v1::JobProgress { done_bytes, total_bytes, checkpoint_bytes, bytes_per_second, phase, attempt } = progress;
        Self { done_bytes, total_bytes, checkpoint_bytes, bytes_per_second, phase, attempt }
    }
}

impl From<v1::Job> for JobView {
    fn from(job: v1::Job) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            id: job.id,
            transaction_id: job.transaction_id,
            kind: job.kind,
            state: job.state,
            worker: some(job.worker),
            source_worker: some(job.source_worker),
            attempt: job.attempt,
            token: job.token,
            total_bytes: job.total_bytes,
            checkpoint_bytes: job.checkpoint_bytes,
            reserved_bytes: job.reserved_bytes,
            retry_at_ms: job.retry_at_ms,
            last_error: job.last_error,
            progress: job.progress.map(ProgressView::from),
            summary: job.summary,
        }
    }
}

impl Row for JobView {
    const HEADINGS: &'static [&'static str] =
        &["JOB", "STATE", ">DONE", ">OF", ">%", ">RATE", ">TRY", "WORKER", "WHAT", "LAST ERROR"];
    const FIRST: &'static str = "data that is being moved appears here; what was done: sdm txn list";

    fn cells(&self) -> Vec<String> {
        let done = self.progress.as_ref().map_or(self.checkpoint_bytes, |progress| progress.done_bytes);
        let rate = self.progress.as_ref().map_or(0, |progress| progress.bytes_per_second);
        let worker = match (&self.worker, &self.source_worker) {
            (Some(worker), Some(source)) => format!("{worker} from {source}"),
            (Some(worker), None) => worker.clone(),
            (None, _) => "-".to_owned(),
        };
        vec![
            self.id.clone(),
            self.state.clone(),
            bytes_text(done),
            bytes_text(self.total_bytes),
            percent_text(done, self.total_bytes),
            if rate > 0 { format!("{}/s", bytes_text(rate)) } else { "-".to_owned() },
            self.attempt.to_string(),
            worker,
            self.summary.clone(),
            or_dash(&self.last_error),
        ]
    }
}
