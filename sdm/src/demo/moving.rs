//! The heart of the demo: a move that is caught in the middle, the leader killed there, and the move
//! seen to its end.

use super::stage::Look;
use super::stage::MEMBERS;
use super::stage::Stage;
use crate::client::Told;
use crate::client::TransactionWatch;
use crate::client::outcome_of;
use crate::client::wait_for_outcome;
use crate::commands::status_of;
use crate::output::Failure;
use crate::output::bytes_text;
use crate::output::percent_text;
use crate::values::draw_request_id;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;

/// How far a move was when it was caught.
pub struct Caught {
    done: u64,
    total: u64,
}

/// What the kill showed.
pub struct Killed {
    /// Who led before.
    pub victim: String,
    /// Who leads now.
    pub successor: String,
    /// The move, ended.
    pub transaction: v1::Transaction,
    /// Whether the others still saw it running after the leader was dead.
    pub in_the_middle: bool,
}

/// Who leads now, as a majority sees it.
///
/// # Errors
/// No leader within the patience.
pub async fn leader_of(stage: &mut Stage, other_than: &str) -> Result<(String, u64), Failure> {
    let look = async |context: &crate::context::Context| match status_of(context).await {
        Ok(status) if status.has_quorum && !status.leader.is_empty() && status.leader != other_than => {
            Look::Found((status.leader, status.term))
        }
        Ok(status) => Look::NotYet(format!("{} knows no new leader yet", status.answered_by)),
        Err(failure) => Look::NotYet(failure.to_string()),
    };
    stage.until("a leader", look).await
}

/// Begins a move through one member.
///
/// # Errors
/// It is refused.
pub async fn begin(stage: &Stage, member: &str, to: &str) -> Result<v1::Transaction, Failure> {
    let header = v1::MutationHeader {
        request_id: draw_request_id(),
        initiator: "sdm demo".to_owned(),
        reason: "to be seen while the leader dies".to_owned(),
        ..Default::default()
    };
    let request =
        v1::MoveDiskRequest { header: Some(header), disk: super::story::DISK.to_owned(), to_domain: to.to_owned() };
    let context = stage.only(member)?;
    let answer =
        context.cluster.call(async |link| DiskServiceClient::new(link).move_disk(request.clone()).await).await?;
    let nothing = || Failure::new(Class::Internal, "EMPTY_ANSWER", "the member's answer holds no transaction");
    answer.transaction.ok_or_else(nothing)
}

/// Watches until a tenth, but not all bytes are copied; None when the move was through before that
/// was seen.
///
/// # Errors
/// The move was refused or aborted.
pub async fn catch_in_the_middle(stage: &Stage, id: &str) -> Result<Option<Caught>, Failure> {
    let mut watch = TransactionWatch::new(&stage.context.cluster, id);
    loop {
        let Told::Update(update) = watch.next().await? else { continue };
        if let Some(outcome) = update.transaction.as_ref().and_then(outcome_of) {
            return outcome.map(|()| None);
        }
        let in_the_middle =
            |live: &v1::JobProgress| live.done_bytes >= live.total_bytes / 10 && live.done_bytes < live.total_bytes;
        if let Some(live) = update.progress.filter(in_the_middle) {
            return Ok(Some(Caught { done: live.done_bytes, total: live.total_bytes }));
        }
    }
}

/// Kills the leader and sees the move to its end at the others.
///
/// # Errors
/// No new leader comes, or the move is aborted.
pub async fn kill_leader(stage: &mut Stage, id: &str, caught: &Caught) -> Result<Killed, Failure> {
    let (victim, term) = leader_of(stage, "").await?;
    let pid = stage.processes.kill(&victim).await?;
    stage.result(&format!(
        "caught at {} ({} of {}): kill -9 {pid} - that was {victim}, the leader of term {term}",
        percent_text(caught.done, caught.total),
        bytes_text(caught.done),
        bytes_text(caught.total)
    ));
    let mut watch = TransactionWatch::new(&stage.context.cluster, id);
    let first = loop {
        match watch.next().await? {
            Told::Update(update) => break update.transaction.unwrap_or_default(),
            Told::MemberLost(..) => {}
        }
    };
    let in_the_middle = outcome_of(&first).is_none();
    let (successor, term) = leader_of(stage, &victim).await?;
    stage.result(&format!("{successor} leads now (term {term}); the workers went on copying meanwhile"));
    let transaction = wait_for_outcome(&stage.context.cluster, first, "        move").await?;
    Ok(Killed { victim, successor, transaction, in_the_middle })
}

/// Starts a member again that was killed.
///
/// # Errors
/// It cannot be started, or does not come back.
pub async fn restart(stage: &mut Stage, name: &str) -> Result<(), Failure> {
    start_member(stage, name, &[])?;
    let want = MEMBERS.len();
    stage
        .until("all members reachable", async |context| match status_of(context).await {
            Ok(status) if status.members.iter().filter(|member| member.reachable).count() == want => Look::Found(()),
            Ok(_) => Look::NotYet("not all of them are".to_owned()),
            Err(failure) => Look::NotYet(failure.to_string()),
        })
        .await
}

/// Starts a member.
///
/// # Errors
/// It cannot be started.
pub fn start_member(stage: &mut Stage, name: &str, how: &[&str]) -> Result<(), Failure> {
    let at = MEMBERS.iter().position(|member| *member == name).unwrap_or_default();
    let Some(address) = stage.members.get(at).cloned() else { return Ok(()) };
    let folder = stage.path(name).display().to_string();
    let mut arguments = vec!["coordinator", "--name", name, "--listen", &address, "--data-dir", &folder];
    arguments.extend(how);
    stage.processes.start(name, &address, &arguments)
}
