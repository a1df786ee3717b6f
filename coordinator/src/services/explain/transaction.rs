//! Transactions, their jobs and attempts, and what happened in one entry.

use super::lock::chain_of_txn;
use super::parts::NAMED_MAX;
use super::parts::events;
use super::parts::fact;
use super::parts::link;
use super::parts::lock_link;
use super::parts::txn_link;
use super::parts::way;
use super::parts::worker_links;
use crate::services::event;
use crate::services::present;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::work::Owner;

pub(super) fn of_txn(state: &State, id: TxnId) -> v1::Explanation {
    let Some(txn) = state.txns.get(&id) else { return v1::Explanation::default() };
    let shown = present::transaction(state, txn);
    let mut told = v1::Explanation {
        kind: "transaction".to_owned(),
        id: id.to_string(),
        name: format!("txn/{id}"),
        title: format!("{} ({})", txn.summary, txn.spec.kind()),
        state: txn.phase_word().to_owned(),
        facts: vec![fact("phase", shown.phase_reason)],
        events: events(state, &[format!("txn/{id}")], Some(id)),
        ..Default::default()
    };
    let mut put = |name: &str, value: String| {
        if !value.is_empty() {
            told.facts.push(fact(name, value));
        }
    };
    put("asked by", txn.initiator.clone());
    put("reason", txn.reason.clone());
    put("objects", txn.objects.join(", "));
    if let Some(standing) = &shown.standing {
        put("awaits", standing.awaits.clone());
        put("then", standing.at_deadline.clone());
        put("last error", standing.last_error.clone());
    }
    if let Some(refusal) = &shown.refusal {
        put("refusal", format!("{} [{}]", refusal.message, refusal.reason));
        put("hint", refusal.hint.clone());
    }
    if let Some(lock) = txn.lock.and_then(|id| state.locks.get(&id)) {
        told.chain.push(lock_link(state, "holds", lock));
        let in_front = state.lock_blockers(lock);
        if lock.granted.is_none() {
            if let Some(first) = told.chain.first_mut() {
                first.role = "waits for".to_owned();
            }
            let named = in_front.iter().filter_map(|id| state.locks.get(id));
            told.waits_for = named.map(|other| lock_link(state, "in front", other)).collect();
        }
        told.blocks =
            state.waiters_behind(lock, NAMED_MAX).into_iter().map(|other| lock_link(state, "waits", other)).collect();
    }
    // The chain's first link is the transaction itself.
    told.chain.extend(chain_of_txn(state, txn, "").into_iter().skip(1));
    match shown.standing {
        Some(standing) => {
            told.ways_out =
                standing.next_commands.into_iter().map(|command| way(of_command(&command), command)).collect();
        }
        None => told.ways_out.push(way("its whole story", format!("sdm txn show {id}"))),
    }
    told
}

/// What one of a standing's commands is for.
fn of_command(command: &str) -> &'static str {
    if command.starts_with("sdm txn abort") {
        return "end it: at once what it made becomes garbage, and what was there stays as it is; a change in place ends \
                when its worker has said its word or is fenced";
    }
    if command.starts_with("sdm txn retry") {
        return "try at once";
    }
    if command.starts_with("sdm lock explain") {
        return "see who is in front of it";
    }
    if command.starts_with("sdm worker confirm-down") {
        return "its host is really down: say so";
    }
    if command.starts_with("sdm txn watch") { "wait for it" } else { "look" }
}

pub(super) fn of_job(state: &State, id: u64) -> v1::Explanation {
    let Some(job) = state.jobs.get(&id) else { return v1::Explanation::default() };
    let told = of_txn(state, job.txn);
    v1::Explanation {
        kind: "job".to_owned(),
        id: id.to_string(),
        name: format!("job/{id}"),
        title: format!("moves data for: {}", told.title),
        state: if job.work.attempt.is_some() { "running" } else { "unassigned" }.to_owned(),
        chain: std::iter::once(txn_link(state, "of", job.txn)).chain(told.chain).collect(),
        ..told
    }
}

pub(super) fn of_attempt(state: &State, token: Token) -> v1::Explanation {
    let Some((owner, attempt)) = state.attempt(token) else { return v1::Explanation::default() };
    let cluster = state.cluster_id();
    let mut told = v1::Explanation {
        kind: "token".to_owned(),
        id: token.to_string(),
        name: format!("token/{token}"),
        title: format!("attempt {} of a worker", attempt.number),
        state: "running".to_owned(),
        facts: vec![fact("placement it would make", token.placement(cluster).to_string())],
        ..Default::default()
    };
    match owner {
        Owner::Step(id) => told.chain.push(txn_link(state, "of", id)),
        Owner::Job(id) => {
            told.chain.push(link("of", "job", id, format!("job/{id}")));
            told.chain.extend(state.jobs.get(&id).map(|job| txn_link(state, "for", job.txn)));
        }
        Owner::Deletion(id) => told.chain.push(link("deletes", "garbage", id, format!("garbage/{id}"))),
        Owner::Projection(id) => told.chain.push(link("describes", "placement", id, format!("placement/{id}"))),
        Owner::Describe(id) => told.chain.push(link("describes", "domain", id, format!("domain/{id}"))),
    }
    told.chain.extend(worker_links(state, attempt));
    told
}

pub(super) fn of_events(state: &State, index: u64) -> v1::Explanation {
    let of_entry = state.events.from_key(&(index, 0)).map(|(_, event)| event).take_while(|event| event.index == index);
    let events: Vec<v1::ClusterEvent> = of_entry.map(event::shown).collect();
    v1::Explanation {
        kind: "event".to_owned(),
        id: index.to_string(),
        name: format!("event/{index}"),
        title: format!("what happened in entry {index}"),
        state: "past".to_owned(),
        ways_out: vec![way("what happened since", format!("sdm events --since {index}"))],
        chain: events
            .iter()
            .filter(|event| !event.transaction_id.is_empty())
            .filter_map(|event| event.transaction_id.parse().ok())
            .take(1)
            .map(|id| txn_link(state, "by", id))
            .collect(),
        events,
        ..Default::default()
    }
}
