//! Random histories: clients, workers and time do anything in any order, and after every entry all
//! invariants hold. Two members that apply the same entries are equal, also when one of them
//! starts from a snapshot in the middle; and when all is healed, everything ends and nothing is
//! left behind.

mod world;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::assignments::Assignment;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::catalog::Format;
use sdm_state::command::AcquireLocks;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::domain_change::DomainChange;
use sdm_state::locks::Mode;
use sdm_state::locks::Owner;
use sdm_state::locks::Resource;
use sdm_state::members::AnnouncedMember;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::workers::WorkerChange;
use sdm_state::workers::WorkerIdentity;
use std::collections::BTreeMap;
use world::World;
use world::done;
use world::identity;
use world::name;
use world::request;

const WORKERS: [&str; 3] = ["w1", "w2", "w3"];

#[derive(Clone, Debug)]
enum Step {
    Pass(u16),
    Create { disk: u8, domain: u8, import: bool },
    Move { disk: u8, to: u8 },
    Export { disk: u8 },
    Delete { disk: u8 },
    Chain { disk: u8, other: u8, what: u8, which: u8, flag: bool },
    Work { worker: u8 },
    Repeat { request: u8 },
    Abort { request: u8 },
    Lose { worker: u8 },
    Return { worker: u8, rebooted: bool },
    Report { worker: u8, which: u8, outcome: u8 },
    LateReport { which: u8 },
    Collect { which: u8 },
    Noop { name: u8 },
    Lock { client: u8, name: u8, other: u8, mode: u8, wait: bool },
    Unlock { client: u8 },
    EndClient { client: u8 },
    Member { member: u8, what: u8 },
    Care { what: u8, disk: u8, worker: u8, flag: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<u16>().prop_map(Step::Pass),
        3 => (0u8..5, 0u8..3, any::<bool>()).prop_map(|(disk, domain, import)| Step::Create { disk, domain, import }),
        3 => (0u8..5, 0u8..3).prop_map(|(disk, to)| Step::Move { disk, to }),
        1 => (0u8..5).prop_map(|disk| Step::Export { disk }),
        2 => (0u8..5).prop_map(|disk| Step::Delete { disk }),
        20 => (0u8..5, 0u8..5, 0u8..14, any::<u8>(), any::<bool>())
            .prop_map(|(disk, other, what, which, flag)| Step::Chain { disk, other, what, which, flag }),
        16 => (0u8..3).prop_map(|worker| Step::Work { worker }),
        1 => any::<u8>().prop_map(|request| Step::Repeat { request }),
        1 => any::<u8>().prop_map(|request| Step::Abort { request }),
        1 => (0u8..3).prop_map(|worker| Step::Lose { worker }),
        2 => (0u8..3, any::<bool>()).prop_map(|(worker, rebooted)| Step::Return { worker, rebooted }),
        8 => (0u8..3, any::<u8>(), 0u8..8).prop_map(|(worker, which, outcome)| Step::Report { worker, which, outcome }),
        1 => any::<u8>().prop_map(|which| Step::LateReport { which }),
        3 => any::<u8>().prop_map(|which| Step::Collect { which }),
        2 => (0u8..3).prop_map(|name| Step::Noop { name }),
        6 => (0u8..4, 0u8..3, 0u8..3, 0u8..4, any::<bool>())
            .prop_map(|(client, name, other, mode, wait)| Step::Lock { client, name, other, mode, wait }),
        3 => (0u8..4).prop_map(|client| Step::Unlock { client }),
        1 => (0u8..4).prop_map(|client| Step::EndClient { client }),
        3 => (0u8..3, 0u8..8).prop_map(|(member, what)| Step::Member { member, what }),
        3 => (care(), 0u8..5, 0u8..3, any::<bool>())
            .prop_map(|(what, disk, worker, flag)| Step::Care { what, disk, worker, flag }),
    ]
}

/// What operators do: more of what opens the way again than of what closes it, or little else would happen.
fn care() -> impl Strategy<Value = u8> {
    prop_oneof![3 => 0u8..2, 6 => Just(2u8), 1 => Just(3u8), 3 => Just(4u8), 1 => Just(5u8), 1 => 6u8..8, 1 => Just(8u8)]
}

/// Mostly what is done to chains, and mostly done: so that they get long.
fn chain_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..4, 0u8..2).prop_map(|(disk, domain)| Step::Create { disk, domain, import: false }),
        20 => (0u8..4, 0u8..5, 0u8..17, any::<u8>(), any::<bool>())
            .prop_map(|(disk, other, what, which, flag)| Step::Chain { disk, other, what, which, flag }),
        20 => (0u8..3).prop_map(|worker| Step::Work { worker }),
        2 => any::<u16>().prop_map(Step::Pass),
        1 => (0u8..5, 0u8..3).prop_map(|(disk, to)| Step::Move { disk, to }),
        1 => (0u8..5).prop_map(|disk| Step::Export { disk }),
        1 => (0u8..5).prop_map(|disk| Step::Delete { disk }),
        1 => any::<u8>().prop_map(|request| Step::Abort { request }),
        1 => (0u8..3).prop_map(|worker| Step::Lose { worker }),
        2 => (0u8..3, any::<bool>()).prop_map(|(worker, rebooted)| Step::Return { worker, rebooted }),
        3 => (0u8..3, any::<u8>(), 0u8..8).prop_map(|(worker, which, outcome)| Step::Report { worker, which, outcome }),
        1 => any::<u8>().prop_map(|which| Step::LateReport { which }),
        2 => any::<u8>().prop_map(|which| Step::Collect { which }),
    ]
}

/// Mostly what is done to hosts, domains and attachments.
fn care_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..4, 0u8..3).prop_map(|(disk, domain)| Step::Create { disk, domain, import: false }),
        8 => (care(), 0u8..5, 0u8..3, any::<bool>())
            .prop_map(|(what, disk, worker, flag)| Step::Care { what, disk, worker, flag }),
        4 => (0u8..3).prop_map(|worker| Step::Work { worker }),
        1 => (0u8..3).prop_map(|worker| Step::Lose { worker }),
        2 => (0u8..3, any::<bool>()).prop_map(|(worker, rebooted)| Step::Return { worker, rebooted }),
    ]
}

/// A history of either kind.
fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![prop::collection::vec(step(), 1..most), prop::collection::vec(chain_step(), 1..most)]
}

struct History {
    world: World,
    sessions: BTreeMap<&'static str, SessionRef>,
    processes: u32,
    boots: u32,
    domains: Vec<DomainId>,
    requests: Vec<(u8, Spec)>,
    seen: Vec<(SessionRef, Assignment)>,
    clients: BTreeMap<u8, (SessionRef, u64)>,
}

impl History {
    fn new() -> Self {
        let settings = Settings { state_hash_every: 8, retention_ms: 20_000, chain_max: 6, ..Settings::default() };
        let mut world = World::founded_with(settings);
        let first = world.open_worker("w1", "p0");
        let domains = ["d0", "d1", "d2"].map(|domain| world.add_domain("w1", first, domain)).to_vec();
        let sessions = BTreeMap::from([("w1", first)]);
        Self {
            world,
            sessions,
            processes: 0,
            boots: 0,
            domains,
            requests: Vec::new(),
            seen: Vec::new(),
            clients: BTreeMap::new(),
        }
    }

    fn disk(&self, n: u8) -> DiskId {
        let known = self.world.state.disk_named(&name(&format!("disk{n}"))).map(|disk| disk.id);
        known.unwrap_or_else(|| DiskId::derive("no such disk", &[]))
    }

    fn begin(&mut self, spec: Spec) {
        let Ok(n) = u8::try_from(100 + self.requests.len()) else { return };
        self.world.begin_as(request(n), spec.clone(), 30_000);
        self.requests.push((n, spec));
    }

    /// Something that operators do with hosts and domains, which may be nonsense.
    fn care_spec(&self, what: u8, disk: u8, worker: u8, flag: bool) -> Spec {
        let (disk, domain) = (self.disk(disk), self.domains[usize::from(worker) % self.domains.len()]);
        let id = world::worker_id(WORKERS[usize::from(worker)]);
        let access = if flag { Access::Write } else { Access::Read };
        let session = self.clients.values().next().map(|(session, _)| *session);
        let last = self.world.state.workers.get(&id).and_then(|row| row.last_session()).unwrap_or_default();
        match what {
            0 => Spec::Attachment(AttachmentChange::Attach { disk, worker: id, access, session }),
            1 => Spec::Attachment(AttachmentChange::Attach { disk, worker: id, access, session: None }),
            2 => Spec::Attachment(AttachmentChange::Detach { disk, worker: Some(id).filter(|_| flag), stopped: flag }),
            3 => Spec::Domain(DomainChange::Maintenance { domain }),
            4 => Spec::Domain(DomainChange::Activate { domain }),
            5 => Spec::Domain(DomainChange::Rename { domain, name: name(if flag { "x1" } else { "x2" }) }),
            6 if flag => Spec::Worker(WorkerChange::Drain { worker: id }),
            6 => Spec::Worker(WorkerChange::Undrain { worker: id }),
            7 => Spec::Worker(WorkerChange::ConfirmDown { worker: id, session: last }),
            // A domain in which nothing lies is detached; its worker may be lost on the way.
            _ if flag => Spec::Domain(DomainChange::Detach { domain }),
            _ => Spec::Worker(WorkerChange::Remove { worker: id }),
        }
    }

    /// Something done to a chain, which may be nonsense.
    fn chain_spec(&self, disk: u8, other: u8, what: u8, which: u8, flag: bool) -> Spec {
        let id = self.disk(disk);
        let chain = self.world.state.disks.get(&id).map(|row| row.volumes.clone()).unwrap_or_default();
        let volume = chain.get(usize::from(which) % chain.len().max(1)).copied().unwrap_or_default();
        let (snapshot, other) = ((!flag).then_some(volume), name(&format!("disk{other}")));
        let format = if flag { Format::Raw } else { Format::Qcow2 };
        let description = format!("words {which}");
        match what {
            0 => Spec::RenameDisk { disk: id, name: other },
            1 => Spec::DescribeDisk { disk: id, description },
            2 => Spec::ResizeDisk { disk: id, size: (2 + u64::from(which % 8)) << 20 },
            3 | 14 | 15 => Spec::CopyDisk {
                disk: id,
                snapshot,
                name: other,
                description,
                to: self.domains[usize::from(which % 3)],
                format: (which.is_multiple_of(2)).then_some(format),
                preallocated: which.is_multiple_of(5),
                collapse: !which.is_multiple_of(4),
                template: which.is_multiple_of(2),
            },
            4 | 5 => Spec::CloneLinked { disk: id, snapshot, name: other, description },
            6 => Spec::ConvertDisk { disk: id, format, preallocated: which.is_multiple_of(3) },
            7..=9 => Spec::CreateSnapshot { disk: id, name: name(&format!("s{}", which % 4)), description },
            10 => Spec::DeleteSnapshot { disk: id, volume, in_place: which.is_multiple_of(16) },
            11 => Spec::RevertSnapshot { disk: id, volume, discard_newer: flag },
            16 => Spec::FlattenDisk { disk: id },
            12 => Spec::SetVolumeLegality { disk: id, volume, legal: flag || which.is_multiple_of(2) },
            _ => Spec::RepairProjection { disk: id },
        }
    }

    /// A worker that comes back reaches two of the three domains, so some moves need a pull.
    fn bring_back(&mut self, worker: usize, rebooted: bool) {
        self.processes += 1;
        if rebooted {
            self.boots += 1;
        }
        let boot_id = format!("boot {}", self.boots);
        let identity = WorkerIdentity { boot_id, ..identity(WORKERS[worker], &format!("p{}", self.processes)) };
        let nonce = format!("worker {}", self.processes);
        let open = OpenSession { owner: SessionOwner::Worker(identity), ttl_ms: 10_000, nonce };
        let Reply::Session { session, .. } = self.world.apply(Command::OpenSession(open)) else { panic!() };
        self.sessions.insert(WORKERS[worker], session);
        for (at, domain) in self.domains.clone().into_iter().enumerate() {
            if at != worker {
                self.world.reach(session, domain, 1 << 39);
            }
        }
    }

    /// A client's session, opened when it has none, and the number of its next request.
    fn client(&mut self, client: u8) -> (SessionRef, u64) {
        if !self.clients.contains_key(&client) {
            self.processes += 1;
            let owner = SessionOwner::Client(format!("client {client}"));
            let open = OpenSession { owner, ttl_ms: 10_000, nonce: format!("client {}", self.processes) };
            let Reply::Session { session, .. } = self.world.apply(Command::OpenSession(open)) else { panic!() };
            self.clients.insert(client, (session, 0));
        }
        let known = self.clients.get_mut(&client).expect("just made");
        known.1 += 1;
        *known
    }

    fn lock(&mut self, client: u8, names: [u8; 2], mode: u8, wait: bool) {
        let (session, sequence) = self.client(client);
        let modes = [Mode::IntentShared, Mode::IntentExclusive, Mode::Shared, Mode::Exclusive];
        let resources = names.map(|name| (Resource::User(format!("bench/{name}")), modes[usize::from(mode)])).to_vec();
        let wait_ms = if wait { 20_000 } else { 0 };
        let acquire = AcquireLocks { session, sequence, resources, wait_ms, why: "history".into() };
        self.world.apply(Command::AcquireLocks(acquire));
    }

    fn member(&mut self, member: u8, what: u8) {
        let name = name(&format!("m{member}"));
        let id = self.world.state.members.values().find(|known| known.name == name).map_or(99_999, |known| known.id);
        let point = self.world.state.last_hash_point().map_or((1, [0; 32]), |point| (point.index, point.own));
        self.world.apply(match what {
            0 => Command::AddMember(world::member(&name.to_string())),
            1 => Command::RemoveMember { id },
            2 => Command::AnnounceMember(AnnouncedMember {
                name,
                address: String::new(),
                learner: member.is_multiple_of(2),
            }),
            3 => Command::WithdrawMember { name },
            4 => Command::ReportMember { id, version: format!("{}", self.world.index), feature_level_max: 3 },
            5 => Command::ReportStart { id, starts: self.world.index % 5, address: format!("m:{}", self.world.index) },
            6 => Command::ReportStateHash { member: id, index: point.0, hash: point.1 },
            _ => Command::ReportStateHash { member: id, index: point.0, hash: [member; 32] },
        });
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Member { member, what } => self.member(member, what),
            Step::Pass(ms) => self.world.pass(u64::from(ms)),
            Step::Create { disk, domain, import } => {
                let (name, domain) = (name(&format!("disk{disk}")), self.domains[usize::from(domain)]);
                self.begin(if import {
                    Spec::ImportDisk {
                        name,
                        domain,
                        format: Format::Qcow2,
                        file_size: 1 << 20,
                        allocated_bytes: 1 << 19,
                    }
                } else {
                    Spec::CreateDisk {
                        name,
                        domain,
                        size: 1 << 20,
                        format: Format::Raw,
                        preallocated: false,
                        description: String::new(),
                    }
                });
            }
            Step::Move { disk, to } => {
                let spec = Spec::MoveDisk { disk: self.disk(disk), to: self.domains[usize::from(to)] };
                self.begin(spec);
            }
            Step::Export { disk } => self.begin(Spec::ExportDisk { disk: self.disk(disk) }),
            Step::Delete { disk } => self.begin(Spec::DeleteDisk { disk: self.disk(disk) }),
            Step::Chain { disk, other, what, which, flag } => {
                let spec = self.chain_spec(disk, other, what, which, flag);
                self.begin(spec);
            }
            Step::Work { worker } => {
                let worker = WORKERS[usize::from(worker)];
                if let Some(session) = self.sessions.get(worker).copied() {
                    self.world.work(worker, session);
                }
            }
            Step::Repeat { request: n } => {
                let Some((n, spec)) = self.requests.get(usize::from(n) % self.requests.len().max(1)).cloned() else {
                    return;
                };
                let before = self.world.state.txns.get(&request(n)).cloned();
                self.world.begin_as(request(n), spec, 30_000);
                assert_eq!(self.world.state.txns.get(&request(n)).cloned(), before, "done twice");
            }
            Step::Abort { request: n } => {
                self.world.apply(Command::Abort { txn: request(n), reason: "changed my mind".into() });
            }
            Step::Lose { worker } => {
                if let Some(session) = self.sessions.remove(WORKERS[usize::from(worker)]) {
                    self.world.apply(Command::ExpireSessions { sessions: vec![session] });
                }
            }
            Step::Return { worker, rebooted } => self.bring_back(usize::from(worker), rebooted),
            Step::Report { worker, which, outcome } => self.report(WORKERS[usize::from(worker)], which, outcome),
            Step::LateReport { which } => {
                let Some((session, assignment)) = self.seen.get(usize::from(which)).cloned() else { return };
                if let Some(report) = done(&assignment.order) {
                    self.world.report(session, assignment.token, report);
                }
            }
            Step::Collect { which } => {
                let due: Vec<Token> = self.world.state.garbage.values().map(|garbage| garbage.id).collect();
                let garbage = due.into_iter().skip(usize::from(which) % 4).collect();
                self.world.apply(Command::Collect { garbage });
            }
            Step::Noop { name } => self.begin(Spec::Noop { resource: format!("bench/{name}") }),
            Step::Lock { client, name, other, mode, wait } => self.lock(client, [name, other], mode, wait),
            Step::Unlock { client } => {
                let (session, sequence) = self.client(client);
                let own = self.world.state.locks.values().find(|lock| lock.owner == Owner::Session(session.id));
                let lock = own.map_or(0, |lock| lock.id);
                self.world.apply(Command::ReleaseLocks { session, sequence, lock });
            }
            Step::Care { what, disk, worker, flag } => {
                let spec = self.care_spec(what, disk, worker, flag);
                self.begin(spec);
            }
            Step::EndClient { client } => {
                if let Some((session, _)) = self.clients.remove(&client) {
                    self.world.apply(Command::ExpireSessions { sessions: vec![session] });
                }
            }
        }
    }

    fn report(&mut self, worker: &'static str, which: u8, outcome: u8) {
        let Some(session) = self.sessions.get(worker).copied() else { return };
        let assignments = self.world.assignments(worker);
        let Some(assignment) = assignments.get(usize::from(which) % assignments.len().max(1)) else { return };
        self.seen.push((session, assignment.clone()));
        let report = match outcome {
            0 => Report::Failed { reason: "IO".into(), message: "no".into(), hint: String::new() },
            1 => Report::Refused(Refusal::new(Class::Invalid, "NO", "no")),
            2 => Report::Stopped,
            3 => Report::Checkpoint { durable_bytes: 4096 },
            4 => Report::Peer { connected: which.is_multiple_of(2) },
            _ => match done(&assignment.order) {
                Some(report) => report,
                None => return,
            },
        };
        self.world.report(session, assignment.token, report);
    }

    /// All workers live, everything they are told succeeds, every collector runs: it must end.
    fn heal(&mut self) {
        for (_, (session, _)) in std::mem::take(&mut self.clients) {
            self.world.apply(Command::CloseSession(session));
        }
        for (worker, name) in WORKERS.into_iter().enumerate() {
            self.bring_back(worker, false);
            self.begin(Spec::Worker(WorkerChange::Undrain { worker: world::worker_id(name) }));
        }
        for _ in 0..400 {
            for worker in WORKERS {
                let session = self.sessions[worker];
                self.world.work(worker, session);
            }
            let garbage = self.world.state.garbage.values().map(|garbage| garbage.id).collect();
            self.world.apply(Command::Collect { garbage });
            let state = &self.world.state;
            if state.open_txns() == 0 && state.garbage.is_empty() && state.projections.is_empty() {
                return;
            }
            self.world.pass(1_000);
        }
        panic!("still open: {:?}; garbage: {:?}", self.world.state.txns, self.world.state.garbage);
    }
}

/// Histories of each kind: a quick form, or as many as are asked for (`SDM_HISTORIES=100000`).
fn cases() -> u32 {
    std::env::var("SDM_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(48)
}

#[test]
fn the_histories_get_through_every_operation() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut committed = std::collections::BTreeSet::new();
    let chains = prop::collection::vec(prop_oneof![1 => step(), 9 => chain_step()], 90..120).boxed();
    let care = prop::collection::vec(care_step(), 60..90).boxed();
    for round in 0..80 {
        // Drained workers and domains in maintenance keep others from their work: every fourth time only.
        let strategy = if round % 4 == 0 { &care } else { &chains };
        let steps = strategy.new_tree(&mut runner).expect("steps").current();
        let mut history = History::new();
        for step in steps {
            if round % 4 == 0 || !matches!(step, Step::Care { .. }) {
                history.take(step);
            }
        }
        history.heal();
        let done = history.world.state.txns.values().filter(|txn| matches!(txn.phase, Phase::Committed(_)));
        committed.extend(done.map(|txn| txn.spec.kind()));
    }
    for kind in [
        "disk-create",
        "disk-import",
        "disk-export",
        "disk-move",
        "disk-delete",
        "disk-rename",
        "disk-describe",
        "disk-resize",
        "disk-copy",
        "template-make",
        "disk-clone",
        "disk-convert",
        "disk-flatten",
        "snapshot-create",
        "snapshot-delete",
        "snapshot-revert",
        "volume-legality",
        "projection-repair",
        "disk-attach",
        "disk-detach",
        "domain-maintenance",
        "domain-activate",
        "domain-rename",
        "worker-drain",
        "worker-undrain",
        "worker-confirm-down",
    ] {
        assert!(committed.contains(kind), "{kind} was never done: {committed:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_entry_and_everything_ends_once_healed(steps in steps(90)) {
        let mut history = History::new();
        for step in steps {
            history.take(step);
        }
        history.heal();
        let state = &history.world.state;
        prop_assert!(state.locks.is_empty(), "{:?}", state.locks);
        prop_assert!(state.jobs.is_empty());
        prop_assert_eq!(state.disks.len(), state.placements.len());
        let used: std::collections::BTreeSet<_> = state.disks.values().flat_map(|disk| &disk.volumes).collect();
        prop_assert_eq!(state.volumes.len(), used.len());
    }

    #[test]
    fn members_that_apply_the_same_entries_are_equal_also_after_a_snapshot(
        steps in steps(40),
        cut in 0usize..60,
    ) {
        // The history's own entries are not recorded by the world, so two histories are taken in
        // step, and one of them goes through its rows in the middle.
        let (mut a, mut b) = (History::new(), History::new());
        for (at, step) in steps.into_iter().enumerate() {
            a.take(step.clone());
            b.take(step);
            if at == cut {
                b.world.state = State::from_rows(b.world.state.to_rows()).unwrap();
            }
            prop_assert_eq!(a.world.state.hash(), b.world.state.hash());
        }
    }

    #[test]
    fn a_command_from_outside_never_panics_and_survives_its_envelope(stamp_ms in any::<u64>(), index in any::<u64>(), step in any::<u32>()) {
        let entry = Entry { stamp_ms, entropy: [1; 16], command: Command::RaiseFeatureLevel { level: step } };
        let bytes = sdm_state::envelope::encode_entry(&entry);
        prop_assert_eq!(sdm_state::envelope::decode_entry(&bytes), Ok(entry.clone()));
        let mut world = World::founded();
        let reply = world.state.apply(index, &entry);
        prop_assert!(matches!(reply, Reply::Done | Reply::Refused(_)));
    }
}
