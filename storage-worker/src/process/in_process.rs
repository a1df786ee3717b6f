//! The simulated side: I/O processes that are tasks of this process. They run the same child loop
//! over memory. A test hangs the storage of a domain, and freezes processes so that a kill does not
//! end them, as a call stuck in the kernel would.

use super::Child;
use super::Exit;
use super::IoProcesses;
use super::OrderRunner;
use super::Threads;
use super::child_loop;
use crate::folder::ChildrenLock;
use crate::work::Order;
use crate::work::Outcome;
use crate::work::Ports;
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Bytes in flight on one direction of a stream, about a socket's buffer.
const PIPE_BYTES: usize = 256 << 10;

/// What a test does to the storage and the processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Weather {
    hung: BTreeSet<Uuid>,
    frozen: bool,
}

/// Starts children as tasks.
#[derive(Clone)]
pub struct InProcess {
    runner: Arc<dyn OrderRunner>,
    weather: watch::Sender<Weather>,
    living: watch::Sender<usize>,
    dying: watch::Sender<usize>,
    kills: Arc<Mutex<Vec<CancellationToken>>>,
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcess").field("living", &*self.living.borrow()).finish_non_exhaustive()
    }
}

impl Default for InProcess {
    fn default() -> Self {
        Self::new(Arc::new(Threads::default()))
    }
}

impl InProcess {
    /// Orders are run by this runner.
    #[must_use]
    pub fn new(runner: Arc<dyn OrderRunner>) -> Self {
        Self {
            runner,
            weather: watch::Sender::new(Weather::default()),
            living: watch::Sender::new(0),
            dying: watch::Sender::new(0),
            kills: Arc::default(),
        }
    }

    /// From now on orders on this domain hang before their first call.
    pub fn hang(&self, domain: Uuid) {
        self.weather.send_modify(|weather| {
            weather.hung.insert(domain);
        });
    }

    /// The domain answers again; what hung goes on.
    pub fn unhang(&self, domain: Uuid) {
        self.weather.send_modify(|weather| {
            weather.hung.remove(&domain);
        });
    }

    /// From now on a killed process is not reaped.
    pub fn freeze(&self) {
        self.weather.send_modify(|weather| weather.frozen = true);
    }

    /// Killed processes end.
    pub fn thaw(&self) {
        self.weather.send_modify(|weather| weather.frozen = false);
    }

    /// Kills every process from outside, as an out-of-memory killer would.
    pub fn kill_all(&self) {
        for kill in self.kills.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            kill.cancel();
        }
    }

    /// How many were killed, or ended, and are not reaped yet.
    #[must_use]
    pub fn dying(&self) -> watch::Receiver<usize> {
        self.dying.subscribe()
    }

    /// How many are not reaped yet, dying ones included.
    #[must_use]
    pub fn living(&self) -> watch::Receiver<usize> {
        self.living.subscribe()
    }
}

/// One process's view: holds orders on hung domains back, and knows when all orders have ended.
struct Weathered {
    inner: Arc<dyn OrderRunner>,
    weather: watch::Receiver<Weather>,
    killed: CancellationToken,
    orders: TaskTracker,
}

impl OrderRunner for Weathered {
    fn run(&self, order: Order, ports: Ports) -> BoxFuture<'static, Outcome> {
        let domain = order.domain().domain;
        let mut weather = self.weather.clone();
        let killed = self.killed.clone();
        let inner = Arc::clone(&self.inner);
        let cancel = ports.cancel.clone();
        let running = self.orders.spawn(async move {
            tokio::select! {
                _ = weather.wait_for(|weather| !weather.hung.contains(&domain)) => {}
                () = killed.cancelled() => return Outcome::Stopped,
            }
            let mut running = inner.run(order, ports);
            tokio::select! {
                outcome = &mut running => outcome,
                () = killed.cancelled() => {
                    // A thread cannot be killed; it sees the flag between two pieces.
                    cancel.set();
                    running.await
                }
            }
        });
        Box::pin(async move { running.await.unwrap_or(Outcome::Stopped) })
    }
}

impl IoProcesses for InProcess {
    fn start(&self, _lock: ChildrenLock) -> BoxFuture<'static, io::Result<Child>> {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (exit, exit_seen) = watch::channel(None);
        let killed = CancellationToken::new();
        self.kills.lock().unwrap_or_else(PoisonError::into_inner).push(killed.clone());
        self.living.send_modify(|living| *living += 1);
        let orders = TaskTracker::new();
        let runner = Weathered {
            inner: Arc::clone(&self.runner),
            weather: self.weather.subscribe(),
            killed: killed.clone(),
            orders: orders.clone(),
        };
        let (living, dying) = (self.living.clone(), self.dying.clone());
        let (mut weather, kill) = (self.weather.subscribe(), killed.clone());
        Box::pin(async move {
            tokio::spawn(async move {
                let mut serving = tokio::spawn(child_loop::serve(theirs, Arc::new(runner)));
                let how = tokio::select! {
                    _ = &mut serving => "exit status: 0",
                    () = killed.cancelled() => "signal: 9 (SIGKILL)",
                };
                dying.send_modify(|dying| *dying += 1);
                killed.cancel();
                serving.abort();
                orders.close();
                orders.wait().await;
                let _ = weather.wait_for(|weather| !weather.frozen).await;
                dying.send_modify(|dying| *dying -= 1);
                living.send_modify(|living| *living -= 1);
                exit.send_replace(Some(Exit(how.to_owned())));
            });
            Ok(Child { pid: 0, stream: Box::new(ours), kill: Arc::new(move || kill.cancel()), exit: exit_seen })
        })
    }
}
