//! What a change would do, as `--dry-run` prints it.

use super::BlockerView;
use super::list::fields_text;
use crate::output::Report;
use crate::output::bytes_text;
use crate::output::one_line;
use sdm_proto::wire::v1;
use serde::Serialize;
use std::fmt::Write as _;

/// A plan that was not carried out.
#[derive(Serialize)]
pub struct DryRunView {
    /// Always true, so that a script can tell it from the result of a change.
    pub dry_run: bool,
    /// The request in words.
    pub summary: String,
    /// What it works on.
    pub objects: Vec<String>,
    /// Its whole lock set.
    pub locks: Vec<PlannedLockView>,
    /// What would be done on the storage, in order.
    pub steps: Vec<String>,
    /// Folders that would be made.
    pub placements: Vec<PlannedPlacementView>,
    /// Bytes that would be reserved.
    pub reserved_bytes: u64,
    /// Log entries that it costs when nothing goes wrong.
    pub log_entries: u32,
    /// Whom it would wait for now.
    pub would_wait_for: Vec<BlockerView>,
    /// What is allowed and may surprise.
    pub warnings: Vec<String>,
    /// Log index of the state that was asked.
    pub revision: u64,
}

/// One lock of a plan.
#[derive(Serialize)]
pub struct PlannedLockView {
    resource: String,
    name: String,
    mode: String,
}

/// One folder of a plan.
#[derive(Serialize)]
pub struct PlannedPlacementView {
    domain_id: String,
    domain: String,
    layers: Vec<String>,
    reserved_bytes: u64,
}

impl From<v1::DryRun> for DryRunView {
    fn from(plan: v1::DryRun) -> Self {
        let lock = |v1::PlannedLock { resource, name, mode }| PlannedLockView { resource, name, mode };
        let placement = |v1::PlannedPlacement { domain_id, domain, layers, reserved_bytes }| PlannedPlacementView {
            domain_id,
            domain,
            layers,
            reserved_bytes,
        };
        Self {
            dry_run: true,
            summary: plan.summary,
            objects: plan.objects,
            locks: plan.locks.into_iter().map(lock).collect(),
            steps: plan.steps,
            placements: plan.placements.into_iter().map(placement).collect(),
            reserved_bytes: plan.reserved_bytes,
            log_entries: plan.log_entries,
            would_wait_for: plan.would_wait_for.into_iter().map(BlockerView::from).collect(),
            warnings: plan.warnings,
            revision: plan.revision,
        }
    }
}

impl Report for DryRunView {
    fn text(&self) -> String {
        let mut fields = Vec::new();
        let mut tell = |name: &'static str, lines: Vec<String>, none: &str| {
            let lines = if lines.is_empty() && !none.is_empty() { vec![none.to_owned()] } else { lines };
            for (at, line) in lines.into_iter().enumerate() {
                fields.push((if at == 0 { name } else { "" }, line));
            }
        };
        let locks = self.locks.iter().map(|lock| format!("{} {}", lock.name, lock.mode)).collect();
        tell("locks", locks, "none");
        let steps = self.steps.iter().enumerate().map(|(at, step)| format!("{}. {step}", at + 1)).collect();
        tell("steps", steps, "none: the entry that begins it also ends it");
        for placement in &self.placements {
            let layers = placement.layers.iter().map(|layer| format!("in {}: {layer}", placement.domain)).collect();
            tell("new", layers, "");
        }
        tell("space", vec![format!("{} reserved", bytes_text(self.reserved_bytes))], "");
        tell("log", vec![format!("{} entries", self.log_entries)], "");
        let blockers = self.would_wait_for.iter().map(|b| format!("{} {}: {}", b.kind, b.id, b.description)).collect();
        tell("waits for", blockers, "nobody: it would start at once");
        tell("warning", self.warnings.clone(), "");
        let mut text = format!("plan: {}\n", one_line(&self.summary));
        for line in fields_text(&fields).lines() {
            _ = writeln!(text, "  {line}");
        }
        text + "nothing was done\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> v1::DryRun {
        v1::DryRun {
            summary: "move disk web-01 from nfs1 to nfs2".into(),
            locks: vec![
                v1::PlannedLock { resource: "domain/1".into(), name: "domain/nfs1".into(), mode: "IX".into() },
                v1::PlannedLock { resource: "disk/2".into(), name: "disk/web-01".into(), mode: "X".into() },
            ],
            steps: vec!["copy".into(), "verify".into()],
            reserved_bytes: 1 << 20,
            log_entries: 2,
            ..Default::default()
        }
    }

    #[test]
    fn a_plan_ends_with_the_word_that_nothing_was_done() {
        let text = DryRunView::from(plan()).text();
        let expected = "plan: move disk web-01 from nfs1 to nfs2\n  \
            locks      domain/nfs1 IX\n             disk/web-01 X\n  \
            steps      1. copy\n             2. verify\n  \
            space      1.0 MiB reserved\n  log        2 entries\n  \
            waits for  nobody: it would start at once\nnothing was done\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn whom_it_would_wait_for_is_named() {
        let blocker = v1::Blocker { kind: "lock".into(), id: "7".into(), description: "held for 3 s".into() };
        let text = DryRunView::from(v1::DryRun { would_wait_for: vec![blocker], ..plan() }).text();
        assert!(text.contains("waits for  lock 7: held for 3 s\n"), "{text}");
    }
}
