//! Workers that are drained, removed or lost, and work in place that outlives them: what is proved to
//! write no more goes on elsewhere, and nothing else does.

mod world;

use sdm_proto::ids::DiskId;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Refusal;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::assignments::Assignment;
use sdm_state::assignments::Order;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::catalog::Format;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::workers::WorkerChange;
use sdm_state::workers::WorkerIdentity;
use world::World;
use world::done;
use world::identity;
use world::name;
use world::worker_id;

/// Workers w1 and w2 reach d1, in which disk a lies, and w1 grows it.
fn growing() -> (World, SessionRef, SessionRef, DiskId, TxnId) {
    let mut world = World::founded();
    let (s1, d1) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", s1, "a", d1);
    let id = world.begin(Spec::ResizeDisk { disk, size: 20 << 20 });
    let [Assignment { order: Order::Resize { .. }, .. }] = &world.assignments("w1")[..] else {
        panic!("{:?} {:?}", world.assignments("w1"), world.phase(id))
    };
    let s2 = world.open_worker("w2", "p1");
    world.reach(s2, d1, 1 << 30);
    (world, s1, s2, disk, id)
}

fn word(world: &World, id: TxnId) -> &'static str {
    world.state.txns.get(&id).unwrap().phase_word()
}

fn confirm(world: &mut World, worker: &str, session: u64) -> Result<(), Refusal> {
    let id = world.begin(Spec::Worker(WorkerChange::ConfirmDown { worker: worker_id(worker), session }));
    match world.phase(id) {
        Phase::Committed(_) => Ok(()),
        _ => Err(world.refusal_of(id).clone()),
    }
}

fn worker_change(world: &mut World, change: WorkerChange) -> Result<(), Refusal> {
    let id = world.begin(Spec::Worker(change));
    match world.phase(id) {
        Phase::Committed(_) => Ok(()),
        _ => Err(world.refusal_of(id).clone()),
    }
}

fn failed() -> Report {
    Report::Failed { reason: "IO".into(), message: "input/output error".into(), hint: String::new() }
}

#[test]
fn a_lost_worker_keeps_what_it_was_doing_in_place_however_long_it_is_gone() {
    let (mut world, s1, _, disk, id) = growing();
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    world.pass(24 * 3_600_000);
    assert_eq!(word(&world, id), "fencing");
    assert!(world.assignments("w2").is_empty(), "nobody else writes before it is fenced");
    assert_eq!(world.state.fencing_txns().count(), 1);
    let delete = world.begin_as(world::request(200), Spec::DeleteDisk { disk }, 0);
    assert!(matches!(delete, Reply::Txn(_)));
    assert_eq!(world.refusal_of(world::request(200)).reason, "LOCKED", "its locks are kept");
}

#[test]
fn an_abort_takes_effect_only_when_nobody_writes_in_place_any_more() {
    let (mut world, s1, _, _, id) = growing();
    world.apply(Command::Abort { txn: id, reason: "no more".into() });
    assert_eq!(word(&world, id), "running", "its worker is still at it");
    let token = world.assignments("w1")[0].token;
    world.report(s1, token, failed());
    assert_eq!(world.refusal_of(id).reason, "ABORTED");
    assert!(world.state.locks.is_empty());
}

/// An attempt that broke off may have come as far as `.meta`, which would then tell a size that the disk never got.
#[test]
fn what_the_storage_tells_is_written_anew_after_an_abort_of_work_in_place_that_began() {
    let (mut world, s1, _, disk, id) = growing();
    let placement = world.state.disks.get(&disk).unwrap().placement;
    world.apply(Command::Abort { txn: id, reason: "no more".into() });
    assert!(world.state.projections.is_empty(), "it is not over");
    world.report(s1, world.assignments("w1")[0].token, failed());
    assert_eq!(world.refusal_of(id).reason, "ABORTED");
    let assigned = world.assignments("w1").into_iter().chain(world.assignments("w2"));
    let told: Vec<_> = assigned
        .filter_map(|assignment| match assignment.order {
            Order::Project { placement, volumes, .. } => Some((placement, volumes[0].virtual_size)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(placement, 1 << 20)]);
}

#[test]
fn an_abort_of_work_in_place_that_never_began_has_nothing_to_write_anew() {
    let (mut world, s1, s2, disk, id) = growing();
    world.work("w1", s1);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
    for (worker, session) in [("w1", s1), ("w2", s2), ("w1", s1)] {
        world.work(worker, session);
    }
    assert!(world.state.projections.is_empty());
    for session in [s1, s2] {
        world.apply(Command::ExpireSessions { sessions: vec![session] });
    }
    let id = world.begin(Spec::ResizeDisk { disk, size: 40 << 20 });
    world.apply(Command::Abort { txn: id, reason: "no more".into() });
    assert!(matches!(world.phase(id), Phase::Aborted(_) | Phase::Refused(_)), "{:?}", world.phase(id));
    assert!(world.state.projections.is_empty());
}

#[test]
fn what_was_done_in_place_is_committed_although_an_abort_was_asked_for() {
    let (mut world, s1, _, disk, id) = growing();
    world.apply(Command::Abort { txn: id, reason: "no more".into() });
    world.work("w1", s1);
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    let leaf = world.state.disks.get(&disk).unwrap().volumes[0];
    assert_eq!(world.state.volumes.get(&leaf).unwrap().virtual_size, 20 << 20);
}

#[test]
fn the_same_worker_back_on_the_same_boot_goes_on_with_the_same_token() {
    let (mut world, s1, _, _, id) = growing();
    let token = world.assignments("w1")[0].token;
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    assert_eq!(word(&world, id), "fencing");
    let s1 = world.open_worker("w1", "p2");
    assert_eq!(word(&world, id), "running");
    assert_eq!(world.assignments("w1")[0].token, token);
    world.work("w1", s1);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
}

#[test]
fn what_broke_off_in_place_is_gone_on_with_by_the_same_host_alone() {
    for report in [Report::Stopped, died()] {
        let (mut world, s1, _, disk, id) = growing();
        let domain = world.state.domain_named(&name("d1")).unwrap().id;
        let token = world.assignments("w1")[0].token;
        world.apply(Command::ExpireSessions { sessions: vec![s1] });
        let s1 = world.open_worker("w1", "p2");
        world.report(s1, token, report);
        world.pass(60_000);
        assert!(world.assignments("w2").is_empty(), "what w1 wrote may not be on the storage yet");
        worker_change(&mut world, WorkerChange::Drain { worker: worker_id("w1") }).unwrap();
        let remove = WorkerChange::Remove { worker: worker_id("w1") };
        assert_eq!(worker_change(&mut world, remove).unwrap_err().reason, "WORKER_IN_USE");
        world.reach(s1, domain, 1 << 30);
        world.pass(2_000);
        assert!(world.assignments("w2").is_empty());
        assert!(world.assignments("w1")[0].token > token);
        world.work("w1", s1);
        assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
        let leaf = world.state.disks.get(&disk).unwrap().volumes[0];
        assert_eq!(world.state.volumes.get(&leaf).unwrap().virtual_size, 20 << 20);
    }
}

#[test]
fn what_broke_off_in_place_goes_to_another_host_when_that_one_is_fenced() {
    for reboots in [true, false] {
        let (mut world, s1, s2, _, id) = growing();
        let token = world.assignments("w1")[0].token;
        world.report(s1, token, died());
        world.apply(Command::ExpireSessions { sessions: vec![s1] });
        world.pass(60_000);
        assert!(world.assignments("w2").is_empty());
        if reboots {
            let mut back = identity("w1", "p2");
            back.boot_id = "next boot".into();
            open_as(&mut world, back);
        } else {
            confirm(&mut world, "w1", s1.id).unwrap();
        }
        world.pass(2_000);
        world.work("w2", s2);
        assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    }
}

fn died() -> Report {
    Report::Failed { reason: "PROCESS_DIED".into(), message: "signal: 9".into(), hint: String::new() }
}

fn open_as(world: &mut World, identity: WorkerIdentity) -> Reply {
    let nonce = format!("{} on {}", identity.process_nonce, identity.machine_id);
    world.apply(Command::OpenSession(OpenSession { owner: SessionOwner::Worker(identity), ttl_ms: 10_000, nonce }))
}

#[test]
fn a_worker_comes_from_another_machine_only_when_the_old_one_is_fenced() {
    for (broke_off, lost_first) in [(true, false), (false, false), (false, true)] {
        let (mut world, s1, s2, _, id) = growing();
        if broke_off {
            world.report(s1, world.assignments("w1")[0].token, died());
        }
        world.apply(Command::ExpireSessions { sessions: vec![s1] });
        let mut moved = identity("w1", "p2");
        (moved.machine_id, moved.boot_id) = ("another machine".into(), "its boot".into());
        let Reply::Refused(refusal) = open_as(&mut world, moved.clone()) else { panic!("it is not fenced") };
        assert_eq!(refusal.reason, "FENCE_REQUIRED");
        let command = format!("sdm worker confirm-down w1 --session {} --reason", s1.id);
        assert!(refusal.message.contains(&id.to_string()) && refusal.hint.contains(&command), "{refusal}");
        if lost_first {
            // Where it was, it goes on.
            let back = world.open_worker("w1", "p3");
            assert_eq!(word(&world, id), "running");
            world.apply(Command::ExpireSessions { sessions: vec![back] });
            confirm(&mut world, "w1", back.id).unwrap();
        } else {
            confirm(&mut world, "w1", s1.id).unwrap();
        }
        assert!(matches!(open_as(&mut world, moved), Reply::Session { .. }));
        world.pass(2_000);
        world.work("w2", s2);
        assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    }
}

#[test]
fn a_worker_with_a_disk_attached_comes_from_another_machine_only_when_the_old_one_is_confirmed_down() {
    let (mut world, s1, _, disk, _) = growing();
    world.work("w1", s1);
    let (worker, access) = (worker_id("w1"), Access::Write);
    world.begin(Spec::Attachment(AttachmentChange::Attach { disk, worker, access, session: None }));
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    let mut moved = identity("w1", "p2");
    moved.machine_id = "another machine".into();
    assert!(
        matches!(open_as(&mut world, moved.clone()), Reply::Refused(refusal) if refusal.reason == "FENCE_REQUIRED")
    );
    confirm(&mut world, "w1", s1.id).unwrap();
    assert!(matches!(open_as(&mut world, moved), Reply::Session { .. }));
}

#[test]
fn a_machine_that_was_started_anew_is_fenced_and_another_worker_goes_on() {
    let (mut world, s1, s2, _, id) = growing();
    let old = world.assignments("w1").remove(0);
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    let mut back = identity("w1", "p2");
    back.boot_id = "next boot".into();
    let open = OpenSession { owner: SessionOwner::Worker(back), ttl_ms: 10_000, nonce: "w1 p2".into() };
    let Reply::Session { session: s1, .. } = world.apply(Command::OpenSession(open)) else { panic!("a session") };
    world.pass(2_000);
    assert_eq!(world.assignments("w2").len(), 1);
    assert!(matches!(world.report(s1, old.token, done(&old.order).unwrap()), Reply::Refused(_)), "too late");
    world.work("w2", s2);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
}

#[test]
fn confirming_a_worker_down_needs_its_last_session_and_that_it_is_lost() {
    let (mut world, s1, _, _, id) = growing();
    assert_eq!(confirm(&mut world, "w1", s1.id).unwrap_err().reason, "WORKER_LIVE");
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    let refusal = confirm(&mut world, "w1", s1.id + 1).unwrap_err();
    assert_eq!(refusal.reason, "WRONG_SESSION");
    assert!(refusal.hint.contains("sdm worker show w1"), "{refusal}");
    assert_eq!(word(&world, id), "fencing");
    // It came back for a moment and was lost again: whoever read the session before has not seen that.
    let back = world.open_worker("w1", "p2");
    world.apply(Command::ExpireSessions { sessions: vec![back] });
    assert_eq!(confirm(&mut world, "w1", s1.id).unwrap_err().reason, "WRONG_SESSION");
    confirm(&mut world, "w1", back.id).unwrap();
    confirm(&mut world, "w1", back.id).unwrap();
    let row = world.state.workers.get(&worker_id("w1")).unwrap();
    assert_eq!(row.confirmed_down.as_ref().map(|down| (down.session, down.by.as_str())), Some((back.id, "test")));
    assert!(world.state.fenced(worker_id("w1"), s1.id), "what it began earlier is over, too");
    world.pass(2_000);
    assert_eq!(world.assignments("w2").len(), 1);
    assert_eq!(word(&world, id), "running");
}

#[test]
fn a_falsely_confirmed_worker_is_refused_when_it_wakes() {
    let (mut world, s1, s2, disk, id) = growing();
    let old = world.assignments("w1").remove(0);
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    confirm(&mut world, "w1", s1.id).unwrap();
    world.pass(2_000);
    world.work("w2", s2);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
    let larger = world.begin(Spec::ResizeDisk { disk, size: 40 << 20 });
    world.work("w2", s2);
    assert!(matches!(world.phase(larger), Phase::Committed(_)), "{:?}", world.phase(larger));
    let s1 = world.open_worker("w1", "p1 again");
    assert!(matches!(world.report(s1, old.token, done(&old.order).unwrap()), Reply::Refused(_)));
    let leaf = world.state.disks.get(&disk).unwrap().volumes[0];
    assert_eq!(world.state.volumes.get(&leaf).unwrap().virtual_size, 40 << 20);
}

#[test]
fn a_second_live_process_under_a_hung_workers_name_is_refused() {
    let (mut world, _, _, _, id) = growing();
    let mut second = identity("w1", "p9");
    second.id = worker_id("another folder");
    second.machine_id = "another machine".into();
    let open = OpenSession { owner: SessionOwner::Worker(second), ttl_ms: 10_000, nonce: "second".into() };
    assert_eq!(world.refused(Command::OpenSession(open)).reason, "WORKER_NAME_IN_USE");
    assert_eq!(word(&world, id), "running");
}

#[test]
fn a_drained_worker_gets_nothing_new_and_finishes_what_it_has() {
    let mut world = World::founded();
    let (s1, d1) = world.with_domain("w1", "d1");
    let create = |disk: &str| Spec::CreateDisk {
        name: name(disk),
        domain: d1,
        size: 1 << 20,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    };
    let running = world.begin(create("a"));
    worker_change(&mut world, WorkerChange::Drain { worker: worker_id("w1") }).unwrap();
    let refused = world.begin(create("b"));
    let refusal = world.refusal_of(refused);
    assert_eq!(refusal.reason, "DOMAIN_UNREACHABLE");
    assert!(refusal.blockers[0].description.contains("drained"), "{refusal}");
    world.work("w1", s1);
    assert!(matches!(world.phase(running), Phase::Committed(_)));
    // A new process of it is still drained.
    let s1 = world.open_worker("w1", "p2");
    world.reach(s1, d1, 1 << 30);
    let refused = world.begin(create("b"));
    assert_eq!(world.refusal_of(refused).reason, "DOMAIN_UNREACHABLE");
    worker_change(&mut world, WorkerChange::Undrain { worker: worker_id("w1") }).unwrap();
    let again = world.begin(create("b"));
    assert_eq!(world.phase(again), &Phase::Running);
}

#[test]
fn what_waits_for_a_worker_goes_to_one_that_is_undrained() {
    let mut world = World::founded();
    let (s1, d1) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", s1, "a", d1);
    let id = world.begin(Spec::ExportDisk { disk });
    let token = world.assignments("w1")[0].token;
    worker_change(&mut world, WorkerChange::Drain { worker: worker_id("w1") }).unwrap();
    world.report(s1, token, failed());
    world.pass(5_000);
    assert!(world.assignments("w1").is_empty());
    worker_change(&mut world, WorkerChange::Undrain { worker: worker_id("w1") }).unwrap();
    assert_eq!(world.assignments("w1").len(), 1);
    assert_eq!(word(&world, id), "running");
}

#[test]
fn a_worker_is_removed_only_when_nothing_names_it() {
    let (mut world, s1, _, disk, id) = growing();
    let remove = WorkerChange::Remove { worker: worker_id("w1") };
    assert_eq!(worker_change(&mut world, remove.clone()).unwrap_err().reason, "WORKER_LIVE");
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    let refusal = worker_change(&mut world, remove.clone()).unwrap_err();
    assert_eq!(refusal.reason, "WORKER_IN_USE");
    assert!(refusal.blockers[0].description.contains(&id.to_string()), "{refusal}");
    let s1 = world.open_worker("w1", "p2");
    world.work("w1", s1);
    let domain = world.state.domain_named(&name("d1")).unwrap().id;
    world.reach(s1, domain, 1 << 30);
    let (worker, access) = (worker_id("w1"), Access::Write);
    world.begin(Spec::Attachment(AttachmentChange::Attach { disk, worker, access, session: None }));
    worker_change(&mut world, WorkerChange::Drain { worker }).unwrap();
    let refusal = worker_change(&mut world, remove.clone()).unwrap_err();
    assert!(refusal.blockers[0].description.contains("sdm disk detach a --host w1"), "{refusal}");
    world.begin(Spec::Attachment(AttachmentChange::Detach { disk, worker: None, stopped: false }));
    worker_change(&mut world, remove.clone()).unwrap();
    assert!(!world.state.workers.contains(&worker) && !world.state.sessions.contains(&s1.id));
    assert_eq!(worker_change(&mut world, remove).unwrap_err().reason, "WORKER_NOT_FOUND");
}

/// What w1 wrote in place broke off: the locks are its host's until that is fenced or says its word.
fn broken_off() -> (World, SessionRef, SessionRef, TxnId) {
    let (mut world, s1, s2, _, id) = growing();
    let token = world.assignments("w1")[0].token;
    world.report(s1, token, died());
    (world, s1, s2, id)
}

fn holds_its_locks(world: &World, id: TxnId) -> bool {
    world.state.txns.get(&id).unwrap().lock.is_some_and(|lock| world.state.locks.contains(&lock))
}

#[test]
fn what_is_pinned_to_a_host_keeps_its_locks_however_long_that_is_away() {
    let (mut world, s1, s2, id) = broken_off();
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    world.pass(24 * 3_600_000);
    assert_eq!(world.phase(id), &Phase::Running);
    assert!(holds_its_locks(&world, id) && world.assignments("w2").is_empty());
    confirm(&mut world, "w1", s1.id).unwrap();
    world.pass(2_000);
    world.work("w2", s2);
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
}

#[test]
fn once_its_host_is_fenced_it_ends_for_want_of_a_worker_like_any_other() {
    let (mut world, s1, s2, id) = broken_off();
    world.apply(Command::ExpireSessions { sessions: vec![s1, s2] });
    world.pass(3_600_000);
    confirm(&mut world, "w1", s1.id).unwrap();
    assert_eq!(world.phase(id), &Phase::Running, "the time to find somebody begins when it may be anybody");
    world.pass(world.state.meta.settings.unassigned_max_ms + 60_000);
    assert_eq!(world.refusal_of(id).reason, "NO_WORKER");
}

#[test]
fn an_abort_of_what_is_pinned_takes_effect_when_its_host_is_fenced() {
    let (mut world, s1, _, id) = broken_off();
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    assert_eq!(world.apply(Command::Abort { txn: id, reason: "no more".into() }), Reply::Txn(id));
    assert!(holds_its_locks(&world, id), "what it wrote may still come to the storage");
    world.pass(3_600_000);
    assert!(holds_its_locks(&world, id));
    confirm(&mut world, "w1", s1.id).unwrap();
    assert_eq!(world.refusal_of(id).reason, "ABORTED");
    assert!(world.state.locks.is_empty());
}

#[test]
fn attempts_that_are_used_up_do_not_give_up_the_locks_of_what_is_pinned() {
    let (mut world, s1, _, id) = broken_off();
    for _ in 0..world.state.meta.settings.attempts_max {
        world.pass(60_000);
        let token = world.assignments("w1")[0].token;
        world.report(s1, token, died());
    }
    assert!(holds_its_locks(&world, id));
    world.pass(60_000);
    assert_eq!(world.assignments("w1").len(), 1, "its host alone can end it, so it is tried there again");
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    confirm(&mut world, "w1", s1.id).unwrap();
    assert_eq!(world.refusal_of(id).reason, "ATTEMPTS_USED_UP");
}

#[test]
fn a_refusal_that_may_have_come_before_anything_was_made_durable_leaves_it_to_its_host() {
    let (mut world, s1, s2, id) = broken_off();
    for reason in ["PLACEMENT_MISSING", "VOLUME_MISSING", "OTHER_CLUSTERS_DOMAIN", "INVALID_ORDER", "EVIDENCE_MISMATCH"]
    {
        world.pass(60_000);
        let token = world.assignments("w1")[0].token;
        let refusal = Refusal::new(sdm_proto::refusal::Class::NotFound, reason, "it is not there");
        world.report(s1, token, Report::Refused(refusal));
        assert_eq!(world.phase(id), &Phase::Running, "{reason}");
        assert!(holds_its_locks(&world, id) && world.assignments("w2").is_empty(), "{reason}");
        assert!(world.assignments("w1").is_empty(), "{reason}: not again at once");
    }
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    confirm(&mut world, "w1", s1.id).unwrap();
    world.pass(60_000);
    world.work("w2", s2);
    assert!(world.state.txns.get(&id).unwrap().phase.is_final());
    assert!(world.state.locks.is_empty());
}

#[test]
fn a_first_attempt_that_is_refused_wrote_nothing_and_ends() {
    let (mut world, s1, _, _, id) = growing();
    let token = world.assignments("w1")[0].token;
    let refusal = Refusal::new(sdm_proto::refusal::Class::NotFound, "PLACEMENT_MISSING", "it is not there");
    world.report(s1, token, Report::Refused(refusal));
    assert_eq!(world.refusal_of(id).reason, "PLACEMENT_MISSING");
    assert!(world.state.locks.is_empty());
}

#[test]
fn a_refusal_at_the_host_itself_ends_what_is_pinned_there() {
    let (mut world, s1, _, id) = broken_off();
    world.pass(60_000);
    let token = world.assignments("w1")[0].token;
    let refusal = Refusal::new(sdm_proto::refusal::Class::Exhausted, "NO_SPACE", "it is full");
    world.report(s1, token, Report::Refused(refusal));
    assert_eq!(world.refusal_of(id).reason, "NO_SPACE");
    assert!(world.state.locks.is_empty());
}

#[test]
fn a_drain_that_is_asked_again_with_another_reason_has_that_reason() {
    let (mut world, ..) = growing();
    let mut number = 200;
    let mut drain = |reason: &str| {
        let spec = Spec::Worker(WorkerChange::Drain { worker: worker_id("w1") });
        number += 1;
        let id = world::request(number);
        world.apply(Command::Begin(sdm_state::command::Begin {
            id,
            request_hash: *world::blake3_of(&spec),
            not_after_ms: world.now_ms + 600_000,
            looked_up_ms: world.now_ms,
            unix_ms: 0,
            initiator: "test".into(),
            reason: reason.into(),
            lock_wait_ms: 0,
            under: None,
            spec,
        }));
        world.pass(1_000);
        let row = world.state.workers.get(&worker_id("w1")).unwrap().draining.clone().unwrap();
        (row.reason, row.since_ms)
    };
    let (first, since) = drain("");
    assert_eq!(first, "");
    assert_eq!(drain("new memory"), ("new memory".to_owned(), since));
    assert_eq!(drain(""), ("new memory".to_owned(), since), "no reason takes none away");
    assert_eq!(drain("a new board"), ("a new board".to_owned(), since));
}

#[test]
fn a_disk_whose_file_is_gone_is_refused_with_the_next_commands() {
    let (mut world, s1, _, _, id) = growing();
    let said = Refusal::new(sdm_proto::refusal::Class::Precondition, "VOLUME_MISSING", "the volume is not there");
    world.report(s1, world.assignments("w1")[0].token, Report::Refused(said.hint("look")));
    let refusal = world.refusal_of(id);
    assert!(refusal.hint.contains("sdm domain check d1") && refusal.hint.contains("sdm disk delete a"), "{refusal}");
}
