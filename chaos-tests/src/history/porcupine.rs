//! Histories for porcupine: its events, a call and a return for each operation, as JSON lines that a few lines of Go turn
//! into `porcupine.Event{ClientId, Kind, Value, Id}`. An operation whose outcome is not known returns at the end, as
//! `unknown`, and is to be accepted by the model whether it took effect or not; one that failed is left out.

use super::operation::Operation;
use super::operation::Outcome;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;

/// The lines of these operations.
pub fn lines(operations: &[Operation]) -> Vec<Value> {
    let mut clients = BTreeMap::new();
    let mut at: Vec<(usize, Value)> = Vec::new();
    let mut open = Vec::new();
    for (id, operation) in operations.iter().enumerate() {
        let unknown = matches!(operation.outcome, Outcome::Unknown(_));
        if matches!(operation.outcome, Outcome::Failed(_)) {
            continue;
        }
        let next = clients.len();
        // One that waits for ever is a client of its own: porcupine's clients do one thing at a time.
        let client = if unknown { operations.len() + id } else { *clients.entry(&operation.process).or_insert(next) };
        let input = json!({ "f": operation.f, "value": operation.asked });
        at.push((
            operation.invoked,
            json!({ "kind": "call", "id": id, "client": client, "key": operation.key, "value": input }),
        ));
        let output = json!({ "unknown": unknown, "value": operation.result() });
        let back = json!({ "kind": "return", "id": id, "client": client, "key": operation.key, "value": output });
        match operation.completed.filter(|_| !unknown) {
            Some(place) => at.push((place, back)),
            None => open.push(back),
        }
    }
    at.sort_by_key(|(place, _)| *place);
    at.into_iter().map(|(_, line)| line).chain(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Process;

    fn operation(process: u64, outcome: Outcome, invoked: usize, completed: Option<usize>) -> Operation {
        let (process, f, key, asked) = (Process::Number(process), "write".to_owned(), "r".to_owned(), json!(1));
        Operation { process, f, key, asked, outcome, invoked, index: 0, time: 0, completed }
    }

    #[test]
    fn what_is_known_returns_in_its_place_what_is_not_at_the_end_and_what_failed_is_left_out() {
        let lines = lines(&[
            operation(5, Outcome::Unknown(json!("lost")), 0, Some(1)),
            operation(6, Outcome::Done(json!(2)), 2, Some(3)),
            operation(6, Outcome::Failed(json!("no")), 4, Some(5)),
        ]);
        let told: Vec<_> =
            lines.iter().map(|line| (line["kind"].as_str().unwrap(), line["id"].as_u64().unwrap())).collect();
        assert_eq!(told, [("call", 0), ("call", 1), ("return", 1), ("return", 0)]);
        assert_eq!(lines[3]["value"]["unknown"], json!(true));
        assert_ne!(lines[0]["client"], lines[1]["client"]);
    }
}
