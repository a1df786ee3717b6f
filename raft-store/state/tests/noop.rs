//! Transactions that do nothing: every part of a transaction, and the least of each.

mod world;

use sdm_proto::refusal::Class;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::assignments::Order;
use sdm_state::command::AcquireLocks;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use world::World;
use world::done;
use world::request;

fn noop(name: &str) -> Spec {
    Spec::Noop { resource: name.to_owned() }
}

/// A founded cluster with these workers.
fn with_workers(workers: &[&str]) -> (World, Vec<SessionRef>) {
    let mut world = World::founded();
    let sessions = workers.iter().map(|worker| world.open_worker(worker, "p")).collect();
    (world, sessions)
}

fn only_token(world: &World, worker: &str) -> Token {
    let assignments = world.assignments(worker);
    assert_eq!(assignments.len(), 1, "{assignments:?}");
    assert_eq!(assignments[0].order, Order::Noop);
    assignments[0].token
}

#[test]
fn a_noop_is_two_entries_its_begin_and_its_workers_report() {
    let (mut world, sessions) = with_workers(&["w1"]);
    let before = world.index;
    let txn = world.begin(noop("bench/1"));
    assert!(matches!(world.phase(txn), Phase::Running));
    let held: Vec<_> = world.state.locks.values().flat_map(|lock| lock.resources.clone()).collect();
    assert_eq!(held, [(Resource::User("bench/1".to_owned()), Mode::Exclusive)]);
    let token = only_token(&world, "w1");
    world.report(sessions[0], token, done(&Order::Noop).unwrap());
    assert!(matches!(world.phase(txn), Phase::Committed(_)));
    assert_eq!(world.index - before, 2);
    assert!(world.state.locks.is_empty() && world.state.garbage.is_empty() && world.assignments("w1").is_empty());
}

#[test]
fn noops_go_to_the_least_busy_worker_and_ties_are_broken_by_id() {
    let (mut world, _) = with_workers(&["w1", "w2"]);
    let first = ["w1", "w2"].into_iter().min_by_key(|worker| world::worker_id(worker)).unwrap();
    world.begin(noop("bench/1"));
    assert_eq!(world.assignments(first).len(), 1);
    world.begin(noop("bench/2"));
    assert_eq!((world.assignments("w1").len(), world.assignments("w2").len()), (1, 1));
}

#[test]
fn without_a_live_worker_it_is_refused_at_once() {
    let (mut world, sessions) = with_workers(&["w1"]);
    world.apply(Command::ExpireSessions { sessions });
    let txn = world.begin(noop("bench/1"));
    assert_eq!(world.refusal_of(txn).reason, "NO_LIVE_WORKER");
}

#[test]
fn a_noop_of_a_lost_worker_goes_to_another_and_the_late_report_is_not_believed() {
    let (mut world, sessions) = with_workers(&["w1"]);
    let txn = world.begin(noop("bench/1"));
    let lost = only_token(&world, "w1");
    world.apply(Command::ExpireSessions { sessions: vec![sessions[0]] });
    let other = world.open_worker("w2", "p");
    world.pass(2_000);
    let late =
        world.apply(Command::ReportAttempt { session: sessions[0], token: lost, report: done(&Order::Noop).unwrap() });
    assert!(matches!(late, Reply::Refused(refusal) if refusal.reason == "SESSION_EXPIRED"));
    let token = only_token(&world, "w2");
    assert!(token > lost);
    world.report(other, token, done(&Order::Noop).unwrap());
    assert!(matches!(world.phase(txn), Phase::Committed(_)));
    assert!(world.state.garbage.is_empty(), "a noop makes no names");
}

#[test]
fn two_noops_of_one_name_follow_each_other() {
    let (mut world, sessions) = with_workers(&["w1"]);
    let first = world.begin(noop("bench/1"));
    let second = world.begin(noop("bench/1"));
    assert!(matches!(world.phase(second), Phase::Waiting { .. }));
    let token = only_token(&world, "w1");
    world.report(sessions[0], token, done(&Order::Noop).unwrap());
    assert!(matches!(world.phase(first), Phase::Committed(_)));
    assert!(matches!(world.phase(second), Phase::Running));
}

#[test]
fn a_session_that_holds_the_name_is_named_to_a_noop_that_does_not_wait() {
    let (mut world, _) = with_workers(&["w1"]);
    let open = OpenSession { owner: SessionOwner::Client("op@host".into()), ttl_ms: 10_000, nonce: "n".into() };
    let Reply::Session { session, .. } = world.apply(Command::OpenSession(open)) else { panic!() };
    let resources = vec![(Resource::User("bench/1".into()), Mode::Shared)];
    let why = "maintenance".to_owned();
    world.apply(Command::AcquireLocks(AcquireLocks { session, sequence: 1, resources, wait_ms: 0, why }));
    world.begin_as(request(77), noop("bench/1"), 0);
    let refusal = world.refusal_of(request(77));
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "LOCKED"));
    assert!(refusal.message.contains("op@host, maintenance"), "{}", refusal.message);
}

#[test]
fn a_name_that_is_none_is_refused() {
    let (mut world, _) = with_workers(&["w1"]);
    for (at, name) in ["", "a b", "\u{e4}"].into_iter().enumerate() {
        let id = request(100 + at as u8);
        world.begin_as(id, noop(name), 0);
        assert_eq!(world.refusal_of(id).reason, "BAD_RESOURCE", "{name:?}");
    }
}

#[test]
fn a_worker_that_refuses_or_fails_ends_it_or_has_it_tried_again() {
    let (mut world, sessions) = with_workers(&["w1"]);
    let txn = world.begin(noop("bench/1"));
    let token = only_token(&world, "w1");
    let failed = Report::Failed { reason: "IO".into(), message: "no".into(), hint: String::new() };
    world.report(sessions[0], token, failed);
    world.pass(2_000);
    let again = only_token(&world, "w1");
    assert!(again > token);
    world.apply(Command::Abort { txn, reason: "enough".into() });
    assert_eq!(world.refusal_of(txn).reason, "ABORTED");
    assert!(world.state.locks.is_empty() && world.state.garbage.is_empty());
}

#[test]
fn many_noops_push_no_other_result_out_and_only_the_last_are_kept() {
    let (mut world, sessions) = with_workers(&["w1"]);
    world.begin_as(request(200), Spec::DeleteDisk { disk: sdm_proto::ids::DiskId::default() }, 0);
    assert_eq!(world.refusal_of(request(200)).reason, "DISK_NOT_FOUND");
    world.state.meta.settings.finished_noops_max = 3;
    let mut txns = Vec::new();
    for n in 0..5 {
        txns.push(world.begin(noop(&format!("bench/{n}"))));
        let token = only_token(&world, "w1");
        world.report(sessions[0], token, done(&Order::Noop).unwrap());
    }
    world.pass(1);
    let known: Vec<bool> = txns.iter().map(|txn| world.state.txns.contains(txn)).collect();
    assert_eq!(known, [false, false, true, true, true]);
    assert_eq!(world.refusal_of(request(200)).reason, "DISK_NOT_FOUND");
    assert_eq!(world.state.meta.prune_floor, 0, "forgetting noops closes no request window");
    // A repetition of one that is forgotten does nothing once more.
    assert_eq!(world.begin_as(txns[0], noop("bench/0"), 0), Reply::Txn(txns[0]));
}
