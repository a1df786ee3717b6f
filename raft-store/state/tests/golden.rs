//! Recorded logs, one of each feature level, as the first build of that level wrote it: the bytes must
//! decode for ever and replay to the recorded state hash, or members of two builds would part.
//!
//! `SDM_BLESS=1 cargo test -p sdm-state --test golden` writes the recording of the highest level anew,
//! which is right only until a release has that level. Those of lower levels are never written again:
//! their hashes stand in this file.

mod world;

use sdm_proto::ids::DomainId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::State;
use sdm_state::assignments::Order;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::catalog::Format;
use sdm_state::command::AcquireLocks;
use sdm_state::command::AddMember;
use sdm_state::command::Begin;
use sdm_state::command::BreakLock;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::command::Under;
use sdm_state::domain_change::AttachDomain;
use sdm_state::domain_change::DomainChange;
use sdm_state::domain_change::DomainContents;
use sdm_state::domain_change::MorePieces;
use sdm_state::envelope::decode_entry;
use sdm_state::envelope::encode_entry;
use sdm_state::garbage::Garbage;
use sdm_state::garbage::Kind;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::garbage_order::Orphan;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::members::AnnouncedMember;
use sdm_state::members::FEATURE_LEVEL_MAX;
use sdm_state::reply::Reply;
use sdm_state::settings::Settings;
use sdm_state::suspension::Reconcile;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::workers::WorkerChange;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use world::World;
use world::name;
use world::request;

/// Recordings that stand for good: level, BLAKE3 of the log's text, hash of the state it replays to.
const SETTLED: [(u32, &str, &str); 1] = [(
    1,
    "dbf8f89906df40ecf95d4d41349fbe6da5a2300e3d74dc1208a13fe5383f2012",
    "5ddb8e02eeff7a8aa3cc7edac4ba80a7dd360d7388459ff046092d6a3b16d58c",
)];

fn file(level: u32, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/level-{level}")).join(name)
}

fn read(level: u32, name: &str) -> String {
    std::fs::read_to_string(file(level, name)).unwrap_or_else(|error| panic!("level {level}, {name}: {error}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter_map(|c| char::from(c).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}

/// One of every command, and of every phase that a transaction can end in.
fn story() -> World {
    let mut world = World::founded_with(Settings { state_hash_every: 8, ..Settings::default() });
    world.apply(Command::AddMember(world::member("m2")));
    world.apply(Command::ReportMember { id: 1, version: "0.1.0".into(), feature_level_max: 1 });
    world.apply(Command::RaiseFeatureLevel { level: 2 });
    let (s1, d1) = world.with_domain("w1", "d1");
    let (s2, d2) = world.with_domain("w2", "d2");
    let disk = world.add_disk("w1", s1, "web-01", d1);
    let import = Spec::ImportDisk {
        name: name("db"),
        domain: d2,
        format: Format::Qcow2,
        file_size: 1 << 20,
        allocated_bytes: 9,
    };
    world.begin(import.clone());
    let token = world.assignments("w2")[0].token;
    world.report(s2, token, Report::Peer { connected: true });
    world.report(s2, token, Report::Checkpoint { durable_bytes: 77 });
    world.report(
        s2,
        token,
        Report::Refused(Refusal::new(Class::Invalid, "QCOW2_CORRUPT", "no").hint("x").blocker("a", "b", "c")),
    );
    world.begin(Spec::MoveDisk { disk, to: d2 });
    world.begin_as(request(90), Spec::DeleteDisk { disk }, 60_000);
    world.apply(Command::Abort { txn: request(90), reason: "enough".into() });
    let token = world.assignments("w2")[0].token;
    world.report(s2, token, Report::Failed { reason: "IO".into(), message: "eio".into(), hint: String::new() });
    world.pass(3_000);
    world.work("w2", s2);
    world.begin(Spec::ExportDisk { disk });
    world.work("w2", s2);
    let open = OpenSession { owner: SessionOwner::Client("cli".into()), ttl_ms: 5_000, nonce: "n".into() };
    let Reply::Session { session, .. } = world.apply(Command::OpenSession(open)) else { panic!() };
    let resources =
        vec![(Resource::User("vm".into()), Mode::Shared), (Resource::User("vm".into()), Mode::IntentExclusive)];
    world.apply(Command::AcquireLocks(AcquireLocks { session, sequence: 1, resources, wait_ms: 0, why: "job".into() }));
    let lock = world.index;
    world.apply(Command::ReleaseLocks { session, sequence: 2, lock });
    world.apply(Command::CloseSession(session));
    let garbage = world.state.garbage.values().map(|garbage| garbage.id).collect();
    world.apply(Command::Collect { garbage });
    world.work("w1", s1);
    world.begin(Spec::DeleteDisk { disk });
    world.apply(Command::ExpireSessions { sessions: vec![s2] });
    world.begin(Spec::Noop { resource: "bench/1".into() });
    world.work("w1", s1);
    let open = OpenSession { owner: SessionOwner::Client("cli".into()), ttl_ms: 5_000, nonce: "n2".into() };
    let Reply::Session { session, .. } = world.apply(Command::OpenSession(open)) else { panic!() };
    let resources = vec![(Resource::User("vm".into()), Mode::Exclusive)];
    world.apply(Command::AcquireLocks(AcquireLocks { session, sequence: 1, resources, wait_ms: 9, why: "job".into() }));
    world.apply(Command::ReleaseLocks { session, sequence: 2, lock: 0 });
    let point = world.state.last_hash_point().expect("one every eight entries").clone();
    world.apply(Command::ReportStateHash { member: 1, index: point.index, hash: point.own });
    for (announced, learner) in [("m3", true), ("m4", false)] {
        let (name, address) = (name(announced), "m:7400".to_owned());
        world.apply(Command::AnnounceMember(AnnouncedMember { name, address, learner }));
    }
    world.apply(Command::WithdrawMember { name: name("m4") });
    world.apply(Command::AddMember(AddMember { address: "m:7400".into(), ..world::member("m3") }));
    world.apply(Command::ReportStart { id: world.index, starts: 3, address: "m3:7401".into() });
    world.apply(Command::RemoveMember { id: 2 });
    world.begin(Spec::CreateDisk {
        name: name("new"),
        domain: d1,
        size: 1 << 20,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    });
    let token = world.assignments("w1")[0].token;
    world.report(s1, token, Report::Stopped);
    world.refused(Command::Reconcile(Reconcile::Release { without: Vec::new() }));
    locks_and_orders(&mut world, s1, d1);
    chains(&mut world, s1, d1);
    care(&mut world, s1, d1);
    garbage_orders(&mut world, s1, d1);
    // The last: it leaves every kind of unfinished work, and the worker lost.
    unfinished(&mut world, s1, d1);
    world
}

/// A disk that a session locks, a transaction under its token, locks given back and broken, a retry at once.
fn locks_and_orders(world: &mut World, worker: SessionRef, domain: DomainId) {
    world.pass(2_000);
    world.work("w1", worker);
    let disk = world.add_disk("w1", worker, "held", domain);
    let open = OpenSession { owner: SessionOwner::Client("op".into()), ttl_ms: 5_000, nonce: "n3".into() };
    let Reply::Session { session, .. } = world.apply(Command::OpenSession(open)) else { panic!() };
    let take = |world: &mut World, sequence, resource| {
        let resources = vec![(resource, Mode::Exclusive)];
        let ask = AcquireLocks { session, sequence, resources, wait_ms: 0, why: "by hand".into() };
        match world.apply(Command::AcquireLocks(ask)) {
            Reply::Lock { id, token: Some(token) } => (id, token),
            other => panic!("{other}"),
        }
    };
    let (lock, token) = take(world, 1, Resource::Disk(disk));
    let spec = Spec::ExportDisk { disk };
    let (request_hash, under) = (*world::blake3_of(&spec), Some(Under { session, token }));
    world.apply(Command::Begin(Begin {
        id: request(91),
        request_hash,
        not_after_ms: world.now_ms + 600_000,
        looked_up_ms: world.now_ms,
        unix_ms: 0,
        initiator: "test".into(),
        reason: String::new(),
        lock_wait_ms: 0,
        spec,
        under,
    }));
    let attempt = world.assignments("w1")[0].token;
    world.report(worker, attempt, Report::Stopped);
    world.apply(Command::RetryTxn { txn: request(91), by: "op".into() });
    world.work("w1", worker);
    world.apply(Command::ReleaseLockOf { session, lock });
    let (lock, _) = take(world, 2, Resource::User("vm".into()));
    world.apply(Command::BreakLock(BreakLock { lock, reason: "stuck".into(), by: "op".into() }));
    let (lock, _) = take(world, 3, Resource::Disk(disk));
    world.apply(Command::BreakLock(BreakLock { lock, reason: "down".into(), by: "op".into() }));
}

fn words() -> String {
    "some words".to_owned()
}

/// Begins it and has the worker do all that comes of it.
fn done_by_w1(world: &mut World, worker: SessionRef, spec: Spec) {
    let id = world.begin(spec);
    while !world.assignments("w1").is_empty() {
        world.work("w1", worker);
    }
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
}

/// Everything that is done to chains, each once.
fn chains(world: &mut World, worker: SessionRef, domain: DomainId) {
    let disk_of = |world: &World, disk: &str| world.state.disk_named(&name(disk)).expect("the disk").clone();
    let create = Spec::CreateDisk {
        name: name("full"),
        domain,
        size: 1 << 20,
        format: Format::Raw,
        preallocated: true,
        description: words(),
    };
    done_by_w1(world, worker, create);
    let disk = disk_of(world, "full").id;
    done_by_w1(world, worker, Spec::RenameDisk { disk, name: name("vm") });
    done_by_w1(world, worker, Spec::DescribeDisk { disk, description: "other words".into() });
    done_by_w1(world, worker, Spec::ConvertDisk { disk, format: Format::Raw, preallocated: false });
    for snapshot in ["s1", "s2", "s3"] {
        done_by_w1(world, worker, Spec::CreateSnapshot { disk, name: name(snapshot), description: words() });
    }
    let [_, second, third, ..] = disk_of(world, "vm").volumes[..] else { panic!("a chain") };
    done_by_w1(world, worker, Spec::DeleteSnapshot { disk, volume: second, in_place: false });
    done_by_w1(world, worker, Spec::RevertSnapshot { disk, volume: third, discard_newer: true });
    done_by_w1(world, worker, Spec::ResizeDisk { disk, size: 4 << 20 });
    done_by_w1(world, worker, Spec::SetVolumeLegality { disk, volume: third, legal: false });
    done_by_w1(world, worker, Spec::SetVolumeLegality { disk, volume: third, legal: true });
    done_by_w1(world, worker, Spec::RepairProjection { disk });
    done_by_w1(world, worker, Spec::ExportChain { disk, snapshot: Some(third), collapse: true });
    let copy = Spec::CopyDisk {
        disk,
        snapshot: Some(third),
        name: name("gold"),
        description: words(),
        to: domain,
        format: Some(Format::Raw),
        preallocated: true,
        collapse: true,
        template: true,
    };
    done_by_w1(world, worker, copy);
    let gold = disk_of(world, "gold").id;
    let clone = |disk, snapshot, clone| Spec::CloneLinked { disk, snapshot, name: name(clone), description: words() };
    done_by_w1(world, worker, clone(gold, None, "child"));
    done_by_w1(world, worker, clone(disk, Some(third), "cousin"));
    done_by_w1(world, worker, clone(disk, None, "twin"));
    for flat in ["cousin", "vm"] {
        let disk = disk_of(world, flat).id;
        done_by_w1(world, worker, Spec::FlattenDisk { disk });
    }
}

/// A domain renamed, detached and attached again, attachments of every kind, workers drained, confirmed down and removed.
fn care(world: &mut World, worker: SessionRef, domain: DomainId) {
    world.pass(2_000);
    world.work("w1", worker);
    let moving = world.add_domain("w1", worker, "moving");
    world.add_disk("w1", worker, "carried", moving);
    world.begin(Spec::Domain(DomainChange::Rename { domain: moving, name: name("carrier") }));
    world.work("w1", worker);
    world.begin(Spec::Domain(DomainChange::Maintenance { domain: moving }));
    world.begin(Spec::Domain(DomainChange::Delete { domain: moving }));
    world.begin(Spec::Domain(DomainChange::Detach { domain: moving }));
    let order = world.assignments("w1").into_iter().map(|assignment| assignment.order);
    let catalog = order
        .filter_map(|order| if let Order::DetachDomain { catalog, .. } = order { Some(catalog) } else { None })
        .next();
    world.work("w1", worker);
    let attach = AttachDomain {
        domain: moving,
        name: name("carrier"),
        path: "/srv/moving".into(),
        local: true,
        contents: catalog.map(|catalog| catalog.contents).unwrap_or_default(),
        renamed: true,
        catalog: String::new(),
        more: None,
    };
    world.begin(Spec::Domain(DomainChange::Attach(Box::new(attach))));
    world.work("w1", worker);
    world.begin(Spec::Domain(DomainChange::Maintenance { domain: moving }));
    world.begin(Spec::Domain(DomainChange::Activate { domain: moving }));
    let burnt = world.add_domain("w1", worker, "burnt");
    world.add_disk("w1", worker, "ashes", burnt);
    world.begin(Spec::Domain(DomainChange::Maintenance { domain: burnt }));
    world.begin(Spec::Domain(DomainChange::Forget { domain: burnt }));

    let disk = world.add_disk("w1", worker, "attached", domain);
    let other = world.add_disk("w1", worker, "read", domain);
    let open = OpenSession { owner: SessionOwner::Client("vm".into()), ttl_ms: 5_000, nonce: "n-vm".into() };
    let Reply::Session { session, .. } = world.apply(Command::OpenSession(open)) else { panic!() };
    let attach = |disk, access, session| {
        let worker = world::worker_id("w1");
        Spec::Attachment(AttachmentChange::Attach { disk, worker, access, session })
    };
    world.begin(attach(disk, Access::Write, Some(session)));
    world.begin(attach(other, Access::Read, None));
    world.apply(Command::ExpireSessions { sessions: vec![session] });
    let detach = |stopped| Spec::Attachment(AttachmentChange::Detach { disk, worker: None, stopped });
    world.begin(detach(false));
    let spare = world.open_worker("w3", "p1");
    let (worker, session) = (world::worker_id("w3"), spare.id);
    world.begin(Spec::Worker(WorkerChange::Drain { worker }));
    world.begin(Spec::Worker(WorkerChange::Undrain { worker }));
    world.apply(Command::ExpireSessions { sessions: vec![spare] });
    world.begin(Spec::Worker(WorkerChange::ConfirmDown { worker, session }));
    world.begin(Spec::Worker(WorkerChange::Remove { worker }));
}

/// Every order about garbage. A disk stays in the trash, held, one whose deletion was assigned, and a plan of each kind:
/// looked at only, and carried out.
fn garbage_orders(world: &mut World, worker: SessionRef, domain: DomainId) {
    world.pass(2_000);
    world.work("w1", worker);
    let order = |world: &mut World, order| {
        let id = world.begin(Spec::Garbage(order));
        assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    };
    order(world, GarbageOrder::SetRetention { domain, retention_ms: Some(3_600_000) });
    let to_trash = |world: &mut World, disk: &str| {
        let disk = world.add_disk("w1", worker, disk, domain);
        world.begin(Spec::DeleteDisk { disk });
        let is_it = |row: &&Garbage| row.trash.as_ref().is_some_and(|trash| trash.disk.id == disk);
        world.state.garbage.values().find(is_it).expect("its trash").id
    };
    let [back, held, purged, planned] = ["back", "held-trash", "purged", "planned"].map(|disk| to_trash(world, disk));
    order(world, GarbageOrder::RestoreDisk { garbage: back, name: Some(name("again")) });
    for reason in ["looked at", "looked at again"] {
        order(world, GarbageOrder::Hold { garbage: held, reason: reason.into() });
    }
    order(world, GarbageOrder::Hold { garbage: planned, reason: "a mistake".into() });
    order(world, GarbageOrder::Unhold { garbage: planned });
    order(world, GarbageOrder::PurgeTrash { garbage: vec![purged] });
    world.work("w1", worker);
    let (epoch, kind) = (world.state.meta.epoch, Some(Kind::Deleted));
    order(world, GarbageOrder::PlanCollection { domain: Some(domain), kind, trash: true });
    order(world, GarbageOrder::ApplyPlan { plan: world.index, skip_changed: true });
    assert!(world.state.garbage.get(&planned).is_some_and(Garbage::is_doomed), "the plan names it");
    let orphan = Orphan { token: Token { epoch, index: 2, ordinal: 7 }, txn: None, bytes: 9, evidence: words() };
    order(world, GarbageOrder::AdoptOrphans { domain, orphans: vec![orphan] });
    assert!(world.state.garbage.values().any(|row| row.kind == Kind::Orphan), "it is nobody's");
    order(world, GarbageOrder::PlanCollection { domain: None, kind: None, trash: false });
}

/// An attach whose first piece was read, and which is aborted: the domain is to be given back.
fn arriving(world: &mut World, worker: SessionRef) {
    let domain = DomainId::derive("large domain", &[]);
    let id = world.begin(Spec::Domain(DomainChange::Attach(Box::new(AttachDomain {
        domain,
        name: name("large"),
        path: "/srv/large".into(),
        local: true,
        contents: DomainContents::default(),
        renamed: true,
        catalog: String::new(),
        more: Some(MorePieces { pieces: 2, detached_at: 7, prefix: "old-".into() }),
    }))));
    let token_of = |world: &World| world.assignments("w1").into_iter().find(|at| at.txn == id).expect("a step").token;
    let token = token_of(world);
    world.report(worker, token, Report::Done { volumes: Vec::new(), bytes: 0 });
    let token = token_of(world);
    let contents = Box::default();
    world.report(worker, token, Report::Catalog { detached_at: 7, piece: 1, contents });
    world.apply(Command::Abort { txn: id, reason: "another time".into() });
    assert!(world.state.txns.get(&id).is_some_and(sdm_state::txns::Txn::gives_back));
}

/// A clone whose first stage is done, a domain on its way back out, a projection that nobody wrote, a resize whose worker is lost and that is to be
/// aborted.
fn unfinished(world: &mut World, worker: SessionRef, domain: DomainId) {
    let first = world.add_disk("w1", worker, "first", domain);
    let second = world.add_disk("w1", worker, "second", domain);
    let third = world.add_disk("w1", worker, "third", domain);
    let snapshot = None;
    world.begin(Spec::CloneLinked { disk: first, snapshot, name: name("half"), description: words() });
    world.work("w1", worker);
    arriving(world, worker);
    world.begin(Spec::RenameDisk { disk: second, name: name("renamed") });
    let resize = world.begin(Spec::ResizeDisk { disk: third, size: 4 << 20 });
    world.apply(Command::ExpireSessions { sessions: vec![worker] });
    world.apply(Command::Abort { txn: resize, reason: "enough".into() });
    assert_eq!(world.state.txns.get(&resize).expect("the resize").phase_word(), "fencing");
}

/// Names of an enum's variants, as serde knows them: what may stand in an entry.
fn variants<'de, T: serde::Deserialize<'de>>() -> &'static [&'static str] {
    #[derive(Default)]
    struct Listing<'a>(Option<&'a mut &'static [&'static str]>);
    impl<'de> serde::Deserializer<'de> for Listing<'_> {
        type Error = serde::de::value::Error;
        fn deserialize_enum<V: serde::de::Visitor<'de>>(
            self,
            _name: &'static str,
            variants: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0.expect("a place for them") = variants;
            Err(serde::de::Error::custom("listed"))
        }
        fn deserialize_any<V: serde::de::Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("no enum"))
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map struct identifier ignored_any
        }
    }
    let mut found: &'static [&'static str] = &[];
    assert!(T::deserialize(Listing(Some(&mut found))).is_err());
    found
}

/// The name of a value's variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// The state's tables by name, each as text.
fn tables(state: &State) -> BTreeMap<String, String> {
    let names = format!("{:#?}", State::default());
    let tables = names.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(": {},"));
    let tables: Vec<String> = tables.filter(|name| !name.starts_with(' ')).map(str::to_owned).collect();
    assert!(tables.len() >= 12, "{tables:?}");
    let text = format!("{state:#?}");
    let mut found = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, _)) =
            line.strip_prefix("    ").filter(|l| !l.starts_with(' ')).and_then(|l| l.split_once(':'))
        {
            name.clone_into(&mut current);
        }
        if tables.contains(&current) {
            let table: &mut String = found.entry(current.clone()).or_default();
            table.push_str(line);
        }
    }
    found
}

/// Writes the recording of the highest level, when asked to, once in the life of this process.
fn bless() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if std::env::var_os("SDM_BLESS").is_none() {
        return;
    }
    ONCE.call_once(|| {
        assert!(
            SETTLED.iter().all(|(level, ..)| *level < FEATURE_LEVEL_MAX),
            "a settled recording is not written again"
        );
        let world = story();
        let log: Vec<String> = world.entries.iter().map(|entry| hex(&encode_entry(entry))).collect();
        let rows: Vec<String> = world.state.to_rows().map(|row| hex(&row)).collect();
        std::fs::create_dir_all(file(FEATURE_LEVEL_MAX, "")).unwrap();
        std::fs::write(file(FEATURE_LEVEL_MAX, "log.hex"), log.join("\n") + "\n").unwrap();
        std::fs::write(file(FEATURE_LEVEL_MAX, "rows.hex"), rows.join("\n") + "\n").unwrap();
        std::fs::write(file(FEATURE_LEVEL_MAX, "log.hash"), hex(&world.state.hash()) + "\n").unwrap();
    });
}

fn replay(level: u32) -> State {
    let mut state = State::default();
    for (at, line) in read(level, "log.hex").lines().enumerate() {
        let recorded = unhex(line);
        let entry = decode_entry(&recorded).expect("a recorded entry decodes");
        let written = encode_entry(&entry);
        // The first three bytes say who can read it: a later build may know that better.
        assert_eq!(hex(&written[3..]), hex(&recorded[3..]), "entry {} is written differently now", at + 1);
        state.apply(at as u64 + 1, &entry);
    }
    state
}

#[test]
fn every_recorded_log_replays_to_its_recorded_hash() {
    bless();
    for level in 1..=FEATURE_LEVEL_MAX {
        let state = replay(level);
        assert_eq!(state.meta.feature_level, level);
        assert_eq!(hex(&state.hash()), read(level, "log.hash").trim(), "level {level}");
    }
}

#[test]
fn every_recorded_snapshot_reads_back_to_the_hash_of_its_log() {
    bless();
    for level in 1..=FEATURE_LEVEL_MAX {
        let rows = read(level, "rows.hex");
        let state = State::from_rows(rows.lines().map(unhex)).expect("recorded rows decode");
        assert_eq!(hex(&state.hash()), read(level, "log.hash").trim(), "level {level}");
        let written: Vec<String> = state.to_rows().map(|row| hex(&row)).collect();
        assert_eq!(written, rows.lines().collect::<Vec<_>>(), "rows of level {level} are written differently now");
    }
}

#[test]
fn settled_recordings_are_those_of_their_release() {
    for (level, log, hash) in SETTLED {
        let text = read(level, "log.hex");
        assert_eq!(blake3::hash(text.as_bytes()).to_hex().as_str(), log, "the log of level {level} was changed");
        assert_eq!(read(level, "log.hash").trim(), hash, "the hash of level {level} was changed");
    }
}

#[test]
fn the_story_holds_one_of_every_command_spec_and_report() {
    let entries = story().entries;
    let mut told = BTreeSet::new();
    for entry in &entries {
        told.insert(variant(&entry.command));
        match &entry.command {
            Command::Begin(begin) => told.insert(variant(&begin.spec)),
            Command::ReportAttempt { report, .. } => told.insert(variant(report)),
            _ => false,
        };
    }
    for name in [variants::<Command>(), variants::<Spec>(), variants::<Report>()].concat() {
        assert!(told.contains(name), "{name} is in no entry of the story: add one at its end");
    }
}

#[test]
fn a_state_comes_back_whole_from_its_rows_and_each_row_counts_for_its_hash() {
    let entries = story().entries;
    let mut state = State::default();
    let mut seen = BTreeSet::new();
    // A row that counted once counts with other rows beside it, too.
    let mut counted = BTreeSet::new();
    for (at, entry) in entries.iter().enumerate() {
        state.apply(at as u64 + 1, entry);
        let whole = tables(&state);
        let rows: Vec<Vec<u8>> = state.to_rows().collect();
        let back = State::from_rows(rows.iter().cloned()).expect("rows decode");
        assert_eq!(tables(&back), whole, "after {entry}");
        seen.extend(whole.into_iter().filter(|(_, text)| !text.ends_with("{},")).map(|(name, _)| name));
        for missing in (1..rows.len()).filter(|at| counted.insert(rows[*at].clone())) {
            let without = rows.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, row)| row.clone());
            let less = State::from_rows(without).expect("rows decode");
            assert_ne!(less.hash(), state.hash(), "row {missing} does not count after {entry}");
        }
    }
    let all: BTreeSet<String> = tables(&State::default()).into_keys().collect();
    assert_eq!(seen, all, "a table stays empty in the story: add what fills it");
}
