//! A lock set as it is shown: who holds it or what it waits for.

use super::transaction::current_work;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::locks::LockSet;
use sdm_state::locks::Owner;
use sdm_state::sessions::Holder;
use sdm_state::sessions::Session;

/// Lock sets in the way that are listed at most: a queue can be as long as the table.
const BLOCKERS_MAX: usize = 32;

/// The lock set, at this moment of the cluster's clock.
pub(crate) fn lock(state: &State, lock: &LockSet, now_ms: u64) -> v1::Lock {
    let since_ms = lock.granted.map_or(lock.asked_ms, |granted| granted.at_ms);
    let (owner_kind, owner_id) = match lock.owner {
        Owner::Txn(id) => ("transaction", id.to_string()),
        Owner::Session(id) => ("session", id.to_string()),
    };
    v1::Lock {
        id: lock.id.to_string(),
        token: lock.granted.map(|granted| granted.token.to_string()).unwrap_or_default(),
        resources: lock
            .resources
            .iter()
            .map(|(resource, mode)| v1::LockedResource { resource: resource.to_string(), mode: mode.to_string() })
            .collect(),
        state: state_word(state, lock).to_owned(),
        owner_kind: owner_kind.to_owned(),
        owner_id,
        why: lock.why.clone(),
        since_ms,
        age_ms: now_ms.saturating_sub(since_ms),
        deadline_ms: if lock.granted.is_some() { 0 } else { lock.deadline_ms },
        blockers: blockers(state, lock),
        holder: holder(state, lock),
        wait_position: u32::try_from(state.wait_position(lock)).unwrap_or(u32::MAX),
        waiters: u32::try_from(state.waiter_count(lock)).unwrap_or(u32::MAX),
        session_epoch: session(state, lock).map_or(0, |session| session.epoch),
        under_transaction_id: lock.txn.map(|txn| txn.to_string()).unwrap_or_default(),
        names: lock.resources.keys().map(|resource| state.resource_word(resource)).collect(),
    }
}

fn session<'a>(state: &'a State, lock: &LockSet) -> Option<&'a Session> {
    state.sessions.get(&state.session_of(lock)?)
}

/// held, waiting, stale or fencing.
pub(crate) fn state_word(state: &State, lock: &LockSet) -> &'static str {
    let txn = match lock.owner {
        _ if lock.granted.is_none() => return "waiting",
        Owner::Session(_) => return "held",
        Owner::Txn(id) => state.txns.get(&id),
    };
    match txn {
        Some(txn) if txn.phase_word() == "fencing" => "fencing",
        Some(txn) if current_work(state, txn).is_some_and(|work| work.attempt.is_none()) => "stale",
        _ => "held",
    }
}

/// Who holds it or waits for it: the transaction and who asked for that, or the session and its client.
pub(crate) fn holder(state: &State, lock: &LockSet) -> String {
    match lock.owner {
        Owner::Session(id) => match session(state, lock).map(|session| &session.holder) {
            Some(Holder::Client(label)) if !label.is_empty() => format!("session {id} of {label}"),
            _ => format!("session {id}"),
        },
        Owner::Txn(id) => match state.txns.get(&id).map(|txn| txn.initiator.as_str()) {
            Some(initiator) if !initiator.is_empty() => format!("transaction {id} by {initiator}"),
            _ => format!("transaction {id}"),
        },
    }
}

/// What a waiting lock set waits for.
fn blockers(state: &State, lock: &LockSet) -> Vec<v1::Blocker> {
    if lock.granted.is_some() {
        return Vec::new();
    }
    let in_the_way = state.lock_blockers(lock);
    let named = in_the_way.iter().take(BLOCKERS_MAX).filter_map(|id| state.locks.get(id));
    named
        .map(|other| v1::Blocker {
            kind: "lock".to_owned(),
            id: other.id.to_string(),
            description: format!(
                "{} by {}",
                if other.granted.is_some() { "held" } else { "asked for before" },
                state.owner_words(other)
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_waiting_set_names_what_it_waits_for_and_ages() {
        let mut sample = Sample::with_disk();
        let mover = sample.begin_move("web-01", "nfs2");
        let deleter = sample.begin_delete("web-01");
        sample.pass(3_000);
        let now_ms = sample.state.meta.clock_ms;
        let locks: Vec<v1::Lock> = sample.state.locks.values().map(|row| lock(&sample.state, row, now_ms)).collect();
        let [held, waiting] = locks.as_slice() else { panic!("two lock sets, not {locks:?}") };
        assert_eq!((held.state.as_str(), held.owner_id.as_str()), ("held", mover.to_string().as_str()));
        assert!(!held.token.is_empty() && held.blockers.is_empty() && held.deadline_ms == 0);
        assert_eq!((waiting.state.as_str(), waiting.owner_id.as_str()), ("waiting", deleter.to_string().as_str()));
        assert!(waiting.token.is_empty() && waiting.deadline_ms > 0 && waiting.age_ms >= 3_000);
        let [blocker] = waiting.blockers.as_slice() else { panic!("one blocker, not {:?}", waiting.blockers) };
        assert_eq!((blocker.kind.as_str(), &blocker.id), ("lock", &held.id));
        assert!(blocker.description.contains("move disk web-01"), "{}", blocker.description);
        let modes: Vec<&str> = held.resources.iter().map(|resource| resource.mode.as_str()).collect();
        assert_eq!(modes, ["IX", "IX", "X"]);
    }
}
