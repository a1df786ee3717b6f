//! Fencing where it counts: at the storage. Every change of it is judged when it takes effect, by the order that made it:
//! an attempt writes beneath its own dot name alone and publishes under its own name alone, once; nothing in a published
//! placement is written or unlinked except by the orders that are there for that; nothing is written through a link.

use sdm_storage_worker::work::BuildChain;
use sdm_storage_worker::work::NewPlacement;
use sdm_storage_worker::work::Order;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// What dot names of attempts begin with.
const DOT: &str = ".sdm-";

/// Changes kept for evidence.
const CHANGES_MAX: usize = 4_000;

/// What an order may change.
#[derive(Clone, Debug, Default)]
pub struct OrderLabel {
    /// Who executes it.
    pub worker: String,
    /// What it is.
    pub kind: &'static str,
    /// Dot names beneath which it may do anything.
    dots: Vec<String>,
    /// The placement that it may publish.
    publishes: Option<String>,
    /// The placement that it may take away.
    deletes: Option<String>,
    /// The placement in which it may write `.meta` files.
    projects: Option<String>,
    /// The volume that it may write in place, and in which placement.
    in_place: Option<(String, String)>,
    /// Whether what it does in published placements is known here at all.
    judged: bool,
}

impl OrderLabel {
    /// Of this order, executed by this worker.
    pub fn of(worker: &str, order: &Order) -> Self {
        let base = Self { worker: worker.to_owned(), judged: true, ..Self::default() };
        let building = |kind, placement: &NewPlacement| Self {
            kind,
            dots: vec![placement.dot_name.clone()],
            publishes: Some(placement.placement.to_string()),
            ..base.clone()
        };
        match order {
            Order::CreateDisk(order) => building("create", &order.placement),
            Order::BuildPlacement(order) => building("build", &order.placement),
            Order::BuildChain(order) => Self { in_place: rebased(order), ..building("chain", &order.placement) },
            Order::DeletePlacement(order) => Self {
                kind: "delete",
                dots: vec![order.dot_name.clone(), order.deletion_dot_name.clone()],
                deletes: order.placement.map(|placement| placement.to_string()),
                ..base
            },
            Order::ProjectPlacement(order) => {
                Self { kind: "project", projects: Some(order.placement.to_string()), ..base }
            }
            Order::ResizeVolume(order) => {
                let in_place = Some((order.placement.to_string(), order.volume.to_string()));
                Self { kind: "resize", projects: Some(order.placement.to_string()), in_place, ..base }
            }
            Order::MergeInPlace(order) => {
                let child = order.volumes.last().map(|known| known.volume.to_string());
                let in_place = child.map(|volume| (order.placement.to_string(), volume));
                Self { kind: "merge", in_place, ..base }
            }
            Order::ProbeDomain(_)
            | Order::SendPlacement(_)
            | Order::InspectDomain(_)
            | Order::CheckPlacements(_)
            | Order::ReadCatalog(_) => Self { kind: "read", ..base },
            // They write the domain's own files, and nothing among its placements.
            Order::RenameDomain(_) | Order::DetachDomain(_) | Order::WriteCatalog(_) | Order::AttachDomain(_) => {
                Self { kind: "domain", ..base }
            }
            _ => Self { kind: "other", judged: false, ..base },
        }
    }

    /// Whether a linked volume in its own folder is the one that it may write in place.
    fn rebases(&self, path: &str) -> bool {
        let own = place(path).filter(|(folder, _)| self.dots.iter().any(|dot| dot == folder));
        own.is_some_and(|(_, name)| self.in_place.as_ref().is_some_and(|(_, volume)| volume == name))
    }
}

/// The volume whose header is made to name another one beneath it: through its link in the attempt's folder,
/// which is the same file in the source.
fn rebased(order: &BuildChain) -> Option<(String, String)> {
    let source = order.source.as_ref()?;
    Some((source.at.placement.to_string(), order.rebase?.to_string()))
}

/// One change, by full paths.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new file or folder.
    Create(String),
    /// A second name for a file.
    Link(String),
    /// Bytes or size of a file.
    Write(String),
    /// A name to another one.
    Rename(String, String),
    /// A name is gone.
    Remove(String),
}

/// Where in a domain a path lies: the folder beneath `images/`, and what is in it.
fn place(path: &str) -> Option<(&str, &str)> {
    let (_, beneath) = path.split_once("/images/")?;
    Some(beneath.split_once('/').unwrap_or((beneath, "")))
}

#[derive(Debug, Default)]
struct Entries {
    lines: Vec<String>,
    broken: Vec<String>,
    /// Placements by who published them, and those that were taken away.
    published: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    linked: BTreeSet<String>,
    changes: u64,
    late: u64,
}

/// What was changed, by whom, and what of it must not have been.
#[derive(Clone, Debug)]
pub struct Journal {
    entries: Arc<Mutex<Entries>>,
    now_ns: Arc<AtomicU64>,
}

impl Journal {
    /// An empty one.
    pub fn new(now_ns: Arc<AtomicU64>) -> Self {
        Self { entries: Arc::default(), now_ns }
    }

    /// A change took effect.
    pub fn note(&self, by: &OrderLabel, change: Change) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.changes += 1;
        let line =
            format!("{} ms {} {} {change:?}", self.now_ns.load(Ordering::Relaxed) / 1_000_000, by.worker, by.kind);
        if let Some(why) = judge(&mut entries, by, &change) {
            entries.broken.push(format!("{why}: {line} (may: {by:?})"));
        }
        if entries.lines.len() < CHANGES_MAX {
            entries.lines.push(line);
        }
    }

    /// What must not have been, once.
    pub fn take_broken(&self) -> Vec<String> {
        std::mem::take(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner).broken)
    }

    /// How many changes there were, and how many placements were published and taken away.
    pub fn counts(&self) -> (u64, u64, u64) {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        (entries.changes, entries.published.len() as u64, entries.taken.len() as u64)
    }

    /// Publications of a placement whose deletion had been there already: the attempt came late.
    pub fn late(&self) -> u64 {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).late
    }

    /// The changes, a line each.
    pub fn lines(&self) -> String {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }
}

fn judge(entries: &mut Entries, by: &OrderLabel, change: &Change) -> Option<&'static str> {
    match change {
        Change::Rename(from, to) => {
            let ((from_folder, from_name), (to_folder, to_name)) = (place(from)?, place(to)?);
            if from_name.is_empty() && to_name.is_empty() {
                return judge_folder(entries, by, from_folder, to_folder);
            }
            judge_inside(by, from_folder, from_name).or_else(|| judge_inside(by, to_folder, to_name))
        }
        Change::Write(path) if entries.linked.contains(path) && !by.rebases(path) => {
            Some("bytes of another placement were written")
        }
        Change::Link(path) => {
            entries.linked.insert(path.clone());
            let (folder, name) = place(path)?;
            judge_inside(by, folder, name)
        }
        Change::Create(path) | Change::Write(path) | Change::Remove(path) => {
            let (folder, name) = place(path)?;
            judge_inside(by, folder, name)
        }
    }
}

fn judge_inside(by: &OrderLabel, folder: &str, name: &str) -> Option<&'static str> {
    if !by.judged || by.dots.iter().any(|dot| dot == folder) {
        return None;
    }
    if folder.starts_with(DOT) {
        return Some("another attempt's folder was changed");
    }
    let is = |placement: &Option<String>| placement.as_deref() == Some(folder);
    let volume = !name.is_empty() && !name.contains('.');
    match volume {
        true if by.in_place.as_ref().is_some_and(|(placement, volume)| placement == folder && volume == name) => None,
        false if is(&by.projects) => None,
        true => Some("bytes of a published placement were changed by an order that may not"),
        false => Some("a published placement was changed by an order that may not"),
    }
}

fn judge_folder(entries: &mut Entries, by: &OrderLabel, from: &str, to: &str) -> Option<&'static str> {
    let own = |name: &str| by.dots.iter().any(|dot| dot == name);
    if from.starts_with(DOT) && !to.starts_with(DOT) {
        if entries.taken.contains(to) {
            entries.late += 1;
        }
        let before = entries.published.insert(to.to_owned(), by.worker.clone());
        if by.judged && (!own(from) || by.publishes.as_deref() != Some(to)) {
            return Some("something was published by an attempt that is not its own");
        }
        return before.is_some().then_some("a name was published twice");
    }
    if !from.starts_with(DOT) {
        entries.taken.insert(from.to_owned());
        if by.judged && (by.deletes.as_deref() != Some(from) || !own(to)) {
            return Some("a published placement was taken away by an order that may not");
        }
        return None;
    }
    (by.judged && !(own(from) && own(to))).then_some("another attempt's folder was renamed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder(dot: &str, placement: &str) -> OrderLabel {
        OrderLabel {
            dots: vec![dot.to_owned()],
            publishes: Some(placement.to_owned()),
            judged: true,
            ..OrderLabel::default()
        }
    }

    fn broken(by: &OrderLabel, changes: &[Change]) -> usize {
        let journal = Journal::new(Arc::default());
        for change in changes {
            journal.note(by, change.clone());
        }
        journal.take_broken().len()
    }

    fn path(rest: &str) -> String {
        format!("/srv/d/images/{rest}")
    }

    #[test]
    fn an_attempt_that_stays_beneath_its_own_names_is_fine() {
        let changes = [
            Change::Create(path(".sdm-1/v")),
            Change::Write(path(".sdm-1/v")),
            Change::Rename(path(".sdm-1"), path("p1")),
        ];
        assert_eq!(broken(&builder(".sdm-1", "p1"), &changes), 0);
    }

    #[test]
    fn whatever_an_attempt_does_elsewhere_is_seen() {
        let by = builder(".sdm-1", "p1");
        for change in [
            Change::Create(path(".sdm-2/v")),
            Change::Write(path("p1/v")),
            Change::Remove(path("p2/v.meta")),
            Change::Rename(path(".sdm-1"), path("p2")),
            Change::Rename(path("p1"), path(".sdm-1")),
        ] {
            assert_eq!(broken(&by, std::slice::from_ref(&change)), 1, "{change:?}");
        }
    }

    #[test]
    fn a_write_through_a_link_and_a_second_publication_are_seen() {
        let by = builder(".sdm-1", "p1");
        assert_eq!(broken(&by, &[Change::Link(path(".sdm-1/v")), Change::Write(path(".sdm-1/v"))]), 1);
        let publish = Change::Rename(path(".sdm-1"), path("p1"));
        assert_eq!(broken(&by, &[publish.clone(), publish]), 1);
    }

    #[test]
    fn a_merge_in_place_writes_one_volume_and_its_chain_the_header_of_that_one() {
        let merge = OrderLabel { in_place: Some(("p1".into(), "v".into())), judged: true, ..OrderLabel::default() };
        assert_eq!(broken(&merge, &[Change::Write(path("p1/v"))]), 0);
        for change in [
            Change::Write(path("p1/w")),
            Change::Write(path("p2/v")),
            Change::Write(path("p1/v.meta")),
            Change::Write(path(".sdm-1/v")),
        ] {
            assert_eq!(broken(&merge, std::slice::from_ref(&change)), 1, "{change:?}");
        }
        let chain = OrderLabel { in_place: merge.in_place, ..builder(".sdm-1", "p2") };
        let link = |name: &str| [Change::Link(path(name)), Change::Write(path(name))];
        assert_eq!(broken(&chain, &link(".sdm-1/v")), 0);
        assert_eq!(broken(&chain, &link(".sdm-1/w")), 1);
    }
}
