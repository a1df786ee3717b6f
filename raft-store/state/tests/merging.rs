//! Merges in place: two stages, of which the first can be given up at any time and the second never; and who may go on
//! with either.

mod world;

use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::assignments::Assignment;
use sdm_state::assignments::From;
use sdm_state::assignments::Order;
use sdm_state::command::SessionRef;
use sdm_state::domain_change::DomainChange;
use sdm_state::garbage::Kind;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::workers::WorkerChange;
use world::World;
use world::name;
use world::worker_id;

/// Workers w1 and w2 reach d1, where disk a has two snapshots; w1 merges the second one's volume into the leaf.
struct Merging {
    world: World,
    s1: SessionRef,
    s2: SessionRef,
    domain: DomainId,
    disk: DiskId,
    chain: Vec<VolumeId>,
    id: TxnId,
}

fn merging() -> Merging {
    let mut world = World::founded_with(Settings { merges_in_place: true, ..Settings::default() });
    let (s1, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", s1, "a", domain);
    for of in ["one", "two"] {
        world.begin(Spec::CreateSnapshot { disk, name: name(of), description: String::new() });
        while !world.assignments("w1").is_empty() {
            world.work("w1", s1);
        }
    }
    let chain = world.state.disks.get(&disk).unwrap().volumes.clone();
    let id = world.begin(Spec::DeleteSnapshot { disk, volume: chain[1], in_place: true });
    let s2 = world.open_worker("w2", "p1");
    world.reach(s2, domain, 1 << 40);
    Merging { world, s1, s2, domain, disk, chain, id }
}

fn only(world: &World, worker: &str) -> Assignment {
    let [assignment] = &world.assignments(worker)[..] else { panic!("{:?}", world.assignments(worker)) };
    assignment.clone()
}

fn word(at: &Merging) -> &'static str {
    at.world.state.txns.get(&at.id).unwrap().phase_word()
}

fn forget(at: &mut Merging) -> TxnId {
    let domain = at.domain;
    at.world.begin(Spec::Domain(DomainChange::Forget { domain }))
}

fn not_rebased() -> Report {
    Report::Refused(Refusal::new(Class::Precondition, "NOT_REBASED", "the volume is in use [VOLUME_IN_USE]"))
}

fn died() -> Report {
    Report::Failed { reason: "PROCESS_DIED".into(), message: "signal: 9".into(), hint: String::new() }
}

fn is_as_before(at: &Merging) {
    let disk = at.world.state.disks.get(&at.disk).unwrap();
    assert_eq!(disk.volumes, at.chain);
    assert!(at.world.state.locks.is_empty());
}

#[test]
fn the_bytes_go_up_first_and_then_the_chain_is_linked_without_the_snapshot() {
    let mut at = merging();
    let Order::Merge { volumes, settle_only: false, .. } = only(&at.world, "w1").order else { panic!("a merge") };
    assert_eq!(volumes.iter().map(|row| row.id).collect::<Vec<_>>(), at.chain);
    let old = at.world.state.disks.get(&at.disk).unwrap().placement;
    at.world.work("w1", at.s1);
    assert_eq!(word(&at), "running");
    let assignment = at.world.assignments("w1").into_iter().chain(at.world.assignments("w2")).next().unwrap();
    let Order::Build { layers, rebase, source, .. } = assignment.order else { panic!("a chain of links") };
    assert!(layers.iter().all(|layer| layer.from == From::Link));
    assert_eq!(rebase, Some(at.chain[2]));
    assert_eq!(source.unwrap().volumes.len(), 3);
    assert_eq!(layers[1].volume.parent, Some(at.chain[0]));
    at.world.work("w1", at.s1);
    at.world.work("w2", at.s2);
    assert!(matches!(at.world.phase(at.id), Phase::Committed(_)), "{:?}", at.world.phase(at.id));
    let disk = at.world.state.disks.get(&at.disk).unwrap();
    assert_eq!(disk.volumes, [at.chain[0], at.chain[2]]);
    assert_ne!(disk.placement, old);
    let row = at.world.state.volumes.get(&at.chain[2]).unwrap();
    assert_eq!((row.parent, row.blake3), (Some(at.chain[0]), None));
    assert!(!at.world.state.volumes.contains(&at.chain[1]));
    assert!(at.world.state.garbage.values().any(|row| row.kind == Kind::Superseded && row.placement == Some(old)));
}

#[test]
fn an_abort_of_the_first_stage_stops_it_and_waits_until_what_was_written_is_durable() {
    let mut at = merging();
    assert!(!only(&at.world, "w1").stop);
    at.world.apply(Command::Abort { txn: at.id, reason: "no more".into() });
    let first = only(&at.world, "w1");
    assert!(first.stop, "its worker is told");
    at.world.report(at.s1, first.token, Report::Stopped);
    assert_eq!(word(&at), "running");
    at.world.pass(2_000);
    assert!(at.world.assignments("w2").is_empty());
    let settling = only(&at.world, "w1");
    assert!(matches!(settling.order, Order::Merge { settle_only: true, .. }) && !settling.stop, "{settling:?}");
    at.world.work("w1", at.s1);
    assert_eq!(at.world.refusal_of(at.id).reason, "ABORTED");
    is_as_before(&at);
    assert!(at.world.state.volumes.get(&at.chain[2]).unwrap().blake3.is_none());
}

#[test]
fn what_is_done_when_an_abort_comes_changes_no_chain() {
    let mut at = merging();
    at.world.apply(Command::Abort { txn: at.id, reason: "no more".into() });
    at.world.work("w1", at.s1);
    assert_eq!(at.world.refusal_of(at.id).reason, "ABORTED");
    is_as_before(&at);
}

#[test]
fn the_second_stage_is_tried_until_it_is_done_whatever_happens() {
    let mut at = merging();
    at.world.apply(Command::ExpireSessions { sessions: vec![at.s2] });
    at.world.work("w1", at.s1);
    let Reply::Refused(refusal) = at.world.apply(Command::Abort { txn: at.id, reason: "no more".into() }) else {
        panic!("there is no way back")
    };
    assert_eq!(refusal.reason, "TXN_GOES_FORWARD");
    let refused = Refusal::new(Class::Invalid, "QCOW2_INVALID", "of no kind");
    for round in 0..20 {
        let token = only(&at.world, "w1").token;
        at.world.report(at.s1, token, if round % 2 == 0 { Report::Refused(refused.clone()) } else { died() });
        assert_eq!(at.world.state.txns.get(&at.id).unwrap().phase, Phase::Running);
        for _ in 0..20 {
            at.world.pass(60_000);
            at.world.reach(at.s1, at.domain, 1 << 40);
        }
    }
    at.world.work("w1", at.s1);
    assert!(matches!(at.world.phase(at.id), Phase::Committed(_)), "{:?}", at.world.phase(at.id));
    let closed = at.world.state.garbage.values().filter(|row| row.kind == Kind::ClosedAttempt).count();
    assert_eq!(closed, 20, "each of them may have built a folder");
}

#[test]
fn a_lost_worker_is_fenced_before_anybody_else_goes_on_in_either_stage() {
    for second in [false, true] {
        let mut at = merging();
        at.world.apply(Command::ExpireSessions { sessions: vec![at.s2] });
        if second {
            at.world.work("w1", at.s1);
        }
        at.world.apply(Command::ExpireSessions { sessions: vec![at.s1] });
        at.s2 = at.world.open_worker("w2", "p2");
        at.world.reach(at.s2, at.domain, 1 << 40);
        at.world.pass(3_600_000);
        assert_eq!(word(&at), "fencing");
        assert!(at.world.assignments("w2").is_empty());
        let session = at.s1.id;
        at.world.begin(Spec::Worker(WorkerChange::ConfirmDown { worker: worker_id("w1"), session }));
        at.world.pass(2_000);
        assert!(!at.world.assignments("w2").is_empty(), "second stage: {second}");
        while !at.world.assignments("w2").is_empty() {
            at.world.work("w2", at.s2);
        }
        assert!(matches!(at.world.phase(at.id), Phase::Committed(_)), "{:?}", at.world.phase(at.id));
        assert_eq!(at.world.state.disks.get(&at.disk).unwrap().volumes, [at.chain[0], at.chain[2]]);
    }
}

#[test]
fn without_space_for_a_new_file_the_way_in_place_is_named_and_is_refused_without_space_for_the_bytes() {
    let mut at = merging();
    at.world.work("w1", at.s1);
    at.world.work("w1", at.s1);
    at.world.work("w2", at.s2);
    let domain = at.domain;
    for session in [at.s1, at.s2] {
        at.world.reach(session, domain, (1 << 40) / 100);
    }
    let plain = at.world.begin(Spec::DeleteSnapshot { disk: at.disk, volume: at.chain[0], in_place: false });
    let refusal = at.world.refusal_of(plain);
    assert_eq!(refusal.reason, "NO_SPACE");
    assert!(refusal.hint.contains("sdm snapshot delete a one --in-place"), "{refusal}");
    let in_place = at.world.begin(Spec::DeleteSnapshot { disk: at.disk, volume: at.chain[0], in_place: true });
    assert_eq!(at.world.refusal_of(in_place).reason, "NO_SPACE");
}

#[test]
fn an_abort_that_comes_during_a_later_attempt_stops_that_too() {
    let mut at = merging();
    let first = only(&at.world, "w1").token;
    at.world.report(at.s1, first, died());
    at.world.pass(2_000);
    let second = only(&at.world, "w1");
    assert!(!second.stop && second.attempt == 2);
    at.world.apply(Command::Abort { txn: at.id, reason: "no more".into() });
    let told = only(&at.world, "w1");
    assert!(told.stop, "its worker is told");
    assert!(matches!(told.order, Order::Merge { settle_only: false, .. }), "what it does is what it was given");
    at.world.report(at.s1, second.token, Report::Stopped);
    at.world.pass(10_000);
    let settling = only(&at.world, "w1");
    assert!(matches!(settling.order, Order::Merge { settle_only: true, .. }) && !settling.stop, "{settling:?}");
    at.world.work("w1", at.s1);
    assert_eq!(at.world.refusal_of(at.id).reason, "ABORTED");
    is_as_before(&at);
}

#[test]
fn the_second_stage_ends_where_a_worker_saw_that_it_changed_nothing() {
    for died_before in [false, true] {
        let mut at = merging();
        at.world.apply(Command::ExpireSessions { sessions: vec![at.s2] });
        at.world.work("w1", at.s1);
        if died_before {
            let token = only(&at.world, "w1").token;
            at.world.report(at.s1, token, died());
            at.world.pass(2_000);
        }
        let token = only(&at.world, "w1").token;
        at.world.report(at.s1, token, not_rebased());
        assert_eq!(at.world.refusal_of(at.id).reason, "NOT_REBASED");
        is_as_before(&at);
        let closed = at.world.state.garbage.values().filter(|row| row.kind == Kind::ClosedAttempt).count();
        assert_eq!(closed, 1 + usize::from(died_before), "what it built is garbage");
    }
}

#[test]
fn the_second_stage_is_aborted_on_request_where_its_volumes_are_gone() {
    let mut at = merging();
    at.world.apply(Command::ExpireSessions { sessions: vec![at.s2] });
    at.world.work("w1", at.s1);
    let token = only(&at.world, "w1").token;
    let abort = Command::Abort { txn: at.id, reason: "no more".into() };
    assert_eq!(at.world.refused(abort.clone()).reason, "TXN_GOES_FORWARD");
    let missing = Refusal::new(Class::NotFound, "VOLUME_MISSING", "the volume is not in its placement");
    at.world.report(at.s1, token, Report::Refused(missing));
    assert_eq!(at.world.state.txns.get(&at.id).unwrap().phase, Phase::Running, "nobody said that it is to end");
    at.world.apply(abort);
    assert_eq!(at.world.refusal_of(at.id).reason, "ABORTED");
    is_as_before(&at);
}

#[test]
fn storage_that_is_lost_for_good_ends_either_stage_with_its_domain() {
    for (second, hung, pinned) in [(true, true, false), (true, false, false), (true, false, true), (false, true, false)]
    {
        let mut at = merging();
        at.world.apply(Command::ExpireSessions { sessions: vec![at.s2] });
        if second {
            at.world.work("w1", at.s1);
        }
        let token = only(&at.world, "w1").token;
        if pinned {
            at.world.report(at.s1, token, died());
        }
        if !second {
            at.world.apply(Command::Abort { txn: at.id, reason: "no more".into() });
        }
        // Its worker reaches the domain: its word comes soon.
        at.world.begin(Spec::Domain(DomainChange::Maintenance { domain: at.domain }));
        if !pinned {
            let refused = forget(&mut at);
            assert_eq!(at.world.refusal_of(refused).reason, "DOMAIN_IN_USE");
        }
        at.world.unreach(at.s1, at.domain);
        if !hung && !pinned {
            at.world.report(at.s1, token, Report::Refused(Refusal::new(Class::Precondition, "DOMAIN_MISSING", "gone")));
        }
        let spec = Spec::Domain(DomainChange::Forget { domain: at.domain });
        let shown = at.world.state.dry_run(&spec, None).expect("allowed");
        assert!(shown.steps.iter().any(|step| step.contains(&format!("end transaction {}", at.id))), "{shown:?}");
        assert!(shown.waits_for.is_empty());
        let forgotten = forget(&mut at);
        assert!(matches!(at.world.phase(forgotten), Phase::Committed(_)), "{:?}", at.world.phase(forgotten));
        assert_eq!(at.world.refusal_of(at.id).reason, "DOMAIN_FORGOTTEN");
        let state = &at.world.state;
        assert!(state.disks.is_empty() && state.locks.is_empty() && state.garbage.is_empty());
        assert!(at.world.assignments("w1").is_empty());
        let late = at.world.report(at.s1, token, Report::Stopped);
        assert!(matches!(late, Reply::Refused(_)), "{late}");
    }
}

#[test]
fn what_an_abort_ends_does_not_go_with_its_domain() {
    let mut at = merging();
    at.world.unreach(at.s1, at.domain);
    at.world.unreach(at.s2, at.domain);
    let refused = forget(&mut at);
    let refusal = at.world.refusal_of(refused);
    assert_eq!(refusal.reason, "DOMAIN_IN_USE");
    let way_out = format!("sdm txn abort {}", at.id);
    assert!(refusal.blockers.iter().any(|blocker| blocker.description.contains(&way_out)), "{refusal:?}");
}

#[test]
fn what_it_may_take_at_most_is_more_than_any_size_of_clusters_needs() {
    let at = merging();
    let spec = Spec::DeleteSnapshot { disk: at.disk, volume: at.chain[0], in_place: true };
    let shown = at.world.state.dry_run(&spec, None).expect("allowed");
    let row = at.world.state.volumes.get(&at.chain[0]).unwrap();
    let numbers: Vec<u64> =
        shown.steps[0].split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let most = numbers.iter().copied().filter(|number| *number < 1 << 40).max().unwrap();
    for bits in 9..=21 {
        let cluster = 1_u64 << bits;
        let data = row.virtual_size.div_ceil(cluster);
        let tables = (data * 8).div_ceil(cluster);
        let counts = ((data + tables) * 2).div_ceil(cluster) + 1;
        assert!((data + tables + counts) * cluster <= most, "clusters of {cluster} bytes");
    }
}
