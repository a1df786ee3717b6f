//! What the hosts of one simulation and the loop that drives them share: the history, the phase, who leads, what was
//! covered, what broke.

use super::network::Cuts;
use super::plan::MEMBER_PORT;
use super::plan::Plan;
use super::roster::Roster;
use super::watched::Storage;
use crate::client::Endpoints;
use crate::history::History;
use crate::history::Promise;
use sdm_raft_store::SimulatedDisk;
use sdm_storage_worker::folder::SimulatedFolder;
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// How far the simulation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Members join, domains are made.
    Forming,
    /// Clients work under faults.
    Working,
    /// Everything was healed; clients finish what they began.
    Healing,
    /// What was promised is compared with what is there.
    Checking,
    /// All was said.
    Over,
}

/// What happened in a run that makes it worth something.
#[derive(Clone, Debug, Default)]
pub struct Coverage(pub BTreeMap<String, u64>);

impl Coverage {
    /// It happened once more.
    pub fn count(&mut self, what: &str) {
        self.add(what, 1);
    }

    /// It happened so often.
    pub fn add(&mut self, what: &str, times: u64) {
        if times > 0 {
            *self.0.entry(what.to_owned()).or_default() += times;
        }
    }
}

/// What the observer saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Who leads, as the newest term says.
    pub leader: Option<(u64, String)>,
    /// The state's hash at an index, and who said so first.
    pub hashes: BTreeMap<u64, (String, String)>,
}

/// Shared by all hosts of one simulation.
#[derive(Debug)]
pub struct Shared {
    /// What the seed drew.
    pub plan: Plan,
    /// What the clients were told, and what broke.
    pub history: Arc<History>,
    /// Nanoseconds since the start.
    pub now_ns: Arc<AtomicU64>,
    /// How far it is.
    pub phase: watch::Sender<Phase>,
    /// Hosts whose clients have finished.
    pub finished: watch::Sender<usize>,
    /// What the links lose.
    pub cuts: Cuts,
    /// The members' disks, by name.
    pub disks: BTreeMap<String, SimulatedDisk>,
    /// The workers' folders, by name.
    pub folders: BTreeMap<String, SimulatedFolder>,
    /// What the workers share.
    pub storage: Storage,
    roster: Mutex<Roster>,
    roster_changes: watch::Sender<u64>,
    seen: Mutex<Seen>,
    coverage: Mutex<Coverage>,
}

impl Shared {
    /// Of a simulation that has not begun.
    pub fn new(plan: Plan, clients: usize) -> Arc<Self> {
        let now_ns = Arc::new(AtomicU64::new(0));
        let history = Arc::new(History::of_simulation(clients, now_ns.clone()));
        let disks = plan.member_names().into_iter().map(|name| (name, SimulatedDisk::new())).collect();
        let folders = plan.worker_names().into_iter().map(|name| (name.clone(), SimulatedFolder::new(&name))).collect();
        let storage = Storage::new(&plan, now_ns.clone());
        let roster = Mutex::new(Roster::new(&plan));
        Arc::new(Self {
            plan,
            history,
            now_ns,
            phase: watch::Sender::new(Phase::Forming),
            finished: watch::Sender::new(0),
            cuts: Cuts::default(),
            disks,
            folders,
            storage,
            roster,
            roster_changes: watch::Sender::new(0),
            seen: Mutex::default(),
            coverage: Mutex::default(),
        })
    }

    /// Who is a member, and which machines are to run one.
    pub fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Machines that wait for a member to run look again.
    pub fn roster_changed(&self) {
        self.roster_changes.send_modify(|changes| *changes += 1);
    }

    /// Waits until this machine is to run a member.
    pub async fn member_is_to_run(&self, name: &str) {
        let mut changes = self.roster_changes.subscribe();
        // The sender lives in `self`.
        while !self.roster().running.contains_key(name) && changes.changed().await.is_ok() {}
    }

    /// Of these, those who are members.
    pub fn standing(&self, machines: &Endpoints) -> Vec<Endpoints> {
        let members: BTreeSet<String> =
            self.roster().members.iter().map(|name| format!("{name}:{MEMBER_PORT}")).collect();
        machines.each().into_iter().filter(|machine| members.contains(machine.address())).collect()
    }

    /// What the observer saw.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was covered.
    pub fn coverage(&self) -> MutexGuard<'_, Coverage> {
        self.coverage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    /// The leader's name, as the observer last saw it.
    pub fn leader(&self) -> Option<String> {
        self.seen().leader.as_ref().map(|(_, name)| name.clone())
    }

    /// Goes on to this phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
        self.history.event("info", "nemesis", "phase", "", json!(format!("{phase:?}")));
    }

    /// Waits for a phase, or a later one.
    pub async fn wait_for(&self, phase: Phase) {
        // The sender lives in `self`.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Whether clients are to begin something new.
    pub fn works(&self) -> bool {
        *self.phase.borrow() == Phase::Working
    }

    /// Something that must never happen did.
    pub fn violated(&self, promise: Promise, what: impl Into<String>) {
        let what = what.into();
        self.history.event("info", "checker", "violation", &format!("{promise:?}"), json!(what));
        self.history.violated(promise, what);
    }
}
