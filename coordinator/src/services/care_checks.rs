//! What a status tells of operators' own doing and of what waits for them: domains in maintenance,
//! drained workers, attachments and transactions that nothing has fenced yet.

use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::catalog::DomainState;

/// Of each kind so many are told one by one; the rest as a number.
const TOLD_MAX: usize = 8;

/// How many seconds of the cluster's clock ago, in words.
fn ago(state: &State, since_ms: u64) -> String {
    format!("{} s ago", state.meta.clock_ms.saturating_sub(since_ms) / 1000)
}

fn quoted(by: &str, reason: &str) -> String {
    let by = if by.is_empty() { "somebody" } else { by };
    if reason.is_empty() { format!("by {by}") } else { format!("by {by} ({reason})") }
}

/// The checks.
pub(super) fn care_checks(state: &State) -> Vec<v1::HealthCheck> {
    let mut checks = Vec::new();
    maintenance(state, &mut checks);
    drained(state, &mut checks);
    unfenced(state, &mut checks);
    fencing(state, &mut checks);
    checks
}

fn tell(checks: &mut Vec<v1::HealthCheck>, code: &str, all: Vec<(String, String)>) {
    let more = all.len().saturating_sub(TOLD_MAX);
    let check = |message: String, hint: String| v1::HealthCheck {
        code: code.to_owned(),
        severity: "warn".to_owned(),
        message,
        hint,
    };
    let next = all.first().map(|(_, hint)| hint.clone()).unwrap_or_default();
    checks.extend(all.into_iter().take(TOLD_MAX).map(|(message, hint)| check(message, hint)));
    if more > 0 {
        checks.push(check(format!("and {more} more of these"), next));
    }
}

fn maintenance(state: &State, checks: &mut Vec<v1::HealthCheck>) {
    let all = state.domains.values().filter_map(|domain| {
        let DomainState::Maintenance(at) = &domain.state else { return None };
        let (since, by) = (ago(state, at.since_ms), quoted(&at.by, &at.reason));
        let message = format!("domain {} was put into maintenance {since} {by}", domain.name);
        Some((message, format!("sdm domain activate {}", domain.name)))
    });
    tell(checks, "DOMAIN_MAINTENANCE", all.collect());
}

fn drained(state: &State, checks: &mut Vec<v1::HealthCheck>) {
    let all = state.workers.values().filter_map(|worker| {
        let draining = worker.draining.as_ref()?;
        let left = state.attempts_of(worker.identity.id).count();
        let (since, by) = (ago(state, draining.since_ms), quoted(&draining.by, &draining.reason));
        let name = &worker.identity.name;
        let message = format!("worker {name} was drained {since} {by}; it has {left} assignments left");
        Some((message, format!("sdm worker undrain {name}")))
    });
    tell(checks, "WORKER_DRAINING", all.collect());
}

fn unfenced(state: &State, checks: &mut Vec<v1::HealthCheck>) {
    let rows = state.unfenced_attachments().filter_map(|token| state.attachments.get(token));
    let all = rows.map(|row| {
        let disk = state.disks.get(&row.disk).map_or_else(|| row.disk.to_string(), |disk| disk.name.to_string());
        let message = format!("disk {disk} is {}: the host may still write to it", state.attachment_words(row));
        (message, state.way_to_detach(row, &disk))
    });
    tell(checks, "ATTACHMENT_UNFENCED", all.collect());
}

fn fencing(state: &State, checks: &mut Vec<v1::HealthCheck>) {
    let all = state.fencing_txns().filter_map(|txn| {
        let fencing = txn.fencing.as_ref()?;
        let (worker, since) = (state.worker_word(fencing.worker), ago(state, fencing.since_ms));
        let message = format!(
            "transaction {} ({}) waits for worker {worker}, lost {since}: it may still write in place",
            txn.id, txn.summary
        );
        let hint = format!(
            "start worker {worker} again, or, when its host is down for sure: sdm worker confirm-down {worker} --session {} --reason TEXT",
            fencing.session
        );
        Some((message, hint))
    });
    tell(checks, "TXN_FENCING", all.collect());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_usual_cluster_has_nothing_to_tell_and_many_of_a_kind_are_counted() {
        assert_eq!(care_checks(&Sample::with_disk().state), Vec::new());
        let mut checks = Vec::new();
        tell(&mut checks, "CODE", (0..20).map(|n| (format!("{n}"), format!("do {n}"))).collect());
        assert_eq!(checks.len(), TOLD_MAX + 1);
        assert_eq!(checks[TOLD_MAX].message, "and 12 more of these");
    }
}
