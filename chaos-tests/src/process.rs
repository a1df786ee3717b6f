//! The processes of a cluster: how they are started, watched and ended.

use crate::member_process;
use anyhow::Context;
use anyhow::Result;
use rustix::process::Pid;
use rustix::process::Signal;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// What members and workers are processes of.
#[derive(Clone, Debug)]
pub struct Program {
    /// Another program than this one.
    pub sdm: Option<PathBuf>,
    /// Its failpoints, in the form of SDM_FAILPOINTS.
    pub planted: Option<String>,
}

impl Program {
    /// Starts a member. To be called on a thread that lives as long as the member: the kernel ends it
    /// with that thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_member(
        &self,
        name: &str,
        address: &str,
        data_dir: &Path,
        join: Option<&str>,
        log: &Path,
    ) -> Result<Process> {
        let (program, subcommand) = match &self.sdm {
            Some(sdm) => (sdm.clone(), "coordinator"),
            None => (std::env::current_exe()?, member_process::MEMBER),
        };
        let mut command = Command::new(program);
        command.args([subcommand, "--name", name, "--listen", address, "--data-dir"]).arg(data_dir);
        match join {
            Some(address) => command.args(["--join", address]),
            None => command.arg("--bootstrap"),
        };
        match &self.planted {
            Some(planted) => command.env("SDM_FAILPOINTS", planted),
            None => command.env_remove("SDM_FAILPOINTS"),
        };
        Process::start(command, log)
    }

    /// Starts a worker that reaches nothing but its own folder. As with members.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_worker(&self, address: &str, members: &[String], folder: &Path) -> Result<Process> {
        let program = match &self.sdm {
            Some(sdm) => sdm.clone(),
            None => std::env::current_exe()?,
        };
        let data_dir = folder.join("worker");
        let mut command = Command::new(program);
        command.args([member_process::WORKER, "--name", "worker-1", "--listen", address, "--data-dir"]).arg(&data_dir);
        command.args(["--coordinators", &members.join(","), "--reach"]).arg(&data_dir);
        Process::start(command, &folder.join("worker.log"))
    }
}

/// A process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Bytes that earlier processes wrote into the same log.
    said_before: u64,
}

impl Process {
    fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        command.arg(format!("--die-with-parent={}", std::process::id()));
        command.env_remove("SDM_SECRET_FILE").env_remove("SDM_ENDPOINTS");
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let said_before = std::fs::metadata(log)?.len();
        let child = command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned(), said_before })
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        // One that has ended already needs no signal.
        _ = self.child.kill();
        _ = self.child.wait();
    }

    /// Sends the signal of a power cut, without waiting.
    pub fn send_kill(&mut self) {
        _ = self.child.kill();
    }

    /// Tells it to end in order.
    pub fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            _ = rustix::process::kill_process(pid, Signal::TERM);
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it ends by itself.
    pub fn ends_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        loop {
            match self.ended() {
                None if begun.elapsed() < patience => std::thread::sleep(Duration::from_millis(10)),
                ended => return ended,
            }
        }
    }

    /// What this process said.
    pub fn said(&self) -> String {
        let all = std::fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(self.said_before).unwrap_or_default();
        String::from_utf8_lossy(all.get(from..).unwrap_or_default()).into_owned()
    }

    /// The last lines that it said.
    pub fn last_words(&self, lines: usize) -> String {
        let said = self.said();
        let all: Vec<&str> = said.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
