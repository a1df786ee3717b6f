//! A job as it is shown.

use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::jobs::Job;
use sdm_state::txns::Spec;

/// The job, with live progress where a worker told.
pub(crate) fn job(state: &State, job: &Job, progress: Option<v1::JobProgress>) -> v1::Job {
    let txn = state.txns.get(&job.txn);
    let attempt = job.work.attempt.as_ref();
    let exports = txn.is_some_and(|txn| matches!(txn.spec, Spec::ExportDisk { .. } | Spec::ExportChain { .. }));
    let word = match attempt {
        None => "unassigned",
        Some(attempt) if attempt.peer_deadline_ms > 0 && exports => "waiting for reader",
        Some(attempt) if attempt.peer_deadline_ms > 0 => "waiting for sender",
        Some(_) => "running",
    };
    v1::Job {
        id: job.id.to_string(),
        transaction_id: job.txn.to_string(),
        kind: txn.map(|txn| txn.spec.kind().to_owned()).unwrap_or_default(),
        state: word.to_owned(),
        worker: attempt.map(|attempt| state.worker_word(attempt.worker)).unwrap_or_default(),
        source_worker: attempt
            .and_then(|attempt| attempt.source_worker)
            .map(|id| state.worker_word(id))
            .unwrap_or_default(),
        attempt: attempt.map_or(job.work.attempts, |attempt| attempt.number),
        token: attempt.map(|attempt| attempt.token.to_string()).unwrap_or_default(),
        total_bytes: job.total_bytes,
        checkpoint_bytes: attempt.map_or(0, |attempt| attempt.checkpoint_bytes),
        reserved_bytes: job.reserved_bytes,
        retry_at_ms: if attempt.is_some() { 0 } else { job.work.retry_at_ms },
        last_error: job.work.last_error.clone().unwrap_or_default(),
        progress,
        summary: txn.map(|txn| txn.summary.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn only(sample: &Sample) -> v1::Job {
        job(&sample.state, sample.only_job(), None)
    }

    #[test]
    fn a_job_runs_fails_and_waits_for_its_next_worker() {
        let mut sample = Sample::with_disk();
        sample.begin_move("web-01", "nfs2");
        let shown = only(&sample);
        assert_eq!((shown.state.as_str(), shown.kind.as_str(), shown.attempt), ("running", "disk-move", 1));
        assert_eq!(shown.summary, "move disk web-01 from nfs1 to nfs2");
        sample.lose("a");
        let shown = only(&sample);
        assert_eq!((shown.state.as_str(), shown.worker.as_str(), shown.attempt), ("unassigned", "", 1));
        assert!(shown.last_error.contains("worker a is lost"), "{}", shown.last_error);
        assert!(shown.retry_at_ms > sample.state.meta.clock_ms);
    }

    #[test]
    fn an_import_waits_for_its_sender() {
        let mut sample = Sample::with_disk();
        sample.begin_import("db-01", "nfs1");
        assert_eq!(only(&sample).state, "waiting for sender");
        sample.connect_peer();
        assert_eq!(only(&sample).state, "running");
    }
}
