//! The last line: what was done, and what was broken.

use super::PowerCut;
use super::campaign::Campaign;
use crate::history::Counts;
use crate::history::Promise;
use crate::history::Violation;
use crate::loop_fs::FsKind;
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

/// Counts over all clusters of a run.
#[derive(Debug)]
pub struct Summary {
    begun: Instant,
    seed: u64,
    planted: Option<String>,
    ext4: u32,
    xfs: u32,
    all: u32,
    one: u32,
    twice: u32,
    counts: Counts,
    violations: Vec<Violation>,
    /// Where the evidence is, if any was kept.
    pub evidence: Option<PathBuf>,
}

impl Summary {
    /// Of a run that begins now.
    pub fn new(plan: &PowerCut) -> Self {
        Self {
            begun: Instant::now(),
            seed: plan.seed,
            planted: plan.program.planted.clone(),
            ext4: 0,
            xfs: 0,
            all: 0,
            one: 0,
            twice: 0,
            counts: Counts::default(),
            violations: Vec::new(),
            evidence: None,
        }
    }

    /// A cut was made.
    pub fn cut(&mut self, kind: FsKind, all: bool, again: bool) {
        match kind {
            FsKind::Ext4 => self.ext4 += 1,
            FsKind::Xfs => self.xfs += 1,
        }
        *(if all { &mut self.all } else { &mut self.one }) += 1;
        self.twice += u32::from(again);
    }

    /// A cluster is done.
    pub fn took(&mut self, campaign: &Campaign<'_>) {
        let counts = campaign.history().record().counts;
        self.counts.acknowledged += counts.acknowledged;
        self.counts.unknown += counts.unknown;
        self.counts.repeated += counts.repeated;
        self.counts.compared += counts.compared;
        self.violations.extend(campaign.violations());
    }

    /// Whether any promise was broken.
    pub fn is_broken(&self) -> bool {
        !self.violations.is_empty()
    }

    fn broken(&self, promises: &[Promise]) -> usize {
        self.violations.iter().filter(|violation| promises.contains(&violation.promise)).count()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (&self.planted, self.is_broken()) {
            (None, false) => "PASSED".to_owned(),
            (None, true) => "BROKEN".to_owned(),
            (Some(planted), true) => format!("FOUND the planted {planted} at cut {}", self.ext4 + self.xfs),
            (Some(planted), false) => format!("MISSED the planted {planted}"),
        };
        write!(
            f,
            "power-cut: {verdict}: {} cuts ({} ext4, {} xfs; {} of all members, {} of them twice, {} of one), \
             {} operations acknowledged ({} when repeated), {} unknown, {} compared; {} lost or changed, \
             {} phantoms, {} tokens wrong, {} repetitions wrong, {} members did not open, {} did not serve, \
             {} hash mismatches; {} s, seed {}",
            self.ext4 + self.xfs,
            self.ext4,
            self.xfs,
            self.all,
            self.twice,
            self.one,
            self.counts.acknowledged,
            self.counts.repeated,
            self.counts.unknown,
            self.counts.compared,
            self.broken(&[Promise::Kept]),
            self.broken(&[Promise::NoPhantom]),
            self.broken(&[Promise::Tokens]),
            self.broken(&[Promise::Idempotent]),
            self.broken(&[Promise::Opens]),
            self.broken(&[Promise::Serves]),
            self.broken(&[Promise::EqualStates]),
            self.begun.elapsed().as_secs(),
            self.seed,
        )?;
        match &self.evidence {
            Some(folder) => write!(f, "; evidence in {}", folder.display()),
            None => Ok(()),
        }
    }
}
