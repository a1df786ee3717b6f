//! A cluster as plain lists, written from the rules and not from the code: what a request meets, who
//! waits, what becomes visible, what is garbage and what may come back. It looks through everything each
//! time and knows no index. What the rules leave open (which of several workers, the number of a token)
//! it learns from the state, and checks that the rules allow it.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod compare;
mod garbage;
mod time;
mod txns;

use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::token::Token;
use sdm_state::State;
use sdm_state::command::SessionRef;
use sdm_state::garbage::Kind;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::settings::Settings;
use sdm_state::txns::Spec;
use std::collections::BTreeSet;

/// All of it.
#[derive(Clone, Debug)]
pub struct Naive {
    pub now: u64,
    pub index: u64,
    pub settings: Settings,
    pub workers: Vec<Worker>,
    pub domains: Vec<Domain>,
    /// In the order in which they asked.
    pub locks: Vec<Lock>,
    pub txns: Vec<Txn>,
    pub disks: Vec<Disk>,
    pub garbage: Vec<Garbage>,
    pub plans: Vec<Plan>,
    /// When the youngest forgotten transaction had ended; None while none was forgotten.
    pub forgotten: Option<u64>,
    /// Attempts that write words for others: not looked at here.
    pub projections: BTreeSet<Token>,
    pub workers_changed: bool,
    pub lock_freed: bool,
}

#[derive(Clone, Debug)]
pub struct Worker {
    pub name: String,
    pub session: Option<SessionRef>,
    pub reaches: Vec<DomainId>,
    /// What it said of domains, the bad news included.
    pub told: Vec<DomainId>,
}

#[derive(Clone, Debug)]
pub struct Domain {
    pub id: DomainId,
    pub retention: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Lock {
    pub id: u64,
    pub txn: TxnId,
    pub wants: Vec<(Resource, Mode)>,
    pub held: bool,
    pub until: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    Waiting,
    Running,
    Committed,
    Aborted(String),
    Refused(String),
}

impl Phase {
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

#[derive(Clone, Debug)]
pub struct Txn {
    pub id: TxnId,
    pub hash: [u8; 32],
    pub spec: Spec,
    pub phase: Phase,
    pub lock: Option<u64>,
    pub work: Option<Work>,
    /// In which entry it got its outcome, and when.
    pub ended: (u64, u64),
}

/// What is to be done by somebody.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    pub attempt: Option<Attempt>,
    pub tries: u32,
    pub retry_at: u64,
    pub idle_since: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub token: Token,
    pub worker: String,
    pub source: Option<String>,
    pub since: u64,
    pub unreachable_since: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    pub id: DiskId,
    pub name: String,
    pub domain: DomainId,
    pub placement: PlacementId,
    pub made_by: Token,
    pub volumes: Vec<VolumeId>,
}

#[derive(Clone, Debug)]
pub struct Garbage {
    pub id: Token,
    pub kind: Kind,
    pub domain: DomainId,
    pub placement: PlacementId,
    pub made_by: Token,
    pub txn: TxnId,
    pub due: u64,
    pub held: Option<String>,
    pub trash: Option<Disk>,
    pub work: Work,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub id: u64,
    pub until: u64,
    /// What each row said: its id, its placement, whether it was held (never), when it was due.
    pub rows: Vec<(Token, PlacementId, u64)>,
    pub applied: bool,
}

impl Naive {
    pub fn of(state: &State) -> Self {
        Self {
            now: state.meta.clock_ms,
            index: state.meta.applied_index,
            settings: state.meta.settings.clone(),
            workers: Vec::new(),
            domains: state.domains.values().map(|domain| Domain { id: domain.id, retention: None }).collect(),
            locks: Vec::new(),
            txns: Vec::new(),
            disks: Vec::new(),
            garbage: Vec::new(),
            plans: Vec::new(),
            forgotten: None,
            projections: BTreeSet::new(),
            workers_changed: false,
            lock_freed: false,
        }
    }

    pub fn worker(&self, name: &str) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.name == name)
    }

    pub fn is_live(&self, name: &str) -> bool {
        self.worker(name).is_some_and(|worker| worker.session.is_some())
    }

    pub fn reaches(&self, worker: &str, domain: DomainId) -> bool {
        self.worker(worker).is_some_and(|worker| worker.session.is_some() && worker.reaches.contains(&domain))
    }

    pub fn is_reached(&self, domain: DomainId) -> bool {
        self.workers.iter().any(|worker| self.reaches(&worker.name, domain))
    }

    pub fn txn(&self, id: TxnId) -> Option<&Txn> {
        self.txns.iter().find(|txn| txn.id == id)
    }

    pub fn txn_mut(&mut self, id: TxnId) -> &mut Txn {
        self.txns.iter_mut().find(|txn| txn.id == id).expect("a transaction of the model")
    }

    pub fn disk(&self, id: DiskId) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.id == id)
    }

    pub fn disk_named(&self, name: &str) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.name == name)
    }

    /// Where a transaction reads and writes; None for nothing.
    pub fn ends_of(&self, spec: &Spec) -> (Option<DomainId>, Option<DomainId>) {
        match spec {
            Spec::CreateDisk { domain, .. } => (None, Some(*domain)),
            Spec::MoveDisk { disk, to } => (self.disk(*disk).map(|disk| disk.domain), Some(*to)),
            _ => (None, None),
        }
    }

    /// Whether these locks have to wait: for whoever holds, and for whoever asked before.
    pub fn blocked(&self, id: u64, wants: &[(Resource, Mode)]) -> bool {
        let ahead = self.locks.iter().filter(|lock| lock.held || lock.id < id).filter(|lock| lock.id != id);
        let mut theirs = ahead.flat_map(|lock| &lock.wants);
        theirs
            .any(|(resource, mode)| wants.iter().any(|(mine, wanted)| mine == resource && !compatible(*mode, *wanted)))
    }
}

/// The table of modes, as it stands in every textbook.
fn compatible(a: Mode, b: Mode) -> bool {
    use Mode::{Exclusive, IntentExclusive, IntentShared, Shared};
    match (a, b) {
        (Exclusive, _) | (_, Exclusive) => false,
        (IntentShared, _) | (_, IntentShared) => true,
        (IntentExclusive, IntentExclusive) | (Shared, Shared) => true,
        (IntentExclusive, Shared) | (Shared, IntentExclusive) => false,
    }
}
