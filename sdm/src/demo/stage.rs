//! What the story happens on: the folder, the processes, the client, and waiting for a condition.

use super::folder::DemoFolder;
use super::ports::free_addresses;
use super::processes::Processes;
use crate::context::Context;
use crate::output::Failure;
use crate::output::Format;
use crate::output::Printer;
use crate::shutdown::Shutdown;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::refusal::Class;
use sdm_proto::seams::TcpTransport;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

/// Members of the demo's cluster.
pub const MEMBERS: [&str; 3] = ["node-a", "node-b", "node-c"];

/// Workers, with the shelf that each reaches.
pub const WORKERS: [(&str, &str); 2] = [("host-1", "shelf-1"), ("host-2", "shelf-2")];

/// Steps of the story.
const STEPS: usize = 11;

/// How long any condition may take. Each takes a second or two; on a loaded machine, more.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often a condition is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The stage.
pub struct Stage {
    folder: DemoFolder,
    /// Members and workers.
    pub processes: Processes,
    /// Addresses of the members, in the order of `MEMBERS`.
    pub members: Vec<String>,
    /// Addresses of the workers.
    pub workers: Vec<String>,
    /// Talks to any member.
    pub context: Context,
    step: usize,
}

impl Stage {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// There are no free ports.
    pub fn new(folder: DemoFolder, keep: bool) -> Result<Self, Failure> {
        let mut members = free_addresses(MEMBERS.len() + WORKERS.len())?;
        let workers = members.split_off(MEMBERS.len());
        let context = context_of(&members)?;
        let processes = Processes::new(folder.logs(), keep);
        Ok(Self { folder, processes, members, workers, context, step: 0 })
    }

    /// A path in the demo's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client that talks to these members only.
    ///
    /// # Errors
    /// An address does not read as one.
    pub fn only(&self, members: &[&str]) -> Result<Context, Failure> {
        let of_all = MEMBERS.iter().zip(&self.members);
        let addresses: Vec<String> =
            of_all.filter(|(name, _)| members.contains(name)).map(|(_, address)| address.clone()).collect();
        context_of(&addresses)
    }

    /// Tells the next step.
    pub fn step(&mut self, text: &str) {
        self.step += 1;
        tell(&format!("[{:>2}/{STEPS}] {text}", self.step));
    }

    /// Tells what a step brought.
    pub fn result(&self, text: &str) {
        tell(&format!("        {text}"));
    }

    /// Tells several lines.
    pub fn text(&self, text: &str) {
        text.lines().for_each(|line| self.result(line));
    }

    /// Tells the command with which an operator does the same.
    pub fn command(&self, text: &str) {
        tell(&format!("        $ sdm {text}"));
    }

    /// Waits until `look` finds what it looks for.
    ///
    /// # Errors
    /// It does not within the patience, or a process ended meanwhile.
    pub async fn until<T>(&mut self, what: &str, mut look: impl AsyncFnMut(&Context) -> Look<T>) -> Result<T, Failure> {
        let begun = Instant::now();
        loop {
            let why = match look(&self.context).await {
                Look::Found(found) => return Ok(found),
                Look::NotYet(why) => why,
            };
            if let Some(failure) = self.processes.ended() {
                return Err(failure);
            }
            if begun.elapsed() > PATIENCE {
                let message = format!("{what}: not within {} s ({why})", PATIENCE.as_secs());
                return Err(Failure::new(Class::Aborted, "DEMO_FAILED", message));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// The end: processes gone, or left to the user with the way to talk to them.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub async fn close(mut self, keep: bool) -> Result<(), Failure> {
        if !keep {
            self.processes.stop().await;
            return self.folder.remove();
        }
        let running: Vec<_> = self.processes.list().collect();
        let is_member = |(name, _, _): &&(&str, &str, u32)| MEMBERS.contains(name);
        let endpoints: Vec<_> = running.iter().filter(is_member).map(|(_, address, _)| *address).collect();
        let pids: Vec<_> = running.iter().map(|(_, _, pid)| pid.to_string()).collect();
        tell(&format!("\nthe cluster stays up in {}; talk to it:", self.folder.path().display()));
        tell(&format!("  export SDM_ENDPOINTS={}\n  sdm status", endpoints.join(",")));
        tell(&format!("end it:  kill {}", pids.join(" ")));
        self.processes.release();
        Ok(())
    }
}

/// What looking at a condition brought.
pub enum Look<T> {
    /// It holds.
    Found(T),
    /// It does not hold yet; this is how it stands.
    NotYet(String),
}

fn context_of(addresses: &[String]) -> Result<Context, Failure> {
    let printer = Printer { format: Format::Table };
    // The whole demo ends at a signal, whatever it asks just then.
    Context::new(addresses, ClusterSecret::default(), Arc::new(TcpTransport), printer, Shutdown::never())
}

// A reader that went away (`| head`) does not stop the show: its exit code still counts.
fn tell(text: &str) {
    let mut stdout = std::io::stdout().lock();
    _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}
