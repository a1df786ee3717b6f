//! Comparing states: this member enters the hashes that its state had after certain entries, and
//! looks at what all entered. If its state is not that of the majority, it stops; while there is no
//! majority, writes are refused. What the hashes say is judged by the state crate.

use crate::core::Core;
use crate::propose::WriteError;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_raft_store::StateView;
use sdm_state::Command;
use sdm_state::hashes::Parted;
use sdm_state::hashes::Split;
use sdm_state::hashes::Verdict;
use sdm_state::hashes::hex;
use std::time::Duration;
use tokio::time::Instant;

/// Pause after a hash that could not be entered.
const RETRY: Duration = Duration::from_secs(1);

/// How long a write is held while states differ and a voter that might decide has not entered its
/// hash: it does so within a round trip, or it is down.
const UNDECIDED: Duration = Duration::from_secs(2);

/// Characters of a hash that tell it from others, for people.
const HASH_SHOWN: usize = 16;

/// Runs until the member closes.
pub(crate) async fn run(core: Core) {
    tokio::select! {
        () = judge(&core) => {}
        () = enter(&core) => {}
        () = core.closing().cancelled() => {}
    }
}

/// Whether nothing is known against this state.
pub(crate) fn agrees(view: &StateView) -> bool {
    verdict(view) == Verdict::Agrees
}

fn verdict(view: &StateView) -> Verdict {
    view.state.hash_verdict(|| view.membership.membership().voter_ids().collect())
}

/// Looks at what was entered, after every change.
async fn judge(core: &Core) {
    let mut applied = core.watch();
    let mut told = None;
    loop {
        applied.borrow_and_update();
        let view = core.view();
        match verdict(&view) {
            Verdict::Agrees => told = None,
            Verdict::Parted(parted) => core.inner.ending.end(has_parted(core, &view, &parted)),
            Verdict::Split(split) => {
                core.inner.stopwatch.stand();
                if told != Some(split.index) {
                    tracing::error!(index = split.index, "{}", is_split(&view, &split));
                }
                told = Some(split.index);
            }
        }
        drop(view);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Enters the last hash, unless that was done.
async fn enter(core: &Core) {
    let mut applied = core.watch();
    loop {
        applied.borrow_and_update();
        let view = core.view();
        let last = view.state.last_hash_point();
        let due = last.filter(|point| point.reports.get(&core.node_id()) != Some(&point.own));
        let command =
            due.map(|point| Command::ReportStateHash { member: core.node_id(), index: point.index, hash: point.own });
        drop(view);
        let Some(command) = command else {
            if applied.changed().await.is_err() {
                return;
            }
            continue;
        };
        let entered = core.propose(command, Instant::now() + limits::LEADER_WAIT).await;
        match entered.map(|proposed| proposed.reply) {
            Ok(sdm_state::Reply::Refused(refusal)) | Err(refusal) => {
                tracing::debug!(%refusal, "the state's hash was not entered");
                tokio::time::sleep(RETRY).await;
            }
            Ok(_) => {}
        }
    }
}

/// Lets a command through to the log, perhaps only after a moment.
///
/// # Errors
/// STATE_DIVERGED. From a member that has parted as something to try again: another one will lead.
pub(crate) async fn check(core: &Core, command: &Command) -> Result<(), WriteError> {
    if command.passes_a_split() || agrees(&core.view()) {
        return Ok(());
    }
    let decided = async {
        let mut applied = core.watch();
        loop {
            applied.borrow_and_update();
            let view = core.view();
            match verdict(&view) {
                Verdict::Agrees => return Ok(()),
                Verdict::Parted(parted) => {
                    let reason = has_parted(core, &view, &parted);
                    return Err(WriteError::NotAppended(Refusal { class: Class::Unavailable, ..reason }));
                }
                Verdict::Split(split) if may_still_be_decided(&view, &split) => {}
                Verdict::Split(split) => return Err(WriteError::Refused(is_split(&view, &split))),
            }
            drop(view);
            if applied.changed().await.is_err() {
                return Ok(());
            }
        }
    };
    if let Ok(decided) = tokio::time::timeout(UNDECIDED, decided).await {
        return decided;
    }
    let view = core.view();
    match verdict(&view) {
        Verdict::Split(split) => Err(WriteError::Refused(is_split(&view, &split))),
        _ => Ok(()),
    }
}

/// For status: the refusal that writes get now, if they do.
pub(crate) fn disagreement(view: &StateView) -> Option<Refusal> {
    match verdict(view) {
        Verdict::Split(split) => Some(is_split(view, &split)),
        Verdict::Agrees | Verdict::Parted(_) => None,
    }
}

fn may_still_be_decided(view: &StateView, split: &Split) -> bool {
    let known: Vec<u64> = split.hashes.values().flatten().copied().collect();
    view.membership.membership().voter_ids().any(|voter| !known.contains(&voter))
}

fn short(hash: &[u8; 32]) -> String {
    let mut text = hex(hash);
    text.truncate(HASH_SHOWN);
    text
}

fn names(view: &StateView, ids: &[u64]) -> String {
    let name = |id: &u64| view.state.members.get(id).map_or_else(|| id.to_string(), |member| member.name.to_string());
    ids.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn has_parted(core: &Core, view: &StateView, parted: &Parted) -> Refusal {
    let Parted { index, own, majority, with } = parted;
    let name = core.member_name();
    let message = format!(
        "the state of member {name} is not that of the majority: after entry {index} its hash is {}, that of {} is {}",
        short(own),
        names(view, with),
        short(majority)
    );
    Refusal::new(Class::Internal, "STATE_DIVERGED", message).hint(format!(
        "what it has applied is wrong, do not start it again: keep its data folder for analysis \
         (`sdm offline replay DIR --to {index}` shows its state there), check the host's memory, remove it \
         (`sdm member remove {name}`) and join a new member on an empty folder"
    ))
}

fn is_split(view: &StateView, split: &Split) -> Refusal {
    let Split { index, hashes } = split;
    let who: Vec<String> =
        hashes.iter().map(|(hash, ids)| format!("{} has {}", names(view, ids), short(hash))).collect();
    let message = format!(
        "the members' states differ and no majority has the same: after entry {index} {}; nothing is written until \
         that is settled",
        who.join(", ")
    );
    let mut refusal = Refusal::new(Class::Precondition, "STATE_DIVERGED", message).hint(format!(
        "start the members that are down: one more may decide. Else stop all, compare their states with `sdm offline \
         replay DIR --to {index}` on copies of their folders, and `sdm member remove` those that are wrong, or restore a \
         backup"
    ));
    for (hash, ids) in hashes {
        for id in ids {
            refusal = refusal.blocker("member", names(view, &[*id]), format!("state hash {}", hex(hash)));
        }
    }
    refusal
}
