//! The lock table as transactions and sessions meet it.

mod world;

use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::command::AcquireLocks;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use world::World;
use world::name;
use world::request;

fn client(world: &mut World, label: &str) -> SessionRef {
    let open = OpenSession { owner: SessionOwner::Client(label.into()), ttl_ms: 10_000, nonce: label.into() };
    match world.apply(Command::OpenSession(open)) {
        Reply::Session { session, .. } => session,
        other => panic!("{other}"),
    }
}

fn ask(session: SessionRef, sequence: u64, resources: &[(&str, Mode)], wait_ms: u64) -> Command {
    let resources = resources.iter().map(|(name, mode)| (Resource::User((*name).to_owned()), *mode)).collect();
    Command::AcquireLocks(AcquireLocks { session, sequence, resources, wait_ms, why: "test".into() })
}

fn token_of(world: &World, lock: u64) -> Option<Token> {
    world.state.locks.get(&lock)?.granted.map(|granted| granted.token)
}

fn acquired(world: &mut World, command: Command) -> (u64, Option<Token>) {
    match world.apply(command) {
        Reply::Lock { id, token } => (id, token),
        other => panic!("{other}"),
    }
}

#[test]
fn the_second_of_two_commands_on_one_disk_waits_and_then_runs() {
    let mut world = World::founded();
    let (session, from) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", session, "d2");
    let disk = world.add_disk("w1", session, "a", from);
    world.begin(Spec::MoveDisk { disk, to });
    let second = world.begin(Spec::DeleteDisk { disk });
    assert!(matches!(world.phase(second), Phase::Waiting { .. }));
    world.work("w1", session);
    // The disk lies elsewhere now, so the locks it planned for are not the right ones any more.
    assert_eq!(world.refusal_of(second).reason, "CHANGED_WHILE_WAITING");
    let third = world.begin(Spec::DeleteDisk { disk });
    assert!(matches!(world.phase(third), Phase::Committed(_)));
}

#[test]
fn without_waiting_the_refusal_names_the_holder() {
    let mut world = World::founded();
    let (session, from) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", session, "d2");
    let disk = world.add_disk("w1", session, "a", from);
    let holder = world.begin(Spec::MoveDisk { disk, to });
    world.begin_as(request(99), Spec::DeleteDisk { disk }, 0);
    let refusal = world.refusal_of(request(99));
    assert_eq!(refusal.reason, "LOCKED");
    assert!(refusal.message.contains(&holder.to_string()), "{}", refusal.message);
    assert!(refusal.blockers[0].description.contains("move disk a from d1 to d2"));
}

#[test]
fn a_wait_ends_at_its_deadline_and_lets_those_behind_it_through() {
    let mut world = World::founded();
    let (a, b, c) = (client(&mut world, "a"), client(&mut world, "b"), client(&mut world, "c"));
    let (_, held) = acquired(&mut world, ask(a, 1, &[("r", Mode::Shared)], 0));
    assert!(held.is_some());
    let (writer, none) = acquired(&mut world, ask(b, 1, &[("r", Mode::Exclusive)], 5_000));
    assert_eq!(none, None);
    let (reader, none) = acquired(&mut world, ask(c, 1, &[("r", Mode::Shared)], 60_000));
    assert_eq!(none, None, "a reader does not overtake a writer that came first");
    world.pass(5_000);
    assert!(world.state.locks.get(&writer).is_none());
    assert!(token_of(&world, reader).is_some());
}

#[test]
fn unrelated_requests_do_not_wait_behind_a_convoy() {
    let mut world = World::founded();
    let (a, b, c) = (client(&mut world, "a"), client(&mut world, "b"), client(&mut world, "c"));
    acquired(&mut world, ask(a, 1, &[("hung", Mode::Exclusive)], 0));
    acquired(&mut world, ask(b, 1, &[("hung", Mode::Exclusive), ("dom", Mode::IntentExclusive)], 60_000));
    let (_, token) = acquired(&mut world, ask(c, 1, &[("dom", Mode::IntentExclusive)], 0));
    assert!(token.is_some());
}

#[test]
fn tokens_rise_with_every_grant() {
    let mut world = World::founded();
    let a = client(&mut world, "a");
    let mut last = Token::default();
    for n in 0..5 {
        let (lock, token) = acquired(&mut world, ask(a, 2 * n + 1, &[("r", Mode::Exclusive)], 0));
        assert!(token.unwrap() > last);
        last = token.unwrap();
        world.apply(Command::ReleaseLocks { session: a, sequence: 2 * n + 2, lock });
    }
}

#[test]
fn a_repeated_request_of_a_session_answers_as_before() {
    let mut world = World::founded();
    let a = client(&mut world, "a");
    let first = acquired(&mut world, ask(a, 1, &[("r", Mode::Exclusive)], 0));
    assert_eq!(acquired(&mut world, ask(a, 1, &[("r", Mode::Exclusive)], 0)), first);
    assert_eq!(world.state.locks.len(), 1);
}

#[test]
fn an_ended_session_releases_what_it_held_and_what_it_waited_for() {
    let mut world = World::founded();
    let (a, b) = (client(&mut world, "a"), client(&mut world, "b"));
    acquired(&mut world, ask(a, 1, &[("r", Mode::Exclusive)], 0));
    acquired(&mut world, ask(b, 1, &[("x", Mode::Exclusive)], 0));
    acquired(&mut world, ask(a, 2, &[("x", Mode::Exclusive)], 60_000));
    let (waiting, _) = acquired(&mut world, ask(b, 2, &[("r", Mode::Exclusive)], 60_000));
    world.apply(Command::ExpireSessions { sessions: vec![a] });
    assert!(token_of(&world, waiting).is_some());
    assert_eq!(world.state.locks.len(), 2);
    assert_eq!(world.refused(ask(a, 3, &[("y", Mode::Shared)], 0)).reason, "SESSION_EXPIRED");
}

#[test]
fn an_expiry_of_another_opening_is_void() {
    let mut world = World::founded();
    let a = client(&mut world, "a");
    world.apply(Command::ExpireSessions { sessions: vec![SessionRef { epoch: a.epoch + 1, ..a }] });
    assert!(world.state.sessions.contains(&a.id));
}

#[test]
fn at_the_first_level_sessions_lock_user_resources_only() {
    let mut world = World::founded_at(1);
    let (_, domain) = world.with_domain("w1", "d1");
    let session = client(&mut world, "a");
    let command = Command::AcquireLocks(AcquireLocks {
        session,
        sequence: 1,
        resources: vec![(Resource::Domain(domain), Mode::Exclusive)],
        wait_ms: 0,
        why: String::new(),
    });
    assert_eq!(world.refused(command).reason, "BAD_LOCK_SET");
}

#[test]
fn a_second_worker_under_a_live_workers_name_is_refused_and_may_come_when_that_one_is_lost() {
    let mut world = World::founded();
    let first = world.open_worker("w1", "p1");
    let mut twin = world::identity("w2", "p1");
    twin.name = name("w1");
    let open = || {
        Command::OpenSession(OpenSession {
            owner: SessionOwner::Worker(twin.clone()),
            ttl_ms: 10_000,
            nonce: "twin".into(),
        })
    };
    let refusal = world.refused(open());
    assert_eq!(refusal.reason, "WORKER_NAME_IN_USE");
    assert!(refusal.message.contains("w1:7500"));
    world.apply(Command::ExpireSessions { sessions: vec![first] });
    assert!(matches!(world.apply(open()), Reply::Session { .. }));
}

#[test]
fn a_release_without_a_lock_gives_up_what_the_request_before_it_got_or_waits_for() {
    let mut world = World::founded();
    let (a, b) = (client(&mut world, "a"), client(&mut world, "b"));
    acquired(&mut world, ask(a, 1, &[("r", Mode::Exclusive)], 0));
    let (waiting, _) = acquired(&mut world, ask(b, 1, &[("r", Mode::Exclusive)], 60_000));
    assert_eq!(world.apply(Command::ReleaseLocks { session: b, sequence: 2, lock: 0 }), Reply::Done);
    assert!(world.state.locks.get(&waiting).is_none());
    assert_eq!(world.apply(Command::ReleaseLocks { session: a, sequence: 2, lock: 0 }), Reply::Done);
    assert!(world.state.locks.is_empty());
    // Of a request that never came nothing is there to be given up, and it is refused from now on.
    let nothing = world.refused(Command::ReleaseLocks { session: a, sequence: 4, lock: 0 });
    assert_eq!(nothing.reason, "LOCK_NOT_FOUND");
    assert_eq!(world.refused(ask(a, 3, &[("r", Mode::Exclusive)], 0)).reason, "REQUEST_TOO_OLD");
}

#[test]
fn a_refusal_of_a_try_names_the_resource_and_whose_session_holds_it() {
    let mut world = World::founded();
    let (a, b) = (client(&mut world, "op@host:7"), client(&mut world, "b"));
    acquired(&mut world, ask(a, 1, &[("r", Mode::Exclusive)], 0));
    let refusal = world.refused(ask(b, 1, &[("r", Mode::Shared)], 0));
    assert_eq!(refusal.reason, "LOCKED");
    assert!(refusal.message.starts_with("cannot lock user/r: it is locked by session"), "{}", refusal.message);
    assert!(refusal.message.contains("op@host:7"), "{}", refusal.message);
    assert!(refusal.blockers[0].description.contains("op@host:7"), "{refusal}");
}

#[test]
fn a_workers_session_locks_nothing_of_users() {
    let mut world = World::founded();
    let worker = world.open_worker("w1", "p1");
    assert_eq!(world.refused(ask(worker, 1, &[("r", Mode::Shared)], 0)).reason, "NOT_A_CLIENT");
}

#[test]
fn locks_of_sessions_that_end_together_are_granted_in_the_order_of_the_requests() {
    let mut world = World::founded();
    let (a, b, c, d) =
        (client(&mut world, "a"), client(&mut world, "b"), client(&mut world, "c"), client(&mut world, "d"));
    acquired(&mut world, ask(a, 1, &[("x", Mode::Exclusive)], 0));
    acquired(&mut world, ask(b, 1, &[("y", Mode::Exclusive)], 0));
    let (first, _) = acquired(&mut world, ask(c, 1, &[("x", Mode::Exclusive)], 60_000));
    let (second, _) = acquired(&mut world, ask(d, 1, &[("y", Mode::Exclusive)], 60_000));
    world.apply(Command::ExpireSessions { sessions: vec![a, b] });
    let (first, second) = (token_of(&world, first), token_of(&world, second));
    assert!(first.is_some() && first < second, "{first:?} {second:?}");
}
