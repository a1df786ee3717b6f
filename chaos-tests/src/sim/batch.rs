//! A batch of seeds: one child process a seed, some of them at once; sums up, and tells of each failure the seed, how to
//! repeat it and its last events.

use super::plan::Planted;
use super::plan::Workload;
use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Instant;

/// Events that are shown of a failed seed; all of them are in its folder.
const EVENTS_SHOWN: usize = 25;

/// Violations that are shown of a failed seed.
const VIOLATIONS_SHOWN: usize = 6;

/// Files that two runs of a seed must have equal.
const TRACES: [&str; 4] = ["history.jsonl", "log", "storage", "states"];

/// A batch of so many seeds must have seen all of the following.
const COVERING_SEEDS: u64 = 50;

/// What every workload can show.
const MUST_COVER: [&str; 28] = [
    "leader-in-minority",
    "partition",
    "one-way",
    "bridge",
    "flapping",
    "client-cut-off",
    "held-messages",
    "slow-links",
    "kill",
    "power-cut",
    "power-cut-of-all",
    "rolling-restart",
    "slow-disk",
    "disk-eio",
    "disk-full",
    "snapshots-fail",
    "member-stopped-by-its-disk",
    "wall-clock-jump",
    "member-added",
    "member-removed",
    "removed-member-ended",
    "snapshots-installed",
    "struck-at-a-snapshot",
    "leases-run-out",
    "session-lost",
    "late-writes-refused",
    "leadership-handed-over",
    "unknown-answers",
];

/// What needs workers and disks.
const DISKS_MUST_COVER: [&str; 11] = [
    "worker-kill",
    "worker-cut-off",
    "paused-worker",
    "worker-lost",
    "hung-storage",
    "hung-domain",
    "failing-storage",
    "full-storage",
    "attempt-failed",
    "late-reports-refused",
    "garbage-collected",
];

/// A batch, as the command line gave it.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The seeds.
    pub seeds: Range<u64>,
    /// What the clients do.
    pub workload: Workload,
    /// A defect that must be found.
    pub planted: Option<Planted>,
    /// Children at once.
    pub jobs: usize,
    /// Run each seed twice and compare the traces.
    pub check_determinism: bool,
    /// Keep history and log of every seed.
    pub keep: bool,
    /// What the logs hold.
    pub log: String,
    /// Folder for traces.
    pub base: PathBuf,
}

/// What a child says at its end.
#[derive(Clone, Debug, Default, Deserialize)]
struct Report {
    simulated_s: u64,
    operations: u64,
    unknown: u64,
    compared: u64,
    coverage: BTreeMap<String, u64>,
    violations: Vec<String>,
    plan: String,
}

#[derive(Debug, Default)]
struct Sum {
    seeds: u64,
    failed: Vec<u64>,
    differed: Vec<u64>,
    report: Report,
    covered_in: BTreeMap<String, u64>,
}

impl Batch {
    /// Runs the batch; the last line sums up.
    ///
    /// # Errors
    /// A child cannot be started or its folder not be written.
    pub fn run(&self) -> Result<ExitCode> {
        let begun = Instant::now();
        let left = Mutex::new(self.seeds.clone());
        let sum = Mutex::new(Sum::default());
        let outcome: Result<Vec<()>> = std::thread::scope(|scope| {
            let working: Vec<_> = (0..self.jobs.max(1)).map(|_| scope.spawn(|| self.work(&left, &sum))).collect();
            working.into_iter().map(|work| work.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked"))).collect()
        });
        outcome?;
        let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(self.sum_up(&sum, begun.elapsed().as_secs_f64()))
    }

    fn work(&self, left: &Mutex<Range<u64>>, sum: &Mutex<Sum>) -> Result<()> {
        loop {
            let seed = left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(seed) = seed else { return Ok(()) };
            if self.planted.is_some() && !lock(sum).failed.is_empty() {
                // It was found.
                return Ok(());
            }
            let began = Instant::now();
            let folder = self.base.join(format!("sim-{seed}"));
            let traced = self.keep || self.check_determinism;
            let report = self.child(seed, traced.then_some(folder.as_path()))?;
            let differs = self.check_determinism && self.differs(seed, &folder)?;
            let mut sum = lock(sum);
            println!(
                "seed {seed}: {} operations, {} unknown, {} s simulated in {:.1} s, {}{}",
                report.operations,
                report.unknown,
                report.simulated_s,
                began.elapsed().as_secs_f64(),
                if report.violations.is_empty() { "nothing broken" } else { "BROKEN" },
                if differs { ", and run again it DIFFERS" } else { "" },
            );
            let failed = !report.violations.is_empty();
            sum.add(seed, &report, differs);
            if failed {
                self.tell(seed, &report, &folder, traced)?;
            } else if traced && !self.keep && !differs {
                std::fs::remove_dir_all(&folder).context("remove a trace")?;
            }
        }
    }

    fn child(&self, seed: u64, trace: Option<&Path>) -> Result<Report> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("sim-seed").arg(seed.to_string()).arg("--workload").arg(self.workload.word());
        if let Some(planted) = self.planted {
            command.arg("--planted").arg(planted.word());
        }
        if let Some(folder) = trace {
            command.arg("--trace").arg(folder).arg("--log").arg(&self.log);
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().context("start a child")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let report = said.lines().last().and_then(|line| serde_json::from_str(line).ok());
        Ok(report.unwrap_or_else(|| {
            let why = format!("the child said nothing: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
            Report { violations: vec![why], ..Report::default() }
        }))
    }

    /// Whether another run of the seed leaves another trace.
    fn differs(&self, seed: u64, folder: &Path) -> Result<bool> {
        let again = self.base.join(format!("sim-{seed}-again"));
        self.child(seed, Some(&again))?;
        for name in TRACES {
            let (one, other) = (std::fs::read(folder.join(name))?, std::fs::read(again.join(name))?);
            if one != other {
                let at = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
                let line = one.iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
                println!(
                    "seed {seed}: {name} differs at line {line}; see {} and {}",
                    folder.display(),
                    again.display()
                );
                return Ok(true);
            }
        }
        std::fs::remove_dir_all(&again)?;
        Ok(false)
    }

    fn tell(&self, seed: u64, report: &Report, folder: &Path, traced: bool) -> Result<()> {
        if !traced {
            // The same again, this time written down.
            self.child(seed, Some(folder))?;
        }
        println!("  {}", report.plan);
        for violation in report.violations.iter().take(VIOLATIONS_SHOWN) {
            println!("  violation: {violation}");
        }
        let history = std::fs::read_to_string(folder.join("history.jsonl")).unwrap_or_default();
        let lines: Vec<&str> = history.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(EVENTS_SHOWN)) {
            println!("  {line}");
        }
        println!("  history, log and changes of the storage: {}", folder.display());
        let workload = self.workload.word();
        let planted = self.planted.map(|planted| format!(" --planted {}", planted.word())).unwrap_or_default();
        let after = seed.saturating_add(1);
        println!("  again: chaos-tests sim --seeds {seed}..{after} --workload {workload}{planted} --keep");
        Ok(())
    }

    fn sum_up(&self, sum: &Sum, seconds: f64) -> ExitCode {
        let seeds = sum.seeds;
        let covered: Vec<String> = sum
            .report
            .coverage
            .iter()
            .map(|(what, times)| format!("{what} {times} (in {})", sum.covered_in.get(what).copied().unwrap_or(0)))
            .collect();
        println!("covered, times (in so many seeds): {}", covered.join(", "));
        let missing = self.missing(sum);
        let is_large = sum.seeds >= COVERING_SEEDS;
        if !missing.is_empty() {
            println!("not covered{}: {missing:?}", if is_large { ", and so not passed" } else { " by so few seeds" });
        }
        let passed = match self.planted {
            None => sum.failed.is_empty() && sum.differed.is_empty() && (missing.is_empty() || !is_large),
            Some(_) => !sum.failed.is_empty(),
        };
        let again = match self.check_determinism {
            true => format!(", seeds that differed when run again: {:?}", sum.differed),
            false => String::new(),
        };
        println!(
            "{}: {seeds} seeds, {} s simulated in {seconds:.0} s, {} operations, {} unknown, {} comparisons, seeds with violations: {:?}{again}",
            if passed { "PASSED" } else { "FAILED" },
            sum.report.simulated_s,
            sum.report.operations,
            sum.report.unknown,
            sum.report.compared,
            sum.failed,
        );
        if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// What a large batch must have seen, and this one has not.
    fn missing(&self, sum: &Sum) -> Vec<&'static str> {
        if self.planted.is_some() {
            return Vec::new();
        }
        let of_disks: &[&str] = if self.workload == Workload::Disks { &DISKS_MUST_COVER } else { &[] };
        let wanted = MUST_COVER.iter().chain(of_disks);
        wanted.filter(|what| !sum.covered_in.contains_key(**what)).copied().collect()
    }
}

fn lock(sum: &Mutex<Sum>) -> MutexGuard<'_, Sum> {
    sum.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sum {
    fn add(&mut self, seed: u64, report: &Report, differs: bool) {
        self.seeds += 1;
        if !report.violations.is_empty() {
            self.failed.push(seed);
        }
        if differs {
            self.differed.push(seed);
        }
        self.report.simulated_s += report.simulated_s;
        self.report.operations += report.operations;
        self.report.unknown += report.unknown;
        self.report.compared += report.compared;
        for (what, times) in &report.coverage {
            *self.report.coverage.entry(what.clone()).or_default() += times;
            *self.covered_in.entry(what.clone()).or_default() += 1;
        }
    }
}

/// Seeds as the command line gives them: A..B without B, or one.
///
/// # Errors
/// It is neither.
pub fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => number(text).map(|seed| seed..seed.saturating_add(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_read_as_a_range_without_its_end_or_as_one() {
        assert_eq!(seeds("3..7"), Ok(3..7));
        assert_eq!(seeds("9"), Ok(9..10));
        assert!(seeds("a..b").is_err());
        assert_eq!(seeds(&format!("{}", u64::MAX - 1)), Ok(u64::MAX - 1..u64::MAX));
    }
}
