//! What an operation would do now: the same plan and the same checks as when it begins, and nothing
//! changed. Words for people are made here from the rows, because only the plan knows what they mean.

use crate::assignments::From;
use crate::assignments::Layer;
use crate::blueprint::Blueprint;
use crate::command::Begin;
use crate::command::Under;
use crate::domain_change::DomainChange;
use crate::locks::LockSet;
use crate::locks::Mode;
use crate::locks::Owner;
use crate::locks::Resource;
use crate::state::State;
use crate::txns::Spec;
use crate::txns::Txn;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Refusal;
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
    pub fn dry_run(&self, spec: &Spec, under: Option<Under>) -> Result<PlanShown, Refusal> {
        self.refuse_suspended()?;
        // What it would run under is no obstacle to it.
        let own_lock = under.and_then(|under| self.lock_of_token(&under).ok()).map(|lock| lock.id);
        let plan = self.plan_admitted(spec, own_lock)?;
        let drafts: Vec<Txn> = (0..self.stages(spec)).map(|stage| self.draft(spec, stage)).collect();
        for draft in &drafts {
            self.check_start(draft)?;
        }
        let asked = LockSet {
            // Behind everybody who waits already.
            id: u64::MAX,
            owner: Owner::Txn(TxnId::default()),
            resources: plan.locks.clone(),
            why: plan.summary.clone(),
            asked_ms: self.meta.clock_ms,
            deadline_ms: self.meta.clock_ms,
            granted: None,
            txn: None,
        };
        // Under a client's lock nothing is waited for: what that does not cover is refused.
        let covered = under.map(|under| self.lock_under(&under, &asked.resources)).transpose()?.flatten().is_some();
        let mut waits_for = if covered { Vec::new() } else { self.lock_blockers(&asked) };
        if let Spec::Domain(DomainChange::Forget { domain }) = spec {
            waits_for = self.lock_blockers_but(&asked, &self.ending_with_domain(*domain));
        }
        let (steps, placements, log_entries) = self.shown_work(spec, &drafts);
        let warnings = self.shown_warnings(spec, &placements);
        let (summary, objects, locks) = (plan.summary, plan.objects, plan.locks);
        Ok(PlanShown { summary, objects, locks, steps, placements, log_entries, waits_for, warnings })
    }

    /// Steps, placements and log entries of an operation that is allowed.
    fn shown_work(&self, spec: &Spec, drafts: &[Txn]) -> (Vec<String>, Vec<PlacementShown>, u32) {
        let step = |text: &str| vec![text.to_owned()];
        let placement = |domain: &DomainId, layer: String, reserved_bytes| {
            vec![PlacementShown { domain: *domain, layers: vec![layer], reserved_bytes }]
        };
        match spec {
            Spec::CreateDomain { path, .. } => (vec![format!("make the domain's folder in {path}")], Vec::new(), 2),
            Spec::CreateDisk { domain, size, format, preallocated: false, .. } => {
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
            Spec::ExportChain { disk, snapshot, .. } => {
                let (layers, bytes) = (self.seen_chain(*disk, *snapshot).len(), self.exported_bytes(*disk, *snapshot));
                let step = if layers > 1 {
                    format!(
                        "read {layers} layers as one, hash what a guest sees ({bytes} bytes, raw), send it to the command"
                    )
                } else {
                    format!("read {bytes} bytes, hash them, send them to the command")
                };
                (vec![step], Vec::new(), 2)
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
            Spec::RenameDisk { .. }
            | Spec::DescribeDisk { .. }
            | Spec::SetVolumeLegality { .. }
            | Spec::RepairProjection { .. } => {
                (step("nothing is waited for; afterwards a worker writes the words into .meta"), Vec::new(), 1)
            }
            Spec::FlattenDisk { .. } if drafts.iter().all(|draft| self.flattens_nothing(draft)) => {
                (step("nothing: the disk shares no volume, and has no layer but its own snapshots"), Vec::new(), 1)
            }
            Spec::ResizeDisk { size, .. } => {
                let grows = format!(
                    "grow the leaf in place to {size} bytes; once it is assigned, only its report or the \
                                     fencing of its worker ends it"
                );
                (vec![grows], Vec::new(), 2)
            }
            Spec::DeleteSnapshot { disk, volume, in_place: true } => {
                let built: Vec<Blueprint> = drafts.iter().filter_map(|draft| self.blueprint(draft)).collect();
                (self.merge_steps(*disk, *volume), built.iter().map(placement_shown).collect(), 3)
            }
            Spec::Garbage(_) | Spec::Attachment(_) | Spec::Worker(_) => (Vec::new(), Vec::new(), 1),
            Spec::Domain(DomainChange::Forget { domain }) => (self.forgetting_words(*domain), Vec::new(), 1),
            Spec::Domain(change) => (domain_steps(change), Vec::new(), if change.has_step() { 2 } else { 1 }),
            _ => {
                let built: Vec<Blueprint> = drafts.iter().filter_map(|draft| self.blueprint(draft)).collect();
                let entries = u32::try_from(built.len()).unwrap_or(u32::MAX).saturating_add(1);
                (built.iter().map(build_words).collect(), built.iter().map(placement_shown).collect(), entries)
            }
        }
    }

    /// A stage of an operation as it would be begun now. Its new ids are not those that it would get.
    fn draft(&self, spec: &Spec, stage: u32) -> Txn {
        let begin = Begin {
            id: TxnId::default(),
            request_hash: [0; 32],
            not_after_ms: 0,
            looked_up_ms: 0,
            unix_ms: 0,
            initiator: String::new(),
            reason: String::new(),
            lock_wait_ms: 0,
            under: None,
            spec: spec.clone(),
        };
        Txn { stage, marker: self.marker(begin.id, spec, stage), ..self.new_txn(&begin) }
    }

    fn shown_warnings(&self, spec: &Spec, placements: &[PlacementShown]) -> Vec<String> {
        let mut warnings = match spec {
            Spec::DeleteDisk { disk } => self.deletion_warnings(*disk),
            Spec::Domain(DomainChange::Forget { .. }) => vec![
                "there is no way back: should the storage come back, nothing in it is taken for this cluster's again"
                    .to_owned(),
            ],
            Spec::ResizeDisk { .. } => vec!["a disk never shrinks again".to_owned()],
            Spec::RevertSnapshot { disk, volume, .. } => self.revert_warnings(*disk, *volume),
            Spec::FlattenDisk { disk } => self.flatten_warnings(*disk),
            Spec::CloneLinked { disk, snapshot, .. } => self.clone_warnings(*disk, *snapshot, self.stages(spec)),
            Spec::CreateSnapshot { disk, .. } => self.leaf_warnings(*disk),
            _ => Vec::new(),
        };
        if placements.iter().any(|placement| placement.reserved_bytes > 0) {
            warnings.push(
                "the space is reserved for the time of the copy; what it takes in the end may be less".to_owned(),
            );
        }
        warnings
    }
}

fn build_words(blueprint: &Blueprint) -> String {
    if blueprint.is_job() {
        format!("build a placement of disk {}: up to {} bytes are moved", blueprint.name, blueprint.total_bytes())
    } else {
        format!("build a placement of disk {} of links and empty files: a moment", blueprint.name)
    }
}

fn placement_shown(blueprint: &Blueprint) -> PlacementShown {
    let layers = blueprint.layers.iter().map(layer_words).collect();
    PlacementShown { domain: blueprint.target, layers, reserved_bytes: blueprint.reserved_bytes() }
}

/// New volumes get their ids when it is begun, so none is shown of those.
fn layer_words(layer: &Layer) -> String {
    let row = &layer.volume;
    let (format, size) = (row.format.word(), row.virtual_size);
    let kind = if row.preallocated { "preallocated " } else { "" };
    match &layer.from {
        From::Link => format!("link of {format} volume {}", row.id),
        From::Fresh => format!("new empty {kind}{format} volume of {size} bytes"),
        From::Bytes(id) => format!("new {format} volume of {size} bytes: the file of volume {id}"),
        From::Flatten(ids) => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            format!("new {kind}{format} volume of {size} bytes: what is seen through {}", ids.join(", "))
        }
    }
}

/// What a change of a domain does on the storage, in words.
fn domain_steps(change: &DomainChange) -> Vec<String> {
    let step = match change {
        DomainChange::Maintenance { .. } | DomainChange::Activate { .. } => return Vec::new(),
        DomainChange::Rename { .. } => "write the name into the domain's metadata, after the transaction",
        DomainChange::Detach { .. } => "write the catalog of its disks into the domain, then give it up",
        DomainChange::Delete { .. } => "delete the domain's folder, after the transaction, as garbage",
        DomainChange::Forget { .. } => return Vec::new(),
        DomainChange::Attach(_) => "take the domain over: its pool and its mark become this cluster's",
    };
    vec![step.to_owned()]
}
