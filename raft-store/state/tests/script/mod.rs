//! Golden scripts: commands as an operator would word them, and what becomes of each. A line that begins
//! with `>` is a command; what follows it is what the cluster did: the orders that its worker got, the
//! outcome, and what changed of disks and garbage. Volumes are named v1, v2 ... as they appear.

#![allow(dead_code, reason = "each test file uses its own part")]

mod operators;

use crate::world::World;
use crate::world::done;
use crate::world::name;
use operators::Operators;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::refusal::Refusal;
use sdm_state::Command;
use sdm_state::assignments::Assignment;
use sdm_state::assignments::From;
use sdm_state::assignments::Layer;
use sdm_state::assignments::Order;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Format;
use sdm_state::catalog::Volume;
use sdm_state::command::SessionRef;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Orders that one command may cause; more mean that it never ends.
const ROUNDS_MAX: usize = 20;

pub struct Script {
    pub world: World,
    pub session: SessionRef,
    volumes: Vec<VolumeId>,
    disks: BTreeMap<String, String>,
    last: Option<TxnId>,
    operators: Operators,
    /// What stood around after the last command; empty as long as a script does not look.
    stood: BTreeMap<String, String>,
}

fn format_of(word: &str) -> Format {
    if word == "raw" { Format::Raw } else { Format::Qcow2 }
}

fn size_of(word: &str) -> u64 {
    match word.strip_suffix('M') {
        Some(mebibytes) => mebibytes.parse::<u64>().expect("a size") << 20,
        None => word.parse().expect("a size"),
    }
}

fn size_word(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{}M", bytes >> 20) } else { bytes.to_string() }
}

impl Script {
    /// A worker, and two domains that it reaches.
    pub fn new() -> Self {
        let mut world = World::founded();
        let (session, _) = world.with_domain("w1", "d1");
        world.add_domain("w1", session, "d2");
        let mut operators = Operators::default();
        operators.workers.insert("w1".to_owned(), session);
        Self {
            world,
            session,
            volumes: Vec::new(),
            disks: BTreeMap::new(),
            last: None,
            operators,
            stood: BTreeMap::new(),
        }
    }

    /// What becomes of the commands of a script, as the script is to say it.
    pub fn run(text: &str) -> String {
        let mut script = Self::new();
        let mut out = String::new();
        for line in text.lines().filter(|line| line.starts_with('>') || line.starts_with('#')) {
            out.push_str(line);
            out.push('\n');
            if let Some(command) = line.strip_prefix("> ") {
                out.push_str(&script.take(command));
            }
        }
        out
    }

    fn domain(&self, word: &str) -> DomainId {
        self.world.state.domain_named(&name(word)).map_or_else(|| DomainId::derive("none", &[]), |domain| domain.id)
    }

    fn disk(&self, word: &str) -> DiskId {
        self.world.state.disk_named(&name(word)).map_or_else(|| DiskId::derive("none", &[]), |disk| disk.id)
    }

    /// A snapshot of a disk by its name, or any volume by its label.
    fn volume(&self, disk: &str, word: &str) -> VolumeId {
        let labelled =
            word.strip_prefix('v').and_then(|n| n.parse::<usize>().ok()).and_then(|n| self.volumes.get(n - 1));
        let row = self.world.state.disk_named(&name(disk));
        let named = row.and_then(|row| self.world.state.snapshot_named(row, &name(word))).map(|row| row.id);
        labelled.copied().or(named).unwrap_or_else(|| VolumeId::derive("none", &[]))
    }

    fn label(&mut self, id: VolumeId) -> String {
        if !self.volumes.contains(&id) {
            self.volumes.push(id);
        }
        let at = self.volumes.iter().position(|known| *known == id).unwrap_or_default();
        format!("v{}", at + 1)
    }

    fn spec(&self, words: &[&str]) -> Spec {
        let has = |word: &str| words.contains(&word);
        let after = |word: &str| words.iter().position(|w| *w == word).and_then(|at| words.get(at + 1)).copied();
        let disk = words.get(1).copied().unwrap_or("none");
        let (id, second) = (self.disk(disk), words.get(2).copied().unwrap_or("none"));
        let snapshot = after("of").map(|word| self.volume(disk, word));
        let description = after("about").unwrap_or_default().to_owned();
        match words[0] {
            "create" => Spec::CreateDisk {
                name: name(disk),
                domain: self.domain(words[4]),
                size: size_of(second),
                format: format_of(words[3]),
                preallocated: has("preallocated"),
                description,
            },
            "snapshot" => Spec::CreateSnapshot { disk: id, name: name(second), description },
            "unsnapshot" => {
                Spec::DeleteSnapshot { disk: id, volume: self.volume(disk, second), in_place: has("in-place") }
            }
            "revert" => {
                let volume = self.volume(disk, second);
                Spec::RevertSnapshot { disk: id, volume, discard_newer: has("discard-newer") }
            }
            "clone" => Spec::CloneLinked { disk: id, snapshot, name: name(second), description },
            "copy" => Spec::CopyDisk {
                disk: id,
                snapshot,
                name: name(second),
                description,
                to: self.domain(words[3]),
                format: after("format").map(format_of),
                preallocated: has("preallocated"),
                collapse: has("collapse"),
                template: has("template"),
            },
            "convert" => Spec::ConvertDisk { disk: id, format: format_of(second), preallocated: has("preallocated") },
            "flatten" => Spec::FlattenDisk { disk: id },
            "resize" => Spec::ResizeDisk { disk: id, size: size_of(second) },
            "rename" => Spec::RenameDisk { disk: id, name: name(second) },
            "describe" => Spec::DescribeDisk { disk: id, description: words[2..].join(" ") },
            "legal" | "illegal" => {
                let volume = self.volume(disk, second);
                Spec::SetVolumeLegality { disk: id, volume, legal: words[0] == "legal" }
            }
            "repair" => Spec::RepairProjection { disk: id },
            "move" => Spec::MoveDisk { disk: id, to: self.domain(second) },
            "export" => Spec::ExportDisk { disk: id },
            "delete" => Spec::DeleteDisk { disk: id },
            _ => self.operator_spec(words),
        }
    }

    /// Does one command, with all that workers are told because of it.
    fn take(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        if let Some(out) = self.operate(&words) {
            return out;
        }
        let mut out = String::new();
        match words[0] {
            // Of what is begun next, nothing is done: it holds its locks.
            "begin" => {
                let spec = self.spec(&words[1..]);
                self.last = Some(self.world.begin(spec));
            }
            // The worker does one thing.
            "step" => _ = self.work_once(&mut out),
            "abort" => {
                let txn = self.last.expect("a transaction");
                self.world.apply(Command::Abort { txn, reason: "changed my mind".into() });
            }
            "collect" => {
                let garbage = self.world.state.garbage.values().map(|garbage| garbage.id).collect();
                self.world.apply(Command::Collect { garbage });
                while self.work_once(&mut out) {}
            }
            "plan" => return self.shown(&words[1..]),
            _ => {
                let spec = self.spec(&words);
                let before = self.world.index;
                self.last = Some(self.world.begin(spec));
                for _ in 0..ROUNDS_MAX {
                    if !self.work_once(&mut out) {
                        break;
                    }
                }
                _ = writeln!(out, "  {} entries", self.world.index - before);
            }
        }
        self.outcome(&mut out);
        self.changes(&mut out);
        if !self.stood.is_empty() {
            self.standing(&mut out);
        }
        out
    }

    fn work_once(&mut self, out: &mut String) -> bool {
        let told = self.operators.workers.iter().find_map(|(worker, session)| {
            Some((worker.clone(), *session, self.world.assignments(worker).into_iter().next()?))
        });
        let Some((worker, session, assignment)) = told else { return false };
        let words = self.order_words(&assignment);
        let whose = if self.operators.workers.len() > 1 { format!(" to {worker}") } else { String::new() };
        _ = writeln!(out, "  order{whose}: {words}");
        let Some(report) = done(&assignment.order) else { return false };
        self.world.report(session, assignment.token, report);
        true
    }

    fn shown(&mut self, words: &[&str]) -> String {
        let spec = self.spec(words);
        match self.world.state.dry_run(&spec, None) {
            Err(refusal) => format!("  {}\n", refusal_words(&refusal)),
            Ok(plan) => {
                let locks: Vec<String> = plan
                    .locks
                    .iter()
                    .map(|(resource, mode)| format!("{}:{mode}", self.world.state.resource_word(resource)))
                    .collect();
                let mut out = format!("  would {}\n  locks {}\n", plan.summary, locks.join(" "));
                for step in &plan.steps {
                    _ = writeln!(out, "  step: {step}");
                }
                for placement in &plan.placements {
                    _ = writeln!(out, "  reserves {}", size_word(placement.reserved_bytes));
                    for layer in &placement.layers {
                        let mut layer = layer.clone();
                        for (at, id) in self.volumes.iter().enumerate() {
                            layer = layer.replace(&id.to_string(), &format!("v{}", at + 1));
                        }
                        _ = writeln!(out, "    {layer}");
                    }
                }
                _ = writeln!(out, "  {} entries, waits for {}", plan.log_entries, plan.waits_for.len());
                for warning in &plan.warnings {
                    _ = writeln!(out, "  beware: {warning}");
                }
                out
            }
        }
    }

    fn layer_words(&mut self, layer: &Layer) -> String {
        let row = &layer.volume;
        let label = self.label(row.id);
        let kind = if row.preallocated { "preallocated " } else { "" };
        let new = format!("{kind}{} {label} of {}", row.format.word(), size_word(row.virtual_size));
        match &layer.from {
            From::Link => format!("link {label}"),
            From::Fresh => format!("new {new}"),
            From::Bytes(id) => format!("{new} from the file of {}", self.label(*id)),
            From::Flatten(ids) => {
                let ids: Vec<String> = ids.iter().map(|id| self.label(*id)).collect();
                format!("{new} from what is seen through {}", ids.join("+"))
            }
        }
    }

    fn order_words(&mut self, assignment: &Assignment) -> String {
        match &assignment.order {
            Order::CreateDisk { new, volumes } => {
                let words = volumes.iter().map(|row| format!("{} {}", row.format.word(), size_word(row.virtual_size)));
                format!("create {}: {}", new.description, words.collect::<Vec<_>>().join(", "))
            }
            Order::Build { new, layers, .. } => {
                let words: Vec<String> = layers.iter().map(|layer| self.layer_words(layer)).collect();
                let kind = if new.template { " as a template" } else { "" };
                format!("build {}{kind}: {}", new.description, words.join("; "))
            }
            Order::Copy { new, volumes, .. } => {
                let words: Vec<String> = volumes.iter().map(|row| self.label(row.id)).collect();
                format!("copy {}: {}", new.description, words.join(", "))
            }
            Order::Resize { volume, new_size, .. } => {
                format!("resize {} to {}", self.label(volume.id), size_word(*new_size))
            }
            Order::Merge { volumes, .. } => {
                let words: Vec<String> = volumes.iter().rev().take(2).map(|row| self.label(row.id)).collect();
                format!("merge in place into {} what {} holds", words[0], words[1])
            }
            Order::Project { description, disk_description, volumes, .. } => {
                let words: Vec<String> = volumes.iter().map(|row| self.label(row.id)).collect();
                let about = if disk_description.is_empty() { String::new() } else { format!(" ({disk_description})") };
                format!("say on the storage: {description}{about}, {}", words.join(", "))
            }
            Order::Delete { .. } => "delete".to_owned(),
            other => format!("{other:?}").split([' ', '{']).next().unwrap_or_default().to_lowercase(),
        }
    }

    fn outcome(&mut self, out: &mut String) {
        let Some(txn) = self.last.and_then(|id| self.world.state.txns.get(&id)) else { return };
        let words = match &txn.phase {
            Phase::Committed(_) => format!("committed: {}", txn.summary),
            Phase::Aborted(refusal) => format!("aborted {}", refusal_words(refusal)),
            Phase::Refused(refusal) => format!("refused {}", refusal_words(refusal)),
            _ => format!("{}: {}", txn.phase_word(), txn.summary),
        };
        self.label_all();
        let words = self.labelled(self.plain(words));
        _ = writeln!(out, "  {words}");
    }

    /// Volumes by their labels, other ids by nothing.
    fn plain(&self, mut words: String) -> String {
        for (at, id) in self.volumes.iter().enumerate() {
            words = words.replace(&id.to_string(), &format!("v{}", at + 1));
        }
        words
    }

    fn disk_words(&mut self, disk: &Disk) -> String {
        let domain = self.world.state.domain_of(disk).map(|domain| domain.name.to_string()).unwrap_or_default();
        let rows: Vec<Volume> =
            disk.volumes.iter().filter_map(|id| self.world.state.volumes.get(id)).cloned().collect();
        let layers: Vec<String> = rows
            .iter()
            .map(|row| {
                let label = self.label(row.id);
                let snapshot = row.snapshot.as_ref().map(|s| format!("={}", s.name)).unwrap_or_default();
                let bad = if row.legal { "" } else { " ILLEGAL" };
                let kind = if row.preallocated { " preallocated" } else { "" };
                format!("{label}{snapshot} {} {}{kind}{bad}", row.format.word(), size_word(row.virtual_size))
            })
            .collect();
        let kind = if disk.template { "template" } else { "disk" };
        let about = if disk.description.is_empty() { String::new() } else { format!(" ({})", disk.description) };
        format!("{kind} {}{about} in {domain}: {}", disk.name, layers.join(" < "))
    }

    fn changes(&mut self, out: &mut String) {
        let rows: Vec<Disk> = self.world.state.disks.values().cloned().collect();
        let mut now = BTreeMap::new();
        for disk in &rows {
            now.insert(disk.id.to_string(), self.disk_words(disk));
        }
        let mut lines: Vec<String> = Vec::new();
        for (id, words) in &now {
            if self.disks.get(id) != Some(words) {
                lines.push(words.clone());
            }
        }
        for (id, words) in &self.disks {
            if !now.contains_key(id) {
                lines.push(format!("gone: {words}"));
            }
        }
        lines.sort();
        for line in lines {
            _ = writeln!(out, "  {line}");
        }
        self.disks = now;
        let state = &self.world.state;
        let garbage: Vec<String> =
            state.garbage.values().map(|row| format!("{} {}", row.kind.word(), size_word(row.bytes))).collect();
        if !garbage.is_empty() {
            _ = writeln!(out, "  garbage: {}", garbage.join(", "));
        }
        if !state.projections.is_empty() {
            _ = writeln!(out, "  {} projections", state.projections.len());
        }
    }
}

fn refusal_words(refusal: &Refusal) -> String {
    let mut words = format!("{}: {}", refusal.reason, refusal.message);
    for blocker in &refusal.blockers {
        _ = write!(words, "; {} {}", blocker.kind, if blocker.kind == "lock" { "it" } else { blocker.id.as_str() });
    }
    if !refusal.hint.is_empty() {
        _ = write!(words, " (hint: {})", refusal.hint);
    }
    words
}
