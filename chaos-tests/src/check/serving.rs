//! Waiting until the cluster serves again and all members are at one index, and comparing their states
//! there.

use crate::client::Answer;
use crate::client::Endpoints;
use crate::client::cluster;
use crate::cluster::Cluster;
use crate::history::History;
use crate::history::Promise;
use sdm_proto::wire::v1;
use std::time::Duration;
use std::time::Instant;
use tokio::runtime::Runtime;

/// How long the members may take from their start until they serve and agree. An election takes 1 to
/// 4 s, a slow disk as long again.
const AGREE_TIME: Duration = Duration::from_secs(60);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a member says of its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The index that it has applied.
    pub index: u64,
    /// The hash of the state there.
    pub hash: String,
    /// The leader's name.
    pub leader: String,
}

/// Waits until all members serve and are at one index; answers with the state there. None, and a
/// violation in the history, when a member ends, they do not come to agree in time, or their states
/// differ. The clients pause. `opened` says which members have answered since they were started.
pub fn await_agreement(
    cluster: &mut Cluster,
    runtime: &Runtime,
    history: &History,
    opened: &mut [bool],
) -> Option<Agreement> {
    let members = cluster.nodes.len();
    await_all(cluster, runtime, history, opened, |answers| agreed(answers, members))
}

/// Waits until all members serve. The clients may be at work. False, and a violation in the history,
/// when they do not in time.
pub fn await_service(cluster: &mut Cluster, runtime: &Runtime, history: &History, opened: &mut [bool]) -> bool {
    let serving = |answers: &[Answered]| match answers.iter().find_map(|answer| answer.as_ref().err()) {
        Some(why) => Err(Disagreement::Yet(why.clone())),
        None if answers.iter().flatten().any(|status| !status.has_quorum) => {
            Err(Disagreement::Yet("no quorum".to_owned()))
        }
        None => Ok(()),
    };
    await_all(cluster, runtime, history, opened, serving).is_some()
}

type Answered = Result<v1::GetStatusResponse, String>;

fn await_all<T>(
    cluster: &mut Cluster,
    runtime: &Runtime,
    history: &History,
    opened: &mut [bool],
    judge: impl Fn(&[Answered]) -> Result<T, Disagreement>,
) -> Option<T> {
    // Channels belong to a runtime.
    let _context = runtime.enter();
    let members = match Endpoints::new(&cluster.addresses(), 0) {
        Ok(endpoints) => endpoints.each(),
        Err(error) => {
            history.violated(Promise::Serves, format!("{error:#}"));
            return None;
        }
    };
    let begun = Instant::now();
    loop {
        for (number, node) in cluster.nodes.iter_mut().enumerate() {
            if let Some(death) = node.death() {
                let served = opened.get(number).copied().unwrap_or_default();
                history.violated(if served { Promise::Serves } else { Promise::Opens }, death);
                return None;
            }
        }
        let answers = runtime.block_on(ask_all(&members));
        for (opened, answer) in opened.iter_mut().zip(&answers) {
            *opened |= answer.is_ok();
        }
        match judge(&answers) {
            Ok(state) => return Some(state),
            Err(Disagreement::Final(what)) => {
                history.violated(Promise::EqualStates, what);
                return None;
            }
            Err(Disagreement::Yet(why)) if begun.elapsed() >= AGREE_TIME => {
                let silent = opened.iter().any(|opened| !opened);
                let promise = if silent { Promise::Opens } else { Promise::Serves };
                history.violated(promise, format!("after {} s: {why}", AGREE_TIME.as_secs()));
                return None;
            }
            Err(Disagreement::Yet(_)) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

async fn ask_all(members: &[Endpoints]) -> Vec<Answered> {
    let ask = |member: &Endpoints| {
        let member = member.clone();
        tokio::spawn(async move {
            let call = |channel| async move { cluster(channel).get_status(v1::GetStatusRequest {}).await };
            match member.ask(call).await {
                Answer::Done(status) => Ok(status),
                Answer::Refused(refusal) => Err(format!("{}: {refusal}", member.address())),
                Answer::Unknown(why) => Err(format!("{}: {why}", member.address())),
            }
        })
    };
    let asked: Vec<_> = members.iter().map(ask).collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(answer.await.unwrap_or_else(|error| Err(error.to_string())));
    }
    answers
}

enum Disagreement {
    /// They may still come to agree.
    Yet(String),
    /// They never will.
    Final(String),
}

/// The state, if all members serve, vote, are at one index and have one hash there.
fn agreed(answers: &[Answered], members: usize) -> Result<Agreement, Disagreement> {
    let mut found: Option<Agreement> = None;
    for answer in answers {
        let status = answer.as_ref().map_err(|why| Disagreement::Yet(why.clone()))?;
        let voters = status.members.iter().filter(|member| member.reachable && member.role != "learner").count();
        if !status.has_quorum || voters < members || status.leader.is_empty() {
            let who = &status.answered_by;
            return Err(Disagreement::Yet(format!("{who} sees {voters} voters, quorum {}", status.has_quorum)));
        }
        let state =
            Agreement { index: status.revision, hash: status.state_hash.clone(), leader: status.leader.clone() };
        match &found {
            Some(first) if first.index != state.index => {
                return Err(Disagreement::Yet(format!("indexes {} and {}", first.index, state.index)));
            }
            Some(first) if first.hash != state.hash => {
                let what = format!(
                    "at index {} {} has the state {}, another member {}",
                    state.index, status.answered_by, state.hash, first.hash
                );
                return Err(Disagreement::Final(what));
            }
            _ => found = Some(state),
        }
    }
    found.ok_or_else(|| Disagreement::Yet("there is no member".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(revision: u64, hash: &str) -> Result<v1::GetStatusResponse, String> {
        let member = v1::Member { reachable: true, role: "follower".to_owned(), ..v1::Member::default() };
        Ok(v1::GetStatusResponse {
            revision,
            state_hash: hash.to_owned(),
            has_quorum: true,
            leader: "a".to_owned(),
            members: vec![member.clone(), member],
            ..v1::GetStatusResponse::default()
        })
    }

    #[test]
    fn equal_hashes_at_an_equal_index_agree() {
        assert!(agreed(&[status(7, "x"), status(7, "x")], 2).is_ok());
    }

    #[test]
    fn other_hashes_at_an_equal_index_never_agree_and_at_another_index_may() {
        assert!(matches!(agreed(&[status(7, "x"), status(7, "y")], 2), Err(Disagreement::Final(_))));
        assert!(matches!(agreed(&[status(7, "x"), status(8, "y")], 2), Err(Disagreement::Yet(_))));
    }

    #[test]
    fn a_member_that_is_silent_or_does_not_vote_is_waited_for() {
        assert!(matches!(agreed(&[status(7, "x"), Err("dead".to_owned())], 2), Err(Disagreement::Yet(_))));
        assert!(matches!(agreed(&[status(7, "x"), status(7, "x")], 3), Err(Disagreement::Yet(_))));
    }
}
