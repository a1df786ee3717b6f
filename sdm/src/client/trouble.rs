//! Why a command's time was over: when it ends by `--timeout` while no member could serve, the user has to hear who was
//! asked and what each said, and not only that it took too long.

use super::Cluster;
use super::cluster_error::Passed;
use super::cluster_error::Verdict;
use super::cluster_error::judge;
use super::cluster_error::nobody_answered;
use super::cluster_error::silent_for;
use crate::output::Failure;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::cluster_service_client::ClusterServiceClient;
use std::time::Duration;
use tokio::time::Instant;

/// How long members may take to say how they are: one without a leader looks for the others for a second first.
pub const LOOK: Duration = Duration::from_millis(1500);

/// Why no endpoint serves: what each says of itself, asked all at once. None when one of them serves.
pub async fn trouble_of(cluster: &Cluster) -> Option<Refusal> {
    let begun = Instant::now();
    let asked = cluster.links().map(|(address, link)| async move {
        let mut client = ClusterServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = tokio::time::timeout_at(begun + LOOK, client.get_status(v1::GetStatusRequest {})).await;
        (address, answer)
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut passed = Vec::new();
    while let Some((address, answer)) = asked.next().await {
        passed.push(match answer {
            Ok(Ok(answer)) => without_leader(address, answer.get_ref())?,
            Ok(Err(status)) => match judge(address, Some(&status), begun.elapsed()) {
                // The command's own call hears that, too.
                Verdict::Final(_) => return None,
                Verdict::PassOver(passed) => passed,
            },
            Err(_) => silent_for(address, begun.elapsed()),
        });
    }
    Some(nobody_answered(&passed))
}

/// What a member says of a cluster without a leader; None when it has one that a majority follows.
fn without_leader(address: &str, status: &v1::GetStatusResponse) -> Option<Passed> {
    if status.has_quorum && !status.leader.is_empty() {
        return None;
    }
    let voters = || status.members.iter().filter(|member| matches!(member.role.as_str(), "leader" | "follower"));
    let (reached, all) = (voters().filter(|member| member.reachable).count(), voters().count());
    let message = format!(
        "{} reaches {reached} of {all} voters, and knows no leader that a majority follows",
        status.answered_by
    );
    let refusal = Refusal::new(Class::Unavailable, "NO_QUORUM", message);
    Some(Passed { address: address.to_owned(), refusal, alive: true })
}

/// A failure for want of time, with the trouble that was behind it: where members answered, and none could serve, that is
/// the reason, and the exit code is that of a cluster without a leader.
#[must_use]
pub fn with_trouble(mut failure: Failure, trouble: Option<Refusal>) -> Failure {
    let Some(trouble) = trouble else { return failure };
    let refusal = &mut failure.refusal;
    refusal.message = format!("{}; {}", refusal.message, trouble.message);
    refusal.blockers.extend(trouble.blockers);
    if trouble.reason != "UNREACHABLE" {
        refusal.hint = format!("{}; then {}", trouble.hint, refusal.hint);
        refusal.reason = trouble.reason;
        refusal.class = trouble.class;
        failure.exit_code = refusal.class.into();
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed_out() -> Failure {
        Failure::from(Refusal::new(Class::Timeout, "TIMED_OUT", "timed out after 2.0s").hint("look: sdm txn list"))
    }

    #[test]
    fn a_command_that_waited_for_a_leader_ends_as_one_without_and_names_whom_it_asked() {
        let status = v1::GetStatusResponse { answered_by: "b".into(), ..Default::default() };
        let lonely = without_leader("b:1", &status).unwrap();
        let trouble = nobody_answered(&[lonely, silent_for("a:1", LOOK)]);
        let Failure { refusal, exit_code, .. } = with_trouble(timed_out(), Some(trouble));
        assert_eq!((refusal.reason.as_str(), exit_code.number()), ("NO_QUORUM", 20));
        assert!(refusal.message.starts_with("timed out after 2.0s; no leader"), "{refusal}");
        assert!(refusal.hint.contains("start the members") && refusal.hint.contains("sdm txn list"), "{refusal}");
        assert_eq!(refusal.blockers.len(), 2);
        assert!(
            without_leader("b:1", &v1::GetStatusResponse { has_quorum: true, leader: "a".into(), ..status }).is_none()
        );
    }

    #[test]
    fn where_nobody_answers_it_stays_a_matter_of_time_and_names_them_all_the_same() {
        let Failure { refusal, exit_code, .. } =
            with_trouble(timed_out(), Some(nobody_answered(&[silent_for("a:1", LOOK)])));
        assert_eq!((refusal.reason.as_str(), exit_code.number(), refusal.blockers.len()), ("TIMED_OUT", 9, 1));
        assert_eq!(with_trouble(timed_out(), None), timed_out());
    }
}
