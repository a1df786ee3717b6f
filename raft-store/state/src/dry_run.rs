//! What an operation would do now: the same plan and the same checks as when it begins, and nothing
//! changed. Words for people are made here from the rows, because only the plan knows what they mean.

use crate::locks::LockSet;
use crate::locks::Mode;
use crate::locks::Owner;
use crate::locks::Resource;
use crate::state::State;
use crate::txns::Spec;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use std::collections::BTreeMap;

/// What would be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanShown {
    /// The request in words.
    pub summary: String,
    /// What it works on, in words.
    pub objects: Vec<String>,
    /// Its whole lock set.
    pub locks: BTreeMap<Resource, Mode>,
    /// What would be done on the storage, in order, in words.
    pub steps: Vec<String>,
    /// Folders that would be made.
    pub placements: Vec<PlacementShown>,
    /// Entries that it costs when nothing goes wrong; checkpoints come on top.
    pub log_entries: u32,
    /// Lock sets that it would wait for now.
    pub waits_for: Vec<u64>,
    /// What is allowed and may surprise.
    pub warnings: Vec<String>,
}

/// A folder that would be made.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacementShown {
    /// Where.
    pub domain: DomainId,
    /// Its volumes, root of the chain first, in words.
    pub layers: Vec<String>,
    /// Bytes that would be reserved for it.
    pub reserved_bytes: u64,
}

impl State {
    /// What this operation would do if it began now, run under `under` if the asker holds that; or
    /// why it would be refused.
    ///
    /// # Errors
    /// What `Begin` would be refused with, except that a lock that others hold is no refusal here:
    /// it is shown.
    pub fn dry_run(&self, spec: &Spec, under: Option<Token>) -> Result<PlanShown, Refusal> {
        _ = under;
        self.refuse_suspended()?;
        let plan = self.plan(spec)?;
        self.check_start(spec)?;
        let asked = LockSet {
            // Behind everybody who waits already.
            id: u64::MAX,
            owner: Owner::Txn(TxnId::default()),
            resources: plan.locks.clone(),
            why: plan.summary.clone(),
            asked_ms: self.meta.clock_ms,
            deadline_ms: self.meta.clock_ms,
            granted: None,
        };
        let waits_for = self.lock_blockers(&asked);
        let (steps, placements, log_entries) = self.shown_work(spec);
        let (summary, objects, locks) = (plan.summary, plan.objects, plan.locks);
        Ok(PlanShown { summary, objects, locks, steps, placements, log_entries, waits_for, warnings: Vec::new() })
    }

    /// Steps, placements and log entries of an operation that is allowed.
    fn shown_work(&self, spec: &Spec) -> (Vec<String>, Vec<PlacementShown>, u32) {
        let step = |text: &str| vec![text.to_owned()];
        let placement = |domain: &DomainId, layer: String, reserved_bytes| {
            vec![PlacementShown { domain: *domain, layers: vec![layer], reserved_bytes }]
        };
        match spec {
            Spec::CreateDomain { path, .. } => (vec![format!("make the domain's folder in {path}")], Vec::new(), 2),
            Spec::CreateDisk { domain, size, format, .. } => {
                let layer = format!("new {} volume of {size} bytes", format.word());
                (step("make an empty volume"), placement(domain, layer, 0), 2)
            }
            Spec::ImportDisk { domain, format, file_size, allocated_bytes, .. } => {
                let layer = format!("{} volume, {file_size} bytes long", format.word());
                (step("receive the file's bytes, check and hash them"), placement(domain, layer, *allocated_bytes), 2)
            }
            Spec::ExportDisk { disk } => {
                let bytes: u64 = self.chain(*disk).map(|volume| volume.file_size).sum();
                (vec![format!("read {bytes} bytes, hash them, send them to the command")], Vec::new(), 2)
            }
            Spec::MoveDisk { disk, to } => {
                let layers =
                    self.chain(*disk).map(|v| format!("copy of {} volume {}", v.format.word(), v.id)).collect();
                let reserved_bytes = self.chain(*disk).map(|volume| volume.allocated_bytes).sum();
                let placements = vec![PlacementShown { domain: *to, layers, reserved_bytes }];
                (step("copy and verify the chain; its old place becomes garbage"), placements, 2)
            }
            Spec::DeleteDisk { .. } => (step("nothing on the storage: its place becomes garbage"), Vec::new(), 1),
            Spec::Noop { .. } => (step("a worker receives and reports it"), Vec::new(), 2),
            #[allow(unreachable_patterns)]
            _ => (Vec::new(), Vec::new(), 2),
        }
    }
}
