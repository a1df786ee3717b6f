//! Finding the leader: whatever only the leader can do is tried here or sent there in one hop, and
//! tried again when the leader changes or does not answer, until a deadline.

use crate::check_in::REMOVED_MEMBER;
use crate::core::Core;
use crate::leadership::Leadership;
use crate::reachability;
use crate::reachability::PING_TIME;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::status::refusal_in;
use sdm_raft_store::LeaderId;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Response;
use tonic::Status;

/// Pause before the same leader is tried again, doubled each time ...
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// ... up to this. An election ends the pause early.
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Where the leader is.
#[derive(Clone, Debug)]
pub(crate) enum Leader {
    /// This member.
    Here(LeaderId),
    /// Another one.
    There(NodeId, MemberNode),
}

/// What one try gave.
#[derive(Debug)]
pub(crate) enum Attempt<T> {
    /// It is done.
    Done(T),
    /// It is refused for good.
    Refused(Refusal),
    /// It may work later, or elsewhere.
    Again(Refusal),
}

impl<T> Attempt<T> {
    /// Of a call to another member. What cannot be answered now is tried again; the rest is final.
    /// A status that no member gave (a connection that broke in the middle) says nothing about the
    /// call, and every call here may be repeated.
    pub fn of_call(outcome: Result<Response<T>, Status>) -> Self {
        match outcome {
            Ok(response) => Self::Done(response.into_inner()),
            Err(status) => match refusal_in(&status) {
                Some(refusal) => Self::of_refusal(refusal),
                None => Self::Again(from_status(&status)),
            },
        }
    }

    /// Of a refusal.
    pub fn of_refusal(refusal: Refusal) -> Self {
        match refusal.class {
            Class::Unavailable | Class::Timeout => Self::Again(refusal),
            _ => Self::Refused(refusal),
        }
    }

    /// The same with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Attempt<U> {
        match self {
            Self::Done(value) => Attempt::Done(change(value)),
            Self::Refused(refusal) => Attempt::Refused(refusal),
            Self::Again(refusal) => Attempt::Again(refusal),
        }
    }
}

/// This member does not lead (any more): the caller looks for who does.
pub(crate) fn not_leader(core: &Core) -> Refusal {
    let message = format!("member {} does not lead", core.member_name());
    Refusal::new(Class::Unavailable, "NOT_LEADER", message).hint("ask again: members find the leader by themselves")
}

/// This process has an id but no seat in the cluster yet, or lost it.
fn refuse_outsider(core: &Core) -> Result<(), Refusal> {
    if core.inner.leadership.borrow().seats.contains_key(&core.node_id()) {
        return Ok(());
    }
    let message = format!("{} is not a member of the cluster yet", core.member_name());
    Err(Refusal::new(Class::Unavailable, "NOT_A_MEMBER_YET", message)
        .hint("it answers as soon as it was admitted; try another endpoint meanwhile"))
}

fn leader_of(core: &Core, leadership: &Leadership) -> Option<Leader> {
    match (leadership.own, leadership.remote_leader()) {
        (Some(own), _) => Some(Leader::Here(own)),
        // A leader that is this member, but leads no more, is none.
        (None, Some((id, node))) if id != core.node_id() => Some(Leader::There(id, node.clone())),
        _ => None,
    }
}

/// How much of the time up to this deadline is for finding out who is missing, if it comes to that.
pub(crate) fn report_time(deadline: Instant) -> Duration {
    PING_TIME.min(deadline.saturating_duration_since(Instant::now()) / 4)
}

/// Tries at the leader until it is done or refused, or the deadline passed.
///
/// # Errors
/// The attempt's refusal; NOT_A_MEMBER_YET; MEMBER_STOPPING; NO_QUORUM at the deadline.
pub(crate) async fn at_leader<T, F>(core: &Core, deadline: Instant, attempt: impl Fn(Leader) -> F) -> Result<T, Refusal>
where
    F: Future<Output = Attempt<T>>,
{
    unless_ending(core, std::future::ready(())).await?;
    refuse_outsider(core)?;
    let begun = Instant::now();
    let deadline = core.inner.reachability.held_until(deadline, begun);
    let report_time = report_time(deadline);
    let mut last = None;
    let trying = try_until_done(core, attempt, &mut last);
    match unless_ending(core, tokio::time::timeout_at(deadline - report_time, trying)).await? {
        // Said of whoever called the leader: of this member, not of whoever asked here.
        Ok(Err(refusal)) if refusal.reason == REMOVED_MEMBER => {
            let told = ending(core, &refusal);
            core.inner.ending.end(refusal);
            Err(told)
        }
        Ok(outcome) => outcome,
        Err(_) => Err(reachability::no_quorum(core, begun.elapsed(), last.as_ref(), report_time).await),
    }
}

/// Kind of the blockers that say where else to ask; their id is an address.
pub(crate) const ASK_THERE: &str = "ask";

/// Waits for this, unless this member must not go on.
///
/// # Errors
/// MEMBER_STOPPING.
pub(crate) async fn unless_ending<T>(core: &Core, waiting: impl Future<Output = T>) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        reason = core.inner.ending.wait() => Err(ending(core, &reason)),
        outcome = waiting => Ok(outcome),
    }
}

/// This member must not go on, which concerns nobody who asks it: another one answers.
fn ending(core: &Core, reason: &Refusal) -> Refusal {
    let message = format!("member {} is stopping: {}", core.member_name(), reason.message);
    let refusal = Refusal::new(Class::Unavailable, "MEMBER_STOPPING", message).hint("try another endpoint");
    let others = reachability::others(core).into_values();
    others.fold(refusal, |refusal, node| refusal.blocker(ASK_THERE, node.address, format!("member {}", node.name)))
}

async fn try_until_done<T, F>(
    core: &Core,
    attempt: impl Fn(Leader) -> F,
    last: &mut Option<Refusal>,
) -> Result<T, Refusal>
where
    F: Future<Output = Attempt<T>>,
{
    let mut leadership = core.inner.leadership.clone();
    let mut pause = RETRY_FIRST;
    loop {
        let known = leadership.borrow_and_update().clone();
        let another = leadership.wait_for(|now| !now.has_same_leader(&known));
        let Some(leader) = leader_of(core, &known) else {
            if another.await.is_err() {
                return Err(stopping(core));
            }
            continue;
        };
        let trying = async {
            match attempt(leader).await {
                Attempt::Again(refusal) => {
                    tracing::debug!(reason = refusal.reason, message = refusal.message, "trying again");
                    *last = Some(refusal);
                    tokio::time::sleep(pause).await;
                    None
                }
                Attempt::Done(value) => Some(Ok(value)),
                Attempt::Refused(refusal) => Some(Err(refusal)),
            }
        };
        tokio::select! {
            outcome = trying => match outcome {
                Some(outcome) => return outcome,
                None => pause = (pause * 2).min(RETRY_MAX),
            },
            changed = another => match changed {
                Ok(_) => pause = RETRY_FIRST,
                Err(_) => return Err(stopping(core)),
            },
        }
    }
}

/// Raft has ended on this member.
pub(crate) fn stopping(core: &Core) -> Refusal {
    Refusal::new(Class::Unavailable, "MEMBER_STOPPING", format!("member {} is shutting down", core.member_name()))
        .hint("try another endpoint")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_proto::status::to_status;

    #[test]
    fn only_what_a_member_said_is_final() {
        for status in [
            Status::unknown("broken pipe"),
            Status::internal("h2 protocol error"),
            Status::cancelled("operation was canceled"),
            Status::unavailable("tcp connect error"),
            Status::deadline_exceeded("timeout expired"),
            Status::out_of_range("too large"),
        ] {
            assert!(matches!(Attempt::<()>::of_call(Err(status.clone())), Attempt::Again(_)), "{status:?}");
        }
        let said = |class| Err(to_status(&Refusal::new(class, "X", "a member said so")));
        for class in [Class::Internal, Class::Invalid, Class::Denied, Class::Exhausted] {
            assert!(matches!(Attempt::<()>::of_call(said(class)), Attempt::Refused(_)), "{class:?}");
        }
        for class in [Class::Unavailable, Class::Timeout] {
            assert!(matches!(Attempt::<()>::of_call(said(class)), Attempt::Again(_)), "{class:?}");
        }
    }
}
