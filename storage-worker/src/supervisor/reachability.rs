//! What the cluster is told about one domain, in plain rules: one good probe makes it reachable, a
//! hang or two bad ones in a row make it unreachable, and figures are told again when they changed
//! enough. Probing itself is the domain process's affair.

use crate::work;
use sdm_proto::wire::internal::v1::DomainReport;

/// Bad probes in a row that make a reachable domain unreachable: one may be an accident (`soft`
/// mounts give EIO).
const BAD_PROBES: u32 = 2;

/// A change of free space below this is not worth an entry in the cluster's log ...
const CHANGE_BYTES: u64 = 64 << 20;

/// ... unless it is this much of the file system, in percent ...
const CHANGE_PERCENT: u64 = 1;

/// ... and it is told at most this often.
const FIGURES_INTERVAL_MS: u64 = 10_000;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probe {
    /// The domain is there and ours.
    Good(work::DomainReport),
    /// It is not, or could not be read.
    Bad { reason: String, message: String },
    /// Nobody knows: the call did not come back.
    Hung { message: String },
}

/// What was told about a domain, and what may have to be told next.
#[derive(Debug, Default)]
pub(super) struct Reachability {
    shown: Option<DomainReport>,
    shown_ms: u64,
    bad: u32,
}

impl Reachability {
    /// Takes a probe; answers with what to report, if anything.
    pub(super) fn observe(&mut self, domain_id: &str, probe: Probe, now_ms: u64) -> Option<DomainReport> {
        let report = match probe {
            Probe::Good(found) => {
                self.bad = 0;
                DomainReport {
                    domain_id: domain_id.to_owned(),
                    reachable: true,
                    total_bytes: found.total_bytes,
                    free_bytes: found.free_bytes,
                    file_system_id: found.file_system,
                    ..DomainReport::default()
                }
            }
            Probe::Bad { reason, message } => {
                self.bad = self.bad.saturating_add(1);
                if self.is_shown_reachable() && self.bad < BAD_PROBES {
                    return None;
                }
                unreachable(domain_id, reason, message)
            }
            Probe::Hung { message } => {
                self.bad = BAD_PROBES;
                unreachable(domain_id, "TIMEOUT".to_owned(), message)
            }
        };
        if !self.is_news(&report, now_ms) {
            return None;
        }
        self.shown = Some(report.clone());
        self.shown_ms = now_ms;
        Some(report)
    }

    /// Whether a bad probe waits for its confirmation.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_shown_reachable() && self.bad > 0
    }

    /// What was told last, if anything.
    pub(super) fn shown_reachable(&self) -> Option<bool> {
        self.shown.as_ref().map(|shown| shown.reachable)
    }

    fn is_shown_reachable(&self) -> bool {
        self.shown_reachable() == Some(true)
    }

    fn is_news(&self, report: &DomainReport, now_ms: u64) -> bool {
        let Some(shown) = &self.shown else { return true };
        if !report.reachable || !shown.reachable {
            return (shown.reachable, &shown.reason) != (report.reachable, &report.reason);
        }
        let changed = shown.free_bytes.abs_diff(report.free_bytes).max(shown.total_bytes.abs_diff(report.total_bytes));
        let enough = CHANGE_BYTES.min(report.total_bytes / 100 * CHANGE_PERCENT).max(1);
        let figures = changed > enough && now_ms >= self.shown_ms + FIGURES_INTERVAL_MS;
        figures || shown.file_system_id != report.file_system_id
    }
}

fn unreachable(domain_id: &str, reason: String, message: String) -> DomainReport {
    DomainReport { domain_id: domain_id.to_owned(), reachable: false, reason, message, ..DomainReport::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn good(free_bytes: u64) -> Probe {
        let file_system = "fs".to_owned();
        Probe::Good(work::DomainReport { total_bytes: 100 * GIB, free_bytes, file_system, block_bytes: 4096 })
    }

    fn bad() -> Probe {
        Probe::Bad { reason: "EIO".into(), message: "input/output error".into() }
    }

    fn told(seen: &mut Reachability, probe: Probe, now_ms: u64) -> Option<bool> {
        seen.observe("d", probe, now_ms).map(|report| report.reachable)
    }

    #[test]
    fn one_bad_probe_is_an_accident_and_two_are_not() {
        let mut seen = Reachability::default();
        assert_eq!(told(&mut seen, good(GIB), 0), Some(true));
        assert_eq!(told(&mut seen, bad(), 1), None);
        assert!(seen.is_in_doubt());
        assert_eq!(told(&mut seen, good(GIB), 2), None);
        assert_eq!(told(&mut seen, bad(), 3), None);
        assert_eq!(told(&mut seen, bad(), 4), Some(false));
        assert_eq!(told(&mut seen, bad(), 5), None);
        assert_eq!(told(&mut seen, good(GIB), 6), Some(true));
    }

    #[test]
    fn a_hang_is_told_at_once() {
        let mut seen = Reachability::default();
        told(&mut seen, good(GIB), 0);
        assert_eq!(told(&mut seen, Probe::Hung { message: String::new() }, 1), Some(false));
    }

    #[test]
    fn a_domain_that_was_never_reachable_is_told_at_once() {
        assert_eq!(told(&mut Reachability::default(), bad(), 0), Some(false));
    }

    #[test]
    fn figures_are_told_when_they_changed_enough_and_not_too_often() {
        let mut seen = Reachability::default();
        told(&mut seen, good(50 * GIB), 0);
        assert_eq!(told(&mut seen, good(50 * GIB - (1 << 20)), 20_000), None);
        assert_eq!(told(&mut seen, good(49 * GIB), 9_999), None);
        assert_eq!(told(&mut seen, good(49 * GIB), 10_000), Some(true));
    }
}
