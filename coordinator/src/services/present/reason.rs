//! Why a transaction is in its phase, in words: one sentence that says what it does or waits for,
//! who does it, and what comes next.

use super::domain_word;
use super::seconds_until;
use super::transaction::current_job;
use super::transaction::current_work;
use sdm_state::State;
use sdm_state::jobs::Job;
use sdm_state::locks::LockSet;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::txns::Txn;
use sdm_state::work::Attempt;
use sdm_state::work::Work;
use sdm_state::workers::Worker;

/// Holders that are named at most.
const HOLDERS_MAX: usize = 3;

/// The sentence.
pub(super) fn of(state: &State, txn: &Txn) -> String {
    match &txn.phase {
        Phase::Waiting { deadline_ms } => waiting(state, txn, *deadline_ms),
        Phase::Running if txn.fencing.is_some() => fencing(state, txn),
        Phase::Running => match current_work(state, txn) {
            Some(Work { attempt: Some(attempt), .. }) => attempted(state, txn, attempt),
            Some(work) => unassigned(state, txn, work),
            None => "is being done".to_owned(),
        },
        Phase::Committed(_) => {
            let seconds = txn.finished_ms.saturating_sub(txn.began_ms).div_ceil(1000);
            format!("done after {seconds} s")
        }
        Phase::Aborted(refusal) | Phase::Refused(refusal) => refusal.message.clone(),
    }
}

fn fencing(state: &State, txn: &Txn) -> String {
    let Some(fencing) = &txn.fencing else { return String::new() };
    let worker = state.worker_word(fencing.worker);
    let seconds = state.meta.clock_ms.saturating_sub(fencing.since_ms) / 1000;
    let ending = if txn.ending.is_some() { "; then it is aborted, as was asked for" } else { "" };
    format!(
        "worker {worker} was lost {seconds} s ago and may still write in place: waits until it is back, its machine was \
         started anew, or it is confirmed down (sdm worker confirm-down {worker} --session {} --reason TEXT){ending}",
        fencing.session
    )
}

fn waiting(state: &State, txn: &Txn, deadline_ms: u64) -> String {
    let left = seconds_until(state, deadline_ms);
    let blockers =
        txn.lock.and_then(|id| state.locks.get(&id)).map(|lock| state.lock_blockers(lock)).unwrap_or_default();
    let named: Vec<&LockSet> = blockers.iter().take(HOLDERS_MAX).filter_map(|id| state.locks.get(id)).collect();
    let mut words: Vec<String> = named
        .iter()
        .map(|lock| {
            let state_word = if lock.granted.is_some() { "held" } else { "asked for before" };
            format!("lock {} {state_word} by {}", lock.id, state.owner_words(lock))
        })
        .collect();
    if blockers.len() > named.len() {
        words.push(format!("{} more", blockers.len() - named.len()));
    }
    if words.is_empty() {
        return "its locks are about to be granted".to_owned();
    }
    format!("waits for {}; gives up in {left} s", words.join(", "))
}

fn attempted(state: &State, txn: &Txn, attempt: &Attempt) -> String {
    let worker = state.worker_word(attempt.worker);
    let again = if attempt.number > 1 { format!(" (attempt {})", attempt.number) } else { String::new() };
    let durable = current_job(state, txn).map(|job| durable(job, attempt)).unwrap_or_default();
    let what = match &txn.spec {
        _ if attempt.peer_deadline_ms > 0 => {
            let left = seconds_until(state, attempt.peer_deadline_ms);
            let other = match &txn.spec {
                Spec::ExportDisk { .. } | Spec::ExportChain { .. } => "a command to read the bytes from",
                _ => "a command to send the file to",
            };
            format!("waits {left} s more for {other} worker {worker}")
        }
        Spec::CreateDomain { .. } => format!("making the domain at worker {worker}"),
        Spec::CreateDisk { .. } => format!("making the disk at worker {worker}"),
        Spec::ImportDisk { .. } => format!("receiving the file at worker {worker}{durable}"),
        Spec::ExportDisk { .. } | Spec::ExportChain { .. } => format!("sending the bytes from worker {worker}"),
        Spec::MoveDisk { .. } => match attempt.source_worker {
            Some(source) => {
                format!("copying at worker {worker}, which pulls from worker {}{durable}", state.worker_word(source))
            }
            None => format!("copying at worker {worker}{durable}"),
        },
        Spec::DeleteDisk { .. } => format!("deleting at worker {worker}"),
        Spec::Noop { .. } => format!("waits for the report of worker {worker}"),
        Spec::ResizeDisk { .. } => format!("growing at worker {worker}"),
        Spec::CreateSnapshot { .. } | Spec::RevertSnapshot { .. } => format!("making a new leaf at worker {worker}"),
        Spec::CloneLinked { .. } => format!("linking the chain at worker {worker}"),
        Spec::CopyDisk { .. } => format!("copying at worker {worker}{durable}"),
        Spec::ConvertDisk { .. } => format!("converting at worker {worker}{durable}"),
        Spec::FlattenDisk { .. } => format!("flattening at worker {worker}{durable}"),
        Spec::DeleteSnapshot { in_place: true, .. } if txn.stage > 0 => format!("linking the chain at worker {worker}"),
        Spec::DeleteSnapshot { .. } => format!("merging at worker {worker}{durable}"),
        _ => format!("{} at worker {worker}{durable}", txn.summary),
    };
    format!("{what}{again}")
}

fn durable(job: &Job, attempt: &Attempt) -> String {
    if job.total_bytes == 0 {
        return String::new();
    }
    let share = u128::from(attempt.checkpoint_bytes.min(job.total_bytes)) * 100 / u128::from(job.total_bytes);
    format!(", {share} % durable")
}

fn unassigned(state: &State, txn: &Txn, work: &Work) -> String {
    if let Some(pin) = &work.pinned {
        let worker = state.worker_word(pin.worker);
        let next = if work.retry_at_ms > state.meta.clock_ms {
            format!("next attempt there in {} s", seconds_until(state, work.retry_at_ms))
        } else {
            "waits for it".to_owned()
        };
        return format!(
            "attempt {} broke off while it wrote in place: pinned to worker {worker}; {next}",
            work.attempts
        );
    }
    let next = if work.retry_at_ms > state.meta.clock_ms {
        format!("next attempt in {} s", seconds_until(state, work.retry_at_ms))
    } else {
        let until = work.unassigned_since_ms.saturating_add(state.meta.settings.unassigned_max_ms);
        format!("gives up in {} s", seconds_until(state, until))
    };
    match missing(state, txn) {
        Some(missing) => format!("no live worker reaches {missing}; {next}"),
        None if work.attempts > 0 => format!("attempt {} failed; {next}", work.attempts),
        None => format!("waits for a worker; {next}"),
    }
}

/// What nobody reaches who would have to.
fn missing(state: &State, txn: &Txn) -> Option<String> {
    let reached = |suits: &dyn Fn(&Worker) -> bool| state.workers.values().any(suits);
    let domain = |id| (!reached(&|worker| worker.reaches(id))).then(|| format!("domain {}", domain_word(state, id)));
    match &txn.spec {
        Spec::CreateDomain { path, .. } => {
            (!reached(&|worker| worker.is_live() && worker.owns_path(path))).then(|| format!("the path {path}"))
        }
        Spec::CreateDisk { domain: id, .. } => domain(*id),
        Spec::Noop { .. } => None,
        _ => {
            let job = current_job(state, txn)?;
            job.target.and_then(domain).or_else(|| job.source.and_then(domain))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_proto::ids::TxnId;

    fn reason(sample: &Sample, id: TxnId) -> String {
        of(&sample.state, sample.state.txns.get(&id).unwrap())
    }

    #[test]
    fn a_copy_says_where_it_runs_and_how_much_is_durable() {
        let mut sample = Sample::with_disk();
        let id = sample.begin_move("web-01", "nfs2");
        sample.checkpoint(430_000);
        assert_eq!(reason(&sample, id), "copying at worker a, 41 % durable");
    }

    #[test]
    fn a_wait_names_the_holder_and_its_end() {
        let mut sample = Sample::with_disk();
        let mover = sample.begin_move("web-01", "nfs2");
        let id = sample.begin_delete("web-01");
        let words = reason(&sample, id);
        assert!(words.starts_with("waits for lock "), "{words}");
        assert!(words.contains(&format!("held by transaction {mover}, move disk web-01")), "{words}");
        assert!(words.ends_with("gives up in 300 s"), "{words}");
    }

    #[test]
    fn a_lost_worker_leads_to_who_is_missing_and_when_it_is_tried_again() {
        let mut sample = Sample::with_disk();
        let id = sample.begin_move("web-01", "nfs2");
        sample.lose("a");
        assert_eq!(reason(&sample, id), "no live worker reaches domain nfs2; next attempt in 1 s");
    }

    #[test]
    fn an_import_without_a_sender_says_how_long_it_waits() {
        let mut sample = Sample::with_disk();
        let id = sample.begin_import("db-01", "nfs1");
        assert_eq!(reason(&sample, id), "waits 60 s more for a command to send the file to worker a");
        sample.connect_peer();
        assert_eq!(reason(&sample, id), "receiving the file at worker a, 0 % durable");
    }

    #[test]
    fn what_ended_says_how() {
        let sample = Sample::with_disk();
        assert!(reason(&sample, sample.disk("web-01").created_by).starts_with("done after "));
    }
}
