//! `sdm lock show | release | break`: one lock set, and what an operator does to it.

use crate::client::Begun;
use crate::client::initiator;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::one_line;
use crate::views::LockView;
use crate::views::Shown;
use clap::Args;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use serde::Serialize;

/// What an order did, or would do.
#[derive(Serialize)]
pub struct Ordered {
    done: &'static str,
    dry_run: bool,
    would: Vec<String>,
    lock: Option<LockView>,
}

impl Report for Ordered {
    fn text(&self) -> String {
        if self.dry_run {
            let lines = self.would.iter().map(|line| format!("{}\n", one_line(line)));
            return lines.chain(["nothing was done\n".to_owned()]).collect();
        }
        let Some(lock) = &self.lock else { return format!("{}\n", self.done) };
        let (id, names, holder) = (&lock.id, lock.names.join(", "), one_line(&lock.holder));
        format!("lock {id} on {names} was {} ({holder})\nnext: sdm events --kind lock\n", self.done)
    }
}

fn empty() -> Failure {
    Failure::new(Class::Internal, "EMPTY_ANSWER", "the member's answer holds no lock")
}

/// Prints one lock set.
///
/// # Errors
/// There is none, or no member answers.
pub async fn show_lock(context: &Context, id: &str) -> Result<ExitCode, Failure> {
    let request = v1::GetLockRequest { id: id.to_owned() };
    let answer = context.cluster.call(async |link| LockServiceClient::new(link).get_lock(request.clone()).await);
    let lock = answer.await?.lock.ok_or_else(empty)?;
    context.printer.print(&Shown(LockView::from(lock)))
}

/// Gives a lock of a session back.
#[derive(Args, Debug)]
pub struct ReleaseLock {
    /// The lock's id
    id: String,
    /// The session whose lock it is, ID or ID/EPOCH, as `sdm lock show` tells it [default: none, and a refusal that says
    /// whose it is]
    #[arg(long, value_name = "SESSION", env = "SDM_LOCK_SESSION")]
    session: Option<String>,
    /// Say what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Takes a lock away from its owner.
#[derive(Args, Debug)]
pub struct BreakLock {
    /// The lock's id
    id: String,
    /// Why: kept in the events
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Say what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
}

fn session_of(text: &str) -> Result<v1::SessionKey, Refusal> {
    let (id, epoch) = text.split_once('/').unwrap_or((text, text));
    match (id.parse(), epoch.parse()) {
        (Ok(id), Ok(epoch)) => Ok(v1::SessionKey { id, epoch }),
        _ => {
            Err(Refusal::new(Class::Invalid, "BAD_SESSION", format!("--session: {text:?} is not the id of a session"))
                .hint("it is a number, ID or ID/EPOCH: sdm lock list"))
        }
    }
}

impl ReleaseLock {
    /// Does it.
    ///
    /// # Errors
    /// The lock is somebody else's, or no member answers.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let session = self.session.as_deref().map(session_of).transpose()?;
        let request = v1::ReleaseLockOfRequest { id: self.id.clone(), session, dry_run: self.dry_run };
        context.attachment.set(Begun::Change(format!("sdm lock show {}", self.id)));
        let answer =
            context.cluster.call(async |link| LockServiceClient::new(link).release_lock_of(request.clone()).await);
        let v1::ReleaseLockOfResponse { lock, would } = answer.await?;
        let lock = lock.map(LockView::from);
        context.printer.print(&Ordered { done: "released", dry_run: self.dry_run, would, lock })
    }
}

impl BreakLock {
    /// Does it.
    ///
    /// # Errors
    /// It is not proved that its holder writes no more, or no member answers.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let request = v1::BreakLockRequest {
            id: self.id.clone(),
            reason: self.reason.clone(),
            initiator: initiator(),
            dry_run: self.dry_run,
        };
        context.attachment.set(Begun::Change(format!("sdm lock show {}", self.id)));
        let answer = context.cluster.call(async |link| LockServiceClient::new(link).break_lock(request.clone()).await);
        let v1::BreakLockResponse { lock, would } = answer.await?;
        let lock = lock.map(LockView::from);
        context.printer.print(&Ordered { done: "broken", dry_run: self.dry_run, would, lock })
    }
}
