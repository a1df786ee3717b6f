//! Processes of tests. They die with the test's process: the kernel kills a child when the *thread*
//! that started it ends, so one thread, which lives as long as the process, starts them all.

use rustix::process::Pid;
use rustix::process::Signal;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use super::within;

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a child on the thread that outlives every test.
///
/// # Panics
/// It cannot be started.
pub fn spawn(command: Command) -> Child {
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, incoming) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in incoming {
                _ = answer.send(command.spawn());
            }
        });
        requests
    });
    let shown = format!("{command:?}");
    let (answer, answered) = mpsc::channel();
    spawner.send((command, answer)).expect("the spawner lives");
    answered.recv().expect("the spawner answers").unwrap_or_else(|error| panic!("{shown}: {error}"))
}

/// A process in the background. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; stdout and stderr are appended to `log`.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log can be written");
        let again = file.try_clone().expect("a descriptor is free");
        command.stdin(Stdio::null()).stdout(file).stderr(again);
        Self { name: name.to_owned(), child: spawn(command), log: log.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its children now.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.pid())
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Addresses at which it listens, as the kernel lists them: IPv4 and port in hexadecimal.
    pub fn listens_at(&self) -> Vec<String> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).into_iter().flatten();
        let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let own: Vec<String> = targets
            .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let tables = ["/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"];
        let lines = tables.map(|table| std::fs::read_to_string(table).unwrap_or_default()).concat();
        let listening = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // State 0A is LISTEN; 07 is an open UDP socket.
            let open = fields.get(3).is_some_and(|state| ["0A", "07"].contains(state));
            let mine = fields.get(9).is_some_and(|inode| own.iter().any(|own| own == inode));
            (open && mine).then(|| fields[1].to_owned())
        };
        lines.lines().filter_map(listening).collect()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// It does not in that time.
    #[track_caller]
    pub fn ended(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} ends by itself", self.name);
        within(patience, &what, || self.child.try_wait().ok().flatten().ok_or_else(|| "it runs".to_owned()))
    }

    /// What it said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal; to one that is gone, nothing happens.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    _ = rustix::process::kill_process(pid, signal);
}

/// Children of a process, by what /proc says.
pub fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, brackets too.
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    Some((rest.next()?.chars().next()?, rest.next()?.parse().ok()?))
}

/// Processes that are stopped until this is dropped.
pub struct Stopped {
    pids: Vec<u32>,
}

impl Stopped {
    /// Stops them, and waits until they stand still.
    pub fn new(pids: Vec<u32>) -> Self {
        for pid in &pids {
            send(*pid, Signal::STOP);
        }
        let stopped = Self { pids };
        for pid in &stopped.pids {
            within(super::PATIENCE, "a process stands still", || match stat(*pid) {
                Some((state, _)) if state != 'T' => Err(format!("{pid} is in state {state}")),
                _ => Ok(()),
            });
        }
        stopped
    }

    /// Which.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Lets them go on.
    pub fn go_on(self) {}
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.pids {
            send(*pid, Signal::CONT);
        }
    }
}
