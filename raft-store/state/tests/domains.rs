//! The life of domains: maintenance, activation, names, detach, attach and delete, with every refusal.

mod world;

use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PoolId;
use sdm_proto::limits::COMMAND_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::assignments::Order;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::catalog::Format;
use sdm_state::command::Found;
use sdm_state::domain_catalog::DomainCatalog;
use sdm_state::domain_change::AttachDomain;
use sdm_state::domain_change::DomainChange;
use sdm_state::domain_change::DomainContents;
use sdm_state::envelope::encode_entry;
use sdm_state::garbage::Kind;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::workers::WorkerChange;
use world::World;
use world::member;
use world::name;
use world::worker_id;

fn change(world: &mut World, change: DomainChange) -> sdm_proto::ids::TxnId {
    world.begin(Spec::Domain(change))
}

fn committed(world: &mut World, domain_change: DomainChange) {
    let id = change(world, domain_change);
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
}

fn maintain(world: &mut World, domain: DomainId) {
    committed(world, DomainChange::Maintenance { domain });
}

fn refused(world: &mut World, domain_change: DomainChange) -> Refusal {
    let id = change(world, domain_change);
    world.refusal_of(id).clone()
}

fn create(disk: &str, domain: DomainId) -> Spec {
    let (name, format) = (name(disk), Format::Raw);
    Spec::CreateDisk { name, domain, size: 1 << 20, format, preallocated: false, description: String::new() }
}

#[test]
fn in_maintenance_new_work_is_refused_at_once_and_what_runs_finishes() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let running = world.begin(create("a", domain));
    maintain(&mut world, domain);
    let late = world.begin(create("b", domain));
    let refusal = world.refusal_of(late).clone();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "DOMAIN_IN_MAINTENANCE"));
    assert!(refusal.message.contains("by test"), "who: {}", refusal.message);
    assert_eq!(refusal.hint, "sdm domain activate d1");
    world.work("w1", session);
    assert!(matches!(world.phase(running), Phase::Committed(_)), "{:?}", world.phase(running));
    committed(&mut world, DomainChange::Activate { domain });
    let again = world.begin(create("b", domain));
    assert_eq!(world.phase(again), &Phase::Running);
}

#[test]
fn who_waits_when_maintenance_comes_is_refused_when_it_would_be_granted() {
    let mut world = World::founded();
    let (session, from) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", session, "d2");
    let disk = world.add_disk("w1", session, "a", from);
    let mover = world.begin(Spec::MoveDisk { disk, to });
    let waiting = world.begin(Spec::DeleteDisk { disk });
    assert!(matches!(world.phase(waiting), Phase::Waiting { .. }));
    maintain(&mut world, to);
    maintain(&mut world, from);
    world.work("w1", session);
    assert!(matches!(world.phase(mover), Phase::Committed(_)), "it ran already: {:?}", world.phase(mover));
    let refusal = world.refusal_of(waiting);
    assert_eq!(refusal.reason, "CHANGED_WHILE_WAITING");
    assert!(
        refusal.message.contains("needs other locks")
            || refusal.message.contains("maintenance")
            || refusal.message.contains("other locks"),
        "{}",
        refusal.message
    );
}

#[test]
fn reading_goes_on_in_maintenance() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", session, "a", domain);
    maintain(&mut world, domain);
    let export = world.begin(Spec::ExportDisk { disk });
    assert_eq!(world.phase(export), &Phase::Running);
}

#[test]
fn maintenance_and_activation_may_be_repeated() {
    let mut world = World::founded();
    let (_, domain) = world.with_domain("w1", "d1");
    committed(&mut world, DomainChange::Activate { domain });
    maintain(&mut world, domain);
    let first = world.state.domains.get(&domain).cloned();
    world.pass(5_000);
    maintain(&mut world, domain);
    assert_eq!(world.state.domains.get(&domain).cloned(), first, "since when and who stay those of the first");
}

#[test]
fn a_domain_that_nobody_reaches_is_not_activated() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    maintain(&mut world, domain);
    world.unreach(session, domain);
    assert_eq!(refused(&mut world, DomainChange::Activate { domain }).reason, "DOMAIN_UNREACHABLE");
    assert!(!world.state.domains.get(&domain).unwrap().state.is_active());
}

#[test]
fn a_rename_is_in_the_catalog_at_once_and_followed_by_the_storage_until_that_is_confirmed() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    committed(&mut world, DomainChange::Rename { domain, name: name("fast") });
    assert!(world.state.domain_named(&name("d1")).is_none());
    assert_eq!(world.state.domain_named(&name("fast")).map(|row| row.id), Some(domain));
    let first = world.assignments("w1").remove(0);
    assert!(matches!(&first.order, Order::RenameDomain { name, .. } if name == "fast"), "{first:?}");
    let failed = Report::Failed { reason: "IO".into(), message: "input/output error".into(), hint: String::new() };
    world.report(session, first.token, failed);
    world.pass(120_000);
    let second = world.assignments("w1").remove(0);
    assert!(second.token > first.token, "it is tried until it is done");
    // Another rename meanwhile: only its own attempt confirms it.
    committed(&mut world, DomainChange::Rename { domain, name: name("slow") });
    let done = Report::Done { volumes: Vec::new(), bytes: 0 };
    assert!(matches!(world.report(session, second.token, done), Reply::Refused(_)));
    world.work("w1", session);
    assert!(world.state.domains.get(&domain).unwrap().describing.is_none());
    assert!(world.assignments("w1").is_empty());
}

#[test]
fn a_rename_that_nobody_can_write_yet_waits_for_a_worker() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    world.apply(Command::ExpireSessions { sessions: vec![session] });
    committed(&mut world, DomainChange::Rename { domain, name: name("fast") });
    world.pass(3_600_000);
    assert!(world.state.domains.get(&domain).unwrap().describing.is_some());
    let session = world.open_worker("w1", "p2");
    world.reach(session, domain, 1 << 30);
    world.work("w1", session);
    assert!(world.state.domains.get(&domain).unwrap().describing.is_none());
}

#[test]
fn names_and_paths_of_domains_are_not_shared() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    world.add_domain("w1", session, "d2");
    let taken = DomainChange::Rename { domain, name: name("d2") };
    assert_eq!(refused(&mut world, taken).reason, "DOMAIN_EXISTS");
    for path in ["/srv/d1".to_owned(), format!("/srv/d1/{domain}/images")] {
        let id = world.begin(Spec::CreateDomain { name: name("d3"), path, local: true });
        assert_eq!(world.refusal_of(id).reason, "DOMAIN_PATH_TAKEN");
    }
}

#[test]
fn a_delete_is_refused_while_anything_names_the_domain_and_each_blocker_says_what_clears_it() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", session, "d2");
    let disk = world.add_disk("w1", session, "a", domain);
    assert_eq!(refused(&mut world, DomainChange::Delete { domain }).reason, "DOMAIN_ACTIVE");
    let access = Access::Read;
    let attach = AttachmentChange::Attach { disk, worker: worker_id("w1"), access, session: None };
    world.begin(Spec::Attachment(attach));
    maintain(&mut world, domain);
    let before = world.state.domains.get(&domain).cloned();
    let refusal = refused(&mut world, DomainChange::Delete { domain });
    assert_eq!(refusal.reason, "DOMAIN_IN_USE");
    let of = |kind: &str| refusal.blockers.iter().find(|at| at.kind == kind).map(|at| at.description.clone());
    assert!(of("disk").unwrap().contains("sdm disk move a"), "{refusal}");
    assert!(of("attachment").unwrap().contains("sdm disk detach a --host w1"), "{refusal}");
    assert_eq!(world.state.domains.get(&domain).cloned(), before, "nothing was changed");

    committed(&mut world, DomainChange::Activate { domain });
    world.begin(Spec::Attachment(AttachmentChange::Detach { disk, worker: None, stopped: false }));
    let mover = world.begin(Spec::MoveDisk { disk, to });
    maintain(&mut world, domain);
    let refusal = refused(&mut world, DomainChange::Delete { domain });
    assert!(
        refusal
            .blockers
            .iter()
            .any(|at| at.kind == "lock" && at.description.contains(&format!("sdm txn abort {mover}"))),
        "{refusal}"
    );
    world.work("w1", session);
    let refusal = refused(&mut world, DomainChange::Delete { domain });
    let kinds: Vec<_> =
        refusal.blockers.iter().map(|at| (at.kind.as_str(), at.description.ends_with("sdm gc run"))).collect();
    assert_eq!(kinds, [("garbage", true)], "{refusal}");
    let garbage = world.state.garbage.values().map(|row| row.id).collect();
    world.apply(Command::Collect { garbage });
    world.work("w1", session);
    committed(&mut world, DomainChange::Delete { domain });
    assert!(world.state.domains.get(&domain).is_none());
    let [garbage] = &world.state.garbage.values().cloned().collect::<Vec<_>>()[..] else { panic!("its folder") };
    assert_eq!((garbage.kind, garbage.place.whole_domain), (Kind::Deleted, true));
    world.apply(Command::Collect { garbage: vec![garbage.id] });
    assert!(matches!(&world.assignments("w1")[0].order, Order::FormatDomain { target, .. } if target.domain == domain));
    world.work("w1", session);
    world.work("w1", session);
    assert!(world.state.garbage.is_empty());
}

/// Story 3: a format of the target wanted while a move into it runs; a detach of the source likewise.
#[test]
fn neither_end_of_a_running_move_is_deleted_or_detached() {
    let mut world = World::founded();
    let (session, from) = world.with_domain("w1", "d1");
    let to = world.add_domain("w1", session, "d2");
    let disk = world.add_disk("w1", session, "a", from);
    let mover = world.begin(Spec::MoveDisk { disk, to });
    maintain(&mut world, from);
    maintain(&mut world, to);
    assert_eq!(refused(&mut world, DomainChange::Delete { domain: to }).reason, "DOMAIN_IN_USE");
    assert_eq!(refused(&mut world, DomainChange::Detach { domain: from }).reason, "DOMAIN_IN_USE");
    world.work("w1", session);
    assert!(matches!(world.phase(mover), Phase::Committed(_)));
    assert_eq!(world.state.domain_of(world.state.disks.get(&disk).unwrap()).unwrap().id, to);
}

fn detached(world: &mut World, session: sdm_state::command::SessionRef, domain: DomainId) -> DomainCatalog {
    maintain(world, domain);
    let id = change(world, DomainChange::Detach { domain });
    let assignment = world.assignments("w1").remove(0);
    let Order::DetachDomain { catalog, .. } = assignment.order else { panic!("{assignment:?}") };
    assert!(world.state.domains.contains(&domain), "the rows stay until the storage holds them");
    world.work("w1", session);
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    assert!(!world.state.domains.contains(&domain));
    *catalog
}

fn attach(catalog: &DomainCatalog, contents: DomainContents) -> DomainChange {
    let (name, path) = (catalog.name.clone(), format!("/srv/{}", catalog.name));
    DomainChange::Attach(Box::new(AttachDomain {
        domain: catalog.domain,
        name,
        path,
        local: true,
        contents,
        renamed: true,
        catalog: String::new(),
        more: None,
    }))
}

#[test]
fn a_detached_domain_comes_back_with_its_disks() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", session, "a", domain);
    let before = world.state.disks.get(&disk).cloned().unwrap();
    let catalog = detached(&mut world, session, domain);
    assert!(world.state.disks.is_empty() && world.state.volumes.is_empty() && world.state.placements.is_empty());
    assert!(world.state.garbage.is_empty(), "nothing of it is garbage");
    let id = change(&mut world, attach(&catalog, catalog.contents.clone()));
    assert!(world.state.disks.is_empty(), "nothing is visible before its worker took it over");
    world.work("w1", session);
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    assert_eq!(world.state.disks.get(&disk), Some(&before));
    assert_eq!(world.state.domain_of(&before).map(|row| row.id), Some(domain));
}

#[test]
fn another_cluster_that_attaches_it_deletes_its_placements_under_the_names_of_their_maker() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    world.add_disk("w1", session, "a", domain);
    let catalog = detached(&mut world, session, domain);
    let mut other = World::empty();
    other.apply(Command::Found(Found {
        cluster_id: ClusterId::derive("another cluster", &[]),
        pool_id: PoolId::derive("another pool", &[]),
        epoch: 1,
        member: member("m9"),
        settings: Settings::default(),
    }));
    let session = other.open_worker("w1", "p1");
    let id = change(&mut other, attach(&catalog, catalog.contents.clone()));
    other.work("w1", session);
    assert!(matches!(other.phase(id), Phase::Committed(_)), "{:?}", other.phase(id));
    other.reach(session, domain, 1 << 30);
    let disk = other.state.disk_named(&name("a")).unwrap().id;
    other.begin(Spec::DeleteDisk { disk });
    let [garbage] = &other.state.garbage.values().cloned().collect::<Vec<_>>()[..] else { panic!("one garbage") };
    assert_eq!(garbage.cluster, Some(catalog.cluster));
}

#[test]
fn what_clashes_or_contradicts_itself_is_not_attached() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let kept = world.add_domain("w1", session, "d2");
    world.add_disk("w1", session, "a", domain);
    let catalog = detached(&mut world, session, domain);
    world.add_disk("w1", session, "a", kept);
    let refusal = refused(&mut world, attach(&catalog, catalog.contents.clone()));
    assert_eq!(refusal.reason, "DISK_EXISTS");
    assert!(refusal.hint.contains("--rename-prefix"), "{refusal}");
    assert_eq!(refusal.blockers.len(), 1);
    let mut renamed = catalog.contents.clone();
    renamed.disks[0].name = name("old-a");
    let mut torn = renamed.clone();
    torn.volumes.clear();
    assert_eq!(refused(&mut world, attach(&catalog, torn)).reason, "BAD_DOMAIN_CATALOG");
    let mut elsewhere = renamed.clone();
    elsewhere.placements[0].domain = kept;
    assert_eq!(refused(&mut world, attach(&catalog, elsewhere)).reason, "BAD_DOMAIN_CATALOG");
    committed_by_work(&mut world, session, attach(&catalog, renamed));
    let again = attach(&catalog, DomainContents::default());
    assert_eq!(refused(&mut world, again).reason, "DOMAIN_EXISTS");
}

fn committed_by_work(world: &mut World, session: sdm_state::command::SessionRef, domain_change: DomainChange) {
    let id = change(world, domain_change);
    world.work("w1", session);
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
}

#[test]
fn a_detach_whose_worker_is_lost_waits_until_that_is_fenced() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let other = world.open_worker("w2", "p1");
    world.reach(other, domain, 1 << 30);
    maintain(&mut world, domain);
    let id = change(&mut world, DomainChange::Detach { domain });
    let (holder, holder_session) = if world.assignments("w1").is_empty() { ("w2", other) } else { ("w1", session) };
    world.apply(Command::ExpireSessions { sessions: vec![holder_session] });
    world.pass(3_600_000);
    assert_eq!(world.state.txns.get(&id).unwrap().phase_word(), "fencing");
    world.apply(Command::Abort { txn: id, reason: "no more".into() });
    assert_eq!(world.state.txns.get(&id).unwrap().phase_word(), "fencing", "an abort does not release it");
    let down = WorkerChange::ConfirmDown { worker: worker_id(holder), session: holder_session.id };
    world.begin(Spec::Worker(down));
    assert_eq!(world.refusal_of(id).reason, "ABORTED");
    assert!(world.state.domains.contains(&domain));
    assert!(world.state.locks.is_empty());
}

/// A domain that may be detached must be attachable: its disks travel in one command.
#[test]
fn the_largest_domain_that_is_detached_fits_one_command_with_the_longest_names() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", session, "a", domain);
    let mut row = world.state.disks.get(&disk).cloned().unwrap();
    row.name = name(&"n".repeat(128));
    row.description = "d".repeat(200);
    let mut volume = world.state.volumes.get(&row.volumes[0]).cloned().unwrap();
    (volume.virtual_size, volume.file_size, volume.allocated_bytes) = (u64::MAX, u64::MAX, u64::MAX);
    volume.blake3 = Some([0xff; 32]);
    let mut placement = world.state.placements.get(&row.placement).cloned().unwrap();
    placement.cluster = Some(world.state.cluster_id());
    let most = usize::try_from(Settings::default().domain_rows_max / 3).unwrap();
    let contents = DomainContents {
        disks: vec![row; most],
        volumes: vec![volume; most],
        placements: vec![placement; most],
        retention_ms: None,
    };
    let spec = Spec::Domain(DomainChange::Attach(Box::new(AttachDomain {
        domain,
        name: name(&"n".repeat(128)),
        path: format!("/{}", "p".repeat(1000)),
        local: true,
        contents,
        renamed: true,
        catalog: String::new(),
        more: None,
    })));
    world.begin(spec);
    let bytes = encode_entry(world.entries.last().unwrap()).len();
    assert!(bytes < COMMAND_BYTES_MAX, "{bytes} bytes");
}
