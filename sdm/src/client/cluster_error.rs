//! What an endpoint's answer means: final, or a reason to ask the next one; and the failure when none
//! is left. A repetition at another member is always safe, because every mutation carries its request
//! id, so whatever sounds like the endpoint's own trouble is passed over.

use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use std::error::Error;
use std::time::Duration;
use tonic::Code;
use tonic::Status;

/// An endpoint that gave no useful answer.
#[derive(Debug, Clone)]
pub struct Passed {
    /// Where.
    pub address: String,
    /// What it said, or why nothing came.
    pub refusal: Refusal,
    /// Whether anything lives there: then it may do better in a moment.
    pub alive: bool,
}

/// What to do with an answer that is none.
pub enum Verdict {
    /// Tell the user.
    Final(Refusal),
    /// Ask the next endpoint.
    PassOver(Passed),
}

/// Judges a status; None means that nothing came within the time given.
pub fn judge(address: &str, status: Option<&Status>, waited: Duration) -> Verdict {
    let address = address.to_owned();
    let Some(status) = status else { return Verdict::PassOver(silent_for(&address, waited)) };
    let mut refusal = from_status(status);
    // Refusals of ours carry details; what comes without is a broken connection or a stranger.
    let ours = !matches!(refusal.reason.as_str(), "UNREACHABLE" | "RPC_FAILED");
    // The others may be further; this member alone is late.
    let behind = refusal.reason == "MEMBER_BEHIND";
    if ours && refusal.class != Class::Unavailable && !behind {
        return Verdict::Final(refusal);
    }
    if !ours && status.code() == Code::Unimplemented {
        let message = "it answers, but is no member: perhaps a worker";
        let refusal = Refusal::new(Class::Unavailable, "NOT_A_MEMBER", message);
        return Verdict::PassOver(Passed { address, refusal, alive: false });
    }
    if !ours {
        refusal.message = cause_of(status);
        if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted) {
            return Verdict::Final(refusal);
        }
    }
    Verdict::PassOver(Passed { address, refusal, alive: ours })
}

/// An endpoint that said nothing for so long.
pub fn silent_for(address: &str, waited: Duration) -> Passed {
    let message = format!("no answer within {:.0} s", waited.as_secs_f64());
    let refusal = Refusal::new(Class::Unavailable, "UNREACHABLE", message);
    Passed { address: address.to_owned(), refusal, alive: false }
}

/// The innermost cause of a failed call: "Connection refused" instead of "transport error".
pub fn cause_of(status: &Status) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    let mut text = String::new();
    while let Some(error) = cause {
        let own = error.to_string();
        if !own.is_empty() {
            text = own;
        }
        cause = error.source();
    }
    match text.is_empty() {
        false => text,
        true if status.message().is_empty() => format!("{:?}", status.code()),
        true => status.message().to_owned(),
    }
}

/// The refusal when every endpoint was passed over.
pub fn nobody_answered(passed: &[Passed]) -> Refusal {
    let alive = passed.iter().filter(|endpoint| endpoint.alive).count();
    let quorumless = passed.iter().any(|endpoint| endpoint.refusal.reason == "NO_QUORUM");
    let total = passed.len();
    let mut refusal = if quorumless {
        let message = format!("no leader: {alive} of {total} endpoints answered, and none can reach a majority");
        Refusal::new(Class::Unavailable, "NO_QUORUM", message)
            .hint("start the members that are down; `sdm status` shows what the reachable ones know")
    } else if alive > 0 {
        let message = format!("none of {total} endpoints can serve: {alive} answered, without being able to");
        Refusal::new(Class::Unavailable, "UNAVAILABLE", message)
            .hint("a member that is joining answers as soon as it has joined")
    } else if passed.iter().any(|endpoint| endpoint.refusal.reason == "NOT_A_MEMBER") {
        let message = format!("none of {total} endpoints is a member that answers");
        Refusal::new(Class::Unavailable, "UNREACHABLE", message)
            .hint("--endpoints and SDM_ENDPOINTS name members, not workers; `sdm member list` tells their addresses")
    } else {
        let message = format!("cannot connect: none of {total} endpoints answered");
        Refusal::new(Class::Unavailable, "UNREACHABLE", message)
            .hint("name members that are up with --endpoints A,B,C or SDM_ENDPOINTS")
    };
    for endpoint in passed {
        let Refusal { reason, message, .. } = &endpoint.refusal;
        let description = if endpoint.alive { format!("{message} [{reason}]") } else { message.clone() };
        refusal = refusal.blocker("endpoint", &endpoint.address, description);
    }
    refusal
}

/// How long a waiting command goes on while no endpoint serves: several elections, and the restart
/// of a member by its service manager.
pub const WAITING_PATIENCE: Duration = Duration::from_secs(60);

/// A watch that says nothing for this long is asked for anew at the next endpoint: its member may be
/// cut off from the others, and then it would be silent for good.
pub const WATCH_SILENCE: Duration = Duration::from_secs(2 * limits::LEADER_WAIT.as_secs());

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_proto::status::to_status;

    fn passed(status: &Status) -> Option<Passed> {
        match judge("a:1", Some(status), Duration::from_secs(1)) {
            Verdict::Final(_) => None,
            Verdict::PassOver(passed) => Some(passed),
        }
    }

    #[test]
    fn a_members_decision_is_final_and_its_inability_is_not() {
        let refusal = |class, reason| to_status(&Refusal::new(class, reason, "said the member"));
        for class in [Class::NotFound, Class::Precondition, Class::Timeout, Class::Internal, Class::Denied] {
            assert!(passed(&refusal(class, "X")).is_none(), "{class:?}");
        }
        assert!(passed(&refusal(Class::Unavailable, "NOT_A_MEMBER_YET")).is_some_and(|p| p.alive));
        assert!(passed(&refusal(Class::Unavailable, "NO_QUORUM")).is_some_and(|p| p.alive));
        assert!(passed(&refusal(Class::Timeout, "MEMBER_BEHIND")).is_some_and(|p| p.alive));
    }

    #[test]
    fn what_no_member_said_is_passed_over() {
        for status in [Status::unavailable("x"), Status::unknown("x"), Status::internal("h2"), Status::cancelled("x")] {
            assert!(passed(&status).is_some_and(|p| !p.alive), "{status:?}");
        }
        let stranger = passed(&Status::unimplemented("a stranger")).unwrap();
        assert!(stranger.refusal.message.contains("no member"), "{}", stranger.refusal.message);
        let refusal = nobody_answered(&[stranger]);
        assert_eq!(refusal.reason, "UNREACHABLE");
        assert!(!refusal.message.contains("cannot connect"), "it did connect: {}", refusal.message);
    }

    #[test]
    fn when_nobody_answers_each_endpoint_is_named_with_what_it_said() {
        let dead = Passed {
            address: "a:1".into(),
            refusal: Refusal::new(Class::Unavailable, "UNREACHABLE", "Connection refused"),
            alive: false,
        };
        let lonely = Passed {
            address: "b:1".into(),
            refusal: Refusal::new(Class::Unavailable, "NO_QUORUM", "1 of 3 voters reachable"),
            alive: true,
        };
        let refusal = nobody_answered(&[dead.clone(), lonely]);
        assert_eq!(refusal.reason, "NO_QUORUM");
        assert_eq!(refusal.blockers.len(), 2);
        assert_eq!(refusal.blockers[0].description, "Connection refused");
        assert_eq!(refusal.blockers[1].description, "1 of 3 voters reachable [NO_QUORUM]");
        assert_eq!(nobody_answered(&[dead]).reason, "UNREACHABLE");
    }
}
