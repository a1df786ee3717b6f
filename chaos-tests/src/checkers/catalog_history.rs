//! The disks of a history in groups that renames connect, each with what was done to it. Groups are judged one by one.

use super::catalog_model::CatalogOp;
use super::catalog_model::Disk;
use super::intervals::Ends;
use super::intervals::Interval;
use super::intervals::place;
use crate::history::Operation;
use crate::history::Outcome;
use serde_json::Value;
use std::collections::BTreeMap;

/// What was done to the disks of each group; a group is called as the first of its names.
pub fn disks_of(operations: &[Operation]) -> BTreeMap<String, Vec<Interval<CatalogOp>>> {
    let mut first_of = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.f == "rename") {
        if let Some(to) = operation.asked_str("to") {
            let (a, b) = (first(&first_of, &operation.key), first(&first_of, &to));
            if a != b {
                let (a, b) = if a < b { (a, b) } else { (b, a) };
                first_of.insert(b, a);
            }
        }
    }
    let mut groups: BTreeMap<String, Vec<Interval<CatalogOp>>> = BTreeMap::new();
    for operation in operations {
        let Some(op) = meaning(operation) else { continue };
        let known = !matches!(operation.outcome, Outcome::Unknown(_));
        let ends = operation.completed.filter(|_| known).map_or(Ends::Never, |at| Ends::At(place(at)));
        let label = format!("[{}] {}", operation.index, operation.process);
        let group = groups.entry(first(&first_of, &operation.key)).or_default();
        group.push(Interval { op, begins: place(operation.invoked), ends, label });
    }
    groups
}

fn first(first_of: &BTreeMap<String, String>, name: &str) -> String {
    let mut name = name;
    while let Some(before) = first_of.get(name) {
        name = before;
    }
    name.to_owned()
}

fn meaning(operation: &Operation) -> Option<CatalogOp> {
    let name = operation.key.clone();
    let text = |field: &str| operation.asked_str(field).unwrap_or_default();
    match (operation.f.as_str(), &operation.outcome) {
        (_, Outcome::Failed(_)) | ("show", Outcome::Unknown(_)) => None,
        ("create", _) => Some(CatalogOp::Create { name, domain: text("domain") }),
        ("delete", _) => Some(CatalogOp::Delete { name }),
        ("move", _) => Some(CatalogOp::Move { name, to: text("to") }),
        ("rename", _) => Some(CatalogOp::Rename { name, to: text("to") }),
        ("snapshot", _) => Some(CatalogOp::Snapshot { name, snapshot: text("snapshot") }),
        ("merge", _) => Some(CatalogOp::Merge { name, snapshot: text("snapshot") }),
        ("show", Outcome::Done(told)) => {
            let seen = told.get("disk").filter(|disk| !disk.is_null()).map(shown);
            Some(CatalogOp::Read { name, seen })
        }
        _ => None,
    }
}

fn shown(disk: &Value) -> Disk {
    let text = |field: &str| disk.get(field).and_then(Value::as_str).map(str::to_owned);
    let snapshots = disk.get("snapshots").and_then(Value::as_array).into_iter().flatten();
    Disk {
        id: text("id"),
        domain: text("domain").unwrap_or_default(),
        snapshots: snapshots.filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}
