//! One event of a history: what a process asked, what it was told, or what somebody noted.

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// What an event says of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It was asked for.
    Invoke,
    /// It took effect.
    Ok,
    /// It took none, and never will.
    Fail,
    /// Whether it took effect, or will at any later time, is not known. Of a process that asked for nothing: a note.
    Info,
}

/// Who: a client, or in words somebody else. A process does one thing at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Process {
    /// A client by its number.
    Number(u64),
    /// A client by its name, the nemesis, an observer, a checker.
    Name(String),
}

impl Process {
    /// The process of this name, which may be a number.
    pub fn of(name: &str) -> Self {
        name.parse().map_or_else(|_| Process::Name(name.to_owned()), Process::Number)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Process::Number(number) => number.fmt(f),
            Process::Name(name) => name.fmt(f),
        }
    }
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its number; rises by one from event to event.
    pub index: u64,
    /// When, in nanoseconds of the recorder's clock.
    pub time: u64,
    /// What it says.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Who.
    pub process: Process,
    /// What is done.
    pub f: String,
    /// On what; empty when on nothing in particular.
    #[serde(default)]
    pub key: String,
    /// With what, or with what result.
    #[serde(default)]
    pub value: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_as_it_was_written_in_jepsens_words() {
        let line =
            r#"{"index":7,"time":12,"type":"ok","process":3,"f":"acquire","key":"vol-7","value":{"token":"1-5-0"}}"#;
        let event: Event = serde_json::from_str(line).expect("an event");
        assert_eq!((event.kind, &event.process), (Kind::Ok, &Process::Number(3)));
        assert_eq!(serde_json::to_string(&event).expect("a line"), line);
    }

    #[test]
    fn a_process_is_a_number_where_its_name_is_one() {
        assert_eq!(Process::of("12"), Process::Number(12));
        assert_eq!(Process::of("nemesis"), Process::Name("nemesis".to_owned()));
    }
}
