//! A member's disk in one value: its log database, its snapshots, its own folder, and where their
//! blocking work runs. Made by the real or the simulated side; used by `open`.

use super::Files;
use super::LogDatabase;
use super::OpenFolderError;
use super::real;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::sync::watch;

/// How much less of a busy processor work in the background gets: a third of what a thread gets that
/// answers clients. With less, a snapshot of a large state would take longer than the log may grow.
const BACKGROUND_NICE: i32 = 5;

/// Where work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Execution {
    /// The log writer and its witness are threads of their own, blocking work goes to tokio's blocking pool.
    Threads,
    /// The log writer and its witness are tasks and blocking work runs in place: a simulation has one thread, and
    /// its disk never blocks.
    Tasks,
}

/// A member's disk. Clones share it; the folder stays locked until the last clone is gone.
#[derive(Clone, Debug)]
pub struct MemberDisk {
    pub(crate) log: Arc<dyn LogDatabase>,
    pub(crate) root: Arc<dyn Files>,
    pub(crate) snapshots: Arc<dyn Files>,
    pub(crate) execution: Execution,
    pub(crate) closed: Closed,
}

impl MemberDisk {
    /// Opens a member's folder and locks it. It is created if missing; `lost+found` is ignored.
    /// The log is recovered here, which reads it once.
    ///
    /// # Errors
    /// When another process has it, when it holds something else than a member, or what the file
    /// system or the log database met.
    pub async fn open(folder: impl Into<PathBuf>) -> Result<MemberDisk, OpenFolderError> {
        let folder = folder.into();
        let shown = folder.clone();
        match tokio::task::spawn_blocking(move || real::open(&folder)).await {
            Ok(opened) => opened,
            Err(panic) => Err(OpenFolderError::Log { folder: shown, source: io::Error::other(panic) }),
        }
    }

    /// Runs blocking work where it holds up nobody.
    ///
    /// # Errors
    /// The work's own; an error if it panicked.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.execution.blocking(work).await
    }

    /// Runs blocking work that takes seconds of a processor and is in no hurry: where processors are scarce,
    /// whoever answers clients comes first.
    ///
    /// # Errors
    /// The work's own; an error if it panicked or got no thread.
    pub(crate) async fn in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.execution.in_background(work).await
    }

    /// The member's own folder, for small files beside its identity. Their names begin with
    /// `identity.json.` or the folder of a member that died young would seem foreign.
    pub fn root(&self) -> Arc<dyn Files> {
        self.root.clone()
    }

    /// Resolves once every handle on this disk is gone and the folder can be opened again.
    pub fn closed(&self) -> Closed {
        self.closed.clone()
    }
}

impl Execution {
    pub(crate) async fn blocking<T: Send + 'static>(
        self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Execution::Tasks => work(),
            Execution::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(error) => Err(io::Error::other(error)),
            },
        }
    }

    async fn in_background<T: Send + 'static>(
        self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self == Execution::Tasks {
            return work();
        }
        let (end, ended) = oneshot::channel();
        // A thread of its own: without privileges none gets its priority back.
        std::thread::Builder::new().name("background".to_owned()).spawn(move || {
            if let Err(error) = rustix::process::nice(BACKGROUND_NICE) {
                tracing::debug!(%error, "work in the background runs as if it were in a hurry");
            }
            let _ = end.send(work());
        })?;
        ended.await.unwrap_or_else(|_| Err(io::Error::other("work in the background ended in a panic")))
    }

    /// Starts a part of the log that may block: its writer, or what follows behind it.
    pub(crate) fn start(self, name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        match self {
            Execution::Tasks => {
                tokio::spawn(work);
            }
            Execution::Threads => {
                // No I/O driver: it waits only for its queue and for time.
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
                std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(work))?;
            }
        }
        Ok(())
    }
}

/// Tells when a disk was let go by all its users.
#[derive(Clone, Debug)]
pub struct Closed(watch::Receiver<()>);

impl Closed {
    /// The handle and the guard whose end it reports.
    pub(crate) fn pair() -> (watch::Sender<()>, Closed) {
        let (sender, receiver) = watch::channel(());
        (sender, Closed(receiver))
    }

    /// Waits until the last handle is gone.
    pub async fn wait(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}
