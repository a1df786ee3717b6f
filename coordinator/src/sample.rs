//! A small world for unit tests, made only by commands: cluster, worker `a`, domains nfs1 and nfs2,
//! and in nfs1 the raw disk web-01 of 1 MiB. It fails loudly where a command is refused.

use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::PoolId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::WorkerId;
use sdm_proto::names::Name;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Domain;
use sdm_state::catalog::Format;
use sdm_state::command::AddMember;
use sdm_state::command::Begin;
use sdm_state::command::Found;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::garbage::Garbage;
use sdm_state::jobs::Job;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::work::VolumeResult;
use sdm_state::workers::DomainReport;
use sdm_state::workers::DomainSight;
use sdm_state::workers::Worker;
use sdm_state::workers::WorkerIdentity;

/// The world.
pub(crate) struct Sample {
    pub(crate) state: State,
    index: u64,
    clock_ms: u64,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The identity of a worker of this name.
pub(crate) fn identity(label: &str) -> WorkerIdentity {
    WorkerIdentity {
        id: WorkerId::derive("sample", &[label.as_bytes()]),
        name: name(label),
        address: format!("{label}.example:7401"),
        reach: Vec::new(),
        machine_id: format!("machine-{label}"),
        boot_id: "boot-1".to_owned(),
        process_nonce: format!("nonce-{label}"),
        version: "0.1.0".to_owned(),
    }
}

impl Sample {
    /// Cluster, worker, two domains.
    pub(crate) fn new() -> Self {
        let mut sample = Self { state: State::default(), index: 0, clock_ms: 1_000 };
        let member = AddMember {
            name: name("m1"),
            address: "m1.example:7400".to_owned(),
            incarnation: "1".to_owned(),
            version: "0.1.0".to_owned(),
            feature_level_max: 1,
        };
        let cluster_id = ClusterId::derive("sample", &[]);
        sample.apply(Command::Found(Found {
            cluster_id,
            pool_id: PoolId::derive("sample", &[]),
            epoch: 1,
            member,
            settings: sdm_state::settings::Settings::default(),
        }));
        sample.arrive("a");
        for domain in ["nfs1", "nfs2"] {
            sample.begin_domain(domain);
            sample.done(Vec::new());
            sample.see("a", domain, None);
        }
        sample
    }

    /// The same with the disk.
    pub(crate) fn with_disk() -> Self {
        let mut sample = Self::new();
        let id = sample.begin_disk("web-01");
        let volume = sample.state.txns.get(&id).unwrap().marker.as_ref().unwrap().volumes[0];
        sample.done(vec![VolumeResult {
            volume,
            virtual_size: 1 << 20,
            file_size: 1 << 20,
            allocated_bytes: 1 << 20,
            blake3: Some([7; 32]),
        }]);
        sample
    }

    /// Applies a command and answers with what it said.
    pub(crate) fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        self.clock_ms += 1;
        let entry = Entry { stamp_ms: self.clock_ms, entropy: [9; 16], command };
        let reply = self.state.apply(self.index, &entry);
        assert!(!matches!(reply, Reply::Refused(_)), "{reply}");
        reply
    }

    /// Lets so much time pass on the cluster's clock.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.clock_ms += ms;
        self.apply(Command::Tick);
    }

    /// A worker says hello.
    pub(crate) fn arrive(&mut self, label: &str) -> SessionRef {
        let open = OpenSession {
            owner: SessionOwner::Worker(identity(label)),
            ttl_ms: 10_000,
            nonce: identity(label).process_nonce,
        };
        match self.apply(Command::OpenSession(open)) {
            Reply::Session { session, .. } => session,
            other => panic!("{other}"),
        }
    }

    /// A client opens a session.
    pub(crate) fn open_client(&mut self, label: &str) -> SessionRef {
        let owner = SessionOwner::Client(label.to_owned());
        match self.apply(Command::OpenSession(OpenSession { owner, ttl_ms: 10_000, nonce: label.to_owned() })) {
            Reply::Session { session, .. } => session,
            other => panic!("{other}"),
        }
    }

    /// A session ends of its own will.
    pub(crate) fn close(&mut self, session: SessionRef) {
        self.apply(Command::CloseSession(session));
    }

    /// A worker's session.
    pub(crate) fn session(&self, label: &str) -> SessionRef {
        let id = self.worker(label).session.unwrap();
        self.state.sessions.get(&id).unwrap().reference()
    }

    /// A worker's session ends.
    pub(crate) fn lose(&mut self, label: &str) {
        let session = self.session(label);
        self.apply(Command::ExpireSessions { sessions: vec![session] });
    }

    /// A worker reports on a domain.
    pub(crate) fn see(&mut self, label: &str, domain: &str, error: Option<&str>) {
        let sight = DomainSight {
            error: error.map(str::to_owned),
            total_bytes: 100 << 30,
            free_bytes: 50 << 30,
            file_system: format!("fs-{domain}"),
            sequence: self.index,
            seen_ms: 0,
        };
        let items = vec![DomainReport { domain: self.domain(domain).id, sight }];
        self.apply(Command::ReportDomains { session: self.session(label), items });
    }

    pub(crate) fn begin(&mut self, spec: Spec) -> TxnId {
        let id = TxnId::derive("sample", &[&self.index.to_be_bytes()]);
        let begin = Begin {
            id,
            request_hash: [1; 32],
            not_after_ms: u64::MAX,
            looked_up_ms: u64::MAX,
            unix_ms: 0,
            initiator: "op@example:1".to_owned(),
            reason: String::new(),
            lock_wait_ms: 300_000,
            spec,
            under: None,
        };
        self.apply(Command::Begin(begin));
        id
    }

    /// Begins the move of a disk.
    pub(crate) fn begin_move(&mut self, disk: &str, to: &str) -> TxnId {
        let spec = Spec::MoveDisk { disk: self.disk(disk).id, to: self.domain(to).id };
        self.begin(spec)
    }

    /// Begins an import of 1 MiB.
    pub(crate) fn begin_import(&mut self, disk: &str, domain: &str) -> TxnId {
        let domain = self.domain(domain).id;
        let (file_size, allocated_bytes) = (1 << 20, 1 << 20);
        self.begin(Spec::ImportDisk { name: name(disk), domain, format: Format::Raw, file_size, allocated_bytes })
    }

    /// Begins the export of a disk.
    pub(crate) fn begin_export(&mut self, disk: &str) -> TxnId {
        let disk = self.disk(disk).id;
        self.begin(Spec::ExportDisk { disk })
    }

    /// Begins the making of a domain.
    pub(crate) fn begin_domain(&mut self, domain: &str) -> TxnId {
        self.begin(Spec::CreateDomain { name: name(domain), path: format!("/srv/{domain}"), local: false })
    }

    /// Begins the making of a raw disk of 1 MiB in nfs1.
    pub(crate) fn begin_disk(&mut self, disk: &str) -> TxnId {
        let domain = self.domain("nfs1").id;
        self.begin(Spec::CreateDisk {
            name: name(disk),
            domain,
            size: 1 << 20,
            format: Format::Raw,
            preallocated: false,
            description: String::new(),
        })
    }

    /// Begins the deletion of a disk, which may have to wait.
    pub(crate) fn begin_delete(&mut self, disk: &str) -> TxnId {
        let disk: DiskId = self.disk(disk).id;
        self.begin(Spec::DeleteDisk { disk })
    }

    /// Deletes a disk that nobody uses.
    pub(crate) fn delete(&mut self, disk: &str) {
        self.begin_delete(disk);
    }

    /// Worker `a` reports on its latest attempt.
    pub(crate) fn report(&mut self, report: Report) {
        let worker = self.worker("a").identity.id;
        let (token, _) = self.state.attempts_of(worker).last().unwrap();
        self.apply(Command::ReportAttempt { session: self.session("a"), token, report });
    }

    /// So much of the latest attempt is durable.
    pub(crate) fn checkpoint(&mut self, durable_bytes: u64) {
        self.report(Report::Checkpoint { durable_bytes });
    }

    /// A command connected to the latest attempt.
    pub(crate) fn connect_peer(&mut self) {
        self.report(Report::Peer { connected: true });
    }

    /// The latest attempt is done.
    pub(crate) fn done(&mut self, volumes: Vec<VolumeResult>) {
        self.report(Report::Done { volumes, bytes: 1 << 20 });
    }

    /// Has everything collected that is due.
    pub(crate) fn collect(&mut self) -> Reply {
        let garbage: Vec<Token> = self.state.garbage.iter().map(|(id, _)| *id).collect();
        self.apply(Command::Collect { garbage })
    }

    /// A domain by name.
    pub(crate) fn domain(&self, text: &str) -> &Domain {
        self.state.domain_named(&name(text)).unwrap()
    }

    /// A disk by name.
    pub(crate) fn disk(&self, text: &str) -> &Disk {
        self.state.disk_named(&name(text)).unwrap()
    }

    /// A worker by name.
    pub(crate) fn worker(&self, label: &str) -> &Worker {
        self.state.workers.get(&identity(label).id).unwrap()
    }

    /// The one job there is.
    pub(crate) fn only_job(&self) -> &Job {
        assert_eq!(self.state.jobs.len(), 1);
        self.state.jobs.values().next().unwrap()
    }

    /// The one piece of garbage there is.
    pub(crate) fn only_garbage(&self) -> &Garbage {
        assert_eq!(self.state.garbage.len(), 1);
        self.state.garbage.values().next().unwrap()
    }
}
