//! The state's tables, counted and as JSON, for people and scripts.

use sdm_state::State;
use sdm_state::Table;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;

/// The tables by name.
pub const TABLES: &[&str] = &[
    "meta",
    "members",
    "sessions",
    "workers",
    "locks",
    "domains",
    "disks",
    "volumes",
    "placements",
    "transactions",
    "jobs",
    "garbage",
    "hashes",
    "attachments",
    "projections",
];

/// Rows of each table.
#[must_use]
pub fn table_counts(state: &State) -> BTreeMap<&'static str, u64> {
    let counts = [
        ("members", state.members.len()),
        ("sessions", state.sessions.len()),
        ("workers", state.workers.len()),
        ("locks", state.locks.len()),
        ("domains", state.domains.len()),
        ("disks", state.disks.len()),
        ("volumes", state.volumes.len()),
        ("placements", state.placements.len()),
        ("transactions", state.txns.len()),
        ("jobs", state.jobs.len()),
        ("garbage", state.garbage.len()),
        ("hashes", state.hashes.len()),
        ("attachments", state.attachments.len()),
        ("projections", state.projections.len()),
    ];
    counts.into_iter().map(|(name, rows)| (name, rows as u64)).collect()
}

/// The rows of a table in the order of their keys; None for a table that there is not.
pub fn rows_of<'a>(state: &'a State, table: &str) -> Option<Box<dyn Iterator<Item = Value> + 'a>> {
    Some(match table {
        "meta" => Box::new(std::iter::once(value(&state.meta))),
        "members" => values(&state.members),
        "sessions" => values(&state.sessions),
        "workers" => values(&state.workers),
        "locks" => values(&state.locks),
        "domains" => values(&state.domains),
        "disks" => values(&state.disks),
        "volumes" => values(&state.volumes),
        "placements" => values(&state.placements),
        "transactions" => values(&state.txns),
        "jobs" => values(&state.jobs),
        "garbage" => values(&state.garbage),
        "hashes" => values(&state.hashes),
        "attachments" => values(&state.attachments),
        "projections" => values(&state.projections),
        _ => return None,
    })
}

fn values<K: Ord + Clone + Serialize, V: Serialize + std::fmt::Debug>(
    table: &Table<K, V>,
) -> Box<dyn Iterator<Item = Value> + '_> {
    Box::new(table.values().map(value))
}

/// A row as JSON. What JSON has no form for (a map whose keys are not texts) is shown as text.
pub(super) fn value<V: Serialize + std::fmt::Debug>(row: &V) -> Value {
    serde_json::to_value(row).unwrap_or_else(|_| json!({ "text": format!("{row:?}") }))
}
