//! Entries of each kind applied to a filled state, one after another, and how long each took.

use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::WorkerId;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::catalog::Format;
use sdm_state::command::AcquireLocks;
use sdm_state::command::Begin;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::fill::disk_name;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::sessions::Holder;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::work::VolumeResult;
use sdm_state::workers::DomainReport;
use sdm_state::workers::DomainSight;
use sdm_state::workers::WorkerIdentity;
use std::collections::BTreeMap;
use std::time::Instant;

/// Operations of each kind: few enough that the small state still has disks for them.
const ROUNDS: u64 = 30;

/// A filled state, a worker that reaches its domains, and the times so far.
pub struct Operations {
    state: State,
    index: u64,
    worker: SessionRef,
    domains: Vec<DomainId>,
    times: BTreeMap<&'static str, Vec<f64>>,
}

impl Operations {
    /// Does all of them.
    pub fn of(state: State) -> Self {
        let domains = state.domains.iter().map(|(id, _)| *id).collect();
        let index = state.applied_index();
        let nobody = SessionRef { id: 0, epoch: 0 };
        let mut all = Self { state, index, worker: nobody, domains, times: BTreeMap::new() };
        all.hire();
        all.times.clear();
        for round in 0..ROUNDS {
            all.timed("tick", Command::Tick);
            all.sessions(round);
            all.disks(round);
        }
        all.hand_over();
        all
    }

    /// The median of each in microseconds.
    pub fn medians(mut self) -> BTreeMap<&'static str, f64> {
        let median = |(name, times): (&&'static str, &mut Vec<f64>)| {
            times.sort_by(f64::total_cmp);
            (*name, times[times.len() / 2])
        };
        self.times.iter_mut().map(median).collect()
    }

    fn timed(&mut self, name: &'static str, command: Command) -> Reply {
        self.index += 1;
        let entry = Entry { stamp_ms: self.index, entropy: [3; 16], command };
        let begun = Instant::now();
        let reply = self.state.apply(self.index, &entry);
        let took = begun.elapsed().as_secs_f64() * 1e6;
        assert!(!matches!(reply, Reply::Refused(_)), "{name}: {reply}");
        self.times.entry(name).or_default().push(took);
        reply
    }

    fn open(&mut self, name: &'static str, owner: SessionOwner) -> SessionRef {
        let nonce = format!("bench {}", self.index);
        let open = OpenSession { owner, ttl_ms: 600_000, nonce };
        let Reply::Session { session, .. } = self.timed(name, Command::OpenSession(open)) else { panic!("no session") };
        session
    }

    fn hire(&mut self) {
        let identity = WorkerIdentity {
            id: WorkerId::derive("bench", &[]),
            name: "bench".parse().expect("a name"),
            address: "127.0.0.1:2".to_owned(),
            reach: Vec::new(),
            machine_id: "machine".to_owned(),
            boot_id: "boot".to_owned(),
            process_nonce: "nonce".to_owned(),
            version: "bench".to_owned(),
        };
        self.worker = self.open("hello", SessionOwner::Worker(identity));
        let sight = |domain: &DomainId| DomainSight {
            error: None,
            total_bytes: 1 << 50,
            free_bytes: 1 << 50,
            file_system: domain.to_string(),
            sequence: 1,
            seen_ms: 0,
        };
        let items = self.domains.iter().map(|domain| DomainReport { domain: *domain, sight: sight(domain) }).collect();
        self.timed("domains", Command::ReportDomains { session: self.worker, items });
    }

    fn sessions(&mut self, round: u64) {
        let session = self.open("session open", SessionOwner::Client("bench".to_owned()));
        let acquire = AcquireLocks {
            session,
            sequence: 1,
            resources: vec![(Resource::User(format!("bench/{round}")), Mode::Exclusive)],
            wait_ms: 0,
            why: "bench".to_owned(),
        };
        let Reply::Lock { id: lock, .. } = self.timed("lock a free name", Command::AcquireLocks(acquire)) else {
            panic!("no lock")
        };
        self.timed("release it", Command::ReleaseLocks { session, sequence: 2, lock });
        self.timed("session close", Command::CloseSession(session));
    }

    fn begin(&mut self, name: &'static str, spec: Spec) -> TxnId {
        let id = TxnId::derive("bench", &[&self.index.to_be_bytes()]);
        let begin = Begin {
            id,
            request_hash: [0; 32],
            not_after_ms: u64::MAX,
            looked_up_ms: self.index,
            unix_ms: 0,
            initiator: "bench".to_owned(),
            reason: String::new(),
            lock_wait_ms: 0,
            spec,
            under: None,
        };
        self.timed(name, Command::Begin(begin));
        id
    }

    /// The worker reports the one attempt that it has as done.
    fn done(&mut self, name: &'static str, txn: TxnId) {
        let volumes = self.state.txns.get(&txn).and_then(|txn| txn.marker.as_ref()).map(|marker| &marker.volumes);
        let result = |volume: &_| VolumeResult {
            volume: *volume,
            virtual_size: 10 << 30,
            file_size: 10 << 30,
            allocated_bytes: 1 << 20,
            blake3: self.state.volumes.get(volume).and_then(|known| known.blake3),
        };
        let volumes = volumes.map(|all| all.iter().map(result).collect()).unwrap_or_default();
        let worker = WorkerId::derive("bench", &[]);
        let token: Token = self.state.attempts_of(worker).next().expect("an attempt").0;
        let report = Report::Done { volumes, bytes: 1 };
        self.timed(name, Command::ReportAttempt { session: self.worker, token, report });
        let phase = self.state.txns.get(&txn).map(|txn| txn.phase.word());
        assert_eq!(phase, Some("committed"), "{name}");
    }

    fn disks(&mut self, round: u64) {
        let name = format!("bench-{round}").parse().expect("a name");
        let spec = Spec::CreateDisk {
            name,
            domain: self.domains[0],
            size: 10 << 30,
            format: Format::Raw,
            preallocated: false,
            description: String::new(),
        };
        let txn = self.begin("disk create: begin", spec);
        self.done("disk create: commit", txn);
        let disk = self.state.disk_named(&disk_name(round).parse().expect("a name")).expect("a disk").clone();
        let from = self.state.domain_of(&disk).expect("a domain").id;
        let to = *self.domains.iter().find(|domain| **domain != from).expect("another domain");
        let txn = self.begin("disk move (10 volumes): begin", Spec::MoveDisk { disk: disk.id, to });
        self.done("disk move (10 volumes): commit", txn);
        self.begin("disk delete", Spec::DeleteDisk { disk: disk.id });
    }

    /// The lock that many wait for goes from one to the next. Without waiting ones there is none.
    fn hand_over(&mut self) {
        for _ in 0..ROUNDS {
            let client = self.state.sessions.values().find(|row| matches!(row.holder, Holder::Client(_)));
            let Some(session) = client.map(|row| row.reference()) else { return };
            let lock = session.id + 1;
            self.timed("hand over a lock that all wait for", Command::ReleaseLocks { session, sequence: 1, lock });
            self.timed("session close", Command::CloseSession(session));
        }
    }
}
