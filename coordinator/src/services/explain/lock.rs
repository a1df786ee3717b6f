//! Locks, the resources they stand at, and the sessions that hold them: the chain from a lock to whoever acts, what
//! it blocks, the ways out that are safe, and what is not.

use super::parts::NAMED_MAX;
use super::parts::events;
use super::parts::fact;
use super::parts::link;
use super::parts::lock_link;
use super::parts::seconds;
use super::parts::txn_link;
use super::parts::way;
use super::parts::worker_links;
use crate::services::present;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::locks::LockSet;
use sdm_state::locks::Owner;
use sdm_state::locks::Resource;
use sdm_state::sessions::Holder;
use sdm_state::txns::Phase;
use sdm_state::txns::Txn;

pub(super) fn of_lock(state: &State, id: u64, now_ms: u64) -> v1::Explanation {
    let Some(lock) = state.locks.get(&id) else { return v1::Explanation::default() };
    let held = lock.granted.is_some();
    let modes: Vec<String> =
        lock.resources.iter().map(|(resource, mode)| format!("{mode} on {}", state.resource_word(resource))).collect();
    let token = lock.granted.map(|granted| format!(", token {}", granted.token)).unwrap_or_default();
    let word = present::state_word(state, lock);
    let since_ms = lock.granted.map_or(lock.asked_ms, |granted| granted.at_ms);
    let mut told = v1::Explanation {
        kind: "lock".to_owned(),
        id: id.to_string(),
        name: format!("lock/{id}"),
        title: format!("{}{token}", modes.join(", ")),
        state: word.to_owned(),
        facts: vec![fact(if held { "held for" } else { "waits since" }, format!("{} s", seconds(now_ms, since_ms)))],
        events: events(state, &[format!("lock/{id}")], owner_txn(lock)),
        ..Default::default()
    };
    told.blocks =
        state.waiters_behind(lock, NAMED_MAX).into_iter().map(|other| lock_link(state, "waits", other)).collect();
    if !held {
        let in_front = state.lock_blockers(lock);
        told.waits_for = in_front
            .iter()
            .filter_map(|id| state.locks.get(id))
            .map(|other| lock_link(state, "in front", other))
            .collect();
        let left = lock.deadline_ms.saturating_sub(now_ms).div_ceil(1000);
        told.facts.push(fact("gives up in", format!("{left} s")));
        told.ways_out.push(way("it is granted as soon as what is in front of it is released", ""));
        told.ways_out
            .extend(in_front.first().map(|id| way("see who is in front of it", format!("sdm lock explain {id}"))));
    }
    match lock.owner {
        Owner::Txn(txn) => txn_holds(state, lock, state.txns.get(&txn), &mut told),
        Owner::Session(session) => session_holds(state, lock, session, &mut told),
    }
    told
}

fn owner_txn(lock: &LockSet) -> Option<sdm_proto::ids::TxnId> {
    match lock.owner {
        Owner::Txn(txn) => Some(txn),
        Owner::Session(_) => lock.txn,
    }
}

/// The chain of a transaction's lock: what runs for it, where, and by whose lease.
fn txn_holds(state: &State, lock: &LockSet, txn: Option<&Txn>, told: &mut v1::Explanation) {
    let Some(txn) = txn else { return };
    told.chain = chain_of_txn(state, txn, if lock.granted.is_some() { "held for" } else { "asked for by" });
    let (id, abort) = (txn.id, format!("sdm txn abort {}", txn.id));
    if matches!(txn.phase, Phase::Waiting { .. }) {
        return told.ways_out.push(way("end its wait; nothing of it was done yet", abort));
    }
    match state.writer_of(txn) {
        Some((worker, session)) if told.state == "fencing" => {
            let name = state.worker_word(worker);
            told.ways_out = vec![
                way(format!("worker {name} comes back: it goes on with what it did, nothing to do"), ""),
                way(
                    format!("its host is really down: say so; the lock is then released in order (session {session})"),
                    format!("sdm worker confirm-down {name} --session {session} --reason WHY"),
                ),
            ];
            told.not_safe.push(format!(
                "lock break before that: worker {name} is lost, not fenced, and may still write in place (an abort is recorded, and \
                 takes effect with its word)"
            ));
        }
        Some((worker, _)) => {
            let name = state.worker_word(worker);
            told.ways_out = vec![
                way(format!("worker {name} finishes: nothing to do"), format!("sdm txn watch {id}")),
                way("end the transaction: what it made becomes garbage, what was there stays as it is", abort),
            ];
            told.not_safe.push(format!("lock break: refused while worker {name} works under it"));
        }
        None => {
            told.ways_out = vec![
                way("the next attempt, by itself, when its pause is over and a worker suits", ""),
                way("try at once", format!("sdm txn retry {id}")),
                way("end the transaction: what it made becomes garbage, what was there stays as it is", abort),
            ];
        }
    }
}

/// From a transaction to the session of whoever works for it.
pub(super) fn chain_of_txn(state: &State, txn: &Txn, role: &str) -> Vec<v1::ExplainedLink> {
    let mut chain = vec![txn_link(state, role, txn.id)];
    let Some(work) = present::current_work(state, txn) else { return chain };
    let job = txn.job.and_then(|id| state.jobs.get(&id));
    let number = work.attempts;
    let mut through = match job {
        Some(job) => link("through", "job", job.id, format!("job/{}", job.id)),
        None => link("through", "step", txn.id, format!("txn/{}", txn.id)),
    };
    through.state = if work.attempt.is_some() { "running" } else { "unassigned" }.to_owned();
    through.since_ms = work.attempt.as_ref().map_or(work.unassigned_since_ms, |attempt| attempt.assigned_ms);
    let durable = job.zip(work.attempt.as_ref()).filter(|(job, _)| job.total_bytes > 0).map(|(job, attempt)| {
        format!(", {} of {} bytes durable", attempt.checkpoint_bytes.min(job.total_bytes), job.total_bytes)
    });
    let error = work.last_error.as_ref().map(|error| format!("; last error: {error}"));
    through.text = format!(
        "attempt {number} of {}{}{}",
        state.meta.settings.attempts_max,
        durable.unwrap_or_default(),
        error.unwrap_or_default()
    );
    chain.push(through);
    if let Some(attempt) = &work.attempt {
        chain.extend(worker_links(state, attempt));
    }
    chain
}

fn session_holds(state: &State, lock: &LockSet, id: u64, told: &mut v1::Explanation) {
    let lock_id = lock.id;
    let role = if lock.granted.is_some() { "held by" } else { "asked for by" };
    told.chain.push(session_link(state, role, id));
    told.facts.push(fact("why", lock.why.clone()));
    if let Some(txn) = lock.txn.and_then(|txn| state.txns.get(&txn)) {
        told.chain.extend(chain_of_txn(state, txn, "runs under it"));
    }
    if lock.granted.is_none() {
        return;
    }
    let ttl = state.sessions.get(&id).map_or(0, |session| session.ttl_ms / 1000);
    told.ways_out.push(way("its command ends, and the lock with it: nothing to do", ""));
    if let Some(txn) = lock.txn {
        told.ways_out.push(way("end the transaction under it first", format!("sdm txn abort {txn}")));
    }
    let release = format!("sdm lock release {lock_id} --session {id}");
    told.ways_out.push(way("it is your own session's, and you need it no more", release));
    if lock.resources.keys().all(|resource| matches!(resource, Resource::User(_))) {
        told.ways_out.push(way(
            "take it away; its holder learns of it when it renews its lease, and its command is ended",
            format!("sdm lock break {lock_id} --reason WHY"),
        ));
        told.not_safe.push(
            "whoever gets it next may run beside the old command until that has ended: have what they write to compare \
             SDM_LOCK_TOKEN"
                .to_owned(),
        );
    } else {
        told.ways_out.push(way(format!("its host is cut off or gone: the lease ends by itself within {ttl} s"), ""));
        told.not_safe.push("lock break: refused, the command of its session may run and write".to_owned());
    }
}

fn session_link(state: &State, role: &str, id: u64) -> v1::ExplainedLink {
    let row = state.sessions.get(&id);
    v1::ExplainedLink {
        state: if row.is_some() { "live" } else { "ended" }.to_owned(),
        since_ms: row.map_or(0, |session| session.opened_ms),
        text: row.map(|session| holder_words(state, &session.holder)).unwrap_or_default(),
        ..link(role, "session", id, format!("session/{id}"))
    }
}

fn holder_words(state: &State, holder: &Holder) -> String {
    match holder {
        Holder::Client(label) if label.is_empty() => "a client".to_owned(),
        Holder::Client(label) => label.clone(),
        Holder::Worker(worker) => format!("worker {}", state.worker_word(*worker)),
    }
}

pub(super) fn of_session(state: &State, id: u64) -> v1::Explanation {
    let Some(session) = state.sessions.get(&id) else { return v1::Explanation::default() };
    let locks = state.locks_of_session(id);
    let mut told = v1::Explanation {
        kind: "session".to_owned(),
        id: id.to_string(),
        name: format!("session/{id}"),
        title: format!("lease of {}, {} s", holder_words(state, &session.holder), session.ttl_ms / 1000),
        state: "live".to_owned(),
        facts: vec![fact("epoch", session.epoch.to_string()), fact("requests done", session.last_sequence.to_string())],
        events: events(state, &[format!("session/{id}")], None),
        ..Default::default()
    };
    for lock in locks.iter().take(NAMED_MAX) {
        told.chain.push(lock_link(state, if lock.granted.is_some() { "holds" } else { "waits for" }, lock));
    }
    if let Holder::Worker(worker) = session.holder {
        told.chain.push(link("of", "worker", worker, format!("worker/{}", state.worker_word(worker))));
        told.ways_out.push(way("see the worker", format!("sdm explain worker/{}", state.worker_word(worker))));
    }
    told.facts.extend(
        session
            .broken
            .iter()
            .map(|broken| fact("broken", format!("lock {} by {}: {}", broken.lock, broken.by, broken.reason))),
    );
    if let Some(lock) = locks.first() {
        told.ways_out.push(way("see what it holds", format!("sdm lock explain {}", lock.id)));
    }
    told
}

/// Who stands at a resource. Where that is one holder alone, it is that lock's explanation.
pub(super) fn of_resource(state: &State, resource: &Resource, now_ms: u64) -> v1::Explanation {
    let locks = state.locks_at(resource);
    let holders: Vec<&&LockSet> = locks.iter().filter(|lock| lock.granted.is_some()).collect();
    if let [only] = holders.as_slice() {
        return of_lock(state, only.id, now_ms);
    }
    let word = state.resource_word(resource);
    let mut told = v1::Explanation {
        kind: "resource".to_owned(),
        id: resource.to_string(),
        name: word.clone(),
        title: if locks.is_empty() {
            "nobody holds it or waits for it".to_owned()
        } else {
            "held by several".to_owned()
        },
        state: if holders.is_empty() { "free" } else { "held" }.to_owned(),
        ..Default::default()
    };
    for lock in locks.iter().take(NAMED_MAX) {
        match lock.granted {
            Some(_) => told.chain.push(lock_link(state, "held as", lock)),
            None => told.blocks.push(lock_link(state, "waits", lock)),
        }
    }
    told.ways_out.extend(
        holders
            .iter()
            .take(3)
            .map(|lock| way(format!("see lock {}", lock.id), format!("sdm lock explain {}", lock.id))),
    );
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_lock_is_told_from_its_transaction_to_the_session_and_on_to_what_it_blocks() {
        let mut sample = Sample::with_disk();
        let mover = sample.begin_move("web-01", "nfs2");
        let waiting = sample.begin_delete("web-01");
        sample.pass(9_000);
        let lock = sample.state.txns.get(&mover).unwrap().lock.unwrap();
        let told = of_lock(&sample.state, lock, sample.state.meta.clock_ms);
        assert_eq!(told.state, "held");
        assert!(told.title.contains("X on disk/web-01") && told.title.contains("token 1-"), "{}", told.title);
        let chain: Vec<(&str, &str)> = told.chain.iter().map(|link| (link.role.as_str(), link.kind.as_str())).collect();
        assert_eq!(chain, [("held for", "transaction"), ("through", "job"), ("at", "worker"), ("lease", "session")]);
        assert_eq!(told.chain[3].state, "live");
        let [blocked] = told.blocks.as_slice() else { panic!("{:?}", told.blocks) };
        assert_eq!((blocked.position, blocked.state.as_str()), (1, "waiting"));
        assert!(blocked.text.contains(&waiting.to_string()), "{}", blocked.text);
        let commands: Vec<&str> = told.ways_out.iter().map(|way| way.command.as_str()).collect();
        assert_eq!(commands, [format!("sdm txn watch {mover}"), format!("sdm txn abort {mover}")]);
        assert!(told.not_safe[0].contains("worker a"), "{:?}", told.not_safe);
        sample.lose("a");
        let told = of_lock(&sample.state, lock, sample.state.meta.clock_ms);
        assert_eq!(told.state, "stale");
        assert!(told.ways_out.iter().any(|way| way.command == format!("sdm txn retry {mover}")));
        assert!(told.not_safe.is_empty(), "nobody writes: {:?}", told.not_safe);
    }

    #[test]
    fn a_waiting_lock_says_what_is_in_front_and_when_it_gives_up() {
        let mut sample = Sample::with_disk();
        sample.begin_move("web-01", "nfs2");
        let waiting = sample.begin_delete("web-01");
        let lock = sample.state.txns.get(&waiting).unwrap().lock.unwrap();
        let told = of_lock(&sample.state, lock, sample.state.meta.clock_ms);
        assert_eq!((told.state.as_str(), told.waits_for.len()), ("waiting", 1));
        assert!(told.facts.iter().any(|fact| fact.name == "gives up in" && fact.value == "300 s"), "{:?}", told.facts);
        assert!(told.ways_out.iter().any(|way| way.command == format!("sdm txn abort {waiting}")));
    }

    #[test]
    fn a_free_resource_is_said_to_be_free() {
        let sample = Sample::with_disk();
        let told = of_resource(&sample.state, &Resource::User("x".into()), 0);
        assert_eq!((told.state.as_str(), told.name.as_str()), ("free", "user/x"));
    }
}
