//! A cluster in a test: applies entries one after another and checks every invariant after each.

#![allow(dead_code, reason = "each test file uses its own part")]

use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PoolId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::WorkerId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::assignments::Assignment;
use sdm_state::assignments::BuildSource;
use sdm_state::assignments::From;
use sdm_state::assignments::Layer;
use sdm_state::assignments::Order;
use sdm_state::catalog::Format;
use sdm_state::command::AddMember;
use sdm_state::command::Begin;
use sdm_state::command::Found;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::invariants;
use sdm_state::members::FEATURE_LEVEL_MAX;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::work::VolumeResult;
use sdm_state::workers::DomainReport;
use sdm_state::workers::DomainSight;
use sdm_state::workers::WorkerIdentity;

pub struct World {
    pub state: State,
    pub index: u64,
    pub now_ms: u64,
    /// What was applied, in order from index 1.
    pub entries: Vec<Entry>,
    requests: u8,
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a good name")
}

pub fn request(n: u8) -> TxnId {
    TxnId::derive("test request", &[&[n]])
}

pub fn worker_id(worker: &str) -> WorkerId {
    WorkerId::derive("test worker", &[worker.as_bytes()])
}

pub fn identity(worker: &str, process: &str) -> WorkerIdentity {
    WorkerIdentity {
        id: worker_id(worker),
        name: name(worker),
        address: format!("{worker}:7500"),
        reach: Vec::new(),
        machine_id: format!("machine of {worker}"),
        boot_id: "boot".into(),
        process_nonce: process.into(),
        version: "test".into(),
    }
}

pub fn member(member: &str) -> AddMember {
    AddMember {
        name: name(member),
        address: format!("{member}:7400"),
        incarnation: format!("incarnation of {member}"),
        version: "test".into(),
        feature_level_max: FEATURE_LEVEL_MAX,
    }
}

impl World {
    pub fn empty() -> Self {
        Self { state: State::default(), index: 0, now_ms: 0, entries: Vec::new(), requests: 0 }
    }

    /// Founded, with its first member.
    pub fn founded() -> Self {
        Self::founded_with(Settings::default())
    }

    /// The same with other limits.
    pub fn founded_with(settings: Settings) -> Self {
        Self::founded_by(member("m1"), settings)
    }

    /// As a build would have founded it that supports no more than this feature level.
    pub fn founded_at(level: u32) -> Self {
        Self::founded_by(AddMember { feature_level_max: level, ..member("m1") }, Settings::default())
    }

    fn founded_by(member: AddMember, settings: Settings) -> Self {
        let mut world = Self::empty();
        world.apply(Command::Found(Found {
            cluster_id: ClusterId::derive("test cluster", &[]),
            pool_id: PoolId::derive("test pool", &[]),
            epoch: 1,
            member,
            settings,
        }));
        world
    }

    pub fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let entropy = [u8::try_from(self.index % 251).unwrap_or(0); 16];
        let entry = Entry { stamp_ms: self.now_ms, entropy, command };
        let reply = self.state.apply(self.index, &entry);
        self.entries.push(entry.clone());
        if let Err(wrong) = invariants::check(&self.state) {
            panic!("after {entry} (index {}): {}", self.index, wrong.join("; "));
        }
        reply
    }

    pub fn refused(&mut self, command: Command) -> Refusal {
        match self.apply(command) {
            Reply::Refused(refusal) => refusal,
            other => panic!("expected a refusal, got {other}"),
        }
    }

    /// Lets time pass in steps that the state accepts.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms = until.min(self.now_ms + 60_000);
            self.apply(Command::Tick);
        }
    }

    pub fn open_worker(&mut self, worker: &str, process: &str) -> SessionRef {
        let open = OpenSession {
            owner: SessionOwner::Worker(identity(worker, process)),
            ttl_ms: 10_000,
            nonce: format!("{worker} {process}"),
        };
        match self.apply(Command::OpenSession(open)) {
            Reply::Session { session, .. } => session,
            other => panic!("no session: {other}"),
        }
    }

    pub fn reach(&mut self, session: SessionRef, domain: DomainId, free_bytes: u64) {
        let sight = DomainSight {
            error: None,
            total_bytes: 1 << 40,
            free_bytes,
            file_system: format!("fs of {domain}"),
            sequence: self.index,
            seen_ms: 0,
        };
        self.apply(Command::ReportDomains { session, items: vec![DomainReport { domain, sight }] });
    }

    pub fn unreach(&mut self, session: SessionRef, domain: DomainId) {
        let sight = DomainSight {
            error: Some("the domain's I/O hangs".into()),
            total_bytes: 0,
            free_bytes: 0,
            file_system: String::new(),
            sequence: self.index,
            seen_ms: 0,
        };
        self.apply(Command::ReportDomains { session, items: vec![DomainReport { domain, sight }] });
    }

    pub fn begin_as(&mut self, id: TxnId, spec: Spec, lock_wait_ms: u64) -> Reply {
        self.apply(Command::Begin(Begin {
            id,
            request_hash: *blake3_of(&spec),
            not_after_ms: self.now_ms + 600_000,
            looked_up_ms: self.now_ms,
            unix_ms: 0,
            initiator: "test".into(),
            reason: String::new(),
            lock_wait_ms,
            spec,
            under: None,
        }))
    }

    /// Begins under a new id and answers with it.
    pub fn begin(&mut self, spec: Spec) -> TxnId {
        self.requests += 1;
        let id = request(self.requests);
        assert_eq!(self.begin_as(id, spec, 300_000), Reply::Txn(id));
        id
    }

    pub fn phase(&self, id: TxnId) -> &Phase {
        &self.state.txns.get(&id).expect("the transaction").phase
    }

    pub fn refusal_of(&self, id: TxnId) -> &Refusal {
        match self.phase(id) {
            Phase::Aborted(refusal) | Phase::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub fn assignments(&self, worker: &str) -> Vec<Assignment> {
        self.state.assignments(worker_id(worker), 256)
    }

    pub fn report(&mut self, session: SessionRef, token: Token, report: Report) -> Reply {
        self.apply(Command::ReportAttempt { session, token, report })
    }

    /// Does everything that the worker is assigned, successfully.
    pub fn work(&mut self, worker: &str, session: SessionRef) {
        for assignment in self.assignments(worker) {
            if let Some(report) = done(&assignment.order) {
                self.report(session, assignment.token, report);
            }
        }
    }

    /// A worker and a domain that it reaches.
    pub fn with_domain(&mut self, worker: &str, domain: &str) -> (SessionRef, DomainId) {
        let session = self.open_worker(worker, "p1");
        (session, self.add_domain(worker, session, domain))
    }

    pub fn add_domain(&mut self, worker: &str, session: SessionRef, domain: &str) -> DomainId {
        let spec = Spec::CreateDomain { name: name(domain), path: format!("/srv/{domain}"), local: true };
        let id = self.begin(spec);
        self.work(worker, session);
        assert!(matches!(self.phase(id), Phase::Committed(_)), "{:?}", self.phase(id));
        let domain = self.state.domain_named(&name(domain)).expect("the domain").id;
        self.reach(session, domain, 1 << 39);
        domain
    }

    pub fn add_disk(&mut self, worker: &str, session: SessionRef, disk: &str, domain: DomainId) -> DiskId {
        let spec = Spec::CreateDisk {
            name: name(disk),
            domain,
            size: 1 << 20,
            format: Format::Raw,
            preallocated: false,
            description: String::new(),
        };
        let id = self.begin(spec);
        self.work(worker, session);
        assert!(matches!(self.phase(id), Phase::Committed(_)), "{:?}", self.phase(id));
        self.state.disk_named(&name(disk)).expect("the disk").id
    }
}

/// The report of an order that succeeded; None for the source of a pull, which reports nothing.
pub fn done(order: &Order) -> Option<Report> {
    let result = |volume: &sdm_state::catalog::Volume| VolumeResult {
        volume: volume.id,
        virtual_size: volume.virtual_size.max(1 << 20),
        file_size: 1 << 20,
        allocated_bytes: 1 << 19,
        blake3: Some([7; 32]),
    };
    let volumes = match order {
        Order::CreateDisk { volumes, .. } | Order::Copy { volumes, .. } => volumes.iter().map(result).collect(),
        Order::Receive { volume, .. } | Order::Send { volume, .. } => vec![result(volume)],
        Order::Build { layers, source, .. } => layers.iter().map(|layer| built(layer, source.as_ref())).collect(),
        Order::Resize { volume, new_size, .. } => {
            vec![VolumeResult { virtual_size: *new_size, file_size: *new_size, blake3: None, ..result(volume) }]
        }
        Order::Merge { volumes, .. } => {
            volumes.last().map(|row| VolumeResult { blake3: None, ..result(row) }).into_iter().collect()
        }
        Order::CreateDomain { .. }
        | Order::Delete { .. }
        | Order::Project { .. }
        | Order::RenameDomain { .. }
        | Order::DetachDomain { .. }
        | Order::WriteCatalog { .. }
        | Order::AttachDomain { .. }
        | Order::FormatDomain { .. }
        | Order::Noop => Vec::new(),
        // What a piece says, whoever reads one says himself.
        Order::ServeSource { .. } | Order::ReadCatalog { .. } => return None,
    };
    Some(Report::Done { volumes, bytes: 1 << 20 })
}

/// What a worker says of a layer: a link keeps what it was, bytes keep their hash, all else is new.
fn built(layer: &Layer, source: Option<&BuildSource>) -> VolumeResult {
    let row = &layer.volume;
    let hash_of =
        |id| source.and_then(|source| source.volumes.iter().find(|row| row.id == id)).and_then(|row| row.blake3);
    let (allocated_bytes, blake3) = match &layer.from {
        From::Link => (row.allocated_bytes, None),
        From::Fresh => (4096, None),
        From::Bytes(id) => (1 << 19, hash_of(*id).or(Some([7; 32]))),
        From::Flatten(_) => (1 << 20, Some([8; 32])),
    };
    let file_size = if layer.from == From::Link { row.file_size } else { row.virtual_size };
    VolumeResult { volume: row.id, virtual_size: row.virtual_size, file_size, allocated_bytes, blake3 }
}

pub fn blake3_of(spec: &Spec) -> Box<[u8; 32]> {
    let text = format!("{spec:?}");
    let mut hash = [0_u8; 32];
    for (at, byte) in text.bytes().enumerate() {
        hash[at % 32] = hash[at % 32].wrapping_mul(31).wrapping_add(byte);
    }
    Box::new(hash)
}
