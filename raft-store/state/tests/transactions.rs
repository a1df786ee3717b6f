//! Transactions from begin to outcome, with workers that succeed, fail, lie or die.

mod world;

use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::assignments::CopySource;
use sdm_state::assignments::Order;
use sdm_state::catalog::Format;
use sdm_state::garbage::Kind;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use world::World;
use world::done;
use world::name;
use world::request;

fn failed() -> Report {
    Report::Failed { reason: "IO".into(), message: "input/output error".into(), hint: String::new() }
}

#[test]
fn nothing_is_done_before_the_cluster_is_founded() {
    assert_eq!(World::empty().refused(Command::Tick).reason, "NOT_FOUNDED");
}

#[test]
fn a_disk_is_visible_only_after_its_worker_reported_it_whole() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let id = world.begin(Spec::CreateDisk {
        name: name("a"),
        domain,
        size: 1 << 20,
        format: Format::Qcow2,
        preallocated: false,
        description: String::new(),
    });
    assert!(world.state.disks.is_empty());
    world.work("w1", session);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
    let disk = world.state.disk_named(&name("a")).unwrap();
    let token = world.state.placements.get(&disk.placement).unwrap().token;
    assert_eq!(token.placement(world.state.cluster_id()), disk.placement);
    assert!(world.state.locks.is_empty() && world.state.garbage.is_empty());
}

#[test]
fn a_move_makes_the_target_visible_and_the_source_garbage_in_one_entry() {
    let mut world = World::founded();
    let (session, from) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", session, "d2");
    let disk = world.add_disk("w1", session, "a", from);
    let old = world.state.disks.get(&disk).unwrap().placement;
    let id = world.begin(Spec::MoveDisk { disk, to });
    let [assignment] = &world.assignments("w1")[..] else { panic!("one assignment") };
    assert!(matches!(&assignment.order, Order::Copy { source: CopySource::Local(_), .. }));
    world.work("w1", session);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
    let row = world.state.disks.get(&disk).unwrap();
    assert_ne!(row.placement, old);
    assert_eq!(world.state.domain_of(row).unwrap().id, to);
    let [garbage] = &world.state.garbage.values().collect::<Vec<_>>()[..] else { panic!("one garbage") };
    assert_eq!((garbage.kind, garbage.placement), (Kind::Superseded, Some(old)));

    let token = garbage.id;
    assert_eq!(world.apply(Command::Collect { garbage: vec![token] }), Reply::Collected(vec![token]));
    assert_eq!(
        world.apply(Command::Collect { garbage: vec![token] }),
        Reply::Collected(vec![]),
        "another member was faster"
    );
    world.work("w1", session);
    assert!(world.state.garbage.is_empty());
}

#[test]
fn without_a_worker_at_both_ends_the_target_pulls_from_the_source() {
    let mut world = World::founded();
    let (s1, from) = world.with_domain("w1", "d1");
    let (s2, to) = world.with_domain("w2", "d2");
    // Created by whoever was least busy; only these two reach them from now on.
    for worker in ["w1", "w2"] {
        let domains: Vec<_> =
            world.state.workers.get(&world::worker_id(worker)).unwrap().domains.keys().copied().collect();
        assert_eq!(domains.len(), 1, "{worker} reaches {domains:?}");
    }
    let disk = world.add_disk("w1", s1, "a", from);
    let id = world.begin(Spec::MoveDisk { disk, to });
    let (serve, pull) = (world.assignments("w1"), world.assignments("w2"));
    let (Order::ServeSource { ticket: served, .. }, Order::Copy { source: CopySource::Pull { address, ticket }, .. }) =
        (&serve[0].order, &pull[0].order)
    else {
        panic!("not a pull: {serve:?} {pull:?}");
    };
    assert_eq!((served, address.as_str()), (ticket, "w1:7500"));
    world.work("w2", s2);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
    assert!(world.assignments("w1").is_empty());
}

#[test]
fn a_lost_worker_loses_its_attempt_and_its_late_report_is_refused() {
    let mut world = World::founded();
    let (s1, domain) = world.with_domain("w1", "d1");
    let id = world.begin(Spec::CreateDisk {
        name: name("a"),
        domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    });
    let old = world.assignments("w1").remove(0);
    let s2 = world.open_worker("w2", "p1");
    world.reach(s2, domain, 1 << 30);
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    let [garbage] = &world.state.garbage.values().cloned().collect::<Vec<_>>()[..] else { panic!("one garbage") };
    assert_eq!((garbage.kind, garbage.made_by), (Kind::ClosedAttempt, old.token));
    world.pass(2_000);
    let new = world.assignments("w2").remove(0);
    assert!(new.token > old.token);
    // The lost worker comes back and finishes what it was told long ago.
    let s1 = world.open_worker("w1", "p1 again");
    assert!(
        matches!(world.report(s1, old.token, done(&old.order).unwrap()), Reply::Refused(r) if r.reason == "ATTEMPT_CLOSED")
    );
    assert!(world.state.disks.is_empty());
    world.work("w2", s2);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
}

#[test]
fn a_report_under_an_ended_session_is_refused() {
    let mut world = World::founded();
    let (s1, domain) = world.with_domain("w1", "d1");
    world.begin(Spec::CreateDisk {
        name: name("a"),
        domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    });
    let assignment = world.assignments("w1").remove(0);
    world.apply(Command::CloseSession(s1));
    let late = world.report(s1, assignment.token, done(&assignment.order).unwrap());
    assert!(matches!(late, Reply::Refused(r) if r.reason == "SESSION_EXPIRED"));
}

#[test]
fn attempts_pause_longer_each_time_and_end_in_an_abort_that_tells_the_last_error() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let id = world.begin(Spec::CreateDisk {
        name: name("a"),
        domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    });
    let mut pauses = Vec::new();
    while let Some(assignment) = world.assignments("w1").first().cloned() {
        world.report(session, assignment.token, failed());
        let began = world.now_ms;
        while world.assignments("w1").is_empty() && !world.phase(id).is_final() {
            world.now_ms = world.state.next_due_ms().unwrap();
            world.apply(Command::Tick);
        }
        pauses.push(world.now_ms - began);
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 0]);
    let refusal = world.refusal_of(id);
    assert_eq!(refusal.reason, "ATTEMPTS_USED_UP");
    assert!(refusal.message.contains("input/output error"));
    assert_eq!(world.state.garbage.len(), 6);
    assert!(world.state.locks.is_empty());
}

#[test]
fn a_definite_refusal_aborts_at_once_and_what_was_made_is_garbage() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let spec =
        Spec::ImportDisk { name: name("a"), domain, format: Format::Qcow2, file_size: 1 << 20, allocated_bytes: 0 };
    let id = world.begin(spec);
    let token = world.assignments("w1")[0].token;
    let refusal = Refusal::new(Class::Invalid, "QCOW2_BACKING_FILE", "the image names a backing file");
    world.report(session, token, Report::Refused(refusal.clone()));
    assert_eq!(world.refusal_of(id), &refusal);
    assert_eq!(world.state.garbage.len(), 1);
    assert!(world.state.disks.is_empty() && world.state.jobs.is_empty() && world.state.locks.is_empty());
}

#[test]
fn a_path_that_one_host_lacks_is_tried_at_the_others_then_refused_without_garbage() {
    let mut world = World::founded();
    let sessions = [("w1", world.open_worker("w1", "p")), ("w2", world.open_worker("w2", "p"))];
    let id = world.begin(Spec::CreateDomain { name: name("d"), path: "/srv/d".into(), local: true });
    let missing = || Report::Refused(Refusal::new(Class::NotFound, "PATH_MISSING", "/srv/d does not exist"));
    for _ in 0..2 {
        let (worker, session) =
            sessions.iter().find(|(worker, _)| !world.assignments(worker).is_empty()).copied().unwrap();
        let token = world.assignments(worker)[0].token;
        world.report(session, token, missing());
    }
    assert_eq!(world.refusal_of(id).reason, "PATH_MISSING");
    assert!(world.state.garbage.is_empty());
}

#[test]
fn an_import_without_a_sender_ends_and_one_with_a_sender_does_not() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let spec =
        |n| Spec::ImportDisk { name: name(n), domain, format: Format::Raw, file_size: 4096, allocated_bytes: 4096 };
    let (alone, sent) = (world.begin(spec("alone")), world.begin(spec("sent")));
    let token = world.assignments("w1")[1].token;
    world.report(session, token, Report::Peer { connected: true });
    world.pass(61_000);
    assert_eq!(world.refusal_of(alone).reason, "SOURCE_GONE");
    assert!(matches!(world.phase(sent), Phase::Running));
    world.report(session, token, Report::Peer { connected: false });
    world.pass(31_000);
    assert!(matches!(world.phase(sent), Phase::Running));
    // A worker repeats what it said; that is no new minute.
    world.report(session, token, Report::Peer { connected: false });
    world.pass(30_000);
    assert_eq!(world.refusal_of(sent).reason, "SOURCE_GONE");
}

#[test]
fn space_is_promised_once_and_refused_with_what_is_missing() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    world.reach(session, domain, 100 << 30);
    let spec = |n, allocated_bytes| Spec::ImportDisk {
        name: name(n),
        domain,
        format: Format::Raw,
        file_size: 1 << 40,
        allocated_bytes,
    };
    let first = world.begin(spec("a", 60 << 30));
    assert!(matches!(world.phase(first), Phase::Running));
    let second = world.begin(spec("b", 60 << 30));
    let refusal = world.refusal_of(second);
    assert_eq!((refusal.reason.as_str(), refusal.class), ("NO_SPACE", Class::Exhausted));
    assert!(refusal.message.contains("lacks"), "{}", refusal.message);
}

#[test]
fn deleting_takes_one_entry_and_frees_the_name() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", session, "a", domain);
    let id = world.begin(Spec::DeleteDisk { disk });
    assert!(matches!(world.phase(id), Phase::Committed(_)));
    assert!(world.state.disk_named(&name("a")).is_none() && world.state.volumes.is_empty());
    let again = world.add_disk("w1", session, "a", domain);
    assert_ne!(again, disk);
    let gone = world.begin(Spec::DeleteDisk { disk });
    assert_eq!(world.refusal_of(gone).reason, "DISK_NOT_FOUND");
}

#[test]
fn a_commit_is_refused_when_the_hash_is_not_the_recorded_one() {
    let mut world = World::founded();
    let (session, from) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", session, "d2");
    let disk = world.add_disk("w1", session, "a", from);
    let id = world.begin(Spec::MoveDisk { disk, to });
    let assignment = world.assignments("w1").remove(0);
    let Some(Report::Done { mut volumes, bytes }) = done(&assignment.order) else { panic!() };
    volumes[0].blake3 = Some([8; 32]);
    world.report(session, assignment.token, Report::Done { volumes, bytes });
    assert_eq!(world.refusal_of(id).reason, "HASH_MISMATCH");
    assert_eq!(world.state.domain_of(world.state.disks.get(&disk).unwrap()).unwrap().id, from);
}

#[test]
fn a_request_is_done_once_whatever_is_repeated_and_another_one_under_its_id_is_refused() {
    let mut world = World::founded();
    let (_, domain) = world.with_domain("w1", "d1");
    let spec = |n| Spec::CreateDisk {
        name: name(n),
        domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    };
    let id = request(200);
    assert_eq!(world.begin_as(id, spec("a"), 0), Reply::Txn(id));
    let before = world.state.txns.get(&id).cloned();
    assert_eq!(world.begin_as(id, spec("a"), 0), Reply::Txn(id));
    assert_eq!(world.state.txns.get(&id).cloned(), before);
    assert!(matches!(world.begin_as(id, spec("b"), 0), Reply::Refused(r) if r.reason == "REQUEST_ID_REUSED"));
}

#[test]
fn a_late_copy_of_a_request_is_refused_and_a_refusal_is_remembered() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    world.add_disk("w1", session, "a", domain);
    let spec = Spec::CreateDisk {
        name: name("a"),
        domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    };
    let id = request(201);
    world.begin_as(id, spec.clone(), 0);
    assert_eq!(world.refusal_of(id).reason, "DISK_EXISTS");
    let disk = world.state.disk_named(&name("a")).unwrap().id;
    world.begin(Spec::DeleteDisk { disk });
    world.begin_as(id, spec.clone(), 0);
    assert_eq!(world.refusal_of(id).reason, "DISK_EXISTS", "the recorded result stays");

    let late = Command::Begin(sdm_state::command::Begin {
        id: request(202),
        request_hash: [0; 32],
        not_after_ms: world.now_ms,
        looked_up_ms: world.now_ms,
        unix_ms: 0,
        initiator: String::new(),
        reason: String::new(),
        lock_wait_ms: 0,
        spec,
        under: None,
    });
    world.pass(1);
    assert_eq!(world.refused(late).reason, "REQUEST_TOO_OLD");
}

#[test]
fn an_issued_request_id_is_refused_after_the_window_in_which_results_are_kept() {
    let mut world = World::founded();
    let (_, domain) = world.with_domain("w1", "d1");
    let id = sdm_proto::request_id::issue(world.now_ms, [3; 16]);
    let spec = Spec::CreateDisk {
        name: name("a"),
        domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    };
    world.begin_as(id, spec.clone(), 0);
    let window = world.state.meta.settings.request_window_ms;
    world.apply(Command::Abort { txn: id, reason: "test".into() });
    world.pass(window + 60_000);
    assert!(!world.state.txns.contains(&id), "forgotten");
    assert!(matches!(world.begin_as(id, spec, 0), Reply::Refused(r) if r.reason == "REQUEST_TOO_OLD"));
}

#[test]
fn the_clock_never_goes_back_and_never_jumps() {
    let mut world = World::founded();
    world.pass(5_000);
    world.now_ms = 1_000;
    world.apply(Command::Tick);
    assert_eq!(world.state.meta.clock_ms, 5_000);
    world.now_ms = 10_000_000;
    world.apply(Command::Tick);
    assert_eq!(world.state.meta.clock_ms, 125_000);
}

#[test]
fn an_id_whose_result_was_forgotten_by_number_is_never_done_twice() {
    let mut world = World::founded();
    let (_, domain) = world.with_domain("w1", "d1");
    let keep = world.state.meta.settings.finished_txns_max;
    let id = sdm_proto::request_id::issue(world.now_ms, [3; 16]);
    let missing = sdm_proto::ids::DiskId::derive("missing", &[]);
    world.begin_as(id, Spec::DeleteDisk { disk: missing }, 0);
    assert_eq!(world.refusal_of(id).reason, "DISK_NOT_FOUND");
    // Straight to the state, since checking every invariant ten thousand times takes minutes.
    let stale = world.now_ms;
    for n in 0..=keep + 10 {
        world.now_ms += 1;
        world.index += 1;
        let begin = sdm_state::command::Begin {
            id: sdm_proto::ids::TxnId::derive("flood", &[&n.to_be_bytes()]),
            request_hash: [0; 32],
            not_after_ms: u64::MAX,
            looked_up_ms: world.now_ms,
            unix_ms: 0,
            initiator: String::new(),
            reason: String::new(),
            lock_wait_ms: 0,
            spec: Spec::DeleteDisk { disk: missing },
            under: None,
        };
        let entry = sdm_state::Entry { stamp_ms: world.now_ms, entropy: [0; 16], command: Command::Begin(begin) };
        world.state.apply(world.index, &entry);
    }
    assert!(!world.state.txns.contains(&id), "forgotten");
    let spec = Spec::CreateDisk {
        name: name("a"),
        domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    };
    let now = std::mem::replace(&mut world.now_ms, stale);
    let late_copy = world.begin_as(request(203), spec.clone(), 0);
    assert!(matches!(late_copy, Reply::Refused(r) if r.reason == "REQUEST_TOO_OLD"), "looked up before");
    world.now_ms = now;
    assert!(matches!(world.begin_as(id, spec.clone(), 0), Reply::Refused(r) if r.reason == "REQUEST_TOO_OLD"));
    assert_eq!(world.begin_as(request(204), spec, 0), Reply::Txn(request(204)));
}

#[test]
fn a_report_on_a_domain_that_was_held_up_does_not_undo_a_newer_one() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let sight = world.state.workers.get(&world::worker_id("w1")).unwrap().domains[&domain].clone();
    let report = |sequence, error: Option<&str>| {
        let sight = sdm_state::workers::DomainSight { sequence, error: error.map(str::to_owned), ..sight.clone() };
        Command::ReportDomains { session, items: vec![sdm_state::workers::DomainReport { domain, sight }] }
    };
    world.apply(report(50, None));
    world.apply(report(49, Some("the domain's I/O hangs")));
    assert!(world.state.workers.get(&world::worker_id("w1")).unwrap().reaches(domain));
    world.apply(report(51, Some("the domain's I/O hangs")));
    assert!(!world.state.workers.get(&world::worker_id("w1")).unwrap().reaches(domain));
}

#[test]
fn storage_that_hangs_for_good_loses_its_attempt_and_another_worker_takes_it() {
    let mut world = World::founded();
    let (s1, from) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", s1, "d2");
    let disk = world.add_disk("w1", s1, "a", from);
    let id = world.begin(Spec::MoveDisk { disk, to });
    let first = world.assignments("w1").remove(0);
    let s2 = world.open_worker("w2", "p1");
    world.reach(s2, from, 1 << 39);
    world.reach(s2, to, 1 << 39);
    world.unreach(s1, to);
    world.pass(59_000);
    assert_eq!(world.assignments("w1").len(), 1, "it may come back");
    world.pass(2_000);
    world.pass(2_000);
    assert!(world.assignments("w1").is_empty());
    let second = world.assignments("w2").remove(0);
    assert!(second.token > first.token);
    world.work("w2", s2);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
}

#[test]
fn storage_that_comes_back_keeps_its_attempt() {
    let mut world = World::founded();
    let (s1, from) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", s1, "d2");
    let disk = world.add_disk("w1", s1, "a", from);
    world.begin(Spec::MoveDisk { disk, to });
    world.unreach(s1, from);
    world.pass(50_000);
    world.reach(s1, from, 1 << 39);
    world.pass(50_000);
    assert_eq!(world.assignments("w1").len(), 1);
}

#[test]
fn a_step_that_never_ends_is_given_up() {
    let mut world = World::founded();
    let s1 = world.open_worker("w1", "p1");
    let s2 = world.open_worker("w2", "p1");
    world.begin(Spec::CreateDomain { name: name("d"), path: "/srv/hung".into(), local: true });
    assert_eq!(world.assignments("w1").len() + world.assignments("w2").len(), 1);
    let hung = if world.assignments("w1").is_empty() { ("w2", s2) } else { ("w1", s1) };
    world.pass(302_000);
    assert!(world.assignments(hung.0).is_empty(), "a worker at which it failed comes last");
}

#[test]
fn the_worker_at_which_it_failed_comes_last() {
    let mut world = World::founded();
    let (s1, domain) = world.with_domain("w1", "d1");
    let s2 = world.open_worker("w2", "p1");
    world.reach(s2, domain, 1 << 39);
    world.begin(Spec::CreateDisk {
        name: name("a"),
        domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    });
    let mut order = Vec::new();
    for _ in 0..4 {
        let (worker, session) =
            [("w1", s1), ("w2", s2)].into_iter().find(|(w, _)| !world.assignments(w).is_empty()).unwrap();
        order.push(worker);
        let token = world.assignments(worker)[0].token;
        world.report(session, token, failed());
        world.pass(10_000);
    }
    assert_ne!(order[0], order[1]);
    assert_eq!((order[0], order[1]), (order[2], order[3]));
}

#[test]
fn an_import_of_another_size_than_announced_is_refused() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let spec =
        Spec::ImportDisk { name: name("a"), domain, format: Format::Qcow2, file_size: 1 << 19, allocated_bytes: 0 };
    let id = world.begin(spec);
    world.work("w1", session);
    assert_eq!(world.refusal_of(id).reason, "SIZE_MISMATCH");
    assert!(world.state.disks.is_empty());
}

#[test]
fn a_refusal_names_a_few_of_many_blockers() {
    let mut world = World::founded();
    let (session, from) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", session, "d2");
    let disk = world.add_disk("w1", session, "a", from);
    for _ in 0..30 {
        world.begin(Spec::MoveDisk { disk, to });
    }
    world.begin_as(request(199), Spec::DeleteDisk { disk }, 0);
    assert_eq!(world.refusal_of(request(199)).blockers.len(), 8);
}

#[test]
fn the_limits_are_those_of_the_first_entry_and_not_of_the_build() {
    let mut world = World::empty();
    let settings = sdm_state::settings::Settings { attempts_max: 2, ..Default::default() };
    world.apply(Command::Found(sdm_state::command::Found {
        cluster_id: sdm_proto::ids::ClusterId::derive("test cluster", &[]),
        pool_id: sdm_proto::ids::PoolId::derive("test pool", &[]),
        epoch: 1,
        member: world::member("m1"),
        settings,
    }));
    let (session, domain) = world.with_domain("w1", "d1");
    let id = world.begin(Spec::CreateDisk {
        name: name("a"),
        domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    });
    for _ in 0..2 {
        let token = world.assignments("w1")[0].token;
        world.report(session, token, failed());
        world.pass(2_000);
    }
    assert_eq!(world.refusal_of(id).reason, "ATTEMPTS_USED_UP");
}
