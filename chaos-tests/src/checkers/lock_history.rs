//! The locks of a history, each with what was done to it: what was asked for by itself, the end of the sessions that
//! asked for it, and what lists of locks showed. Locks are judged one by one; a session's end is an operation on each.

use super::intervals::Ends;
use super::intervals::Interval;
use super::intervals::place;
use super::leases::Leases;
use super::leases::session_of;
use super::lock_model::Holder;
use super::lock_model::LockOp;
use crate::history::Event;
use crate::history::Operation;
use crate::history::Outcome;
use sdm_proto::token::Token;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Refused because somebody has it, where the request does not wait.
const LOCKED: &str = "LOCKED";

/// A token as histories have it: epoch-index-ordinal, or a number.
pub fn token_of(value: &Value) -> Option<Token> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64().map(|index| Token { index, ..Token::default() }),
        _ => None,
    }
}

/// What was done to each lock.
pub fn locks_of(events: &[Event], operations: &[Operation]) -> BTreeMap<String, Vec<Interval<LockOp>>> {
    let leases = Leases::of(operations);
    let mut locks: BTreeMap<String, Vec<Interval<LockOp>>> = BTreeMap::new();
    // Whose end frees it: sessions that were, or may have been, granted it.
    let mut granted_to: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for operation in operations {
        let session = session_of(operation);
        let op = match operation.f.as_str() {
            "acquire" => acquired(operation, session.clone()),
            "release" => released(operation, session.clone()),
            _ => continue,
        };
        if matches!(op, Some(LockOp::Acquire(_))) {
            granted_to.entry(operation.key.clone()).or_default().insert(session);
        }
        let lock = locks.entry(operation.key.clone()).or_default();
        lock.extend(op.map(|op| interval(operation, leases.ends(operation), op)));
    }
    for (resource, sessions) in &granted_to {
        let lock = locks.entry(resource.clone()).or_default();
        for session in sessions {
            lock.extend(leases.runs_out(session, events).map(|(begins, ends)| Interval {
                op: LockOp::End { session: session.clone(), closed: false },
                begins,
                ends,
                label: "cluster".to_owned(),
            }));
        }
    }
    for operation in operations {
        match operation.f.as_str() {
            "close" if !matches!(operation.outcome, Outcome::Failed(_)) => {
                let session = session_of(operation);
                for (resource, _) in granted_to.iter().filter(|(_, sessions)| sessions.contains(&session)) {
                    let op = LockOp::End { session: session.clone(), closed: true };
                    let ends = operation.completed.filter(|_| operation.is_done());
                    let ends = ends.map_or(Ends::Never, |at| Ends::At(place(at)));
                    locks.entry(resource.clone()).or_default().push(interval(operation, ends, op));
                }
            }
            "locks" => {
                for (resource, seen) in listed(operation) {
                    if let Some(lock) = locks.get_mut(&resource) {
                        lock.push(interval(operation, leases.ends(operation), LockOp::Read(seen)));
                    }
                }
            }
            _ => {}
        }
    }
    locks
}

fn interval(operation: &Operation, ends: Ends, op: LockOp) -> Interval<LockOp> {
    let label = format!("[{}] {}", operation.index, operation.process);
    Interval { op, begins: place(operation.invoked), ends, label }
}

fn acquired(operation: &Operation, session: String) -> Option<LockOp> {
    match &operation.outcome {
        Outcome::Done(told) => {
            let token = told.get("token").and_then(token_of).or_else(|| token_of(told));
            Some(LockOp::Acquire(Holder { session, lock: operation.told_str("lock"), token }))
        }
        Outcome::Unknown(_) => Some(LockOp::Acquire(Holder { session, lock: None, token: None })),
        Outcome::Failed(why) => {
            let waited = operation.asked.get("wait_ms").and_then(Value::as_u64).unwrap_or(0) > 0;
            (why.as_str() == Some(LOCKED) && !waited).then_some(LockOp::Locked)
        }
    }
}

fn released(operation: &Operation, session: String) -> Option<LockOp> {
    match operation.outcome {
        Outcome::Failed(_) => None,
        _ => Some(LockOp::Release { session, lock: operation.asked_str("lock") }),
    }
}

/// Of a list of locks: each name that was looked for, and who has it.
fn listed(operation: &Operation) -> Vec<(String, Option<Holder>)> {
    let Outcome::Done(told) = &operation.outcome else { return Vec::new() };
    let names = told.get("names").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let held = |name: &str| {
        let row = told.get("held")?.get(name)?;
        let session = match row.get("session")? {
            Value::String(text) => text.clone(),
            number => number.to_string(),
        };
        Some(Holder { session, lock: None, token: row.get("token").and_then(token_of) })
    };
    names.map(|name| (name.to_owned(), held(name))).collect()
}
