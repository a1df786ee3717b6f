//! One domain's process: a child for its probes and short steps, watched for hangs. A child that
//! does not answer a probe in time is given up (killed), and another takes its place as long as not
//! too many of those given up are still unreaped. Only this domain is touched by all that.

use super::reachability::Probe;
use super::reachability::Reachability;
use crate::folder::ChildrenLock;
use crate::gateway::Outbox;
use crate::process::IoProcess;
use crate::process::IoProcesses;
use crate::process::ORDERS_MAX;
use crate::process::OrderEnd;
use crate::process::RunningOrder;
use crate::work;
use crate::work::DomainRoot;
use crate::work::Order;
use crate::work::Outcome;
use sdm_proto::seams::Clock;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

/// Time between two probes.
const PROBE_INTERVAL_MS: u64 = 2_000;

/// A bad probe is confirmed this soon.
const CONFIRM_MS: u64 = 500;

/// How long a probe may take. A busy disk takes a second; an NFS server that restarts is noticed.
const PROBE_DEADLINE_MS: u64 = 6_000;

/// Children of one domain that live or wait to be reaped. More would pile up behind a mount that
/// hangs in a way that no signal ends.
pub(crate) const CHILDREN_MAX: usize = 3;

/// Steps that a child runs at once, beside a probe.
const STEPS_MAX: usize = ORDERS_MAX - 1;

/// Steps that wait for the domain's process.
const STEPS_WAITING_MAX: usize = 16;

/// Why a step was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotStarted {
    /// Too many processes of the domain do not end.
    #[error("the domain's I/O hangs: {CHILDREN_MAX} processes that were killed did not end")]
    Hung,
    /// The system gives no process.
    #[error("no I/O process can be started: {0}")]
    NoProcess(String),
    /// The domain is not this worker's affair any more.
    #[error("the domain's process is being stopped")]
    Ending,
}

struct Step {
    order: Order,
    answer: oneshot::Sender<Result<RunningOrder, NotStarted>>,
}

/// A handle. When the last one is dropped, the process ends.
#[derive(Debug, Clone)]
pub(super) struct DomainProcess {
    steps: mpsc::Sender<Step>,
    slots: Arc<Semaphore>,
    probing: Arc<watch::Sender<bool>>,
    killing: Arc<Notify>,
}

/// A place among the orders that a domain's child runs at once.
pub(super) struct Slot(#[expect(dead_code, reason = "held, not used")] Option<OwnedSemaphorePermit>);

/// Where domain processes come from.
#[derive(Clone)]
pub(super) struct DomainProcesses {
    pub(super) processes: Arc<dyn IoProcesses>,
    pub(super) lock: ChildrenLock,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) outbox: Outbox,
}

impl DomainProcesses {
    /// The process of a domain; nothing is started before something is to do.
    pub(super) fn of(&self, root: DomainRoot) -> DomainProcess {
        let (steps, waiting) = mpsc::channel(STEPS_WAITING_MAX);
        let killing = Arc::new(Notify::new());
        let (probing, probing_seen) = watch::channel(false);
        let watched = WatchedDomain {
            id: root.domain.to_string(),
            root,
            from: self.clone(),
            steps: waiting,
            killing: Arc::clone(&killing),
            probing: probing_seen,
            process: None,
            probe: None,
            next_probe_ms: 0,
            children: Arc::new(Semaphore::new(CHILDREN_MAX)),
            seen: Reachability::default(),
        };
        tokio::spawn(watched.run());
        let slots = Arc::new(Semaphore::new(STEPS_MAX));
        DomainProcess { steps, slots, probing: Arc::new(probing), killing }
    }
}

impl DomainProcess {
    /// Waits until the child can take a step, and keeps the place for as long as the answer lives.
    pub(super) async fn slot(&self) -> Slot {
        // Nobody closes the semaphore.
        Slot(Arc::clone(&self.slots).acquire_owned().await.ok())
    }

    /// Starts a step.
    ///
    /// # Errors
    /// No process can be had for it now.
    pub(super) async fn run(&self, order: Order) -> Result<RunningOrder, NotStarted> {
        let (answer, answered) = oneshot::channel();
        self.steps.send(Step { order, answer }).await.map_err(|_| NotStarted::Ending)?;
        answered.await.map_err(|_| NotStarted::Ending)?
    }

    /// Kills the child, and with it all its steps. Probes go on in another.
    pub(super) fn kill(&self) {
        self.killing.notify_one();
    }

    /// Whether it is probed.
    pub(super) fn is_probed(&self) -> bool {
        *self.probing.borrow()
    }

    /// Whether it is to be probed.
    pub(super) fn probe(&self, wanted: bool) {
        self.probing.send_if_modified(|probing| std::mem::replace(probing, wanted) != wanted);
    }
}

/// The state of a domain's task.
struct WatchedDomain {
    id: String,
    root: DomainRoot,
    from: DomainProcesses,
    steps: mpsc::Receiver<Step>,
    killing: Arc<Notify>,
    probing: watch::Receiver<bool>,
    process: Option<IoProcess>,
    /// A probe on its way and its deadline.
    probe: Option<(RunningOrder, u64)>,
    next_probe_ms: u64,
    children: Arc<Semaphore>,
    seen: Reachability,
}

enum Event {
    Step(Box<Step>),
    Kill,
    ProbingChanged,
    ProbeEnded(OrderEnd),
    Timer,
    Over,
}

impl WatchedDomain {
    async fn run(mut self) {
        loop {
            match self.next_event().await {
                Event::Over => return,
                Event::Step(step) => {
                    let Step { order, answer } = *step;
                    let _ = answer.send(self.start_step(order).await);
                }
                Event::Kill => self.give_up(),
                Event::ProbingChanged => {
                    self.seen = Reachability::default();
                    self.next_probe_ms = 0;
                }
                Event::ProbeEnded(end) => {
                    self.probe = None;
                    self.on_probe(found(end));
                }
                Event::Timer => self.on_timer().await,
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let probing = *self.probing.borrow();
        let timer_ms = match &self.probe {
            Some((_, deadline_ms)) => *deadline_ms,
            None if probing => self.next_probe_ms,
            None => u64::MAX,
        };
        let probe_ended = async {
            match &mut self.probe {
                Some((probe, _)) => probe.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            step = self.steps.recv() => step.map_or(Event::Over, |step| Event::Step(Box::new(step))),
            () = self.killing.notified() => Event::Kill,
            changed = self.probing.changed() => if changed.is_ok() { Event::ProbingChanged } else { Event::Over },
            end = probe_ended => Event::ProbeEnded(end),
            () = self.from.clock.sleep_until(timer_ms) => Event::Timer,
        }
    }

    /// The living child, or a new one.
    async fn process(&mut self) -> Result<IoProcess, NotStarted> {
        if let Some(process) = self.process.as_ref().filter(|process| !process.is_reaped()) {
            return Ok(process.clone());
        }
        self.process = None;
        let permit = Arc::clone(&self.children).try_acquire_owned().map_err(|_| NotStarted::Hung)?;
        let lock = self.from.lock.serving(std::slice::from_ref(&self.root.path));
        let child = self.from.processes.start(lock).await;
        let process = IoProcess::new(child.map_err(|error| NotStarted::NoProcess(error.to_string()))?);
        tracing::debug!(domain = self.id, pid = process.pid(), "an I/O process serves the domain");
        let exit = process.exit();
        tokio::spawn(async move {
            exit.reaped().await;
            drop(permit);
        });
        self.process = Some(process.clone());
        Ok(process)
    }

    async fn start_step(&mut self, order: Order) -> Result<RunningOrder, NotStarted> {
        Ok(self.process().await?.submit(order).await)
    }

    /// Kills the child and forgets it; whoever waits for its orders learns when it was reaped.
    fn give_up(&mut self) {
        self.probe = None;
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    async fn on_timer(&mut self) {
        if self.probe.take().is_some() {
            let message = format!("the domain's I/O hangs: a probe took more than {} s", PROBE_DEADLINE_MS / 1000);
            tracing::warn!(domain = self.id, "a probe hangs; its process is given up");
            self.give_up();
            return self.on_probe(Probe::Hung { message });
        }
        match self.process().await {
            Ok(process) => {
                let probe = process.submit(Order::ProbeDomain(self.root.clone())).await;
                self.probe = Some((probe, self.from.clock.now_ms() + PROBE_DEADLINE_MS));
            }
            Err(error @ NotStarted::Hung) => self.on_probe(Probe::Hung { message: error.to_string() }),
            Err(error) => self.on_probe(Probe::Bad { reason: "NO_PROCESS".to_owned(), message: error.to_string() }),
        }
    }

    fn on_probe(&mut self, probe: Probe) {
        let now_ms = self.from.clock.now_ms();
        if !*self.probing.borrow() {
            return;
        }
        let before = self.seen.shown_reachable();
        if let Some(report) = self.seen.observe(&self.id, probe, now_ms) {
            if before == Some(report.reachable) {
                tracing::debug!(
                    domain = self.id,
                    free_bytes = report.free_bytes,
                    why = report.message,
                    "domain probed"
                );
            } else if report.reachable {
                tracing::info!(domain = self.id, free_bytes = report.free_bytes, "the domain is reachable");
            } else {
                tracing::warn!(
                    domain = self.id,
                    reason = report.reason,
                    why = report.message,
                    "the domain is unreachable"
                );
            }
            self.from.outbox.domain(report);
        }
        self.next_probe_ms = now_ms + if self.seen.is_in_doubt() { CONFIRM_MS } else { PROBE_INTERVAL_MS };
    }
}

fn found(end: OrderEnd) -> Probe {
    let bad = |reason: &str, message: String| Probe::Bad { reason: reason.to_owned(), message };
    match end {
        OrderEnd::Outcome(Outcome::Done(work::Done::DomainProbed(report))) => Probe::Good(report),
        OrderEnd::Outcome(Outcome::Refused(refusal)) => bad(refusal.code.as_str(), refusal.message),
        OrderEnd::Outcome(Outcome::Failed(failure)) => bad("IO_ERROR", failure.message),
        OrderEnd::Outcome(outcome) => bad("INTERNAL", format!("a probe ended as {outcome:?}")),
        OrderEnd::ProcessGone(exit) => bad("PROCESS_DIED", format!("the domain's I/O process ended: {}", exit.0)),
    }
}
