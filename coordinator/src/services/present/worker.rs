//! A worker as it is shown.

use super::attachment;
use super::domain_word;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::workers::Worker;

/// Attachments and transactions that are shown with a worker: a list of a thousand workers stays one message.
const SHOWN_MAX: usize = 100;

/// The worker.
pub(crate) fn worker(state: &State, worker: &Worker) -> v1::Worker {
    let identity = &worker.identity;
    let domains = worker.domains.iter().map(|(id, sight)| v1::WorkerDomain {
        domain_id: id.to_string(),
        domain: domain_word(state, *id),
        reachable: sight.error.is_none(),
        error: sight.error.clone().unwrap_or_default(),
        total_bytes: sight.total_bytes,
        free_bytes: sight.free_bytes,
    });
    let fencing = state.fencing_txns().filter(|txn| txn.fencing.as_ref().is_some_and(|at| at.worker == identity.id));
    let fencing = fencing.take(SHOWN_MAX).map(|txn| txn.id.to_string());
    v1::Worker {
        id: identity.id.to_string(),
        name: identity.name.to_string(),
        address: identity.address.clone(),
        state: match (worker.is_live(), &worker.draining) {
            (false, _) => "lost",
            (true, Some(_)) => "draining",
            (true, None) => "live",
        }
        .to_owned(),
        machine_id: identity.machine_id.clone(),
        boot_id: identity.boot_id.clone(),
        reach: identity.reach.clone(),
        domains: domains.collect(),
        assignments: state.attempts_of(identity.id).count() as u64,
        session_id: worker.last_session().map(|session| session.to_string()).unwrap_or_default(),
        since_ms: worker.since_ms,
        version: identity.version.clone(),
        draining: worker.draining.as_ref().map(|draining| v1::WorkerDraining {
            since_ms: draining.since_ms,
            by: draining.by.clone(),
            reason: draining.reason.clone(),
        }),
        confirmed_down: worker.confirmed_down.as_ref().filter(|_| !worker.is_live()).map(|down| {
            v1::WorkerConfirmedDown {
                session_id: down.session.to_string(),
                at_ms: down.at_ms,
                by: down.by.clone(),
                reason: down.reason.clone(),
            }
        }),
        fencing_transactions: fencing.collect(),
        attachments: state.attachments_at(identity.id).take(SHOWN_MAX).map(|row| attachment(state, row)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_worker_shows_what_it_reaches_and_how_much_it_has_to_do() {
        let mut sample = Sample::with_disk();
        sample.see("a", "nfs2", Some("no such mount"));
        sample.begin_import("db-01", "nfs1");
        let shown = worker(&sample.state, sample.worker("a"));
        assert_eq!((shown.state.as_str(), shown.assignments), ("live", 1));
        let mut reached: Vec<_> =
            shown.domains.iter().map(|d| (d.domain.as_str(), d.reachable, d.error.as_str())).collect();
        reached.sort_unstable();
        assert_eq!(reached, [("nfs1", true, ""), ("nfs2", false, "no such mount")]);
        sample.lose("a");
        let shown = worker(&sample.state, sample.worker("a"));
        assert_eq!((shown.state.as_str(), shown.session_id.as_str(), shown.assignments), ("lost", "", 0));
    }
}
