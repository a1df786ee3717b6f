//! Operations: an event that asks, paired with the event of the same process that ends it.

use super::event::Event;
use super::event::Kind;
use super::event::Process;
use serde_json::Value;
use std::collections::BTreeMap;

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It took effect between its two events; with this result.
    Done(Value),
    /// It took no effect and never will; for this reason.
    Failed(Value),
    /// It may take effect at any time after it was asked for, or never.
    Unknown(Value),
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who.
    pub process: Process,
    /// What.
    pub f: String,
    /// On what.
    pub key: String,
    /// With what.
    pub asked: Value,
    /// How it ended.
    pub outcome: Outcome,
    /// Place in the history of the event that asked, counted from 0 ...
    pub invoked: usize,
    /// ... its number and its time in nanoseconds.
    pub index: u64,
    /// When it was asked for.
    pub time: u64,
    /// Place of the event that ended it; none when its process never came to that.
    pub completed: Option<usize>,
}

impl Operation {
    /// A field of what was asked, in words.
    pub fn asked_str(&self, field: &str) -> Option<String> {
        self.asked.get(field).and_then(words)
    }

    /// A field of the result, in words.
    pub fn told_str(&self, field: &str) -> Option<String> {
        self.result().and_then(|value| value.get(field)).and_then(words)
    }

    /// What it was told, where that is sure.
    pub fn result(&self) -> Option<&Value> {
        match &self.outcome {
            Outcome::Done(value) | Outcome::Failed(value) => Some(value),
            Outcome::Unknown(_) => None,
        }
    }

    /// Whether it took effect for sure.
    pub fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Done(_))
    }
}

/// A value that names something: a text, or a number.
fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Why events do not pair.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PairingError {
    /// An end without a beginning.
    #[error("event {index}: {process} is told how {f:?} ended, and had not asked for anything")]
    NotAsked {
        /// The event's number.
        index: u64,
        /// Who.
        process: Process,
        /// What.
        f: String,
    },
    /// The end of something else.
    #[error("event {index}: {process} is told how {f:?} ended, and had asked for {asked:?}")]
    OtherAsked {
        /// The event's number.
        index: u64,
        /// Who.
        process: Process,
        /// What.
        f: String,
        /// What it had asked for.
        asked: String,
    },
    /// A process that does two things at once.
    #[error("event {index}: {process} asks for {f:?} before it was told how {asked:?} ended")]
    TwoAtOnce {
        /// The event's number.
        index: u64,
        /// Who.
        process: Process,
        /// What.
        f: String,
        /// What it had asked for.
        asked: String,
    },
}

/// The operations of a history, in the order in which they were asked for. One whose end is not in the history is
/// unknown. Notes (an info of a process that asked for nothing) are left out.
///
/// # Errors
/// The events are not those of processes that do one thing at a time.
pub fn pair(events: &[Event]) -> Result<Vec<Operation>, PairingError> {
    let mut operations: Vec<Operation> = Vec::new();
    let mut open: BTreeMap<&Process, usize> = BTreeMap::new();
    for (place, event) in events.iter().enumerate() {
        let (index, process, f) = (event.index, event.process.clone(), event.f.clone());
        if event.kind == Kind::Invoke {
            if let Some(before) = open.insert(&event.process, operations.len()) {
                let asked = operations.get(before).map(|before| before.f.clone()).unwrap_or_default();
                return Err(PairingError::TwoAtOnce { index, process, f, asked });
            }
            operations.push(Operation {
                process,
                f,
                key: event.key.clone(),
                asked: event.value.clone(),
                outcome: Outcome::Unknown(Value::Null),
                invoked: place,
                index,
                time: event.time,
                completed: None,
            });
            continue;
        }
        let Some(operation) = open.remove(&event.process).and_then(|at| operations.get_mut(at)) else {
            match event.kind {
                Kind::Info => continue,
                _ => return Err(PairingError::NotAsked { index, process, f }),
            }
        };
        if operation.f != f {
            return Err(PairingError::OtherAsked { index, process, f, asked: operation.f.clone() });
        }
        let value = event.value.clone();
        operation.completed = Some(place);
        operation.outcome = match event.kind {
            Kind::Ok => Outcome::Done(value),
            Kind::Fail => Outcome::Failed(value),
            Kind::Invoke | Kind::Info => Outcome::Unknown(value),
        };
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(lines: &[(&str, &str, &str)]) -> Vec<Event> {
        let event = |(index, (kind, process, f)): (usize, &(&str, &str, &str))| {
            let kind = serde_json::from_value(Value::from(*kind)).expect("a kind");
            let (index, f) = (index as u64, (*f).to_owned());
            Event { index, time: index, kind, process: Process::of(process), f, key: "k".into(), value: Value::Null }
        };
        lines.iter().enumerate().map(event).collect()
    }

    #[test]
    fn operations_are_paired_by_process_and_notes_are_left_out() {
        let paired = pair(&events(&[
            ("invoke", "1", "write"),
            ("info", "nemesis", "partition"),
            ("invoke", "2", "read"),
            ("ok", "1", "write"),
            ("info", "2", "read"),
            ("invoke", "1", "read"),
        ]));
        let paired = paired.expect("sound events");
        let ends: Vec<_> = paired.iter().map(|operation| (operation.invoked, operation.completed)).collect();
        assert_eq!(ends, [(0, Some(3)), (2, Some(4)), (5, None)]);
        assert!(paired[0].is_done());
        assert!(matches!(paired[1].outcome, Outcome::Unknown(_)));
        assert!(matches!(paired[2].outcome, Outcome::Unknown(_)), "its end is not in the history");
    }

    #[test]
    fn a_process_that_does_two_things_at_once_or_is_told_of_what_it_never_asked_is_refused() {
        let two = pair(&events(&[("invoke", "1", "write"), ("invoke", "1", "read")]));
        assert!(matches!(two, Err(PairingError::TwoAtOnce { index: 1, .. })));
        assert!(matches!(pair(&events(&[("ok", "1", "write")])), Err(PairingError::NotAsked { index: 0, .. })));
        let other = pair(&events(&[("invoke", "1", "write"), ("ok", "1", "read")]));
        assert!(matches!(other, Err(PairingError::OtherAsked { index: 1, .. })));
    }
}
