//! The demo's processes: members and workers of this very binary, each with a log of its own. They end
//! with the demo, however it ends, unless the user keeps them.

use crate::output::Failure;
use sdm_proto::refusal::Class;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::Child;
use tokio::process::Command;

/// One running process.
pub struct Process {
    name: String,
    address: String,
    child: Child,
}

/// All of them.
pub struct Processes {
    logs: PathBuf,
    keep: bool,
    running: Vec<Process>,
}

impl Processes {
    /// None yet.
    pub fn new(logs: PathBuf, keep: bool) -> Self {
        Self { logs, keep, running: Vec::new() }
    }

    /// Starts `sdm` with these arguments. To be called on the process's first thread: the kernel ends
    /// the child when the thread that started it ends.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, name: &str, address: &str, arguments: &[&str]) -> Result<(), Failure> {
        let child = self.spawn(name, arguments).map_err(|error| {
            Failure::new(Class::Internal, "CANNOT_START", format!("{name} cannot be started: {error}"))
        })?;
        self.running.push(Process { name: name.to_owned(), address: address.to_owned(), child });
        Ok(())
    }

    fn spawn(&self, name: &str, arguments: &[&str]) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(self.logs.join(format!("{name}.log")))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        // What the user set for commands must not steer these.
        command.env_remove("SDM_ENDPOINTS").env_remove("SDM_SECRET_FILE");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of their own: Ctrl-C is for the demo, which then ends them in its own way.
        command.process_group(0).kill_on_drop(true);
        if !self.keep {
            command.arg(format!("--die-with-parent={}", std::process::id()));
        }
        command.spawn()
    }

    /// Kills one, as a power cut would.
    ///
    /// # Errors
    /// There is none of that name, or it ended before.
    pub async fn kill(&mut self, name: &str) -> Result<u32, Failure> {
        let at = self.running.iter().position(|process| process.name == name);
        let missing = || Failure::new(Class::Internal, "NO_SUCH_PROCESS", format!("{name} is not running"));
        let mut process = self.running.remove(at.ok_or_else(missing)?);
        let id = process.child.id().ok_or_else(missing)?;
        process.child.kill().await.map_err(|error| {
            Failure::new(Class::Internal, "CANNOT_KILL", format!("{name} (pid {id}) cannot be killed: {error}"))
        })?;
        Ok(id)
    }

    /// The first process that ended although nobody wanted it to.
    pub fn ended(&mut self) -> Option<Failure> {
        let mut ended = self.running.iter_mut().filter_map(|process| match process.child.try_wait() {
            Ok(Some(status)) => Some(format!("{} ended by itself ({status})", process.name)),
            _ => None,
        });
        ended.next().map(|message| Failure::new(Class::Aborted, "PROCESS_ENDED", message))
    }

    /// Names, addresses and process ids of those that run.
    pub fn list(&self) -> impl Iterator<Item = (&str, &str, u32)> {
        self.running.iter().filter_map(|process| Some((&*process.name, &*process.address, process.child.id()?)))
    }

    /// Ends all and waits until they are gone.
    pub async fn stop(&mut self) {
        for process in &mut self.running {
            // One that has ended already needs no signal.
            _ = process.child.kill().await;
        }
        self.running.clear();
    }

    /// Lets them live on.
    pub fn release(&mut self) {
        for process in self.running.drain(..) {
            // Dropping the handle would kill the child; its end belongs to the user now.
            std::mem::forget(process.child);
        }
    }
}
