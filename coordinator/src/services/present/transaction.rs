//! A transaction as it is shown: where it stands and why, its current attempt, its outcome, and
//! where its bytes go while a command sends or reads them.

use super::hex;
use super::reason;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::jobs::Job;
use sdm_state::txns::Event;
use sdm_state::txns::Outcome;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::txns::Txn;
use sdm_state::work::Attempt;
use sdm_state::work::Work;

/// The transaction with all that happened.
pub(crate) fn transaction(state: &State, txn: &Txn) -> v1::Transaction {
    v1::Transaction { history: txn.history.iter().map(event).collect(), ..without_history(state, txn) }
}

/// The same for lists.
pub(crate) fn without_history(state: &State, txn: &Txn) -> v1::Transaction {
    let job = current_job(state, txn);
    let work = current_work(state, txn);
    let attempt = work.and_then(|work| work.attempt.as_ref());
    let refusal = match &txn.phase {
        Phase::Aborted(refusal) | Phase::Refused(refusal) => Some(v1::Refusal::from(refusal)),
        _ => None,
    };
    let outcome = match &txn.phase {
        Phase::Committed(outcome) => Some(made(outcome)),
        _ => None,
    };
    v1::Transaction {
        id: txn.id.to_string(),
        kind: txn.spec.kind().to_owned(),
        initiator: txn.initiator.clone(),
        reason: txn.reason.clone(),
        phase: txn.phase_word().to_owned(),
        phase_reason: reason::of(state, txn),
        began_ms: txn.began_ms,
        began_unix_ms: txn.began_unix_ms,
        finished_ms: txn.finished_ms,
        deadline_ms: deadline_ms(state, txn, work),
        retry_at_ms: work.filter(|work| work.attempt.is_none()).map_or(0, |work| work.retry_at_ms),
        last_error: work.map_or(&txn.last_error, |work| &work.last_error).clone().unwrap_or_default(),
        objects: txn.objects.clone(),
        locks: locks(state, txn),
        attempt: attempt.map(|attempt| current(state, attempt, job)),
        attempts: work.map_or(txn.attempts, |work| work.attempts),
        refusal,
        outcome,
        transfer: attempt.and_then(|attempt| transfer(state, txn, attempt)),
        history: Vec::new(),
        revision: txn.changed_index,
        summary: txn.summary.clone(),
        job_id: job.map(|job| job.id.to_string()).unwrap_or_default(),
        standing: super::standing(state, txn),
        under_token: txn.under.map(|token| token.to_string()).unwrap_or_default(),
    }
}

/// The job of a running transaction that moves data.
pub(crate) fn current_job<'a>(state: &'a State, txn: &Txn) -> Option<&'a Job> {
    state.jobs.get(&txn.job?)
}

/// What workers do for the transaction now, or are to do next: None when it waits or has ended.
pub(crate) fn current_work<'a>(state: &'a State, txn: &'a Txn) -> Option<&'a Work> {
    if txn.phase.is_final() {
        return None;
    }
    current_job(state, txn).map(|job| &job.work).or(txn.step.as_ref())
}

fn event(event: &Event) -> v1::Event {
    v1::Event { at_ms: event.at_ms, index: event.index, text: event.text.clone() }
}

fn made(outcome: &Outcome) -> v1::Outcome {
    v1::Outcome {
        attachment: outcome.attachment.map(super::attachment::token),
        worker_id: outcome.worker.map(|id| id.to_string()).unwrap_or_default(),
        domain_id: outcome.domain.map(|id| id.to_string()).unwrap_or_default(),
        disk_id: outcome.disk.map(|id| id.to_string()).unwrap_or_default(),
        placement_id: outcome.placement.map(|id| id.to_string()).unwrap_or_default(),
        volume_ids: outcome.volumes.iter().map(ToString::to_string).collect(),
        bytes: outcome.bytes,
        blake3: hex(outcome.blake3),
        trash_id: outcome.trash.map(|id| id.to_string()).unwrap_or_default(),
        kept_ms: outcome.kept_ms.unwrap_or_default(),
    }
}

fn current(state: &State, attempt: &Attempt, job: Option<&Job>) -> v1::Attempt {
    v1::Attempt {
        token: attempt.token.to_string(),
        number: attempt.number,
        worker_id: attempt.worker.to_string(),
        worker: state.worker_word(attempt.worker),
        source_worker: attempt.source_worker.map(|id| state.worker_word(id)).unwrap_or_default(),
        assigned_ms: attempt.assigned_ms,
        checkpoint_bytes: attempt.checkpoint_bytes,
        total_bytes: job.map_or(0, |job| job.total_bytes),
    }
}

fn locks(state: &State, txn: &Txn) -> Vec<String> {
    let set = txn.lock.and_then(|id| state.locks.get(&id));
    let words = |(resource, mode)| format!("{mode} {}", state.resource_word(resource));
    set.map_or_else(Vec::new, |set| set.resources.iter().map(words).collect())
}

/// When the phase ends by itself; 0 when it does not.
fn deadline_ms(state: &State, txn: &Txn, work: Option<&Work>) -> u64 {
    match (&txn.phase, work) {
        (Phase::Waiting { deadline_ms }, _) => *deadline_ms,
        (Phase::Running, Some(Work { attempt: Some(attempt), .. })) => attempt.peer_deadline_ms,
        // No time ends what is pinned to a host.
        (Phase::Running, Some(work)) if work.pinned.is_some() => 0,
        (Phase::Running, Some(work)) => work.unassigned_since_ms.saturating_add(state.meta.settings.unassigned_max_ms),
        _ => 0,
    }
}

/// Where a command sends or reads the bytes.
fn transfer(state: &State, txn: &Txn, attempt: &Attempt) -> Option<v1::Transfer> {
    let volumes = &txn.marker.as_ref()?.volumes;
    let volume = match &txn.spec {
        Spec::ImportDisk { .. } => volumes.first()?,
        Spec::ExportDisk { .. } | Spec::ExportChain { .. } => volumes.last()?,
        _ => return None,
    };
    Some(v1::Transfer {
        address: state.workers.get(&attempt.worker)?.identity.address.clone(),
        ticket: attempt.ticket.clone().into(),
        token: attempt.token.to_string(),
        volume_id: volume.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_proto::ids::TxnId;

    fn shown(sample: &Sample, id: TxnId) -> v1::Transaction {
        transaction(&sample.state, sample.state.txns.get(&id).unwrap())
    }

    #[test]
    fn a_running_move_shows_its_attempt_its_locks_and_its_story() {
        let mut sample = Sample::with_disk();
        let id = sample.begin_move("web-01", "nfs2");
        sample.checkpoint(1 << 19);
        let txn = shown(&sample, id);
        assert_eq!((txn.kind.as_str(), txn.phase.as_str()), ("disk-move", "running"));
        assert_eq!(txn.objects, ["disk/web-01", "domain/nfs1", "domain/nfs2"]);
        assert_eq!((txn.locks.len(), txn.attempts, txn.deadline_ms), (3, 1, 0));
        let attempt = txn.attempt.unwrap();
        assert_eq!((attempt.worker.as_str(), attempt.number), ("a", 1));
        assert_eq!((attempt.checkpoint_bytes, attempt.total_bytes), (1 << 19, 1 << 20));
        assert!(txn.transfer.is_none(), "a move's ticket is for workers only");
        assert!(!txn.job_id.is_empty() && !txn.history.is_empty());
        assert!(without_history(&sample.state, sample.state.txns.get(&id).unwrap()).history.is_empty());
    }

    #[test]
    fn an_import_says_where_to_send_the_bytes_as_long_as_it_runs() {
        let mut sample = Sample::with_disk();
        let id = sample.begin_import("db-01", "nfs1");
        let txn = shown(&sample, id);
        let transfer = txn.transfer.unwrap();
        assert_eq!(transfer.address, sample.worker("a").identity.address);
        assert_eq!(transfer.token, txn.attempt.unwrap().token);
        assert!(!transfer.ticket.is_empty() && !transfer.volume_id.is_empty());
        assert!(txn.deadline_ms > sample.state.meta.clock_ms, "nobody sends yet");
        sample.lose("a");
        let txn = shown(&sample, id);
        assert!(txn.transfer.is_none() && txn.attempt.is_none());
        assert!(txn.retry_at_ms > 0 && txn.deadline_ms > 0);
        assert!(txn.last_error.contains("worker a is lost"), "{}", txn.last_error);
    }

    #[test]
    fn an_outcome_names_what_was_made() {
        let sample = Sample::with_disk();
        let disk = sample.disk("web-01");
        let txn = shown(&sample, disk.created_by);
        let outcome = txn.outcome.unwrap();
        assert_eq!((txn.phase.as_str(), outcome.disk_id), ("committed", disk.id.to_string()));
        assert_eq!(outcome.blake3, "07".repeat(32));
        assert!(txn.refusal.is_none() && txn.attempt.is_none() && txn.job_id.is_empty());
        assert_eq!(txn.attempts, 1);
    }

    #[test]
    fn a_refused_transaction_carries_its_refusal() {
        let mut sample = Sample::with_disk();
        let id = sample.begin_import("web-01", "nfs1");
        let txn = shown(&sample, id);
        assert_eq!((txn.phase.as_str(), txn.refusal.unwrap().reason.as_str()), ("refused", "DISK_EXISTS"));
    }
}
