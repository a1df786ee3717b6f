//! One seed, in a process of its own: builds the simulated hosts, steps them, drives the phases and the nemesis, and
//! reports. Nothing here waits for real time.

use super::clients;
use super::clients::Knowledge;
use super::heard;
use super::heard::Listening;
use super::hosts;
use super::kernel::Simulated;
use super::membership_client;
use super::nemesis::Nemesis;
use super::observer;
use super::operator;
use super::plan::Plan;
use super::plan::Planted;
use super::plan::Workload;
use super::shared::Phase;
use super::shared::Shared;
use crate::checkers;
use crate::history::Promise;
use anyhow::Result;
use serde_json::json;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use turmoil::Sim;

/// A simulation's step: links and timers are no finer.
const TICK: Duration = Duration::from_millis(1);

/// Segments that a simulated socket holds, and connections that wait to be accepted. turmoil panics past the latter.
const SOCKET_CAPACITY: usize = 65_536;

/// Stack of the simulation's thread: debug builds of services are deep.
const STACK_BYTES: usize = 64 << 20;

/// How long clients may take to finish what they began, after everything was healed.
const FINISH_TIME: Duration = Duration::from_secs(240);

/// Longest simulated time of a run.
const RUN_TIME: Duration = Duration::from_secs(1_200);

/// Operations that are tried on one lock or disk to find an order. Histories of a run need some thousands.
const ORDER_STEPS: u64 = 300_000;

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// One seed, as its process is told.
#[derive(Clone, Debug)]
pub struct SeedRun {
    /// The seed.
    pub seed: u64,
    /// What the clients do.
    pub workload: Workload,
    /// A defect that must be found.
    pub planted: Option<Planted>,
    /// Folder for history and log, made if missing.
    pub trace: Option<std::path::PathBuf>,
    /// What the log holds, as in RUST_LOG.
    pub log: String,
}

struct SimTime;

impl tracing_subscriber::fmt::time::FormatTime for SimTime {
    fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:>10.3}", turmoil::sim_elapsed().unwrap_or_default().as_secs_f64())
    }
}

impl SeedRun {
    /// Runs it, prints the report as one line of JSON, and ends the process.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn run(&self) -> Result<ExitCode> {
        if let Some(planted) = self.planted {
            planted.plant()?;
        }
        self.listen()?;
        std::panic::set_hook(Box::new(|panic| {
            PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
        }));
        let simulated = Simulated::begin(self.seed);
        // A thread that has drawn nothing yet: the standard library and rand keep what they drew first by thread.
        let run = self.clone();
        let running = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || run.simulate(simulated))?;
        running.join().unwrap_or_else(|_| anyhow::bail!("the simulation panicked: {:?}", PANICS.lock()))
    }

    /// Has the product's words written down where that was asked for, and listened to.
    fn listen(&self) -> Result<()> {
        let listening = Listening.with_filter(tracing_subscriber::filter::filter_fn(heard::listens_to));
        let written = match &self.trace {
            None => None,
            Some(folder) => {
                std::fs::create_dir_all(folder)?;
                let log = std::io::LineWriter::new(File::create(folder.join("log"))?);
                let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_timer(SimTime);
                let filter = tracing_subscriber::EnvFilter::new(&self.log);
                Some(layer.with_writer(Mutex::new(log)).with_filter(filter))
            }
        };
        tracing_subscriber::registry().with(written).with(listening).init();
        Ok(())
    }

    fn simulate(self, simulated: Simulated) -> Result<ExitCode> {
        let plan = Plan { planted: self.planted, ..Plan::draw(self.seed, self.workload) };
        let shared = Shared::new(plan.clone(), plan.client_hosts * clients::LOCK_CLIENTS);
        let knowledge = Knowledge::default();
        let mut sim = build(&plan);
        register(&mut sim, &shared, &knowledge);
        shared.history.event("info", "nemesis", "plan", &self.seed.to_string(), json!(plan.words()));
        drive(&mut sim, &shared);
        judge(&shared);
        // What destructors do is no part of the run.
        drop(simulated);
        if let Some(folder) = &self.trace {
            self.write_down(folder, &shared)?;
        }
        println!("{}", self.report(&shared, &sim));
        std::process::exit(i32::from(!shared.history.violations().is_empty()));
    }

    fn write_down(&self, folder: &Path, shared: &Shared) -> Result<()> {
        std::fs::write(folder.join("history.jsonl"), shared.history.events())?;
        std::fs::write(folder.join("storage"), shared.storage.journal.lines())?;
        let hashes: Vec<String> = shared.seen().hashes.iter().map(|(at, (hash, _))| format!("{at} {hash}\n")).collect();
        std::fs::write(folder.join("states"), hashes.concat())?;
        Ok(())
    }

    fn report(&self, shared: &Shared, sim: &Sim<'_>) -> serde_json::Value {
        let (changes, published, taken) = shared.storage.journal.counts();
        let mut coverage = shared.coverage().clone();
        coverage.add("storage-changes", changes);
        coverage.add("placements-published", published);
        coverage.add("placements-deleted", taken);
        coverage.add("late-publications", shared.storage.journal.late());
        for (what, times) in heard::counts() {
            coverage.add(what, times);
        }
        let counts = shared.history.record().counts;
        coverage.add("unknown-answers", counts.unknown);
        let violations: Vec<String> = shared.history.violations().iter().map(ToString::to_string).collect();
        json!({
            "seed": self.seed,
            "simulated_s": sim.elapsed().as_secs(),
            "operations": counts.acknowledged,
            "unknown": counts.unknown,
            "compared": counts.compared,
            "coverage": coverage.0,
            "violations": violations,
            "plan": shared.plan.words(),
        })
    }
}

fn build(plan: &Plan) -> Sim<'static> {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(plan.seed)
        .tick_duration(TICK)
        .simulation_duration(RUN_TIME * 2)
        .min_message_latency(plan.latency.0)
        .max_message_latency(plan.latency.1)
        .tcp_capacity(SOCKET_CAPACITY)
        .enable_random_order();
    builder.build()
}

fn register(sim: &mut Sim<'static>, shared: &Arc<Shared>, knowledge: &Knowledge) {
    for name in shared.plan.member_names() {
        let (shared, host) = (shared.clone(), name.clone());
        sim.host(name.as_str(), move || hosts::member(host.clone(), shared.clone()));
    }
    for name in shared.plan.worker_names() {
        let (shared, host) = (shared.clone(), name.clone());
        sim.host(name.as_str(), move || hosts::worker(host.clone(), shared.clone()));
    }
    for (number, name) in shared.plan.client_names().into_iter().enumerate() {
        let (shared, host, knowledge) = (shared.clone(), name.clone(), knowledge.clone());
        sim.host(name.as_str(), move || clients::host(host.clone(), number, shared.clone(), knowledge.clone()));
    }
    let changing = shared.clone();
    sim.host(membership_client::NAME, move || membership_client::host(changing.clone()));
    let seeing = shared.clone();
    sim.host(observer::NAME, move || observer::host(seeing.clone()));
    let (shared, shelf) = (shared.clone(), knowledge.shelf.clone());
    sim.host(operator::NAME, move || operator::host(shared.clone(), shelf.clone()));
}

/// What was told, as a whole.
fn judge(shared: &Shared) {
    let judgement = checkers::judge(&shared.history.recorded(), ORDER_STEPS);
    for (promise, what) in judgement.broken {
        shared.violated(promise, what);
    }
    for what in &judgement.unknown {
        shared.history.event("info", "checker", "undecided", "", json!(what));
    }
    let mut coverage = shared.coverage();
    coverage.add("operations-in-order", u64::try_from(judgement.ordered).unwrap_or(u64::MAX));
    coverage.add("undecided", u64::try_from(judgement.unknown.len()).unwrap_or(u64::MAX));
}

fn drive(sim: &mut Sim<'static>, shared: &Arc<Shared>) {
    let mut nemesis = Nemesis::new(shared.clone());
    let mut began = (Phase::Forming, Duration::ZERO);
    loop {
        let phase = *shared.phase.borrow();
        if phase != began.0 {
            began = (phase, sim.elapsed());
        }
        let since = sim.elapsed().saturating_sub(began.1);
        match phase {
            Phase::Working if since >= shared.plan.work_time => {
                nemesis.heal(sim);
                shared.enter(Phase::Healing);
            }
            Phase::Working => nemesis.step(sim),
            Phase::Healing if *shared.finished.borrow() > shared.plan.client_hosts => shared.enter(Phase::Checking),
            Phase::Healing if since >= FINISH_TIME => {
                shared.violated(Promise::Serves, "clients do not come to an end after everything was healed");
                return;
            }
            Phase::Over => return,
            _ => {}
        }
        if let Err(error) = sim.step() {
            shared.violated(Promise::Serves, format!("a host ended: {error}"));
            return;
        }
        let now_ns = u64::try_from(sim.elapsed().as_nanos()).unwrap_or(u64::MAX);
        shared.now_ns.store(now_ns, Ordering::Relaxed);
        for broken in shared.storage.journal.take_broken() {
            shared.violated(Promise::Fenced, broken);
        }
        for panic in PANICS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            shared.violated(Promise::Serves, format!("a panic: {panic}"));
        }
        if sim.elapsed() >= RUN_TIME {
            shared.violated(Promise::Serves, format!("the run does not end: it is still {phase:?}"));
            return;
        }
    }
}
