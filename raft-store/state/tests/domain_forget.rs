//! Domains whose storage is lost for good are given up: what is refused, what goes, and that nothing of it is ever
//! believed again.

mod world;

use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Refusal;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::assignments::Order;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::catalog::Format;
use sdm_state::domain_change::AttachDomain;
use sdm_state::domain_change::DomainChange;
use sdm_state::domain_change::DomainContents;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use world::World;
use world::name;
use world::worker_id;

fn change(world: &mut World, change: DomainChange) -> TxnId {
    world.begin(Spec::Domain(change))
}

fn committed(world: &mut World, spec: Spec) {
    let id = world.begin(spec);
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
}

fn refused(world: &mut World, domain_change: DomainChange) -> Refusal {
    let id = change(world, domain_change);
    world.refusal_of(id).clone()
}

fn create(disk: &str, domain: DomainId) -> Spec {
    let (name, format) = (name(disk), Format::Raw);
    Spec::CreateDisk { name, domain, size: 1 << 20, format, preallocated: false, description: String::new() }
}

fn attach_again(domain: DomainId) -> DomainChange {
    DomainChange::Attach(Box::new(AttachDomain {
        domain,
        name: name("back"),
        path: "/srv/d1".to_owned(),
        local: true,
        contents: DomainContents::default(),
        renamed: false,
        catalog: String::new(),
        more: None,
    }))
}

#[test]
fn a_domain_that_is_used_is_not_forgotten_and_each_blocker_says_what_clears_it() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", session, "a", domain);
    let refusal = refused(&mut world, DomainChange::Forget { domain });
    assert_eq!(refusal.reason, "DOMAIN_REACHED");
    assert!(refusal.hint.contains("sdm domain maintenance d1"), "{refusal}");
    let attach = AttachmentChange::Attach { disk, worker: worker_id("w1"), access: Access::Write, session: None };
    committed(&mut world, Spec::Attachment(attach));
    let running = world.begin(create("b", domain));
    committed(&mut world, Spec::Domain(DomainChange::Maintenance { domain }));
    let refusal = refused(&mut world, DomainChange::Forget { domain });
    assert_eq!(refusal.reason, "DOMAIN_IN_USE");
    let words: Vec<&str> = refusal.blockers.iter().map(|at| at.description.as_str()).collect();
    assert!(words.iter().any(|words| words.contains(&format!("sdm txn abort {running}"))), "{words:?}");
    assert!(words.iter().any(|words| words.contains("sdm disk detach a --host w1")), "{words:?}");
    assert_eq!(world.state.disks_in(domain), 1, "nothing was changed");
}

#[test]
fn what_a_lost_storage_held_goes_with_it_and_what_works_there_is_over() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", session, "a", domain);
    committed(&mut world, Spec::Garbage(GarbageOrder::SetRetention { domain, retention_ms: Some(86_400_000) }));
    let gone = world.add_disk("w1", session, "b", domain);
    committed(&mut world, Spec::DeleteDisk { disk: gone });
    committed(&mut world, Spec::RenameDisk { disk, name: name("c") });
    let other = world.open_worker("w2", "p1");
    world.reach(other, domain, 1 << 30);
    let late =
        world.assignments("w1").into_iter().chain(world.assignments("w2")).map(|at| at.token).collect::<Vec<_>>();
    let attach = AttachmentChange::Attach { disk, worker: worker_id("w2"), access: Access::Write, session: None };
    committed(&mut world, Spec::Attachment(attach));
    // Its host and its storage go down together; nobody can confirm anything about the host.
    world.apply(Command::ExpireSessions { sessions: vec![other] });
    world.unreach(session, domain);
    let shown = world.state.dry_run(&Spec::Domain(DomainChange::Forget { domain }), None).expect("allowed");
    let steps = shown.steps.join("; ");
    assert!(steps.contains("1 disks out of the catalog: c") && steps.contains("with the trash b"), "{steps}");
    assert!(steps.contains("attached to host w2") && steps.contains("nothing is done on the storage"), "{steps}");
    committed(&mut world, Spec::Domain(DomainChange::Forget { domain }));
    let state = &world.state;
    assert!(state.disks.is_empty() && state.volumes.is_empty() && state.placements.is_empty());
    assert!(state.garbage.is_empty() && state.attachments.is_empty() && state.projections.is_empty());
    assert!(state.domains.is_empty() && state.locks.is_empty());
    assert!(state.workers.values().all(|worker| worker.domains.is_empty()));
    for token in late {
        let said = world.report(session, token, Report::Done { volumes: Vec::new(), bytes: 0 });
        assert!(matches!(&said, Reply::Refused(_)), "{said}");
    }
    // Should it come back, it is nobody's: what its catalog says may be older than what happened there.
    let refusal = refused(&mut world, attach_again(domain));
    assert_eq!(refusal.reason, "DOMAIN_FORGOTTEN");
    assert!(refusal.hint.contains("sdm disk import"), "{refusal}");
    // Names are free again.
    let again = world.add_domain("w1", session, "d1");
    assert_ne!(again, domain);
    world.add_disk("w1", session, "c", again);
}

/// Those that end with the domain are more than a refusal would list: whoever holds it behind them is seen all the same.
#[test]
fn a_domain_is_not_forgotten_under_what_works_in_it_behind_many_that_would_end_with_it() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let disks: Vec<_> = (0..10).map(|at| world.add_disk("w1", session, &format!("a{at}"), domain)).collect();
    let resizes: Vec<_> =
        disks.iter().map(|disk| world.begin(Spec::ResizeDisk { disk: *disk, size: 40 << 20 })).collect();
    world.apply(Command::ExpireSessions { sessions: vec![session] });
    for id in &resizes {
        world.apply(Command::Abort { txn: *id, reason: "the host is gone".to_owned() });
        assert!(matches!(world.phase(*id), Phase::Running), "it waits for its host: {:?}", world.phase(*id));
    }
    let other = world.open_worker("w2", "p1");
    world.reach(other, domain, 1 << 30);
    let running = world.begin(create("b", domain));
    world.unreach(other, domain);
    committed(&mut world, Spec::Domain(DomainChange::Maintenance { domain }));
    let refusal = refused(&mut world, DomainChange::Forget { domain });
    assert_eq!(refusal.reason, "DOMAIN_IN_USE", "{refusal}");
    let words: Vec<&str> = refusal.blockers.iter().map(|at| at.description.as_str()).collect();
    assert!(words.iter().all(|words| words.contains(&running.to_string())), "{words:?}");
    world.apply(Command::Abort { txn: running, reason: "the storage is gone".to_owned() });
    committed(&mut world, Spec::Domain(DomainChange::Forget { domain }));
    for id in &resizes {
        assert!(matches!(world.phase(*id), Phase::Aborted(_)), "{:?}", world.phase(*id));
    }
    assert!(world.state.locks.is_empty(), "{:?}", world.state.locks);
}

#[test]
fn a_large_domain_is_gone_at_once_and_its_rows_leave_a_few_with_each_entry() {
    let mut world = World::founded_with(Settings { domain_rows_max: 6, ..Settings::default() });
    let (session, domain) = world.with_domain("w1", "d1");
    let mut disks = Vec::new();
    for number in 0..7 {
        disks.push(world.add_disk("w1", session, &format!("disk-{number}"), domain));
    }
    committed(&mut world, Spec::Domain(DomainChange::Maintenance { domain }));
    let id = change(&mut world, DomainChange::Forget { domain });
    assert_eq!(world.phase(id), &Phase::Running, "the command waits for the end");
    let left = world.state.disks_in(domain);
    assert!((1..7).contains(&left), "{left} disks are left");
    let visible = disks.iter().filter_map(|id| world.state.disks.get(id)).filter(|disk| !world.state.is_hidden(disk));
    assert_eq!(visible.count(), 0, "users see none of them any more");
    let one = disks.iter().copied().find(|id| world.state.disks.contains(id)).expect("one is left");
    let late = world.begin(Spec::DeleteDisk { disk: one });
    assert_eq!(world.refusal_of(late).reason, "DISK_NOT_FOUND");
    let refusal = world.refused(Command::Abort { txn: id, reason: "no".into() });
    assert_eq!(refusal.reason, "TXN_ENDING", "there is no way back");
    let mut entries = 0;
    while world.state.domains.contains(&domain) {
        assert_eq!(world.state.next_due_ms().map(|at| at <= world.state.meta.clock_ms), Some(true), "a Tick is due");
        let before = world.state.disks_in(domain);
        world.apply(Command::Tick);
        assert!(before - world.state.disks_in(domain) <= 2, "one entry takes no more than it may");
        entries += 1;
        assert!(entries < 10);
    }
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    assert!(world.state.disks.is_empty() && world.state.locks.is_empty());
}

#[test]
fn a_deleted_domain_whose_folder_is_lost_is_forgotten_by_its_id() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    committed(&mut world, Spec::Domain(DomainChange::Maintenance { domain }));
    committed(&mut world, Spec::Domain(DomainChange::Delete { domain }));
    let garbage = world.state.garbage.values().map(|row| row.id).collect();
    world.apply(Command::Collect { garbage });
    let [deletion] = &world.assignments("w1")[..] else { panic!("one deletion") };
    let missing = Refusal::new(
        sdm_proto::refusal::Class::Precondition,
        "DOMAIN_MISSING",
        format!("domain {domain} is not at /srv/d1"),
    );
    world.report(session, deletion.token, Report::Refused(missing));
    let row = world.state.garbage.values().next().expect("the row stays");
    assert!(row.work.last_error.as_ref().is_some_and(|error| error.contains("is not at /srv/d1")), "{row:?}");
    committed(&mut world, Spec::Domain(DomainChange::Forget { domain }));
    assert!(world.state.garbage.is_empty());
    assert_eq!(refused(&mut world, DomainChange::Forget { domain }).reason, "DOMAIN_NOT_FOUND");
}

#[test]
fn the_folder_of_a_deleted_domain_goes_in_two_attempts_the_first_of_which_leaves_the_proof() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    committed(&mut world, Spec::Domain(DomainChange::Maintenance { domain }));
    committed(&mut world, Spec::Domain(DomainChange::Delete { domain }));
    let id = world.state.garbage.values().next().expect("its folder").id;
    let hash = world.state.garbage.values().next().map(sdm_state::garbage::Garbage::content_hash);
    world.apply(Command::Collect { garbage: vec![id] });
    let emptied = |world: &World| match &world.assignments("w1")[..] {
        [only] => matches!(&only.order, Order::FormatDomain { emptied: true, .. }),
        other => panic!("{other:?}"),
    };
    assert!(!emptied(&world));
    world.work("w1", session);
    assert!(emptied(&world), "the rest follows in the same entry");
    assert_eq!(world.state.garbage.values().next().map(sdm_state::garbage::Garbage::content_hash), hash);
    // The worker dies before it says so: the next one knows what was there.
    world.apply(Command::ExpireSessions { sessions: vec![session] });
    let session = world.open_worker("w1", "p2");
    world.pass(120_000);
    world.apply(Command::Collect { garbage: vec![id] });
    assert!(emptied(&world));
    world.work("w1", session);
    assert!(world.state.garbage.is_empty());
}

/// Whoever makes a domain where a forgotten one lies learns why it cannot be used, and what to do.
#[test]
fn a_path_at_which_a_forgotten_domain_lies_says_how_it_gets_free() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    world.unreach(session, domain);
    committed(&mut world, Spec::Domain(DomainChange::Forget { domain }));
    let create = |name: sdm_proto::names::Name| Spec::CreateDomain { name, path: "/srv/d1".into(), local: true };
    let said = |text: String| {
        let class = sdm_proto::refusal::Class::Conflict;
        Report::Refused(Refusal::new(class, "DOMAIN_PATH_IN_USE", text).hint("give each domain a path of its own"))
    };
    let id = world.begin(create(name("again")));
    let [order] = &world.assignments("w1")[..] else { panic!("one step") };
    let token = order.token;
    world.report(session, token, said(format!("the path `/srv/d1` already holds the domain {domain} of this pool")));
    let refusal = world.refusal_of(id);
    assert!(refusal.hint.contains("was forgotten") && refusal.hint.contains("by hand"), "{refusal}");
    assert_eq!(refusal.blockers.len(), 1, "{refusal}");
    // Of another domain there nothing of the kind is known.
    let id = world.begin(create(name("once-more")));
    let token = world.assignments("w1")[0].token;
    world.report(session, token, said("the path `/srv/d1` already holds the domain of somebody".into()));
    assert_eq!(world.refusal_of(id).hint, "give each domain a path of its own");
}

#[test]
fn a_detach_whose_storage_is_gone_is_refused_at_once_unless_another_worker_may_have_it() {
    for other_reaches in [false, true] {
        let mut world = World::founded();
        let (session, domain) = world.with_domain("w1", "d1");
        committed(&mut world, Spec::Domain(DomainChange::Maintenance { domain }));
        let id = change(&mut world, DomainChange::Detach { domain });
        let other = world.open_worker("w2", "p1");
        if other_reaches {
            world.reach(other, domain, 1 << 30);
        }
        let token = world.assignments("w1")[0].token;
        let (reason, message) = ("DOMAIN_MISSING".into(), format!("domain {domain} is not at /srv/d1"));
        world.report(session, token, Report::Failed { reason, message, hint: String::new() });
        if other_reaches {
            assert_eq!(world.phase(id), &Phase::Running, "another one may do it");
            continue;
        }
        let refusal = world.refusal_of(id);
        assert_eq!(refusal.reason, "DOMAIN_MISSING");
        assert!(refusal.hint.contains("sdm domain forget d1 --confirm d1"), "{refusal}");
        assert!(world.state.locks.is_empty());
    }
}

#[test]
fn what_a_domain_in_maintenance_refuses_names_the_way_out_where_its_storage_is_lost() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    committed(&mut world, Spec::Domain(DomainChange::Maintenance { domain }));
    let hint = |world: &mut World| {
        let id = world.begin(create("a", domain));
        world.refusal_of(id).hint.clone()
    };
    assert_eq!(hint(&mut world), "sdm domain activate d1");
    world.unreach(session, domain);
    let lost = hint(&mut world);
    assert!(lost.contains("sdm domain activate d1") && lost.contains("sdm domain forget d1 --confirm d1"), "{lost}");
}
