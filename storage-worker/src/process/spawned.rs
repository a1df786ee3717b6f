//! Real I/O processes: this program again, with the hidden subcommand.
//!
//! Each child asks the kernel to kill it when its parent dies. The kernel means the *thread* that
//! made it, so one thread of its own, which lives as long as the supervisor, makes all children.

use super::Child;
use super::Exit;
use super::IoProcesses;
use crate::folder::ChildrenLock;
use futures_util::future::BoxFuture;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::sync::watch;

/// The running program's own file, also after an upgrade replaced it under its name.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The hidden subcommand.
const SUBCOMMAND: &str = "io-process";

struct Started {
    process: std::process::Child,
    socket: UnixStream,
}

struct Request {
    lock: ChildrenLock,
    answer: oneshot::Sender<io::Result<Started>>,
}

/// Starts children as real processes.
#[derive(Debug)]
pub struct SpawnedProcesses {
    program: PathBuf,
    arguments: Vec<OsString>,
    spawner: Mutex<Option<mpsc::Sender<Request>>>,
}

impl Default for SpawnedProcesses {
    fn default() -> Self {
        Self::new(THIS_PROGRAM, [SUBCOMMAND])
    }
}

impl SpawnedProcesses {
    /// Children are this program with these arguments; it must call `io_process_main`.
    pub fn new<A: Into<OsString>>(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program: program.into(), arguments, spawner: Mutex::new(None) }
    }

    /// The thread that makes children, started with the first of them.
    fn spawner(&self) -> io::Result<mpsc::Sender<Request>> {
        let mut spawner = self.spawner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requests) = &*spawner {
            return Ok(requests.clone());
        }
        let (requests, incoming) = mpsc::channel::<Request>();
        let (program, arguments) = (self.program.clone(), self.arguments.clone());
        std::thread::Builder::new().name("spawner".into()).spawn(move || {
            for Request { lock, answer } in incoming {
                let started = spawn(&program, &arguments, &lock);
                if let Err(Ok(unwanted)) = answer.send(started) {
                    discard(unwanted);
                }
            }
        })?;
        *spawner = Some(requests.clone());
        Ok(requests)
    }
}

/// Nobody waits for this child any more (its starter was stopped meanwhile).
fn discard(started: Started) {
    let Started { mut process, socket } = started;
    drop(socket);
    // It has no work yet, so it ends at once.
    let _ = process.kill();
    let _ = process.wait();
}

fn spawn(program: &PathBuf, arguments: &[OsString], lock: &ChildrenLock) -> io::Result<Started> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(program);
    command
        .arg0("sdm")
        .args(arguments)
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(lock.share()?.map_or_else(Stdio::null, Stdio::from))
        .stderr(Stdio::inherit());
    let process = command.spawn()?;
    Ok(Started { process, socket: ours })
}

/// Registers the waiter and makes the handle.
fn watch(started: Started) -> io::Result<Child> {
    let Started { mut process, socket } = started;
    let pid = process.id();
    let prepared = (|| {
        socket.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(socket)?;
        let pidfd = rustix::process::pidfd_open(rustix::process::Pid::from_child(&process), PidfdFlags::NONBLOCK)?;
        // SAFETY: an `OwnedFd` is one open descriptor for as long as it lives, and the `AsyncFd`
        // owns it from here on.
        let pidfd = unsafe { AsyncFd::register(pidfd) }?;
        Ok::<_, io::Error>((stream, Arc::new(pidfd)))
    })();
    let (stream, pidfd) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let _ = process.kill();
            let _ = process.wait();
            return Err(error);
        }
    };
    let (exit, exit_seen) = watch::channel(None);
    tokio::spawn(reap(process, Arc::clone(&pidfd), exit));
    let kill = move || {
        // Fails only for a process that has ended.
        let _ = rustix::process::pidfd_send_signal(pidfd.as_fd(), Signal::KILL);
    };
    Ok(Child { pid, stream: Box::new(stream), kill: Arc::new(kill), exit: exit_seen })
}

/// Waits for the end of one child, so that none stays a zombie.
async fn reap(mut process: std::process::Child, pidfd: Arc<AsyncFd<OwnedFd>>, exit: watch::Sender<Option<Exit>>) {
    loop {
        let readiness = pidfd.readable().await;
        match process.try_wait() {
            Ok(Some(status)) => {
                exit.send_replace(Some(Exit(status.to_string())));
                return;
            }
            Ok(None) => match readiness {
                Ok(mut guard) => guard.clear_ready(),
                Err(error) => tracing::warn!(pid = process.id(), %error, "an I/O process cannot be watched"),
            },
            Err(error) => {
                // Somebody else reaped it, so it did end.
                exit.send_replace(Some(Exit(format!("unknown ({error})"))));
                return;
            }
        }
    }
}

impl IoProcesses for SpawnedProcesses {
    fn start(&self, lock: ChildrenLock) -> BoxFuture<'static, io::Result<Child>> {
        let spawner = self.spawner();
        Box::pin(async move {
            let gone = || io::Error::other("the thread that starts I/O processes is gone");
            let (answer, answered) = oneshot::channel();
            spawner?.send(Request { lock, answer }).map_err(|_| gone())?;
            watch(answered.await.map_err(|_| gone())??)
        })
    }
}
