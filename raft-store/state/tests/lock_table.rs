//! The lock table as operators and scripts meet it: sets on the catalog that sessions hold, transactions under
//! their tokens, locks given back and broken, retries at once.

mod world;

use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::catalog::Format;
use sdm_state::command::AcquireLocks;
use sdm_state::command::Begin;
use sdm_state::command::BreakLock;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::command::Under;
use sdm_state::domain_change::DomainChange;
use sdm_state::events::Kind;
use sdm_state::locks::Mode;
use sdm_state::locks::Owner;
use sdm_state::locks::Resource;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use world::World;
use world::name;
use world::request;

/// A worker, two domains that it reaches, a disk in the first, and a client's session.
struct Scene {
    world: World,
    worker: SessionRef,
    from: DomainId,
    to: DomainId,
    disk: DiskId,
    client: SessionRef,
    sequence: u64,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::founded();
        let (worker, from) = world.with_domain("w1", "d1");
        let to = world.add_domain("w1", worker, "d2");
        let disk = world.add_disk("w1", worker, "a", from);
        let client = open(&mut world, "ann@host:7");
        Self { world, worker, from, to, disk, client, sequence: 0 }
    }

    fn ask(&mut self, session: SessionRef, resources: Vec<(Resource, Mode)>, wait_ms: u64) -> Reply {
        self.sequence += 1;
        let sequence = self.sequence;
        self.world.apply(Command::AcquireLocks(AcquireLocks { session, sequence, resources, wait_ms, why: "t".into() }))
    }

    /// The client's lock on its disk, and the token.
    fn hold(&mut self, resources: Vec<(Resource, Mode)>) -> (u64, Token) {
        match self.ask(self.client, resources, 0) {
            Reply::Lock { id, token: Some(token) } => (id, token),
            other => panic!("not granted: {other}"),
        }
    }

    fn hold_disk(&mut self) -> (u64, Token) {
        self.hold(vec![(Resource::Disk(self.disk), Mode::Exclusive)])
    }

    /// Begins under a token.
    fn begin_under(&mut self, n: u8, spec: Spec, token: Token) -> TxnId {
        let under = Some(Under { session: self.client, token });
        self.world.apply(Command::Begin(Begin {
            id: request(n),
            request_hash: [n; 32],
            not_after_ms: u64::MAX,
            looked_up_ms: self.world.now_ms,
            unix_ms: 0,
            initiator: "test".into(),
            reason: String::new(),
            lock_wait_ms: 60_000,
            spec,
            under,
        }));
        request(n)
    }

    fn broken(&mut self, lock: u64) -> Command {
        Command::BreakLock(BreakLock { lock, reason: "it hangs".into(), by: "op".into() })
    }
}

fn open(world: &mut World, label: &str) -> SessionRef {
    let open = OpenSession { owner: SessionOwner::Client(label.into()), ttl_ms: 10_000, nonce: label.into() };
    match world.apply(Command::OpenSession(open)) {
        Reply::Session { session, .. } => session,
        other => panic!("{other}"),
    }
}

fn users(name: &str) -> Vec<(Resource, Mode)> {
    vec![(Resource::User(name.into()), Mode::Exclusive)]
}

#[test]
fn a_session_locks_a_disk_as_an_operation_would_and_transactions_wait_behind_it() {
    let mut scene = Scene::new();
    let (lock, _) = scene.hold_disk();
    let set = &scene.world.state.locks.get(&lock).unwrap().resources;
    assert_eq!(set.get(&Resource::Domain(scene.from)), Some(&Mode::IntentExclusive));
    let waiting = scene.world.begin(Spec::DeleteDisk { disk: scene.disk });
    assert!(matches!(scene.world.phase(waiting), Phase::Waiting { .. }));
    let neighbour = scene.world.add_disk("w1", scene.worker, "b", scene.from);
    assert!(scene.world.state.disks.contains(&neighbour), "others in the domain are not held up");
    scene.sequence += 1;
    scene.world.apply(Command::ReleaseLocks { session: scene.client, sequence: scene.sequence, lock });
    assert!(matches!(scene.world.phase(waiting), Phase::Committed(_)));
}

#[test]
fn a_reading_session_shares_with_readers_and_keeps_writers_off() {
    let mut scene = Scene::new();
    let (lock, _) = scene.hold(vec![(Resource::Disk(scene.disk), Mode::Shared)]);
    let set = &scene.world.state.locks.get(&lock).unwrap().resources;
    assert_eq!(set.get(&Resource::Domain(scene.from)), Some(&Mode::IntentShared));
    let export = scene.world.begin(Spec::ExportDisk { disk: scene.disk });
    assert!(matches!(scene.world.phase(export), Phase::Running));
    let delete = scene.world.begin(Spec::DeleteDisk { disk: scene.disk });
    assert!(matches!(scene.world.phase(delete), Phase::Waiting { .. }));
}

#[test]
fn what_is_not_there_or_makes_no_sense_is_not_locked() {
    let mut scene = Scene::new();
    let nobody = Resource::Disk(DiskId::derive("nobody", &[]));
    let of = |reply: Reply| match reply {
        Reply::Refused(refusal) => refusal.reason,
        other => panic!("{other}"),
    };
    assert_eq!(of(scene.ask(scene.client, vec![(nobody, Mode::Exclusive)], 0)), "DISK_NOT_FOUND");
    let intent = vec![(Resource::Disk(scene.disk), Mode::IntentExclusive)];
    assert_eq!(of(scene.ask(scene.client, intent, 0)), "BAD_MODE");
    let path = vec![(Resource::Name("path//srv".into()), Mode::Exclusive)];
    assert_eq!(of(scene.ask(scene.client, path, 0)), "BAD_LOCK_SET");
    assert!(scene.world.state.locks.is_empty());
}

#[test]
fn a_session_that_waited_for_a_disk_which_moved_away_is_refused_instead_of_granted_half_of_it() {
    let mut scene = Scene::new();
    scene.world.begin(Spec::MoveDisk { disk: scene.disk, to: scene.to });
    let waiting = scene.ask(scene.client, vec![(Resource::Disk(scene.disk), Mode::Exclusive)], 60_000);
    let Reply::Lock { id, token: None } = waiting else { panic!("{waiting}") };
    scene.world.work("w1", scene.worker);
    assert!(scene.world.state.locks.get(&id).is_none());
    let row = scene.world.state.sessions.get(&scene.client.id).unwrap();
    let Some(Reply::Refused(refusal)) = &row.last_reply else { panic!("{:?}", row.last_reply) };
    assert_eq!(refusal.reason, "CHANGED_WHILE_WAITING");
    assert!(scene.world.state.locks.is_empty(), "nothing is held by halves");
}

#[test]
fn a_transaction_under_a_token_takes_no_locks_of_its_own_and_leaves_the_set_to_the_session() {
    let mut scene = Scene::new();
    let (lock, token) = scene
        .hold(vec![(Resource::Disk(scene.disk), Mode::Exclusive), (Resource::Domain(scene.to), Mode::IntentExclusive)]);
    let id = scene.begin_under(50, Spec::MoveDisk { disk: scene.disk, to: scene.to }, token);
    let row = scene.world.state.txns.get(&id).unwrap();
    assert_eq!((row.lock, row.under, scene.world.state.locks.len()), (Some(lock), Some(token), 1));
    let second = scene.begin_under(51, Spec::ExportDisk { disk: scene.disk }, token);
    assert_eq!(scene.world.refusal_of(second).reason, "TOKEN_IN_USE");
    scene.world.work("w1", scene.worker);
    assert!(matches!(scene.world.phase(id), Phase::Committed(_)), "{:?}", scene.world.phase(id));
    let held = scene.world.state.locks.get(&lock).unwrap();
    assert_eq!((held.owner, held.txn), (Owner::Session(scene.client.id), None));
    // The disk lies in the other domain now, which the set covers as well: one job after the other has its own id.
    let back = scene.begin_under(52, Spec::MoveDisk { disk: scene.disk, to: scene.from }, token);
    assert!(matches!(scene.world.phase(back), Phase::Running), "{:?}", scene.world.phase(back));
}

#[test]
fn what_the_set_does_not_cover_is_refused_by_name() {
    let mut scene = Scene::new();
    let (_, token) = scene.hold_disk();
    let id = scene.begin_under(50, Spec::MoveDisk { disk: scene.disk, to: scene.to }, token);
    let refusal = scene.world.refusal_of(id);
    assert_eq!(refusal.reason, "TOKEN_DOES_NOT_COVER");
    assert!(refusal.message.contains("domain/d2:IX is missing"), "{refusal}");
    assert!(refusal.hint.contains("sdm lock acquire domain/d1:IX disk/a:X domain/d2:IX --"), "{refusal}");
}

#[test]
fn under_a_name_of_ones_own_a_transaction_takes_its_own_locks_as_long_as_the_token_is_valid() {
    let mut scene = Scene::new();
    let (lock, token) = scene.hold(users("backup"));
    let id = scene.begin_under(50, Spec::ExportDisk { disk: scene.disk }, token);
    let row = scene.world.state.txns.get(&id).unwrap();
    assert!(row.under == Some(token) && row.vouched_by == Some(lock) && row.lock.is_some_and(|own| own != lock));
    scene.world.apply(Command::ExpireSessions { sessions: vec![scene.client] });
    let late = scene.begin_under(51, Spec::DeleteDisk { disk: scene.disk }, token);
    assert_eq!(scene.world.refusal_of(late).reason, "TOKEN_STALE");
}

/// How a session loses its lock, and who has it then.
fn lose(scene: &mut Scene, lock: u64, way: usize) {
    let other = open(&mut scene.world, "bob@host:8");
    match way {
        0 => _ = scene.world.apply(Command::ExpireSessions { sessions: vec![scene.client] }),
        1 => _ = scene.world.apply(Command::ReleaseLockOf { session: scene.client, lock }),
        _ => {
            let order = scene.broken(lock);
            scene.world.apply(order);
        }
    }
    assert!(matches!(scene.ask(other, users("deploy"), 0), Reply::Lock { token: Some(_), .. }), "it is another's now");
}

#[test]
fn what_waited_under_a_name_that_its_client_lost_meanwhile_is_refused_when_its_turn_comes() {
    for way in 0..3 {
        let mut scene = Scene::new();
        let (lock, token) = scene.hold(users("deploy"));
        let export = scene.world.begin(Spec::ExportDisk { disk: scene.disk });
        let delete = scene.begin_under(50, Spec::DeleteDisk { disk: scene.disk }, token);
        assert!(matches!(scene.world.phase(delete), Phase::Waiting { .. }));
        lose(&mut scene, lock, way);
        scene.world.work("w1", scene.worker);
        assert!(matches!(scene.world.phase(export), Phase::Committed(_)));
        assert_eq!(scene.world.refusal_of(delete).reason, "TOKEN_STALE", "way {way}");
        assert!(scene.world.state.disks.contains(&scene.disk));
        assert_eq!(scene.world.state.locks.len(), 1, "its own locks are free");
    }
}

#[test]
fn what_is_at_work_under_a_name_that_its_client_lost_meanwhile_does_not_commit() {
    for way in 0..3 {
        let mut scene = Scene::new();
        let (lock, token) = scene.hold(users("deploy"));
        let before = scene.world.state.disks.get(&scene.disk).unwrap().placement;
        let id = scene.begin_under(50, Spec::MoveDisk { disk: scene.disk, to: scene.to }, token);
        assert!(matches!(scene.world.phase(id), Phase::Running));
        lose(&mut scene, lock, way);
        scene.world.work("w1", scene.worker);
        assert!(matches!(scene.world.phase(id), Phase::Aborted(refusal) if refusal.reason == "TOKEN_STALE"), "{way}");
        assert_eq!(scene.world.state.disks.get(&scene.disk).unwrap().placement, before);
    }
}

#[test]
fn what_waited_under_a_name_that_its_client_still_has_goes_on() {
    let mut scene = Scene::new();
    let (_, token) = scene.hold(users("deploy"));
    scene.world.begin(Spec::ExportDisk { disk: scene.disk });
    let delete = scene.begin_under(50, Spec::DeleteDisk { disk: scene.disk }, token);
    scene.world.work("w1", scene.worker);
    assert!(matches!(scene.world.phase(delete), Phase::Committed(_)), "{:?}", scene.world.phase(delete));
}

#[test]
fn a_lock_passes_to_the_transaction_under_it_when_its_session_ends_or_gives_it_back() {
    for closed in [false, true] {
        let mut scene = Scene::new();
        let (lock, token) = scene.hold_disk();
        let id = scene.begin_under(50, Spec::ExportDisk { disk: scene.disk }, token);
        if closed {
            scene.world.apply(Command::ReleaseLockOf { session: scene.client, lock });
        } else {
            scene.world.apply(Command::ExpireSessions { sessions: vec![scene.client] });
        }
        let held = scene.world.state.locks.get(&lock).expect("it goes on being held");
        assert_eq!((held.owner, held.txn), (Owner::Txn(id), None));
        let behind = scene.world.begin(Spec::DeleteDisk { disk: scene.disk });
        assert!(matches!(scene.world.phase(behind), Phase::Waiting { .. }));
        scene.world.work("w1", scene.worker);
        assert!(matches!(scene.world.phase(id), Phase::Committed(_)));
        assert!(matches!(scene.world.phase(behind), Phase::Committed(_)));
        assert!(scene.world.state.locks.is_empty());
    }
}

#[test]
fn a_stale_token_opens_nothing() {
    let mut scene = Scene::new();
    let (lock, token) = scene.hold_disk();
    scene.sequence += 1;
    scene.world.apply(Command::ReleaseLocks { session: scene.client, sequence: scene.sequence, lock });
    let id = scene.begin_under(50, Spec::DeleteDisk { disk: scene.disk }, token);
    assert_eq!(scene.world.refusal_of(id).reason, "TOKEN_STALE");
    assert!(scene.world.state.disks.contains(&scene.disk));
}

#[test]
fn a_lock_is_given_back_in_its_sessions_name_only() {
    let mut scene = Scene::new();
    let (lock, _) = scene.hold(users("r"));
    let other = open(&mut scene.world, "bob@host:8");
    let refusal = scene.world.refused(Command::ReleaseLockOf { session: other, lock });
    assert_eq!(refusal.reason, "LOCK_OF_ANOTHER");
    assert!(refusal.hint.contains(&format!("sdm lock break {lock}")), "{refusal}");
    assert_eq!(scene.world.state.check_release(lock, None).unwrap_err().reason, "SESSION_NOT_NAMED");
    assert_eq!(scene.world.apply(Command::ReleaseLockOf { session: scene.client, lock }), Reply::Done);
    assert_eq!(scene.world.refused(Command::ReleaseLockOf { session: scene.client, lock }).reason, "LOCK_NOT_FOUND");
    let txn = scene.world.begin(Spec::ExportDisk { disk: scene.disk });
    let lock = scene.world.state.txns.get(&txn).unwrap().lock.unwrap();
    let refusal = scene.world.refused(Command::ReleaseLockOf { session: scene.client, lock });
    assert_eq!(refusal.reason, "LOCK_OF_TRANSACTION");
    assert!(refusal.hint.contains(&format!("sdm txn abort {txn}")), "{refusal}");
}

#[test]
fn a_users_lock_is_broken_for_a_reason_and_its_session_learns_it() {
    let mut scene = Scene::new();
    let (lock, token) = scene.hold(users("r"));
    let other = open(&mut scene.world, "bob@host:8");
    let Reply::Lock { id: next, token: None } = scene.ask(other, users("r"), 60_000) else { panic!() };
    let no_reason = BreakLock { lock, reason: " ".into(), by: "op".into() };
    assert_eq!(scene.world.refused(Command::BreakLock(no_reason)).reason, "REASON_MISSING");
    let order = scene.broken(lock);
    assert_eq!(scene.world.apply(order.clone()), Reply::Done);
    assert!(scene.world.state.locks.get(&next).unwrap().granted.is_some_and(|granted| granted.token > token));
    let row = scene.world.state.sessions.get(&scene.client.id).unwrap();
    assert_eq!((row.broken.len(), row.broken[0].lock, row.broken[0].by.as_str()), (1, lock, "op"));
    let told = scene.world.state.events.values().last().unwrap();
    assert_eq!((told.kind, told.object.clone()), (Kind::LockBroken, format!("lock/{lock}")));
    assert!(told.text.contains("it hangs") && told.text.contains("user/r"), "{}", told.text);
    assert_eq!(scene.world.refused(order).reason, "LOCK_NOT_FOUND");
    let sequence = scene.sequence + 1;
    let late = scene.world.refused(Command::ReleaseLocks { session: scene.client, sequence, lock });
    assert_eq!(late.reason, "LOCK_BROKEN");
}

#[test]
fn a_sessions_lock_on_the_catalog_is_not_broken_it_ends_with_its_lease() {
    let mut scene = Scene::new();
    let (lock, token) = scene.hold_disk();
    let order = scene.broken(lock);
    let refusal = scene.world.refused(order);
    assert_eq!(refusal.reason, "FENCE_REQUIRED");
    assert!(refusal.hint.contains(" s of its last renewal"), "{refusal}");
    scene.world.apply(Command::ExpireSessions { sessions: vec![scene.client] });
    assert!(scene.world.state.locks.is_empty());
    let late = scene.begin_under(50, Spec::DeleteDisk { disk: scene.disk }, token);
    assert_eq!(scene.world.refusal_of(late).reason, "TOKEN_STALE");
}

#[test]
fn a_session_whose_transaction_runs_is_not_robbed_of_the_lock_under_it() {
    let mut scene = Scene::new();
    let (lock, token) = scene.hold_disk();
    let txn = scene.begin_under(50, Spec::ExportDisk { disk: scene.disk }, token);
    let order = scene.broken(lock);
    let refusal = scene.world.refused(order);
    assert_eq!(refusal.reason, "TRANSACTION_UNDER_LOCK");
    assert!(refusal.hint.contains(&format!("sdm txn abort {txn}")), "{refusal}");
}

#[test]
fn a_transactions_lock_is_broken_only_when_nobody_may_be_writing_for_it() {
    let mut scene = Scene::new();
    let running = scene.world.begin(Spec::MoveDisk { disk: scene.disk, to: scene.to });
    let waiting = scene.world.begin(Spec::DeleteDisk { disk: scene.disk });
    let lock_of = |scene: &Scene, id: TxnId| scene.world.state.txns.get(&id).unwrap().lock.unwrap();
    let (held, asked) = (lock_of(&scene, running), lock_of(&scene, waiting));
    let order = scene.broken(asked);
    assert_eq!(scene.world.refused(order).reason, "LOCK_NOT_HELD");
    let order = scene.broken(held);
    let refusal = scene.world.refused(order.clone());
    assert_eq!(refusal.reason, "FENCE_REQUIRED");
    assert!(refusal.hint.contains(&format!("sdm txn abort {running}")), "{refusal}");
    // Its attempt is closed with its worker's session: what that writes from now on are names that nobody wants.
    scene.world.apply(Command::ExpireSessions { sessions: vec![scene.worker] });
    assert_eq!(scene.world.apply(order), Reply::Done);
    assert_eq!(scene.world.refusal_of(running).reason, "LOCK_BROKEN");
    assert!(matches!(scene.world.phase(waiting), Phase::Committed(_)));
}

#[test]
fn a_retry_is_tried_at_once_and_whatever_waits_for_something_else_says_for_what() {
    let mut scene = Scene::new();
    let retry = |txn| Command::RetryTxn { txn, by: "op".into() };
    let id = scene.world.begin(Spec::MoveDisk { disk: scene.disk, to: scene.to });
    assert_eq!(scene.world.refused(retry(id)).reason, "TXN_RUNNING");
    let waiting = scene.world.begin(Spec::DeleteDisk { disk: scene.disk });
    let refusal = scene.world.refused(retry(waiting));
    assert_eq!(refusal.reason, "TXN_WAITS_FOR_LOCKS");
    assert!(refusal.hint.starts_with("see who holds them: sdm lock explain "), "{refusal}");
    let token = scene.world.assignments("w1")[0].token;
    let failed = Report::Failed { reason: "IO".into(), message: "eio".into(), hint: String::new() };
    scene.world.report(scene.worker, token, failed);
    assert!(scene.world.assignments("w1").is_empty(), "it waits for its next attempt");
    assert_eq!(scene.world.apply(retry(id)), Reply::Txn(id));
    assert_eq!(scene.world.assignments("w1").len(), 1);
    scene.world.work("w1", scene.worker);
    let refusal = scene.world.refused(retry(id));
    assert_eq!(refusal.reason, "TXN_FINAL");
    assert_eq!(scene.world.refused(retry(request(99))).reason, "TXN_NOT_FOUND");
}

#[test]
fn a_retry_without_a_worker_gives_it_time_to_come_back() {
    let mut scene = Scene::new();
    let id = scene.world.begin(Spec::MoveDisk { disk: scene.disk, to: scene.to });
    scene.world.apply(Command::ExpireSessions { sessions: vec![scene.worker] });
    scene.world.pass(500_000);
    scene.world.apply(Command::RetryTxn { txn: id, by: String::new() });
    scene.world.pass(500_000);
    assert!(matches!(scene.world.phase(id), Phase::Running), "the time to find a worker began anew");
    scene.world.pass(200_000);
    assert_eq!(scene.world.refusal_of(id).reason, "NO_WORKER");
}

#[test]
fn events_tell_what_happened_in_order_and_give_way_to_younger_ones() {
    let mut scene = Scene::new();
    scene.world.begin(Spec::MoveDisk { disk: scene.disk, to: scene.to });
    scene.world.work("w1", scene.worker);
    let kinds: Vec<Kind> = scene.world.state.events.values().map(|event| event.kind).collect();
    for kind in [Kind::FeatureLevel, Kind::WorkerLive, Kind::DomainMade, Kind::DiskMade, Kind::TxnFinished] {
        assert!(kinds.contains(&kind), "{kind:?} is missing in {kinds:?}");
    }
    let last: Vec<(Kind, String)> =
        scene.world.state.events.values().rev().take(3).map(|event| (event.kind, event.text.clone())).collect();
    assert!(
        last.iter().any(|(kind, text)| *kind == Kind::TxnFinished && text == "committed: move disk a from d1 to d2"),
        "{last:?}"
    );
    let before = scene.world.state.events.len();
    for n in 0..20_u8 {
        let spec = Spec::Noop { resource: format!("bench/{n}") };
        scene.world.begin(spec);
        scene.world.work("w1", scene.worker);
    }
    scene.hold(users("r"));
    assert_eq!(scene.world.state.events.len(), before, "nothing is told of noops and users' locks");
}

#[test]
fn the_ring_is_bounded_and_says_from_where_on_it_is_complete() {
    let settings = sdm_state::settings::Settings { events_max: 10, ..Default::default() };
    let mut world = World::founded_with(settings);
    let (worker, domain) = world.with_domain("w1", "d1");
    for n in 0..6 {
        world.add_disk("w1", worker, &format!("disk{n}"), domain);
        assert!(world.state.events.len() <= 10);
    }
    let floor = world.state.events_floor();
    assert!(floor > 0);
    let first = world.state.events.values().next().unwrap();
    assert!(first.index >= floor);
    assert!(world.state.events_after(floor).all(|event| event.index > floor));
    let spec = Spec::CreateDisk {
        name: name("last"),
        domain,
        size: 1 << 20,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    };
    let id = world.begin(spec);
    assert!(world.state.events_after(world.index - 1).any(|event| event.txn == Some(id)));
}

#[test]
fn a_lost_session_is_told_with_what_it_held() {
    let mut scene = Scene::new();
    let (lock, _) = scene.hold_disk();
    scene.world.apply(Command::ExpireSessions { sessions: vec![scene.client] });
    let told = scene.world.state.events.values().last().unwrap();
    assert_eq!(told.kind, Kind::SessionLost);
    assert!(told.text.contains("ann@host:7") && told.text.contains(&format!("lock {lock}")), "{}", told.text);
    assert!(told.text.contains("disk/a"), "{}", told.text);
}

#[test]
fn a_dry_run_under_a_token_says_what_the_operation_under_it_would_do() {
    let mut scene = Scene::new();
    let domain = scene.to;
    scene.world.begin(Spec::Domain(DomainChange::Maintenance { domain }));
    let name = (Resource::Name("domain/d2".into()), Mode::Exclusive);
    let (lock, token) = scene.hold(vec![(Resource::Domain(domain), Mode::Exclusive), name]);
    let detach = Spec::Domain(DomainChange::Detach { domain });
    let under = Under { session: scene.client, token };
    let refusal = scene.world.state.dry_run(&detach, None).unwrap_err();
    assert!(refusal.blockers.iter().any(|blocker| blocker.id == lock.to_string()), "{refusal}");
    let plan = scene.world.state.dry_run(&detach, Some(under)).expect("its own lock is no obstacle");
    assert!(plan.waits_for.is_empty(), "{plan:?}");
    let stale = Under { session: scene.client, token: Token { ordinal: 9, ..token } };
    assert!(scene.world.state.dry_run(&detach, Some(stale)).is_err());
    let id = scene.begin_under(90, detach, token);
    assert_eq!(scene.world.phase(id), &Phase::Running, "and so it is");
}
