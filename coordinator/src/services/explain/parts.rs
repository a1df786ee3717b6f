//! What explanations are put together from.

use crate::services::event;
use crate::services::present;
use sdm_proto::ids::TxnId;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::locks::LockSet;
use sdm_state::work::Attempt;

/// Events that an explanation ends with.
const EVENTS_SHOWN: usize = 8;

/// Waiters and other lists that an explanation names at most.
pub(super) const NAMED_MAX: usize = 32;

/// One thing in relation to another, without state, time and words.
pub(super) fn link(role: &str, kind: &str, id: impl ToString, name: impl ToString) -> v1::ExplainedLink {
    v1::ExplainedLink {
        role: role.to_owned(),
        kind: kind.to_owned(),
        id: id.to_string(),
        name: name.to_string(),
        ..Default::default()
    }
}

pub(super) fn fact(name: &str, value: impl Into<String>) -> v1::ExplainedFact {
    v1::ExplainedFact { name: name.to_owned(), value: value.into() }
}

pub(super) fn way(text: impl Into<String>, command: impl Into<String>) -> v1::WayOut {
    v1::WayOut { text: text.into(), command: command.into() }
}

/// Whole seconds from then to now, in words that fit a sentence.
pub(super) fn seconds(now_ms: u64, since_ms: u64) -> u64 {
    now_ms.saturating_sub(since_ms) / 1000
}

/// A lock set as something that stands in the way, or waits.
pub(super) fn lock_link(state: &State, role: &str, lock: &LockSet) -> v1::ExplainedLink {
    v1::ExplainedLink {
        state: present::state_word(state, lock).to_owned(),
        since_ms: lock.granted.map_or(lock.asked_ms, |granted| granted.at_ms),
        position: u32::try_from(state.wait_position(lock)).unwrap_or(u32::MAX),
        text: format!("{}, {}: {}", state.resources_in_words(lock), present::holder(state, lock), lock.why),
        ..link(role, "lock", lock.id, format!("lock/{}", lock.id))
    }
}

/// A transaction, as somebody's doing.
pub(super) fn txn_link(state: &State, role: &str, id: TxnId) -> v1::ExplainedLink {
    let Some(txn) = state.txns.get(&id) else { return link(role, "transaction", id, format!("txn/{id}")) };
    let by = if txn.initiator.is_empty() { String::new() } else { format!(", by {}", txn.initiator) };
    v1::ExplainedLink {
        state: txn.phase_word().to_owned(),
        since_ms: txn.began_ms,
        text: format!("{}{by}", txn.summary),
        ..link(role, "transaction", id, format!("txn/{id}"))
    }
}

/// The worker of an attempt and the session that it lives by.
pub(super) fn worker_links(state: &State, attempt: &Attempt) -> Vec<v1::ExplainedLink> {
    let mut links = Vec::new();
    let mut ids = vec![("at", attempt.worker)];
    ids.extend(attempt.source_worker.map(|source| ("pulls from", source)));
    for (role, id) in ids {
        let Some(worker) = state.workers.get(&id) else { continue };
        let live = worker.is_live();
        links.push(v1::ExplainedLink {
            state: if live { "live" } else { "lost" }.to_owned(),
            since_ms: worker.since_ms,
            text: format!("at {}", worker.identity.address),
            ..link(role, "worker", id, format!("worker/{}", worker.identity.name))
        });
        let Some(session) = worker.last_session() else { continue };
        let state_word = match (live, state.fenced(id, session)) {
            (true, _) => "live",
            (false, true) => "ended, fenced",
            (false, false) => "ended, not fenced",
        };
        let since_ms = if live { state.sessions.get(&session).map_or(0, |row| row.opened_ms) } else { worker.since_ms };
        links.push(v1::ExplainedLink {
            state: state_word.to_owned(),
            since_ms,
            text: format!("its lease; process {}, boot {}", worker.identity.process_nonce, worker.identity.boot_id),
            ..link("lease", "session", session, format!("session/{session}"))
        });
    }
    links
}

/// The last things that happened to one of these objects, or by this transaction.
pub(super) fn events(state: &State, objects: &[String], txn: Option<TxnId>) -> Vec<v1::ClusterEvent> {
    let concerns =
        |event: &&sdm_state::events::Event| objects.contains(&event.object) || (txn.is_some() && event.txn == txn);
    let mut last: Vec<v1::ClusterEvent> =
        state.events.values().rev().filter(concerns).take(EVENTS_SHOWN).map(event::shown).collect();
    last.reverse();
    last
}
