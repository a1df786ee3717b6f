//! A member as a process of its own: this program again, with a hidden subcommand that does what
//! `sdm coordinator` does, by the same call on the same crates. So the program that breaks things and
//! the members that it breaks are of one build, and a planted bug is compiled into this program alone.
//! `--sdm PATH` runs that program's `coordinator` instead.

use anyhow::Context;
use anyhow::Result;
use clap::Parser;
use rustix::process::Pid;
use rustix::process::Signal;
use sdm_coordinator::MemberConfig;
use sdm_coordinator::Start;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "member";

/// Its options: those of `sdm coordinator` that are needed here.
#[derive(Parser, Debug)]
struct MemberOptions {
    #[arg(long)]
    name: String,
    #[arg(long)]
    listen: String,
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long)]
    bootstrap: bool,
    #[arg(long)]
    join: Option<String>,
    #[arg(long, require_equals = true)]
    die_with_parent: u32,
}

/// Runs a member until SIGTERM.
pub fn main() -> ExitCode {
    match MemberOptions::try_parse_from(std::env::args_os().skip(1)).map_err(anyhow::Error::from).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: MemberOptions) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().and_then(|parent| u32::try_from(parent.as_raw_nonzero().get()).ok());
    anyhow::ensure!(parent == Some(options.die_with_parent), "the starter is gone already");
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,openraft=error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let start = match options.join {
        Some(address) => Start::Join(address),
        None if options.bootstrap => Start::Bootstrap,
        None => Start::Resume,
    };
    let config = MemberConfig::new(options.name.parse()?, options.listen, options.data_dir, start);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = async move {
            terminate.recv().await;
        };
        sdm_coordinator::run(config, shutdown).await.map_err(|error| anyhow::anyhow!("{}", error.refusal()))
    });
    runtime.shutdown_background();
    ended
}

/// How a member's process is started.
#[derive(Clone, Debug)]
pub struct MemberProgram {
    /// Another program than this one.
    pub sdm: Option<PathBuf>,
    /// Its failpoints, in the form of SDM_FAILPOINTS.
    pub planted: Option<String>,
}

impl MemberProgram {
    /// Starts a member. To be called on a thread that lives as long as the member: the kernel ends it
    /// with that thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, name: &str, address: &str, data_dir: &Path, join: Option<&str>, log: &Path) -> Result<Member> {
        let (program, subcommand) = match &self.sdm {
            Some(sdm) => (sdm.clone(), "coordinator"),
            None => (std::env::current_exe()?, SUBCOMMAND),
        };
        let file = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&program);
        command.args([subcommand, "--name", name, "--listen", address, "--data-dir"]).arg(data_dir);
        match join {
            Some(address) => command.args(["--join", address]),
            None => command.arg("--bootstrap"),
        };
        command.arg(format!("--die-with-parent={}", std::process::id()));
        command.env_remove("SDM_SECRET_FILE").env_remove("SDM_ENDPOINTS").env_remove("SDM_FAILPOINTS");
        if let Some(planted) = &self.planted {
            command.env("SDM_FAILPOINTS", planted);
        }
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let said_before = std::fs::metadata(log)?.len();
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        Ok(Member { child, log: log.to_owned(), said_before })
    }
}

/// A member's process. Dropping it kills it.
#[derive(Debug)]
pub struct Member {
    child: Child,
    log: PathBuf,
    /// Bytes that earlier processes of the same member wrote into the log.
    said_before: u64,
}

impl Member {
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

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
