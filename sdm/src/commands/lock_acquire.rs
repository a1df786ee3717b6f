//! `sdm lock acquire RESOURCE -- COMMAND`: a session, a lock under it, the command while both hold, and
//! everything ended in order whichever of them ends first.

use crate::cli::GlobalOptions;
use crate::client::LOCK_EPOCH_VARIABLE;
use crate::client::LOCK_SESSION_VARIABLE;
use crate::client::LOCK_TOKEN_VARIABLE;
use crate::client::LockSession;
use crate::client::with_trouble;
use crate::commands::held_command::GRACE;
use crate::commands::held_command::HeldCommand;
use crate::commands::held_command::exit_code;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::age_text;
use crate::shutdown::Shutdown;
use crate::values::milliseconds;
use crate::values::parse_duration;
use crate::values::split_resource;
use clap::Args;
use clap::ValueEnum;
use sdm_proto::limits::SESSION_TTL;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::BootClock;
use sdm_proto::wire::v1;
use std::ffi::OsString;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How long closing the session may take at the end: nobody wants to wait for what ends by itself.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// How a resource is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LockMode {
    /// Excludes everyone
    #[value(name = "X")]
    Exclusive,
    /// Shares with other S
    #[value(name = "S")]
    Shared,
    /// Will change something beneath: shares with IX and IS
    #[value(name = "IX")]
    IntentExclusive,
    /// Will read something beneath: shares with all but X
    #[value(name = "IS")]
    IntentShared,
}

impl LockMode {
    fn word(self) -> &'static str {
        match self {
            Self::Exclusive => "X",
            Self::Shared => "S",
            Self::IntentExclusive => "IX",
            Self::IntentShared => "IS",
        }
    }
}

/// Its options.
///
/// COMMAND finds the fencing token in SDM_LOCK_TOKEN, and SDM_LOCK_RESOURCE, SDM_LOCK_SESSION and SDM_LOCK_EPOCH beside
/// it; the exit code is COMMAND's. An sdm command within it runs under the lock: its transaction takes none of its own,
/// and is refused when the lock does not cover what it needs, or is lost. SIGINT and SIGTERM end COMMAND, with all that it started, and then
/// release the lock. When the session is lost COMMAND is ended, too, and the exit code is 12. Away from a
/// terminal COMMAND runs in a process group of its own. When this command is killed (SIGKILL) only COMMAND
/// itself dies with it: what COMMAND started goes on, without the lock.
#[derive(Args, Debug)]
pub struct AcquireLock {
    /// What to lock, all of it at once, each perhaps with a mode of its own (domain/nfs2:IX): a name of your own, beneath
    /// user/ (backup and user/backup are the same), disk/NAME or domain/NAME, which keep the cluster's own operations
    /// off, or name/disk/NAME. A disk's domain is locked with it
    #[arg(required = true, value_name = "RESOURCE[:MODE]")]
    resources: Vec<String>,
    /// How, where a resource does not say
    #[arg(long, value_enum, default_value = "X", value_name = "X|S|IX|IS", hide_possible_values = true)]
    mode: LockMode,
    /// How long to wait while others hold it [default: try once]
    #[arg(long, value_name = "DURATION")]
    wait: Option<String>,
    /// How long the lock outlives this command when nothing is heard from it; less than 3s is taken as 3s, more than
    /// 10m as 10m [default: 10s]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// What for, shown to whoever waits
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// What to run while the lock is held
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Why a running command was ended.
enum Ending {
    Lost(Refusal),
    Unwanted,
    TimedOut(Duration),
}

impl AcquireLock {
    /// Does it.
    ///
    /// # Errors
    /// The lock was not granted, the session was lost, or nobody answers.
    pub async fn run(self, global: &GlobalOptions, shutdown: Shutdown) -> Result<ExitCode, Failure> {
        crate::logging::begin_quiet(global.log_format);
        let timeout = global.timeout()?;
        let wait = self.wait.as_deref().map(|text| parse_duration("--wait", text)).transpose()?;
        let ttl = self.ttl.as_deref().map(|text| parse_duration("--ttl", text)).transpose()?;
        let wanted: Vec<v1::LockedResource> =
            self.resources.iter().map(|text| wanted_of(text, self.mode)).collect::<Result<_, _>>()?;
        let context = global.context(shutdown)?.within(timeout);
        global.warn_of_secret(&context.printer);
        let mut unwanted = std::pin::pin!(context.shutdown.clone().requested());
        let mut expired = std::pin::pin!(context.expired());
        let opening = LockSession::open(&context.cluster, ttl.unwrap_or(SESSION_TTL), Arc::new(BootClock));
        let mut session = tokio::select! {
            session = opening => session?,
            () = &mut unwanted => return Err(gave_up("interrupted", ExitCode::Interrupted)),
            (after, why) = &mut expired => return Err(gave_up_in_time(after, why)),
        };
        let outcome = self.hold(&context, &mut session, wanted, wait.unwrap_or_default(), unwanted, expired).await;
        close(&context, &session).await;
        outcome
    }

    /// From the request for the lock to the end of the command.
    async fn hold(
        &self,
        context: &Context,
        session: &mut LockSession,
        wanted: Vec<v1::LockedResource>,
        wait: Duration,
        mut unwanted: impl Future<Output = ()> + Unpin,
        mut expired: impl Future<Output = (Duration, Option<Refusal>)> + Unpin,
    ) -> Result<ExitCode, Failure> {
        let mut lost = std::pin::pin!(session.lost());
        let resource = wanted.iter().map(|wanted| wanted.resource.as_str()).collect::<Vec<_>>().join(" ");
        let why = self.reason.clone().unwrap_or_else(|| self.command_words());
        let granted = tokio::select! {
            granted = session.acquire(wanted, wait, why) => granted?,
            why = &mut lost => return Err(lost_before(why)),
            () = &mut unwanted => return Err(gave_up("interrupted", ExitCode::Interrupted)),
            (after, why) = &mut expired => return Err(gave_up_in_time(after, why)),
        };
        tracing::info!(session = session.id(), lock = granted.lock_id, token = granted.token, "the lock is held");
        let environment = [
            (LOCK_TOKEN_VARIABLE, granted.token),
            ("SDM_LOCK_RESOURCE", resource),
            (LOCK_SESSION_VARIABLE, session.id().to_string()),
            (LOCK_EPOCH_VARIABLE, session.epoch().to_string()),
        ];
        let mut command = HeldCommand::start(&self.command, &environment, context.printer.format)?;
        let ending = tokio::select! {
            biased;
            why = &mut lost => Ending::Lost(why),
            status = command.ended() => return status.map(exit_code),
            () = &mut unwanted => Ending::Unwanted,
            (after, _) = &mut expired => Ending::TimedOut(after),
        };
        // The lease goes on being renewed while the command takes its time to end.
        let times = if matches!(ending, Ending::Unwanted) { 2 } else { 1 };
        // A lost session's lease is nearly over: its command must be gone before another can hold the lock.
        let grace = if matches!(ending, Ending::Lost(_)) { session.ending().min(GRACE) } else { GRACE };
        let status = command.end(grace, context.shutdown.clone().requested_times(times)).await?;
        match ending {
            Ending::Unwanted => Ok(exit_code(status)),
            Ending::Lost(why) => Err(lost_under(why)),
            Ending::TimedOut(after) => {
                Err(gave_up(&format!("{}; the command was ended", timed_out(after)), ExitCode::TimedOut))
            }
        }
    }

    /// What is run, cut to what a list can show.
    fn command_words(&self) -> String {
        let words: Vec<String> = self.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let line = words.join(" ");
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WHY_CHARACTERS).collect()
    }
}

/// Characters of the command that are shown to whoever waits; with four bytes each it fits what a member
/// takes.
const WHY_CHARACTERS: usize = 60;

/// One resource with its mode.
fn wanted_of(text: &str, mode: LockMode) -> Result<v1::LockedResource, Refusal> {
    let (resource, own) = split_resource(text)?;
    Ok(v1::LockedResource { resource, mode: own.unwrap_or(mode.word()).to_owned() })
}

fn gave_up_in_time(after: Duration, trouble: Option<Refusal>) -> Failure {
    with_trouble(gave_up(&timed_out(after), ExitCode::TimedOut), trouble)
}

fn timed_out(after: Duration) -> String {
    format!("timed out after {}", age_text(milliseconds(after)))
}

fn gave_up(what: &str, code: ExitCode) -> Failure {
    let (class, reason) = match code {
        ExitCode::TimedOut => (Class::Timeout, "TIMED_OUT"),
        _ => (Class::Aborted, "INTERRUPTED"),
    };
    let message = format!("{what}; the lock is released, or no longer waited for");
    let hint = "look: sdm lock list; when nobody could be told, the lock ends with its lease (--ttl)";
    Failure::from(Refusal::new(class, reason, message).hint(hint)).ending(code)
}

fn lost_before(why: Refusal) -> Failure {
    let hint = "nothing was run; see whether the members are reachable (sdm status), and try again";
    Failure::from(why.hint(hint)).ending(ExitCode::SessionLost)
}

fn lost_under(mut why: Refusal) -> Failure {
    why.message = format!("{}; the command was ended", why.message);
    let hint = "a longer --ttl survives longer outages; where this host slept, or the lock was broken, another may have held \
                it beside the command: have what it writes to compare SDM_LOCK_TOKEN";
    Failure::from(why.hint(hint)).ending(ExitCode::SessionLost)
}

/// Closing releases the lock. Where nobody can be told, the lease does it.
async fn close(context: &Context, session: &LockSession) {
    if let Err(failure) = session.close(CLOSE_WITHIN).await {
        let doubt = format!("the lock could not be released: {}", failure.refusal.message);
        let hint = format!("it is released by itself within {} s", session.ttl().as_secs());
        context.printer.warn(&doubt, &hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_may_have_a_mode_of_its_own() {
        let wanted = |text: &str| {
            let wanted = wanted_of(text, LockMode::Exclusive).unwrap();
            (wanted.resource, wanted.mode)
        };
        assert_eq!(wanted("domain/nfs2:IX"), ("domain/nfs2".to_owned(), "IX".to_owned()));
        assert_eq!(wanted("backup"), ("user/backup".to_owned(), "X".to_owned()));
        assert!(wanted_of("user/z:s", LockMode::Shared).is_err());
    }
}
