//! The cluster on one screen.

use super::MemberView;
use super::Votes;
use super::list::Row;
use crate::output::ExitCode;
use crate::output::Report;
use crate::output::Table;
use crate::output::one_line;
use crate::output::or_dash;
use crate::output::plural;
use sdm_proto::wire::v1;
use serde::Serialize;
use std::fmt::Write as _;

/// What `sdm status` prints.
#[derive(Serialize)]
pub struct StatusView {
    /// Id of the cluster.
    pub cluster_id: String,
    /// Id of the pool; it outlives a restore.
    pub pool_id: String,
    /// Rises with every restore.
    pub epoch: u64,
    /// Log index that the answering member has applied.
    pub revision: u64,
    /// Feature level of the state.
    pub feature_level: u32,
    /// The cluster's clock in milliseconds.
    pub clock_ms: u64,
    /// False: the answering member's own, perhaps old, view.
    pub has_quorum: bool,
    /// Name of the leader; null when none is known.
    pub leader: Option<String>,
    /// Raft's term.
    pub term: u64,
    /// Name of the answering member.
    pub answered_by: String,
    /// ok, warn or error.
    pub health: &'static str,
    /// All of them, unreachable ones too.
    pub members: Vec<MemberView>,
    /// What is not as it should be.
    pub checks: Vec<CheckView>,
    /// How many there are of each.
    pub counts: CountsView,
    /// Hash of the answering member's state at this revision, in hex.
    pub state_hash: String,
}

/// One thing that is not as it should be.
#[derive(Serialize)]
pub struct CheckView {
    code: String,
    severity: String,
    message: String,
    hint: String,
}

/// How many there are of each.
#[derive(Serialize, Default)]
pub struct CountsView {
    domains: u64,
    disks: u64,
    volumes: u64,
    workers_live: u64,
    workers: u64,
    workers_draining: u64,
    locks_held: u64,
    locks_waiting: u64,
    transactions_open: u64,
    jobs: u64,
    garbage: u64,
    sessions: u64,
}

impl From<v1::GetStatusResponse> for StatusView {
    fn from(status: v1::GetStatusResponse) -> Self {
        let health = health_of(&status);
        Self {
            cluster_id: status.cluster_id,
            pool_id: status.pool_id,
            epoch: status.epoch,
            revision: status.revision,
            feature_level: status.feature_level,
            clock_ms: status.clock_ms,
            has_quorum: status.has_quorum,
            leader: Some(status.leader).filter(|leader| !leader.is_empty()),
            term: status.term,
            answered_by: status.answered_by,
            health,
            members: by_name(status.members),
            checks: status.checks.into_iter().map(CheckView::from).collect(),
            counts: status.counts.map(CountsView::from).unwrap_or_default(),
            state_hash: status.state_hash,
        }
    }
}

impl From<v1::HealthCheck> for CheckView {
    fn from(check: v1::HealthCheck) -> Self {
        let v1::HealthCheck { code, severity, message, hint } = check;
        Self { code, severity, message, hint }
    }
}

impl From<v1::Counts> for CountsView {
    fn from(counts: v1::Counts) -> Self {
        Self {
            domains: counts.domains,
            disks: counts.disks,
            volumes: counts.volumes,
            workers_live: counts.workers_live,
            workers: counts.workers,
            workers_draining: counts.workers_draining,
            locks_held: counts.locks_held,
            locks_waiting: counts.locks_waiting,
            transactions_open: counts.transactions_open,
            jobs: counts.jobs,
            garbage: counts.garbage,
            sessions: counts.sessions,
        }
    }
}

fn by_name(members: Vec<v1::Member>) -> Vec<MemberView> {
    let mut members: Vec<_> = members.into_iter().map(MemberView::from).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}

fn health_of(status: &v1::GetStatusResponse) -> &'static str {
    let any = |severity: &str| status.checks.iter().any(|check| check.severity == severity);
    if !status.has_quorum || any("error") {
        "error"
    } else if status.checks.is_empty() {
        "ok"
    } else {
        "warn"
    }
}

impl StatusView {
    /// How `--check` ends.
    #[must_use]
    pub fn check(&self) -> ExitCode {
        match self.health {
            "ok" => ExitCode::Done,
            "warn" => ExitCode::HealthWarning,
            _ => ExitCode::HealthError,
        }
    }

    fn header(&self) -> String {
        let mut text = String::new();
        if !self.has_quorum {
            let from = &self.answered_by;
            // Writing to a String cannot fail, here and below.
            _ = writeln!(text, "NO QUORUM: this is what {from} knew last; nothing can be changed now");
        }
        let Self { cluster_id, revision, feature_level, epoch, .. } = self;
        _ = writeln!(
            text,
            "cluster   {cluster_id}   revision {revision}   epoch {epoch}   feature level {feature_level}"
        );
        let checks = match self.checks.len() {
            0 => "no check failed".to_owned(),
            n => format!("{n} failed"),
        };
        _ = writeln!(text, "health    {}   {checks}", self.health.to_ascii_uppercase());
        for check in &self.checks {
            let hint = if check.hint.is_empty() { String::new() } else { format!("  -> {}", check.hint) };
            let CheckView { code, severity, message, .. } = check;
            _ = writeln!(text, "          {}", one_line(&format!("{severity:<5}  {code}  {message}{hint}")));
        }
        text
    }

    fn members_text(&self) -> String {
        let learners = self.members.iter().filter(|member| member.role == "learner").count();
        let voters = self.members.len() - learners;
        let reachable = self.members.iter().filter(|member| member.reachable).count();
        let leader = or_dash(self.leader.as_deref().unwrap_or_default());
        let (voters_text, learners_text) = (plural(voters as u64, "voter"), plural(learners as u64, "learner"));
        let tolerated = match Votes::of(&self.members).spare().filter(|_| self.has_quorum) {
            Some(spare) => format!("tolerates {}", plural(spare as u64, "failure")),
            None => "no quorum".to_owned(),
        };
        let term = self.term;
        let mut table = Table::new(MemberView::HEADINGS).indented(10);
        for member in &self.members {
            table.row(member.cells());
        }
        format!(
            "members   {voters_text}, {learners_text}, {reachable} reachable, leader {leader} (term {term}); \
             {tolerated}\n{}",
            table.render()
        )
    }

    fn counts_text(&self) -> String {
        let counts = &self.counts;
        let drained = match counts.workers_draining {
            0 => String::new(),
            some => format!(", {some} drained"),
        };
        format!(
            "workers   {} of {} live{drained}\nobjects   {}, {}, {}\nlocks     {} held, {} waiting\n\
             txns      {} open\njobs      {}\ngarbage   {}\n",
            counts.workers_live,
            counts.workers,
            plural(counts.domains, "domain"),
            plural(counts.disks, "disk"),
            plural(counts.volumes, "volume"),
            counts.locks_held,
            counts.locks_waiting,
            counts.transactions_open,
            counts.jobs,
            counts.garbage,
        )
    }
}

impl Report for StatusView {
    fn text(&self) -> String {
        self.header() + &self.members_text() + &self.counts_text()
    }
}
