//! Sessions as a history shows them: how long each lease runs at least, and when what was asked under one can take
//! effect no more.

use super::intervals::Ends;
use super::intervals::before;
use super::intervals::place;
use crate::history::Event;
use crate::history::Operation;
use crate::history::Outcome;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
struct Session {
    ttl_ns: Option<u64>,
    /// When the newest acknowledged renewal was sent.
    renewed: u64,
    /// The first event that told that it is closed, or over.
    over: Option<usize>,
    /// (sequence, event that answered it) of each request that was answered.
    answered: Vec<(u64, usize)>,
}

/// All sessions of a history.
#[derive(Clone, Debug, Default)]
pub struct Leases(BTreeMap<String, Session>);

/// The session under which an operation was asked for. Without one its process is as good: it holds what it was
/// granted until it gives it back.
pub fn session_of(operation: &Operation) -> String {
    operation.asked_str("session").unwrap_or_else(|| format!("of {}", operation.process))
}

fn sequence_of(operation: &Operation) -> Option<u64> {
    operation.asked.get("sequence").and_then(serde_json::Value::as_u64)
}

impl Leases {
    /// What these operations show.
    pub fn of(operations: &[Operation]) -> Self {
        let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
        for operation in operations {
            let done = operation.is_done();
            match operation.f.as_str() {
                "open" if done => {
                    if let Some(id) = operation.told_str("session") {
                        let session = sessions.entry(id).or_default();
                        let ttl_ms = operation.result().and_then(|told| told.get("ttl_ms")?.as_u64());
                        session.ttl_ns = ttl_ms.map(|ms| ms.saturating_mul(1_000_000));
                        session.renewed = session.renewed.max(operation.time);
                    }
                }
                "keepalive" if done => {
                    let session = sessions.entry(session_of(operation)).or_default();
                    session.renewed = session.renewed.max(operation.time);
                }
                "close" if done => {
                    let session = sessions.entry(session_of(operation)).or_default();
                    session.over = session.over.or(operation.completed);
                }
                "keepalive" if matches!(operation.outcome, Outcome::Failed(_)) => {
                    let session = sessions.entry(session_of(operation)).or_default();
                    session.over = session.over.or(operation.completed);
                }
                "acquire" | "release" if !matches!(operation.outcome, Outcome::Unknown(_)) => {
                    if let (Some(sequence), Some(at)) = (sequence_of(operation), operation.completed) {
                        sessions.entry(session_of(operation)).or_default().answered.push((sequence, at));
                    }
                }
                _ => {}
            }
        }
        Self(sessions)
    }

    /// From when on the cluster may end this session by itself: its lease, counted from when the newest acknowledged
    /// renewal was sent, is over. None while the history lasts, or where the lease's length is not in it, or where
    /// somebody had been told before that the session is over.
    pub fn runs_out(&self, session: &str, events: &[Event]) -> Option<(u64, Ends)> {
        let session = self.0.get(session)?;
        let lapsed = session.renewed.saturating_add(session.ttl_ns?);
        let first = events.partition_point(|event| event.time < lapsed);
        match session.over {
            Some(over) if over < first => None,
            Some(over) => Some((before(first), Ends::LapsesAt(place(over)))),
            None => (first < events.len()).then(|| (before(first), Ends::Never)),
        }
    }

    /// Until when an operation may take effect. One without an answer can no more once its session is over, or a later
    /// request of its session was answered.
    pub fn ends(&self, operation: &Operation) -> Ends {
        if !matches!(operation.outcome, Outcome::Unknown(_)) {
            return operation.completed.map_or(Ends::Never, |at| Ends::At(place(at)));
        }
        let Some(session) = self.0.get(&session_of(operation)) else { return Ends::Never };
        let own = sequence_of(operation);
        let later = session.answered.iter().filter(|(sequence, _)| own.is_some_and(|own| *sequence > own));
        let over = session.over.filter(|at| *at > operation.invoked);
        match later.map(|(_, at)| *at).chain(over).min() {
            Some(at) => Ends::LapsesAt(place(at)),
            None => Ends::Never,
        }
    }
}
