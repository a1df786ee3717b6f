//! The command that runs under a lock: started so that it dies with whoever holds the lock, ended with
//! all that it started.
//!
//! This program starts itself, has the kernel kill it when the holder dies, and becomes the command: a
//! holder that is killed takes the command with it, whose lock nobody would renew any more.

use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Format;
use crate::shutdown::die_with_parent;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use rustix::process::kill_process_group;
use rustix::process::test_kill_process_group;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::Instant;

/// The running program's own file, also after an upgrade replaced it under its name.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// How long a command that was told to end may take for it; then it is killed.
pub const GRACE: Duration = Duration::from_secs(10);

/// Time between two looks at what a command leaves behind: nobody tells when a process group is empty.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Becomes the command, in this very process. Returns only when that cannot be.
pub fn become_command(holder: u32, command: &[OsString]) -> Failure {
    if let Err(failure) = die_with_parent(Some(holder)) {
        return failure;
    }
    let Some((program, arguments)) = command.split_first() else {
        return Failure::new(Class::Invalid, "USAGE", "there is no command to run");
    };
    not_run(program, &std::process::Command::new(program).args(arguments).exec())
}

/// As env(1) tells it.
fn not_run(program: &OsStr, error: &io::Error) -> Failure {
    let program = program.to_string_lossy();
    if error.kind() == io::ErrorKind::NotFound {
        let refusal = Refusal::new(Class::NotFound, "COMMAND_NOT_FOUND", format!("{program}: {error}"));
        let refusal = refusal.hint("give the command's path, or see PATH; the lock is released");
        return Failure::from(refusal).ending(ExitCode::OfCommand(127));
    }
    let refusal = Refusal::new(Class::Precondition, "COMMAND_NOT_RUN", format!("{program}: {error}"));
    let refusal = refusal.hint("see whether it can be executed (ls -l, file); the lock is released");
    Failure::from(refusal).ending(ExitCode::OfCommand(126))
}

/// The running command.
pub struct HeldCommand {
    child: Child,
    pid: Pid,
    /// Whether it leads a process group of its own. Not at a terminal: there it shares the one of
    /// whoever typed it, so that it can read what is typed, and gets Ctrl-C itself.
    leads: bool,
}

impl HeldCommand {
    /// Starts it; `errors` is how it says that it cannot be run. To be called on the thread that lives as long as this process: the command dies with
    /// that.
    ///
    /// # Errors
    /// This program cannot start itself.
    pub fn start(command: &[OsString], environment: &[(&str, String)], errors: Format) -> Result<Self, Failure> {
        let leads = !io::stdin().is_terminal();
        let mut starting = tokio::process::Command::new(THIS_PROGRAM);
        let errors = if errors == Format::Table { "table" } else { "json" };
        starting
            .args(["--output", errors, "lock", "become", "--holder", &std::process::id().to_string(), "--"])
            .args(command);
        starting.envs(environment.iter().map(|(name, value)| (name, value)));
        if leads {
            starting.process_group(0);
        }
        let failed =
            |why: String| Failure::new(Class::Internal, "NO_PROCESS", format!("the command cannot be started: {why}"));
        let child = starting.spawn().map_err(|error| failed(error.to_string()))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).unwrap_or_default()));
        Ok(Self { pid: pid.ok_or_else(|| failed("it has no process id".to_owned()))?, child, leads })
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn ended(&mut self) -> Result<ExitStatus, Failure> {
        self.child.wait().await.map_err(|error| {
            Failure::new(Class::Internal, "NO_PROCESS", format!("the command's end is not known: {error}"))
        })
    }

    fn send(&self, signal: Signal) {
        // What has ended already needs no signal.
        _ = if self.leads { kill_process_group(self.pid, signal) } else { kill_process(self.pid, signal) };
    }

    fn left_something(&self) -> bool {
        self.leads && test_kill_process_group(self.pid).is_ok()
    }

    /// Ends it and whatever of its group is left: asks, and kills after this grace, or at once when the
    /// user is impatient.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn end(&mut self, grace: Duration, impatient: impl Future<Output = ()>) -> Result<ExitStatus, Failure> {
        self.send(Signal::TERM);
        let patience = tokio::time::timeout(grace, async {
            let status = self.child.wait().await;
            while self.left_something() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            status
        });
        let begun = Instant::now();
        tokio::select! {
            ended = patience => if let Ok(Ok(status)) = ended { return Ok(status) },
            () = impatient => {}
        }
        tracing::warn!(after_ms = begun.elapsed().as_millis(), "the command did not end: it is killed");
        self.send(Signal::KILL);
        self.ended().await
    }
}

/// The code with which a shell tells such an end.
#[must_use]
pub fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::OfCommand(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_not_there_or_no_program_ends_as_with_env() {
        let failure = not_run(OsStr::new("nothing"), &io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(failure.exit_code.number(), 127);
        let failure = not_run(OsStr::new("/etc/passwd"), &io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(failure.exit_code.number(), 126);
    }

    #[test]
    fn an_end_by_a_signal_is_told_as_a_shell_tells_it() {
        assert_eq!(exit_code(ExitStatus::from_raw(15)).number(), 143);
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)).number(), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(0)).number(), 0);
    }
}
