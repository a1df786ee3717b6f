//! Chains when things go wrong: workers that are lost in the middle, copies that nobody can make, what
//! shares volumes with the trash, words that storage does not have yet.

mod world;

use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::assignments::CopySource;
use sdm_state::assignments::Order;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Format;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::garbage::Kind;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::work::VolumeResult;
use sdm_state::workers::WorkerIdentity;
use world::World;
use world::done;
use world::identity;
use world::name;

/// A worker, a domain, a disk.
fn with_disk(settings: Settings) -> (World, SessionRef, DomainId, DiskId) {
    let mut world = World::founded_with(settings);
    let (session, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", session, "a", domain);
    (world, session, domain, disk)
}

fn committed(world: &mut World, session: SessionRef, spec: Spec) -> TxnId {
    let id = world.begin(spec);
    while !world.assignments("w1").is_empty() {
        world.work("w1", session);
    }
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    id
}

fn row(world: &World, disk: &str) -> Disk {
    world.state.disk_named(&name(disk)).expect("the disk").clone()
}

fn snapshot(disk: DiskId, of: &str) -> Spec {
    Spec::CreateSnapshot { disk, name: name(of), description: String::new() }
}

fn clone_of(disk: DiskId, to: &str) -> Spec {
    Spec::CloneLinked { disk, snapshot: None, name: name(to), description: String::new() }
}

fn copy_of(disk: DiskId, to: DomainId, format: Option<Format>) -> Spec {
    Spec::CopyDisk {
        disk,
        snapshot: None,
        name: name("copy"),
        description: String::new(),
        to,
        format,
        preallocated: false,
        collapse: true,
        template: false,
    }
}

/// The worker's machine started anew.
fn reboot(world: &mut World, worker: &str, boot: &str) -> SessionRef {
    let identity = WorkerIdentity { boot_id: boot.into(), ..identity(worker, boot) };
    let open = OpenSession { owner: SessionOwner::Worker(identity), ttl_ms: 10_000, nonce: boot.into() };
    match world.apply(Command::OpenSession(open)) {
        Reply::Session { session, .. } => session,
        other => panic!("{other}"),
    }
}

#[test]
fn both_stages_of_a_clone_become_visible_together_whoever_is_lost_on_the_way() {
    let (mut world, s1, domain, disk) = with_disk(Settings::default());
    let before = row(&world, "a");
    let id = world.begin(clone_of(disk, "b"));
    let first = world.assignments("w1").remove(0);
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    let s2 = world.open_worker("w2", "p1");
    world.reach(s2, domain, 1 << 39);
    world.pass(2_000);
    // Another worker builds the first stage, and is lost in the second one.
    world.work("w2", s2);
    assert_eq!(world.state.txns.get(&id).unwrap().stage, 1);
    assert_eq!(row(&world, "a"), before, "nothing is visible yet");
    let second = world.assignments("w2").remove(0);
    world.apply(Command::ExpireSessions { sessions: vec![s2] });
    let s1 = world.open_worker("w1", "p2");
    world.reach(s1, domain, 1 << 39);
    for late in [&first, &second] {
        let reply = world.report(s1, late.token, done(&late.order).unwrap());
        assert!(matches!(reply, Reply::Refused(refusal) if refusal.reason == "ATTEMPT_CLOSED"));
    }
    world.pass(5_000);
    world.work("w1", s1);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
    let (source, clone) = (row(&world, "a"), row(&world, "b"));
    assert_eq!((source.volumes.len(), clone.volumes.len()), (2, 2));
    assert_eq!(source.volumes[0], clone.volumes[0]);
    assert_ne!(source.volumes[1], clone.volumes[1]);
    // Two attempts were lost, and the source's old placement is superseded.
    let kinds: Vec<Kind> = world.state.garbage.values().map(|garbage| garbage.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::ClosedAttempt).count(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Superseded).count(), 1, "{kinds:?}");
}

#[test]
fn a_stage_that_was_built_is_garbage_when_the_next_one_is_refused() {
    let (mut world, s1, _, disk) = with_disk(Settings::default());
    let before = row(&world, "a");
    let id = world.begin(clone_of(disk, "b"));
    world.work("w1", s1);
    let built = world.state.txns.get(&id).unwrap().built[0].clone();
    let second = world.assignments("w1").remove(0);
    let full = Refusal::new(Class::Exhausted, "NO_SPACE", "the file system is full").hint("free some");
    world.report(s1, second.token, Report::Refused(full));
    assert!(matches!(world.phase(id), Phase::Aborted(_)));
    assert_eq!(row(&world, "a"), before);
    let made_by: Vec<Token> = world.state.garbage.values().map(|garbage| garbage.made_by).collect();
    assert!(made_by.contains(&built.token) && made_by.contains(&second.token), "{made_by:?}");
    assert!(world.state.locks.is_empty());
}

#[test]
fn a_resize_waits_for_the_fence_of_a_lost_worker_and_an_abort_does_not_release_its_locks() {
    let (mut world, s1, domain, disk) = with_disk(Settings::default());
    let first = world.begin(Spec::ResizeDisk { disk, size: 20 << 20 });
    let hung = world.assignments("w1").remove(0);
    let s2 = world.open_worker("w2", "p1");
    world.reach(s2, domain, 1 << 39);
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    assert_eq!(world.state.txns.get(&first).unwrap().phase_word(), "fencing");
    world.pass(3_600_000);
    assert!(world.assignments("w2").is_empty(), "nobody else touches the file");
    world.apply(Command::Abort { txn: first, reason: "enough".into() });
    assert_eq!(world.state.txns.get(&first).unwrap().phase_word(), "fencing");
    let second = world.begin(Spec::ResizeDisk { disk, size: 40 << 20 });
    assert!(matches!(world.phase(second), Phase::Waiting { .. }));
    // The machine was started anew: what it was doing has ended.
    let s1 = reboot(&mut world, "w1", "boot 2");
    assert_eq!(world.refusal_of(first).reason, "ABORTED");
    assert!(matches!(
        world.report(s1, hung.token, done(&hung.order).unwrap()),
        Reply::Refused(refusal) if refusal.reason == "ATTEMPT_CLOSED"
    ));
    assert!(matches!(world.phase(second), Phase::Running));
    world.work("w2", s2);
    assert!(matches!(world.phase(second), Phase::Committed(_)));
    let leaf = *row(&world, "a").volumes.last().unwrap();
    assert_eq!(world.state.volumes.get(&leaf).unwrap().virtual_size, 40 << 20);
}

#[test]
fn a_leaf_that_superseded_garbage_still_links_is_grown_when_that_is_gone() {
    let (mut world, s1, _, disk) = with_disk(Settings::default());
    let id = world.begin(Spec::ResizeDisk { disk, size: 4 << 20 });
    let refusal = Refusal::new(Class::Precondition, "VOLUME_SHARED", "the leaf has 2 links");
    let token = world.assignments("w1")[0].token;
    world.report(s1, token, Report::Refused(refusal));
    assert!(matches!(world.phase(id), Phase::Running));
    world.pass(2_000);
    world.work("w1", s1);
    assert!(matches!(world.phase(id), Phase::Committed(_)));
}

#[test]
fn the_hash_of_a_leaf_is_forgotten_before_a_worker_is_told_to_grow_it() {
    let (mut world, _, _, disk) = with_disk(Settings::default());
    let leaf = *row(&world, "a").volumes.last().unwrap();
    assert!(world.state.volumes.get(&leaf).unwrap().blake3.is_some());
    world.begin(Spec::ResizeDisk { disk, size: 4 << 20 });
    assert_eq!(world.state.volumes.get(&leaf).unwrap().blake3, None);
}

#[test]
fn what_storage_says_is_written_until_a_worker_confirmed_the_last_word() {
    let (mut world, s1, domain, disk) = with_disk(Settings::default());
    world.unreach(s1, domain);
    let id = world.begin(Spec::RenameDisk { disk, name: name("b") });
    assert!(matches!(world.phase(id), Phase::Committed(_)), "nobody waits for storage");
    assert!(world.assignments("w1").is_empty());
    world.reach(s1, domain, 1 << 39);
    let told = world.assignments("w1").remove(0);
    world.begin(Spec::DescribeDisk { disk, description: "words".into() });
    // It says what it was told; the words came later.
    world.report(s1, told.token, done(&told.order).unwrap());
    let again = world.assignments("w1").remove(0);
    assert!(again.token > told.token);
    let Order::Project { description, disk_description, .. } = &again.order else { panic!("{again:?}") };
    assert_eq!((description.as_str(), disk_description.as_str()), ("b", "words"));
    let failed = Report::Failed { reason: "EIO".into(), message: "no".into(), hint: String::new() };
    for _ in 0..20 {
        let [assignment] = &world.assignments("w1")[..] else { panic!("one") };
        let token = assignment.token;
        world.report(s1, token, failed.clone());
        world.pass(120_000);
        world.reach(s1, domain, 1 << 39);
    }
    world.work("w1", s1);
    assert!(world.state.projections.is_empty());
}

#[test]
fn a_placement_that_is_gone_has_nothing_to_say() {
    let (mut world, s1, domain, disk) = with_disk(Settings::default());
    world.unreach(s1, domain);
    world.begin(Spec::RenameDisk { disk, name: name("b") });
    world.begin(Spec::DeleteDisk { disk });
    assert!(world.state.projections.is_empty());
}

#[test]
fn a_chain_that_becomes_one_volume_needs_a_worker_at_both_ends_and_bytes_are_pulled() {
    let (mut world, _, from, disk) = with_disk(Settings::default());
    let (s2, to) = world.with_domain("w2", "d2");
    let converted = world.begin(copy_of(disk, to, Some(Format::Qcow2)));
    let refusal = world.refusal_of(converted);
    assert_eq!(refusal.reason, "NO_COMMON_WORKER");
    assert!(!refusal.hint.is_empty());
    let copied = world.begin(copy_of(disk, to, None));
    let (serve, pull) = (world.assignments("w1"), world.assignments("w2"));
    let Order::ServeSource { volumes, ticket: served, .. } = &serve[0].order else { panic!("{serve:?}") };
    let Order::Build { source: Some(source), layers, .. } = &pull[0].order else { panic!("{pull:?}") };
    let CopySource::Pull { ticket, .. } = &source.source else { panic!("{source:?}") };
    assert_eq!((served, volumes), (ticket, &source.volumes));
    assert_eq!(layers.len(), 1);
    world.work("w2", s2);
    assert!(matches!(world.phase(copied), Phase::Committed(_)));
    // A worker that reaches both makes the other one possible.
    world.reach(s2, from, 1 << 39);
    let copy = row(&world, "copy").id;
    world.begin(Spec::RenameDisk { disk: copy, name: name("first") });
    let converted = world.begin(copy_of(disk, to, Some(Format::Qcow2)));
    assert!(matches!(world.phase(converted), Phase::Running));
}

#[test]
fn a_chain_has_a_limit_and_says_which_snapshots_could_go() {
    let (mut world, s1, _, disk) = with_disk(Settings { chain_max: 3, ..Settings::default() });
    for of in ["s1", "s2"] {
        committed(&mut world, s1, snapshot(disk, of));
    }
    let third = world.begin(snapshot(disk, "s3"));
    let refusal = world.refusal_of(third);
    assert_eq!((refusal.reason.as_str(), refusal.blockers.len()), ("CHAIN_TOO_LONG", 2));
    assert!(refusal.hint.contains("sdm snapshot delete a"), "{}", refusal.hint);
    let clone = world.begin(clone_of(disk, "b"));
    assert_eq!(world.refusal_of(clone).reason, "CHAIN_TOO_LONG");
}

#[test]
fn a_merge_needs_the_space_of_what_it_writes_anew() {
    let (mut world, s1, domain, disk) = with_disk(Settings::default());
    committed(&mut world, s1, snapshot(disk, "s1"));
    let volume = row(&world, "a").volumes[0];
    world.reach(s1, domain, (1 << 40) / 100);
    let merge = world.begin(Spec::DeleteSnapshot { disk, volume, in_place: false });
    assert_eq!(world.refusal_of(merge).reason, "NO_SPACE");
    world.reach(s1, domain, 1 << 39);
    let merge = world.begin(Spec::DeleteSnapshot { disk, volume, in_place: false });
    assert!(world.state.promised_bytes(domain) > 0);
    world.apply(Command::Abort { txn: merge, reason: "enough".into() });
    assert_eq!(world.state.promised_bytes(domain), 0);
}

#[test]
fn a_disk_in_the_trash_keeps_its_volumes_as_they_are_and_comes_back() {
    let (mut world, s1, _, disk) = with_disk(Settings { retention_ms: 600_000, ..Settings::default() });
    committed(&mut world, s1, snapshot(disk, "s1"));
    committed(&mut world, s1, snapshot(disk, "s2"));
    let [first, second, _] = row(&world, "a").volumes[..] else { panic!("a chain") };
    let clone = Spec::CloneLinked { disk, snapshot: Some(second), name: name("b"), description: String::new() };
    committed(&mut world, s1, clone);
    let clone = row(&world, "b").id;
    committed(&mut world, s1, Spec::DeleteDisk { disk: clone });
    // The storage was told that nobody is to use it.
    let merge = world.begin(Spec::DeleteSnapshot { disk, volume: first, in_place: false });
    let refusal = world.refusal_of(merge).clone();
    assert_eq!(refusal.reason, "SHARED_VOLUME");
    assert_eq!(refusal.blockers[0].kind, "garbage", "{refusal}");
    let trash = world.state.garbage.values().find(|row| row.trash.is_some()).unwrap().id;
    committed(&mut world, s1, Spec::Garbage(GarbageOrder::RestoreDisk { garbage: trash, name: None }));
    assert_eq!(row(&world, "b").volumes[..2], [first, second]);
    let merge = world.begin(Spec::DeleteSnapshot { disk, volume: first, in_place: false });
    assert_eq!(world.refusal_of(merge).blockers[0].kind, "disk");
}

#[test]
fn what_is_in_the_trash_is_illegal_on_the_storage_until_it_is_back() {
    let (mut world, s1, _, disk) = with_disk(Settings { retention_ms: 600_000, ..Settings::default() });
    world.pass(1_000);
    world.begin(Spec::DeleteDisk { disk });
    world.pass(1_000);
    let legal = |world: &World| {
        let [assignment] = &world.assignments("w1")[..] else { panic!("one") };
        let Order::Project { volumes, .. } = &assignment.order else { panic!("{assignment:?}") };
        volumes.iter().all(|volume| volume.legal)
    };
    assert!(!legal(&world));
    world.work("w1", s1);
    let trash = world.state.garbage.values().next().unwrap().id;
    world.begin(Spec::Garbage(GarbageOrder::RestoreDisk { garbage: trash, name: None }));
    world.pass(1_000);
    assert!(legal(&world));
    world.work("w1", s1);
    assert!(world.state.projections.is_empty());
}

#[test]
fn a_cluster_of_the_first_level_takes_none_of_it() {
    let mut world = World::founded_at(1);
    let (_, domain) = world.with_domain("w1", "d1");
    let disk = DiskId::derive("none", &[]);
    let full = Spec::CreateDisk {
        name: name("a"),
        domain,
        size: 1 << 20,
        format: Format::Raw,
        preallocated: true,
        description: String::new(),
    };
    for (n, spec) in [snapshot(disk, "s"), clone_of(disk, "b"), full].into_iter().enumerate() {
        let id = TxnId::derive("first level", &[&[n as u8]]);
        let reply = world.begin_as(id, spec, 0);
        assert!(matches!(reply, Reply::Refused(refusal) if refusal.reason == "FEATURE_LEVEL"), "{n}");
    }
}

/// A file holds one image: a chain becomes one only when that is said, and its hash is that of no volume.
#[test]
fn a_chain_is_exported_as_one_image_and_a_lone_volume_as_it_is() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", session, "a", domain);
    let snapshot = Spec::CreateSnapshot { disk, name: name("one"), description: String::new() };
    world.begin(snapshot);
    world.work("w1", session);
    let frozen = world.state.disks.get(&disk).unwrap().volumes[0];
    let refused = world.begin(Spec::ExportDisk { disk });
    assert_eq!(world.refusal_of(refused).reason, "CHAIN_TOO_LONG");
    let mut sent = |snapshot, hash| {
        let id = world.begin(Spec::ExportChain { disk, snapshot, collapse: true });
        let (token, volume, layers) = world
            .assignments("w1")
            .into_iter()
            .find_map(|at| match at.order {
                Order::Send { volume, chain, .. } => Some((at.token, volume.id, chain.len())),
                _ => None,
            })
            .expect("it is sent");
        let (virtual_size, file_size, allocated_bytes) = (1 << 20, 1 << 20, 0);
        let volumes = vec![VolumeResult { volume, virtual_size, file_size, allocated_bytes, blake3: Some(hash) }];
        world.report(session, token, Report::Done { volumes, bytes: 1 << 20 });
        (world.phase(id).clone(), volume, layers)
    };
    let (phase, volume, layers) = sent(None, [9; 32]);
    let Phase::Committed(outcome) = phase else { panic!("{phase:?}") };
    assert_eq!((outcome.blake3, layers), (Some([9; 32]), 2));
    assert_ne!(volume, frozen);
    let (phase, volume, layers) = sent(Some(frozen), [7; 32]);
    assert!(matches!(phase, Phase::Committed(_)), "{phase:?}");
    assert_eq!((volume, layers), (frozen, 0), "its file");
}
