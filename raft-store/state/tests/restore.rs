//! A cluster restored from a backup: suspended, then reconciled with its storage, then released.

mod world;

use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::RestoreAs;
use sdm_state::State;
use sdm_state::assignments::Order;
use sdm_state::catalog::Format;
use sdm_state::command::AcquireLocks;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::domain_catalog::DomainCatalog;
use sdm_state::domain_change::AttachDomain;
use sdm_state::domain_change::DomainChange;
use sdm_state::domain_change::MorePieces;
use sdm_state::invariants;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::settings::Settings;
use sdm_state::suspension::MARKED_DISKS_MAX;
use sdm_state::suspension::Reconcile;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use world::World;
use world::name;
use world::request;

fn cluster(n: u8) -> ClusterId {
    ClusterId::derive("restored cluster", &[&[n]])
}

fn restored(state: &State, n: u8) -> State {
    let index = state.applied_index() + 3;
    state.clone().restored(RestoreAs {
        cluster_id: cluster(n),
        member: world::member("r1"),
        member_id: index + 1,
        index,
    })
}

/// The world goes on as a cluster that was restored from it.
fn restore(world: &mut World, n: u8) {
    world.state = restored(&world.state, n);
    world.index = world.state.applied_index();
    invariants::check(&world.state).expect("a restored state is whole");
}

fn step(world: &mut World, step: Reconcile) -> Reply {
    world.apply(Command::Reconcile(step))
}

fn adopt_all(world: &mut World) {
    let (epoch, domains) = (world.state.meta.epoch, world.state.domains.values().map(|d| d.id).collect::<Vec<_>>());
    for domain in domains {
        assert_eq!(step(world, Reconcile::Adopted { domain, epoch }), Reply::Done);
    }
}

fn release(world: &mut World) -> Reply {
    step(world, Reconcile::Release { without: Vec::new() })
}

fn create(domain: sdm_proto::ids::DomainId, disk: &str) -> Spec {
    Spec::CreateDisk {
        name: name(disk),
        domain,
        size: 1 << 20,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    }
}

/// A cluster with a disk, garbage, a running import, a waiting delete, and a client's lock.
fn busy() -> World {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", session, "a", domain);
    world.add_disk("w1", session, "b", domain);
    let b = world.state.disk_named(&name("b")).expect("b").id;
    world.begin(Spec::DeleteDisk { disk: b });
    world.begin(Spec::ExportDisk { disk });
    world.begin(Spec::DeleteDisk { disk });
    world.begin(Spec::ImportDisk {
        name: name("c"),
        domain,
        format: Format::Raw,
        file_size: 1 << 20,
        allocated_bytes: 1 << 20,
    });
    let client = open_client(&mut world);
    assert!(matches!(acquire(&mut world, client), Reply::Lock { token: Some(_), .. }));
    world
}

fn open_client(world: &mut World) -> SessionRef {
    let open =
        OpenSession { owner: SessionOwner::Client("me".into()), ttl_ms: 10_000, nonce: format!("n{}", world.index) };
    match world.apply(Command::OpenSession(open)) {
        Reply::Session { session, .. } => session,
        other => panic!("no session: {other}"),
    }
}

fn acquire(world: &mut World, session: SessionRef) -> Reply {
    let resources = vec![(Resource::User("mine".into()), Mode::Exclusive)];
    world.apply(Command::AcquireLocks(AcquireLocks { session, sequence: 1, resources, wait_ms: 0, why: String::new() }))
}

#[test]
fn a_restored_cluster_is_another_one_in_the_next_epoch_with_nobodys_sessions_and_nothing_in_hand() {
    let mut world = busy();
    let (old, catalog) = (world.state.meta.clone(), (world.state.disks.sum(), world.state.placements.sum()));
    assert!(world.state.open_txns() == 3 && world.state.jobs.len() == 2);
    restore(&mut world, 1);
    let state = &world.state;
    assert_eq!((state.cluster_id(), state.meta.pool_id), (cluster(1), old.pool_id));
    assert_eq!((state.meta.epoch, state.meta.clock_ms), (old.epoch + 1, old.clock_ms));
    assert_eq!(catalog, (state.disks.sum(), state.placements.sum()));
    assert!(state.sessions.is_empty() && state.locks.is_empty() && state.jobs.is_empty());
    assert_eq!((state.open_txns(), state.members.len()), (0, 1));
    assert!(state.workers.values().all(|worker| !worker.is_live()));
    assert!(state.is_suspended() && state.next_due_ms().is_none());
}

#[test]
fn what_was_open_at_the_backup_is_aborted_and_nothing_it_may_have_made_becomes_garbage() {
    let mut world = busy();
    let garbage = world.state.garbage.len();
    let open: Vec<_> = world.state.txns.values().filter(|txn| !txn.phase.is_final()).map(|txn| txn.id).collect();
    restore(&mut world, 1);
    for id in open {
        assert!(matches!(world.phase(id), Phase::Aborted(refusal) if refusal.reason == "RESTORED"), "{id}");
    }
    assert_eq!(world.state.garbage.len(), garbage);
    // A repeated request gets the recorded outcome, also while nothing new is begun.
    let known = world.state.txns.get(&request(5)).expect("known").spec.clone();
    assert_eq!(world.begin_as(request(5), known, 0), Reply::Txn(request(5)));
}

#[test]
fn while_suspended_nothing_is_begun_locked_assigned_or_collected() {
    let mut world = busy();
    let garbage: Vec<_> = world.state.garbage.values().map(|row| row.id).collect();
    let domain = world.state.domain_named(&name("d1")).expect("d1").id;
    restore(&mut world, 1);
    let session = world.open_worker("w1", "p2");
    world.reach(session, domain, 1 << 39);
    let refused = world.begin_as(request(200), create(domain, "new"), 0);
    assert!(matches!(refused, Reply::Refused(refusal) if refusal.reason == "SUSPENDED"));
    let client = open_client(&mut world);
    assert!(matches!(acquire(&mut world, client), Reply::Refused(refusal) if refusal.reason == "SUSPENDED"));
    world.pass(3_600_000);
    assert_eq!(world.apply(Command::Collect { garbage: garbage.clone() }), Reply::Collected(Vec::new()));
    assert!(world.assignments("w1").is_empty());

    adopt_all(&mut world);
    assert_eq!(release(&mut world), Reply::Done);
    world.begin(create(domain, "new"));
    world.work("w1", session);
    assert!(world.state.disk_named(&name("new")).is_some());
    assert_eq!(world.apply(Command::Collect { garbage: garbage.clone() }), Reply::Collected(garbage));
}

#[test]
fn it_is_released_only_when_every_domain_is_adopted_in_its_epoch_or_left_out() {
    let mut world = World::founded();
    let (session, d1) = world.with_domain("w1", "d1");
    let d2 = world.add_domain("w1", session, "d2");
    restore(&mut world, 1);
    let refused = world.refused(Command::Reconcile(Reconcile::Release { without: Vec::new() }));
    assert_eq!((refused.reason.as_str(), refused.blockers.len()), ("NOT_RECONCILED", 2));
    assert_eq!(step(&mut world, Reconcile::Adopted { domain: d1, epoch: 2 }), Reply::Done);
    // A domain of a sibling in a higher epoch was found: all have to be written again.
    assert_eq!(step(&mut world, Reconcile::RaiseEpoch { epoch: 7 }), Reply::Done);
    let late = world.refused(Command::Reconcile(Reconcile::Adopted { domain: d2, epoch: 2 }));
    assert_eq!(late.reason, "EPOCH_CHANGED");
    assert_eq!(world.refused(Command::Reconcile(Reconcile::Release { without: vec![d2] })).blockers.len(), 1);
    assert_eq!(step(&mut world, Reconcile::Adopted { domain: d1, epoch: 7 }), Reply::Done);
    assert_eq!(step(&mut world, Reconcile::Release { without: vec![d2] }), Reply::Done);
    assert!(!world.state.is_suspended() && world.state.is_adopted(d1) && !world.state.is_adopted(d2));
}

#[test]
fn a_higher_epoch_is_learned_by_every_worker_because_each_has_to_say_hello_again() {
    let mut world = World::founded();
    world.with_domain("w1", "d1");
    restore(&mut world, 1);
    world.open_worker("w1", "p2");
    step(&mut world, Reconcile::RaiseEpoch { epoch: 9 });
    assert!(world.state.workers.values().all(|worker| !worker.is_live()));
    assert_eq!(world.state.meta.epoch, 9);
    step(&mut world, Reconcile::RaiseEpoch { epoch: 3 });
    assert_eq!(world.state.meta.epoch, 9, "it never sinks");
}

#[test]
fn names_that_the_old_cluster_made_are_deleted_under_its_names() {
    let mut world = busy();
    let old = world.state.cluster_id();
    let disk = world.state.disk_named(&name("a")).expect("a").id;
    let domain = world.state.domain_named(&name("d1")).expect("d1").id;
    let made_by = world.state.garbage.values().next().expect("garbage").made_by;
    restore(&mut world, 1);
    adopt_all(&mut world);
    release(&mut world);
    let session = world.open_worker("w1", "p2");
    world.reach(session, domain, 1 << 39);
    // One that was garbage at the backup, and one whose disk is deleted by the restored cluster.
    world.begin(Spec::DeleteDisk { disk });
    world.pass(1_000);
    let garbage: Vec<_> = world.state.garbage.values().map(|row| row.id).collect();
    world.apply(Command::Collect { garbage });
    let dots: Vec<String> = world
        .assignments("w1")
        .into_iter()
        .filter_map(|one| if let Order::Delete { dot_name, .. } = one.order { Some(dot_name) } else { None })
        .collect();
    assert!(dots.len() == 2 && dots.contains(&made_by.dot_name(old)), "{dots:?}");
    assert!(dots.iter().all(|dot| dot.ends_with(&old.to_string()[..8])), "{dots:?}");
}

#[test]
fn twins_of_one_backup_share_no_token_name_with_each_other_or_with_their_parent() {
    let mut parent = World::founded();
    let (session, domain) = parent.with_domain("w1", "d1");
    let backup = parent.state.clone();
    let mut names = std::collections::BTreeSet::new();
    parent.add_disk("w1", session, "a", domain);
    names.insert(parent.state.disk_named(&name("a")).expect("a").placement);
    for n in [1, 2] {
        let mut twin = World::founded();
        twin.state = backup.clone();
        restore(&mut twin, n);
        adopt_all(&mut twin);
        release(&mut twin);
        let session = twin.open_worker("w1", "p2");
        twin.reach(session, domain, 1 << 39);
        twin.begin_as(request(100 + n), create(domain, "a"), 0);
        twin.work("w1", session);
        names.insert(twin.state.disk_named(&name("a")).expect("a").placement);
    }
    assert_eq!(names.len(), 3);
}

#[test]
fn disks_whose_bytes_are_gone_are_illegal_until_they_are_found() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", session, "d2");
    let disk = world.add_disk("w1", session, "a", domain);
    restore(&mut world, 1);
    step(&mut world, Reconcile::MarkDisks { missing: vec![disk], found: Vec::new() });
    adopt_all(&mut world);
    release(&mut world);
    let moved = world.begin(Spec::MoveDisk { disk, to });
    assert_eq!(world.refusal_of(moved).reason, "DISK_ILLEGAL");
    let exported = world.begin(Spec::ExportDisk { disk });
    assert_eq!(world.refusal_of(exported).reason, "DISK_ILLEGAL");
    step(&mut world, Reconcile::MarkDisks { missing: Vec::new(), found: vec![disk] });
    let row = world.state.disks.get(&disk).expect("the disk");
    assert!(world.state.is_legal(row));
    let many = vec![DiskId::default(); MARKED_DISKS_MAX + 1];
    let refused = world.refused(Command::Reconcile(Reconcile::MarkDisks { missing: many, found: Vec::new() }));
    assert_eq!(refused.reason, "TOO_MANY_DISKS");
}

/// What a large domain is detached with: the head, and its pieces.
fn written(world: &mut World, session: SessionRef, domain: DomainId) -> (TxnId, Vec<DomainCatalog>) {
    world.begin(Spec::Domain(DomainChange::Maintenance { domain }));
    let id = world.begin(Spec::Domain(DomainChange::Detach { domain }));
    let mut written = Vec::new();
    while let Some(at) = world.assignments("w1").into_iter().next() {
        match &at.order {
            Order::WriteCatalog { catalog, .. } => written.push((**catalog).clone()),
            Order::DetachDomain { catalog, .. } => written.insert(0, (**catalog).clone()),
            other => panic!("{other:?}"),
        }
        world.report(session, at.token, world::done(&at.order).expect("a report"));
    }
    (id, written)
}

/// One in which few rows leave with each entry.
fn with_seven_disks() -> (World, SessionRef, DomainId) {
    let mut world = World::founded_with(Settings { domain_rows_max: 6, work_per_entry: 2, ..Settings::default() });
    let (session, domain) = world.with_domain("w1", "d1");
    world.add_domain("w1", session, "d2");
    for number in 0..7 {
        world.add_disk("w1", session, &format!("disk-{number}"), domain);
    }
    (world, session, domain)
}

fn released_without_it(world: &mut World, domain: DomainId) {
    assert!(world.state.domains.get(&domain).is_some_and(|row| row.state.is_hidden()));
    restore(world, 1);
    let (epoch, other) = (world.state.meta.epoch, world.state.domain_named(&name("d2")).expect("d2").id);
    let refused = world.refused(Command::Reconcile(Reconcile::Release { without: Vec::new() }));
    assert_eq!((refused.reason.as_str(), refused.blockers.len()), ("NOT_RECONCILED", 1), "d2 alone");
    assert_eq!(step(world, Reconcile::Adopted { domain: other, epoch }), Reply::Done);
    world.pass(60_000);
    assert!(world.state.domains.contains(&domain), "nothing leaves before the release");
    assert_eq!(release(world), Reply::Done);
    assert!(world.state.next_due_ms().is_some_and(|at| at <= world.now_ms), "its rows are due to leave");
    for _ in 0..10 {
        world.apply(Command::Tick);
    }
    assert!(!world.state.domains.contains(&domain) && world.state.disks.is_empty() && world.state.volumes.is_empty());
}

#[test]
fn a_domain_that_was_leaving_at_the_backup_leaves_after_the_release_and_its_end_stays_what_it_was() {
    let (mut world, session, domain) = with_seven_disks();
    let (id, _) = written(&mut world, session, domain);
    assert_eq!(world.phase(id), &Phase::Running, "its rows are leaving");
    released_without_it(&mut world, domain);
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
}

#[test]
fn a_domain_that_was_arriving_at_the_backup_leaves_after_the_release() {
    let (mut world, session, domain) = with_seven_disks();
    let (_, written) = written(&mut world, session, domain);
    while world.state.domains.contains(&domain) {
        world.apply(Command::Tick);
    }
    let head = &written[0];
    let id = world.begin(Spec::Domain(DomainChange::Attach(Box::new(AttachDomain {
        domain,
        name: head.name.clone(),
        path: "/srv/d1".to_owned(),
        local: true,
        contents: head.contents.clone(),
        renamed: false,
        catalog: String::new(),
        more: Some(MorePieces { pieces: head.pieces, detached_at: head.detached_at, prefix: String::new() }),
    }))));
    world.work("w1", session);
    released_without_it(&mut world, domain);
    assert_eq!(world.refusal_of(id).reason, "RESTORED");
}

#[test]
fn a_cluster_that_was_not_restored_has_nothing_to_reconcile() {
    let mut world = World::founded();
    let refused = world.refused(Command::Reconcile(Reconcile::Release { without: Vec::new() }));
    assert_eq!(refused.reason, "NOT_RESTORED");
}

#[test]
fn a_restored_state_reads_back_from_its_rows_and_a_second_restore_remembers_both_ancestors() {
    let mut world = busy();
    let first = world.state.cluster_id();
    restore(&mut world, 1);
    let again = State::from_rows(world.state.to_rows()).expect("readable");
    assert_eq!(again.hash(), world.state.hash());
    restore(&mut world, 2);
    let ancestors = &world.state.meta.restored.as_ref().expect("restored").ancestors;
    assert_eq!(ancestors, &[first, cluster(1)]);
    assert!(world.state.garbage.values().all(|garbage| garbage.cluster == Some(first)));
}
