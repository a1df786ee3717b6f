//! Where an open transaction stands, for programs: who has to act next, until when, what happens then, and what to
//! do for whoever does not want to wait. All of it follows from the state: every phase has an end of its own.

use super::transaction::current_work;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::txns::Phase;
use sdm_state::txns::Txn;
use sdm_state::work::Attempt;
use sdm_state::work::Owner;
use sdm_state::work::Pin;
use sdm_state::work::Work;
use sdm_state::workers::Worker;

/// The transaction's standing; None once it has its outcome.
pub(crate) fn standing(state: &State, txn: &Txn) -> Option<v1::Standing> {
    let abort = format!("sdm txn abort {}", txn.id);
    let settings = &state.meta.settings;
    let mut standing = match &txn.phase {
        Phase::Waiting { deadline_ms } => waiting(state, txn, *deadline_ms),
        Phase::Running if txn.phase_word() == "fencing" => fencing(state, txn),
        Phase::Running => match current_work(state, txn) {
            Some(work) => match &work.attempt {
                Some(attempt) => running(state, txn, attempt),
                None => match &work.pinned {
                    Some(pin) => pinned(state, txn, work, pin),
                    None => unassigned(state, txn, work),
                },
            },
            None if state.is_leaving_for(txn) => v1::Standing {
                state: "running".to_owned(),
                awaits: "the last rows of its domain leave the catalog".to_owned(),
                ..Default::default()
            },
            None => v1::Standing { state: "running".to_owned(), ..Default::default() },
        },
        Phase::Committed(_) | Phase::Aborted(_) | Phase::Refused(_) => return None,
    };
    if let Some(work) = current_work(state, txn) {
        standing.attempt = work.attempts;
        standing.attempts_max = settings.attempts_max;
        standing.last_error = work.last_error.clone().unwrap_or_default();
    }
    if let Some(ending) = &txn.ending {
        // Asked for already: another abort would change nothing.
        let end = if txn.gives_back() {
            "what was taken of the domain is given back first"
        } else {
            "unless the change in place is done by then: that is committed"
        };
        standing.awaits = format!("{}; then it is aborted ({}), {end}", standing.awaits, ending.message);
    } else if !state.is_leaving_for(txn) {
        standing.next_commands.push(abort);
    }
    Some(standing)
}

/// Why an abort would not take effect at once, and when it would; None when it would.
pub(crate) fn aborted_later(state: &State, txn: &Txn) -> Option<String> {
    let worker = state.abort_awaits(txn)?;
    let name = state.worker_word(worker);
    let session = state.workers.get(&worker).and_then(Worker::last_session).unwrap_or_default();
    Some(format!(
        "worker {name} changes its disk or domain in place; the abort would be recorded, and take effect when that \
         worker's attempt fails or it is fenced (sdm worker confirm-down {name} --session {session} --reason WHY); if the \
         change is done by then, it is committed; its locks stay until then"
    ))
}

/// Its last attempt broke off while it wrote in place.
fn pinned(state: &State, txn: &Txn, work: &Work, pin: &Pin) -> v1::Standing {
    let name = state.worker_word(pin.worker);
    let row = state.workers.get(&pin.worker);
    let session = row.and_then(Worker::last_session).unwrap_or(pin.session);
    let confirm = format!("sdm worker confirm-down {name} --session {session} --reason WHY");
    let next_commands = if row.is_some_and(Worker::is_live) {
        vec![format!("sdm txn retry {}", txn.id), format!("sdm worker show {name}")]
    } else {
        vec![confirm]
    };
    v1::Standing {
        state: "pinned".to_owned(),
        owner_kind: "worker".to_owned(),
        owner: name.clone(),
        next_retry_ms: work.retry_at_ms,
        awaits: format!(
            "pinned to worker {name} until its next attempt there has ended, its host is started anew, or it is \
             confirmed down: what the last attempt wrote in place may not be on the storage yet"
        ),
        waits_for: vec![v1::Blocker {
            kind: "worker".to_owned(),
            id: name,
            description: "its attempt broke off while it wrote in place".to_owned(),
        }],
        next_commands,
        ..Default::default()
    }
}

fn waiting(state: &State, txn: &Txn, deadline_ms: u64) -> v1::Standing {
    let lock = txn.lock.and_then(|id| state.locks.get(&id));
    let blockers: Vec<u64> = lock.map(|lock| state.lock_blockers(lock)).unwrap_or_default();
    let named = blockers.iter().filter_map(|id| state.locks.get(id));
    let waits_for: Vec<v1::Blocker> = named
        .map(|other| v1::Blocker {
            kind: "lock".to_owned(),
            id: other.id.to_string(),
            description: format!("{} on {}", super::holder(state, other), state.resources_in_words(other)),
        })
        .collect();
    v1::Standing {
        state: "waiting_for_locks".to_owned(),
        owner_kind: "lock".to_owned(),
        owner: blockers.first().map(ToString::to_string).unwrap_or_default(),
        deadline_ms,
        at_deadline: "it is refused (LOCK_WAIT_OVER); nothing was done".to_owned(),
        awaits: "the locks in front of it are released".to_owned(),
        next_commands: blockers.first().map(|id| format!("sdm lock explain {id}")).into_iter().collect(),
        waits_for,
        ..Default::default()
    }
}

fn running(state: &State, txn: &Txn, attempt: &Attempt) -> v1::Standing {
    let owner = txn.job.map_or(Owner::Step(txn.id), Owner::Job);
    let worker = state.worker_word(attempt.worker);
    let watch = format!("sdm txn watch {}", txn.id);
    if attempt.peer_deadline_ms > 0 {
        return v1::Standing {
            state: "waiting_for_peer".to_owned(),
            owner_kind: "command".to_owned(),
            owner: txn.initiator.clone(),
            deadline_ms: attempt.peer_deadline_ms,
            at_deadline: "it is aborted: nobody is at the other end of its byte stream".to_owned(),
            awaits: format!("the command connects to worker {worker} again"),
            next_commands: vec![watch],
            ..Default::default()
        };
    }
    let hang = state.hang_deadline_ms(owner, attempt);
    v1::Standing {
        state: "running".to_owned(),
        owner_kind: "worker".to_owned(),
        owner: worker.clone(),
        deadline_ms: hang.unwrap_or(0),
        at_deadline: if hang.is_some() { "the attempt is given up, and another one follows" } else { "" }.to_owned(),
        awaits: format!("worker {worker} reports that attempt {} is done", attempt.number),
        next_commands: vec![watch],
        ..Default::default()
    }
}

fn unassigned(state: &State, txn: &Txn, work: &Work) -> v1::Standing {
    let retries = work.retry_at_ms > state.meta.clock_ms;
    let deadline_ms = work.unassigned_since_ms.saturating_add(state.meta.settings.unassigned_max_ms);
    v1::Standing {
        state: if retries { "retrying" } else { "unassigned" }.to_owned(),
        owner_kind: "nobody".to_owned(),
        deadline_ms,
        at_deadline: "it is aborted (NO_WORKER); what was made becomes garbage".to_owned(),
        next_retry_ms: work.retry_at_ms,
        awaits: if retries {
            "its next attempt, after a pause that grows with each failure".to_owned()
        } else {
            "a live worker that reaches its storage".to_owned()
        },
        next_commands: vec![format!("sdm txn retry {}", txn.id), "sdm worker list".to_owned()],
        ..Default::default()
    }
}

fn fencing(state: &State, txn: &Txn) -> v1::Standing {
    let (worker, session) = state.writer_of(txn).unwrap_or_default();
    let name = state.worker_word(worker);
    v1::Standing {
        state: "fencing".to_owned(),
        owner_kind: "operator".to_owned(),
        owner: name.clone(),
        awaits: format!(
            "proof that worker {name} (session {session}) writes no more: it reports, its host is back after another \
             boot, or an operator confirms it down"
        ),
        waits_for: vec![v1::Blocker {
            kind: "worker".to_owned(),
            id: name.clone(),
            description: "lost while it wrote in place, not fenced".to_owned(),
        }],
        next_commands: vec![format!("sdm worker confirm-down {name} --session {session} --reason WHY")],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_proto::ids::TxnId;
    use sdm_state::Command;
    use sdm_state::txns::Spec;
    use sdm_state::work::Report;

    fn of(sample: &Sample, id: TxnId) -> v1::Standing {
        standing(&sample.state, sample.state.txns.get(&id).unwrap()).unwrap()
    }

    #[test]
    fn a_wait_names_the_lock_in_front_its_end_and_the_next_command() {
        let mut sample = Sample::with_disk();
        let mover = sample.begin_move("web-01", "nfs2");
        let waiting = sample.begin_delete("web-01");
        let lock = sample.state.txns.get(&mover).unwrap().lock.unwrap();
        let told = of(&sample, waiting);
        assert_eq!((told.state.as_str(), told.owner_kind.as_str()), ("waiting_for_locks", "lock"));
        assert_eq!(told.owner, lock.to_string());
        assert!(told.deadline_ms > sample.state.meta.clock_ms && !told.at_deadline.is_empty());
        assert_eq!(told.next_commands[0], format!("sdm lock explain {lock}"));
        assert!(told.waits_for[0].description.contains("disk/web-01"), "{told:?}");
    }

    #[test]
    fn an_import_without_a_sender_is_its_commands_to_go_on_with() {
        let mut sample = Sample::with_disk();
        let id = sample.begin_import("db-01", "nfs1");
        let told = of(&sample, id);
        assert_eq!((told.state.as_str(), told.owner_kind.as_str()), ("waiting_for_peer", "command"));
        assert!(told.deadline_ms > 0 && told.attempt == 1 && told.attempts_max == 6);
    }

    #[test]
    fn a_lost_worker_leaves_nobody_a_retry_and_a_deadline() {
        let mut sample = Sample::with_disk();
        let id = sample.begin_move("web-01", "nfs2");
        assert_eq!(of(&sample, id).state, "running");
        sample.lose("a");
        let told = of(&sample, id);
        assert_eq!((told.state.as_str(), told.owner_kind.as_str()), ("retrying", "nobody"));
        assert!(told.next_retry_ms > 0 && told.deadline_ms > told.next_retry_ms);
        assert!(told.last_error.contains("worker a is lost"), "{}", told.last_error);
        assert!(told.next_commands.contains(&format!("sdm txn retry {id}")));
        sample.pass(5_000);
        assert_eq!(of(&sample, id).state, "unassigned");
    }

    #[test]
    fn what_broke_off_in_place_says_to_whom_it_is_pinned_and_an_abort_says_what_it_waits_for() {
        let mut sample = Sample::with_disk();
        sample.state.meta.feature_level = sdm_state::members::FEATURE_LEVEL_MAX;
        let disk = sample.disk("web-01").id;
        let id = sample.begin(Spec::ResizeDisk { disk, size: 1 << 30 });
        let died = Report::Failed { reason: "PROCESS_DIED".into(), message: "signal 9".into(), hint: String::new() };
        sample.report(died);
        let told = of(&sample, id);
        assert_eq!((told.state.as_str(), told.owner.as_str(), told.deadline_ms), ("pinned", "a", 0));
        assert!(told.awaits.starts_with("pinned to worker a until"), "{told:?}");
        assert_eq!(told.next_commands[0], format!("sdm txn retry {id}"));
        let row = |sample: &Sample| sample.state.txns.get(&id).unwrap().clone();
        let later = aborted_later(&sample.state, &row(&sample)).unwrap();
        assert!(later.contains("its locks stay until then"), "{later}");
        sample.lose("a");
        let told = of(&sample, id);
        assert!(told.next_commands[0].starts_with("sdm worker confirm-down a --session "), "{told:?}");
        assert!(told.next_commands.contains(&format!("sdm txn abort {id}")));
        sample.apply(Command::Abort { txn: id, reason: "no more".into() });
        let told = of(&sample, id);
        assert!(told.awaits.contains("then it is aborted") && told.awaits.contains("no more"), "{told:?}");
        assert!(!told.next_commands.iter().any(|command| command.starts_with("sdm txn abort")), "{told:?}");
        assert!(aborted_later(&sample.state, &row(&sample)).is_some(), "it is not over yet");
    }

    #[test]
    fn what_is_over_has_no_standing() {
        let sample = Sample::with_disk();
        let txn = sample.state.txns.get(&sample.disk("web-01").created_by).unwrap();
        assert!(standing(&sample.state, txn).is_none());
    }
}
