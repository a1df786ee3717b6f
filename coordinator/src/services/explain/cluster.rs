//! Members and workers.

use super::parts::NAMED_MAX;
use super::parts::events;
use super::parts::fact;
use super::parts::link;
use super::parts::txn_link;
use super::parts::way;
use sdm_proto::ids::WorkerId;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::work::Owner;

pub(super) fn of_member(state: &State, id: u64) -> v1::Explanation {
    let Some(member) = state.members.get(&id) else { return v1::Explanation::default() };
    let name = format!("member/{}", member.name);
    v1::Explanation {
        kind: "member".to_owned(),
        id: id.to_string(),
        title: format!("a coordinator at {}", member.address),
        state: if member.learner { "learner" } else { "member" }.to_owned(),
        facts: vec![
            fact("version", member.version.clone()),
            fact("supports feature level", member.feature_level_max.to_string()),
            fact("started", format!("{} times", member.starts)),
        ],
        ways_out: vec![way("who votes, who leads, who lags", "sdm member list")],
        events: events(state, std::slice::from_ref(&name), None),
        name,
        ..Default::default()
    }
}

pub(super) fn of_worker(state: &State, id: WorkerId) -> v1::Explanation {
    let Some(worker) = state.workers.get(&id) else { return v1::Explanation::default() };
    let name = format!("worker/{}", worker.identity.name);
    let draining = worker.draining.as_ref();
    let mut told = v1::Explanation {
        kind: "worker".to_owned(),
        id: id.to_string(),
        title: format!("the worker at {}", worker.identity.address),
        state: match (worker.is_live(), draining) {
            (true, None) => "live",
            (true, Some(_)) => "draining",
            (false, _) => "lost",
        }
        .to_owned(),
        facts: vec![
            fact("machine", worker.identity.machine_id.clone()),
            fact("boot", worker.identity.boot_id.clone()),
            fact("version", worker.identity.version.clone()),
        ],
        events: events(state, std::slice::from_ref(&name), None),
        name,
        ..Default::default()
    };
    if let Some(session) = worker.last_session() {
        told.chain.push(v1::ExplainedLink {
            state: if worker.is_live() { "live" } else { "ended" }.to_owned(),
            since_ms: worker.since_ms,
            ..link("lease", "session", session, format!("session/{session}"))
        });
    }
    if let Some(draining) = draining {
        told.facts.push(fact("draining", format!("by {}: {}", draining.by, draining.reason)));
    }
    if let Some(down) = &worker.confirmed_down {
        told.facts.push(fact("confirmed down", format!("by {}: {} (session {})", down.by, down.reason, down.session)));
    }
    for (token, owner) in state.attempts_of(id).take(NAMED_MAX) {
        let mut work = match owner {
            Owner::Step(txn) => txn_link(state, "works for", txn),
            Owner::Job(job) => link("works for", "job", job, format!("job/{job}")),
            other => link("works for", "token", token, format!("{other:?}")),
        };
        work.text = format!("{} (token {token})", work.text);
        told.chain.push(work);
    }
    for (domain, sight) in &worker.domains {
        let word = state.domains.get(domain).map_or_else(|| domain.to_string(), |row| row.name.to_string());
        told.facts.push(fact(
            "reaches",
            match &sight.error {
                None => word,
                Some(error) => format!("not {word}: {error}"),
            },
        ));
    }
    if worker.is_live() {
        told.ways_out.push(way("what it does", "sdm job list"));
    } else {
        told.ways_out.push(way("start it again on its folder: it goes on by itself", ""));
        told.ways_out.push(way(
            "its host is really down, and something waits for the proof",
            format!(
                "sdm worker confirm-down {} --session {} --reason WHY",
                worker.identity.name,
                worker.last_session().unwrap_or_default()
            ),
        ));
    }
    told
}
