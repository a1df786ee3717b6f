//! The heart of the demo: a move that is caught in the middle, the leader killed there, and the move
//! seen to its end.

use super::stage::Look;
use super::stage::MEMBERS;
use super::stage::Stage;
use super::story::DISK;
use crate::client::Told;
use crate::client::TransactionWatch;
use crate::client::outcome_of;
use crate::client::show;
use crate::commands::status_of;
use crate::context::Context;
use crate::output::Failure;
use crate::output::Progress;
use crate::output::bytes_text;
use crate::output::percent_text;
use crate::values::draw_request_id;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::WatchTransactionResponse;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;

/// What a move through the death of the leader showed.
pub struct Moved {
    /// The move, committed.
    pub transaction: v1::Transaction,
    /// Who died in the middle of it, and who leads since; None when the move was through before that
    /// could happen.
    pub killed: Option<Killed>,
}

/// A leader that died.
pub struct Killed {
    /// Who led before.
    pub victim: String,
    /// Who leads now.
    pub successor: String,
}

/// Who leads now and the term, as a majority sees it.
///
/// # Errors
/// No leader within the patience.
pub async fn leader_of(stage: &mut Stage) -> Result<(String, u64), Failure> {
    stage.until("a leader", async |context| leader_other_than(context, "").await).await
}

async fn leader_other_than(context: &Context, dead: &str) -> Look<(String, u64)> {
    match status_of(context).await {
        Ok(status) if status.has_quorum && !status.leader.is_empty() && status.leader != dead => {
            Look::Found((status.leader, status.term))
        }
        Ok(status) => Look::NotYet(format!("{} knows no new leader yet", status.answered_by)),
        Err(failure) => Look::NotYet(failure.to_string()),
    }
}

/// Moves the disk and kills the leader in the middle of it. Asks and watches only the members that do
/// not lead, so the progress is told without a break, also while nobody leads.
///
/// # Errors
/// The move is refused or aborted, or no new leader comes.
pub async fn move_and_kill(stage: &mut Stage, to: &str) -> Result<Moved, Failure> {
    let (leader, term) = leader_of(stage).await?;
    let others: Vec<&str> = MEMBERS.into_iter().filter(|name| *name != leader).collect();
    let asked = others.first().copied().unwrap_or_default();
    stage.command(&format!("disk move {DISK} --to {to}      (asked of {asked}, which does not lead)"));
    let context = stage.only(&others)?;
    let begun = begin(&context, to).await?;
    let id = begun.id.clone();
    let mut progress = Progress::begin("        move", context.printer.format);
    let mut watch = TransactionWatch::new(&context.cluster, &id);
    let mut killed = None;
    let mut txn = begun;
    while outcome_of(&txn).is_none() {
        let Told::Update(update) = watch.next().await? else { continue };
        let WatchTransactionResponse { transaction, progress: live } = *update;
        txn = transaction.unwrap_or(txn);
        if outcome_of(&txn).is_none() {
            show(&mut progress, &txn, live.as_ref());
        }
        let Some(live) = live.filter(|live| killed.is_none() && is_in_the_middle(live)) else { continue };
        let pid = stage.processes.kill(&leader).await?;
        let caught = format!(
            "caught at {} ({} of {}): kill -9 {pid} - that was {leader}, the leader of term {term}",
            percent_text(live.done_bytes, live.total_bytes),
            bytes_text(live.done_bytes),
            bytes_text(live.total_bytes)
        );
        progress.aside(|| stage.result(&caught));
        killed = Some(live);
    }
    progress.end();
    outcome_of(&txn).unwrap_or(Ok(()))?;
    if killed.is_none() {
        return Ok(Moved { transaction: txn, killed: None });
    }
    let look = async |context: &Context| leader_other_than(context, &leader).await;
    let (successor, term) = stage.until("a new leader", look).await?;
    stage.result(&format!("{successor} leads now (term {term}); the workers went on copying meanwhile"));
    Ok(Moved { transaction: txn, killed: Some(Killed { victim: leader, successor }) })
}

/// From a tenth on; the end leaves enough time for the kill to come before it.
fn is_in_the_middle(live: &v1::JobProgress) -> bool {
    let tenth = live.total_bytes / 10;
    live.total_bytes > 0 && live.done_bytes >= tenth && live.done_bytes <= live.total_bytes - tenth
}

async fn begin(context: &Context, to: &str) -> Result<v1::Transaction, Failure> {
    let header = v1::MutationHeader {
        request_id: draw_request_id(),
        initiator: "sdm demo".to_owned(),
        reason: "to be seen while the leader dies".to_owned(),
        ..Default::default()
    };
    let request = v1::MoveDiskRequest { header: Some(header), disk: DISK.to_owned(), to_domain: to.to_owned() };
    let ask = async |link| DiskServiceClient::new(link).move_disk(request.clone()).await;
    let nothing = || Failure::new(Class::Internal, "EMPTY_ANSWER", "the member's answer holds no transaction");
    context.cluster.call(ask).await?.transaction.ok_or_else(nothing)
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
