//! What a load measured, as it is printed.

use super::latencies::Latencies;
use crate::output::Report;
use crate::output::one_line;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// The figures.
#[derive(Serialize)]
pub struct BenchReport {
    /// Clients that worked at the same time.
    pub clients: u32,
    /// How long they did, in seconds.
    pub seconds: f64,
    /// Operations that succeeded in that time.
    pub ops: u64,
    /// The same for each second.
    pub ops_per_sec: f64,
    /// Half of them took at most so long, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 took at most so long.
    pub p99_us: u64,
    /// None took longer.
    pub max_us: u64,
    /// Operations that failed.
    pub errors: u64,
    /// The same by reason.
    pub errors_by_reason: BTreeMap<String, u64>,
    /// What the first of them said; null without any.
    pub first_error: Option<String>,
}

/// What clients counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Of operations that succeeded.
    pub latencies: Latencies,
    /// Operations that failed, by reason.
    pub errors: BTreeMap<String, u64>,
    /// What the first of them said.
    pub first_error: Option<String>,
}

impl Tally {
    /// Counts a failure.
    pub fn failed(&mut self, reason: &str, message: String) {
        *self.errors.entry(reason.to_owned()).or_default() += 1;
        self.first_error.get_or_insert(message);
    }

    /// Takes all of another's.
    pub fn merge(&mut self, other: Self) {
        self.latencies.merge(&other.latencies);
        for (reason, count) in other.errors {
            *self.errors.entry(reason).or_default() += count;
        }
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// The figures of so many clients in this time.
    pub fn report(self, clients: u32, time: Duration) -> BenchReport {
        let seconds = time.as_secs_f64();
        let ops = self.latencies.count();
        // To what a reader can use; a run of no time has no rate.
        let rounded = |value: f64, digits: f64| if value.is_finite() { (value * digits).round() / digits } else { 0.0 };
        BenchReport {
            clients,
            seconds: rounded(seconds, 1000.0),
            ops,
            ops_per_sec: rounded(ops as f64 / seconds, 10.0),
            p50_us: self.latencies.quantile_us(500),
            p99_us: self.latencies.quantile_us(990),
            max_us: self.latencies.max_us(),
            errors: self.errors.values().sum(),
            errors_by_reason: self.errors,
            first_error: self.first_error,
        }
    }
}

impl Report for BenchReport {
    fn text(&self) -> String {
        let ms = |us: u64| us as f64 / 1000.0;
        let mut text = format!(
            "{} clients, {:.1} s: {:.0} operations a second\nlatency: half within {:.2} ms, 99 of 100 within {:.2} ms, all within {:.2} ms\n",
            self.clients,
            self.seconds,
            self.ops_per_sec,
            ms(self.p50_us),
            ms(self.p99_us),
            ms(self.max_us),
        );
        if self.errors > 0 {
            let by_reason: Vec<String> =
                self.errors_by_reason.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            // A String never refuses to be written to; the same holds below.
            _ = writeln!(text, "errors: {} ({})", self.errors, by_reason.join(", "));
        }
        if let Some(first) = &self.first_error {
            _ = writeln!(text, "the first: {}", one_line(first));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_reason_and_shown() {
        let (mut tally, mut other) = (Tally::default(), Tally::default());
        tally.latencies.add(1500);
        tally.failed("NO_QUORUM", "no leader".to_owned());
        other.failed("NO_QUORUM", "still none".to_owned());
        other.failed("LOCKED", "held".to_owned());
        tally.merge(other);
        let report = tally.report(2, Duration::from_secs(2));
        assert_eq!((report.ops, report.ops_per_sec, report.errors), (1, 0.5, 3));
        let text = report.text();
        assert!(text.contains("errors: 3 (LOCKED 1, NO_QUORUM 2)") && text.contains("the first: no leader"), "{text}");
    }

    #[test]
    fn a_run_of_no_time_has_no_rate() {
        assert_eq!(Tally::default().report(1, Duration::ZERO).ops_per_sec, 0.0);
    }
}
