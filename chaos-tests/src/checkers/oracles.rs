//! What one look along a history shows, without a search: tokens rise and are given once, a repeated request gets the
//! answer that it got, and nobody is shown a state that is older than what somebody was told before the question.

use super::lock_history::token_of;
use crate::history::Operation;
use crate::history::Outcome;
use crate::history::Promise;
use sdm_proto::token::Token;
use serde_json::Value;
use std::collections::BTreeMap;

/// A promise that was broken, and how.
pub type Broken = (Promise, String);

/// All of it.
pub fn look(operations: &[Operation]) -> Vec<Broken> {
    let mut broken = tokens(operations);
    broken.extend(answered_once(operations));
    broken.extend(revisions(operations));
    broken
}

/// Of all operations, in the order of the history: the moments at which one is asked for or told.
fn moments(operations: &[Operation]) -> Vec<(usize, bool, &Operation)> {
    let asked = operations.iter().map(|operation| (operation.invoked, false, operation));
    let told = operations.iter().filter_map(|operation| Some((operation.completed?, true, operation)));
    let mut moments: Vec<_> = asked.chain(told).collect();
    moments.sort_by_key(|(place, ..)| *place);
    moments
}

fn token(operation: &Operation) -> Option<Token> {
    match &operation.outcome {
        Outcome::Done(told) if operation.f == "acquire" => {
            told.get("token").and_then(token_of).or_else(|| token_of(told))
        }
        _ => None,
    }
}

/// No token is given twice, and each is above all that anybody was told before it was asked for.
fn tokens(operations: &[Operation]) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut given: BTreeMap<Token, &Operation> = BTreeMap::new();
    let mut floors: BTreeMap<usize, Token> = BTreeMap::new();
    let mut newest = Token::default();
    for (_, is_told, operation) in moments(operations) {
        let Some(token) = token(operation) else { continue };
        if !is_told {
            floors.insert(operation.invoked, newest);
            continue;
        }
        if let Some(other) = given.insert(token, operation) {
            let what = format!("the token {token} was given twice: {} and {}", words(other), words(operation));
            broken.push((Promise::Tokens, what));
        }
        let floor = floors.get(&operation.invoked).copied().unwrap_or_default();
        if token < floor {
            let what = format!("{} got {token} after {floor} had been given", words(operation));
            broken.push((Promise::Tokens, what));
        }
        newest = newest.max(token);
    }
    broken
}

/// What names a request, so that it is done once: its id, or its session and its number there.
fn identity(operation: &Operation) -> Option<String> {
    if let Some(id) = operation.asked_str("id") {
        return Some(format!("request {id}"));
    }
    if operation.f == "begin" {
        return Some(format!("request {}", operation.key));
    }
    let (session, sequence) = (operation.asked_str("session")?, operation.asked_str("sequence")?);
    Some(format!("request {sequence} of session {session}"))
}

#[derive(PartialEq)]
struct Told {
    answer: String,
    revision: Option<u64>,
}

fn told(operation: &Operation) -> Option<Told> {
    let value = operation.result()?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let answer = match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => {
            ["told", "token", "lock"].iter().filter_map(|name| field(name)).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    };
    Some(Told { answer, revision: value.get("revision").and_then(Value::as_u64) })
}

/// Every answer to one request is the same.
fn answered_once(operations: &[Operation]) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut first: BTreeMap<String, (&Operation, Told)> = BTreeMap::new();
    for operation in operations {
        let (Some(identity), Some(now)) = (identity(operation), told(operation)) else { continue };
        let Some((before, then)) = first.get(&identity) else {
            first.insert(identity, (operation, now));
            continue;
        };
        let other = then.revision.zip(now.revision).is_some_and(|(then, now)| then != now);
        if then.answer != now.answer || other {
            let what = format!(
                "{identity} was answered {:?} at {:?} ({}), and {:?} at {:?} ({})",
                then.answer,
                then.revision,
                words(before),
                now.answer,
                now.revision,
                words(operation)
            );
            broken.push((Promise::Idempotent, what));
        }
    }
    broken
}

/// The log index that an answer shows to have been applied.
fn index_shown(operation: &Operation) -> Option<u64> {
    let revision = operation.result().and_then(|told| told.get("revision")?.as_u64());
    revision.or(token(operation).map(|token| token.index))
}

/// A read shows a state at least as new as everything that anybody was told before it was asked for. The indexes of one
/// epoch alone compare.
fn revisions(operations: &[Operation]) -> Vec<Broken> {
    let mut epochs = operations.iter().filter_map(token).map(|token| token.epoch);
    if epochs.next().is_some_and(|first| epochs.any(|other| other != first)) {
        return Vec::new();
    }
    let mut broken = Vec::new();
    let mut floors: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    // The newest index, and the event of the operation that was told it.
    let mut newest = (0, 0);
    for (_, is_told, operation) in moments(operations) {
        let Some(index) = index_shown(operation) else { continue };
        if !is_told {
            floors.insert(operation.invoked, newest);
            continue;
        }
        let (floor, by) = floors.get(&operation.invoked).copied().unwrap_or_default();
        if matches!(operation.f.as_str(), "show" | "locks") && index < floor {
            let what =
                format!("{} was shown the state at {index}, and [{by}] had shown {floor} before", words(operation));
            broken.push((Promise::Linearizable, what));
        }
        newest = newest.max((index, operation.index));
    }
    broken
}

fn words(operation: &Operation) -> String {
    let member = operation.told_str("member").map(|member| format!(" at {member}")).unwrap_or_default();
    format!("[{}] {} {} {}{member}", operation.index, operation.process, operation.f, operation.key)
}
