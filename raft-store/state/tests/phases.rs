//! No phase of a transaction can only be left by editing something: each ends by itself at its deadline, and each
//! by an operator's word. And what comes late is never done: a repetition after its result was forgotten, a copy
//! that a cut off member delivers when its user was long refused.

mod world;

use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Refusal;
use sdm_proto::request_id;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::catalog::Format;
use sdm_state::command::Begin;
use sdm_state::command::SessionRef;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use world::World;
use world::name;

struct Scene {
    world: World,
    worker: SessionRef,
    from: DomainId,
    to: DomainId,
    disk: DiskId,
}

fn scene() -> Scene {
    let mut world = World::founded();
    let (worker, from) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", worker, "d2");
    let disk = world.add_disk("w1", worker, "a", from);
    Scene { world, worker, from, to, disk }
}

impl Scene {
    fn abort(&mut self, txn: TxnId) {
        self.world.apply(Command::Abort { txn, reason: "enough".into() });
    }

    #[track_caller]
    fn is_over(&self, txn: TxnId, reason: &str) {
        assert_eq!(self.world.refusal_of(txn).reason, reason);
        let own = self.world.state.locks.values().any(|lock| lock.owner == sdm_state::locks::Owner::Txn(txn));
        assert!(!own, "it holds nothing any more");
    }

    fn move_it(&mut self) -> TxnId {
        self.world.begin(Spec::MoveDisk { disk: self.disk, to: self.to })
    }
}

#[test]
fn waiting_for_locks_ends_by_a_grant_at_its_deadline_and_by_an_abort() {
    for way in 0..3 {
        let mut scene = scene();
        let holder = scene.world.begin(Spec::ExportDisk { disk: scene.disk });
        let waiting = scene.world.begin(Spec::DeleteDisk { disk: scene.disk });
        assert!(matches!(scene.world.phase(waiting), Phase::Waiting { .. }));
        match way {
            0 => {
                scene.world.work("w1", scene.worker);
                assert!(matches!(scene.world.phase(waiting), Phase::Committed(_)));
            }
            1 => {
                let token = scene.world.assignments("w1")[0].token;
                scene.world.report(scene.worker, token, Report::Peer { connected: true });
                scene.world.pass(300_000);
                scene.is_over(waiting, "LOCK_WAIT_OVER");
                assert!(matches!(scene.world.phase(holder), Phase::Running));
            }
            _ => {
                scene.abort(waiting);
                scene.is_over(waiting, "ABORTED");
            }
        }
    }
}

#[test]
fn running_ends_by_a_report_a_loss_used_up_attempts_and_an_abort() {
    let mut done = scene();
    let txn = done.move_it();
    done.world.work("w1", done.worker);
    assert!(matches!(done.world.phase(txn), Phase::Committed(_)));

    let mut failing = scene();
    let txn = failing.move_it();
    for _ in 0..failing.world.state.meta.settings.attempts_max {
        failing.world.pass(failing.world.state.meta.settings.retry_max_ms);
        let Some(token) = failing.world.assignments("w1").first().map(|assignment| assignment.token) else { break };
        let report = Report::Failed { reason: "IO".into(), message: "eio".into(), hint: String::new() };
        failing.world.report(failing.worker, token, report);
    }
    failing.is_over(txn, "ATTEMPTS_USED_UP");

    let mut unwanted = scene();
    let txn = unwanted.move_it();
    unwanted.abort(txn);
    unwanted.is_over(txn, "ABORTED");
    assert!(unwanted.world.assignments("w1").is_empty(), "the attempt is closed in that entry");
}

#[test]
fn a_step_that_hangs_and_storage_that_stays_away_are_given_up() {
    let mut hung = scene();
    let spec = Spec::CreateDisk {
        name: name("b"),
        domain: hung.from,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    };
    let txn = hung.world.begin(spec);
    let first = hung.world.assignments("w1")[0].token;
    hung.world.pass(hung.world.state.meta.settings.step_max_ms);
    let now = hung.world.assignments("w1").first().map(|assignment| assignment.token);
    assert_ne!(now, Some(first), "{:?}", hung.world.phase(txn));

    let mut away = scene();
    let txn = away.move_it();
    away.world.unreach(away.worker, away.to);
    away.world.pass(away.world.state.meta.settings.unreachable_max_ms);
    away.world.pass(away.world.state.meta.settings.unassigned_max_ms + 60_000);
    away.is_over(txn, "NO_WORKER");
}

#[test]
fn without_a_worker_it_ends_by_a_return_a_retry_its_deadline_and_an_abort() {
    let mut back = scene();
    let txn = back.move_it();
    back.world.apply(Command::ExpireSessions { sessions: vec![back.worker] });
    back.world.pass(2_000);
    let again = back.world.open_worker("w1", "p2");
    for domain in [back.from, back.to] {
        back.world.reach(again, domain, 1 << 39);
    }
    back.world.pass(60_000);
    back.world.work("w1", again);
    assert!(matches!(back.world.phase(txn), Phase::Committed(_)));

    let mut nobody = scene();
    let txn = nobody.move_it();
    nobody.world.apply(Command::ExpireSessions { sessions: vec![nobody.worker] });
    nobody.world.pass(nobody.world.state.meta.settings.unassigned_max_ms + 60_000);
    nobody.is_over(txn, "NO_WORKER");

    let mut unwanted = scene();
    let txn = unwanted.move_it();
    unwanted.world.apply(Command::ExpireSessions { sessions: vec![unwanted.worker] });
    unwanted.abort(txn);
    unwanted.is_over(txn, "ABORTED");
}

#[test]
fn an_import_without_a_sender_ends_at_its_deadline() {
    let mut scene = scene();
    let spec = Spec::ImportDisk {
        name: name("b"),
        domain: scene.from,
        format: Format::Raw,
        file_size: 1 << 20,
        allocated_bytes: 0,
    };
    let txn = scene.world.begin(spec);
    scene.world.pass(scene.world.state.meta.settings.peer_absence_max_ms);
    scene.is_over(txn, "SOURCE_GONE");
}

/// Delivers a copy of a request that its member took at this moment.
fn deliver(world: &mut World, id: TxnId, spec: Spec, looked_up_ms: u64, not_after_ms: u64) -> Reply {
    world.apply(Command::Begin(Begin {
        id,
        request_hash: [4; 32],
        not_after_ms,
        looked_up_ms,
        unix_ms: 0,
        initiator: "user@host:1".into(),
        reason: String::new(),
        lock_wait_ms: 0,
        spec,
        under: None,
    }))
}

#[track_caller]
fn too_old(reply: Reply) {
    let Reply::Refused(Refusal { reason, hint, .. }) = reply else { panic!("done: {reply}") };
    assert_eq!(reason, "REQUEST_TOO_OLD");
    assert!(hint.contains("sdm request-id"), "{hint}");
}

#[test]
fn a_deletion_repeated_after_its_result_was_forgotten_spares_the_disk_that_has_the_name_now() {
    let mut scene = scene();
    let id = request_id::issue(scene.world.now_ms, [3; 16]);
    let (now_ms, spec) = (scene.world.now_ms, Spec::DeleteDisk { disk: scene.disk });
    deliver(&mut scene.world, id, spec, now_ms, now_ms + 600_000);
    assert!(matches!(scene.world.phase(id), Phase::Committed(_)));
    let window = scene.world.state.meta.settings.request_window_ms;
    scene.world.pass(window + 60_000);
    let heir = scene.world.add_disk("w1", scene.worker, "a", scene.from);
    assert!(!scene.world.state.txns.contains(&id), "its result is forgotten");
    // The member looks the id up, does not find it, and resolves the name to the heir.
    let now_ms = scene.world.now_ms;
    too_old(deliver(&mut scene.world, id, Spec::DeleteDisk { disk: heir }, now_ms, now_ms + 600_000));
    assert!(scene.world.state.disks.contains(&heir));
}

#[test]
fn a_deletion_that_a_cut_off_member_delivers_late_spares_what_was_made_since() {
    let mut scene = scene();
    let id = TxnId::derive("a plain id", &[]);
    // Taken by a member that was cut off right then: its user was refused, and went elsewhere.
    let taken_ms = scene.world.now_ms;
    scene.world.pass(600_001);
    let spec = Spec::DeleteDisk { disk: scene.disk };
    too_old(deliver(&mut scene.world, id, spec, taken_ms, taken_ms + 600_000));
    assert!(scene.world.state.disks.contains(&scene.disk));
    assert!(!scene.world.state.txns.contains(&id), "nothing is recorded of it: the id may be used anew");
}

#[test]
fn a_deletion_that_is_delivered_late_and_was_repeated_elsewhere_is_done_once() {
    let mut scene = scene();
    let id = TxnId::derive("a plain id", &[]);
    let taken_ms = scene.world.now_ms;
    let spec = Spec::DeleteDisk { disk: scene.disk };
    // The user repeats it under its id at another member, and makes a new disk of that name.
    deliver(&mut scene.world, id, spec.clone(), taken_ms, taken_ms + 600_000);
    assert!(matches!(scene.world.phase(id), Phase::Committed(_)));
    let heir = scene.world.add_disk("w1", scene.worker, "a", scene.from);
    let recorded = scene.world.state.txns.get(&id).cloned();
    assert_eq!(deliver(&mut scene.world, id, spec, taken_ms, taken_ms + 600_000), Reply::Txn(id));
    assert_eq!(scene.world.state.txns.get(&id).cloned(), recorded, "the first result, once more");
    assert!(scene.world.state.disks.contains(&heir));
}
