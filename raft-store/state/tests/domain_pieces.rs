//! Domains whose catalog does not fit into one entry: detached and attached piece by piece, seen whole or not at all;
//! and catalogs that somebody wrote by hand.

mod world;

use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::limits::COMMAND_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::assignments::Order;
use sdm_state::catalog::Format;
use sdm_state::command::SessionRef;
use sdm_state::domain_catalog::DomainCatalog;
use sdm_state::domain_change::AttachDomain;
use sdm_state::domain_change::DomainChange;
use sdm_state::domain_change::DomainContents;
use sdm_state::domain_change::MorePieces;
use sdm_state::envelope::encode_entry;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use world::World;
use world::done;
use world::name;

const DISKS: usize = 7;

fn domain_with_disks(settings: Settings) -> (World, SessionRef, DomainId) {
    let mut world = World::founded_with(settings);
    let (session, domain) = world.with_domain("w1", "d1");
    for number in 0..DISKS {
        world.add_disk("w1", session, &format!("disk-{number}"), domain);
    }
    (world, session, domain)
}

fn two_disks_a_piece() -> Settings {
    Settings { domain_rows_max: 6, ..Settings::default() }
}

fn begin_detach(world: &mut World, domain: DomainId) -> TxnId {
    let id = world.begin(Spec::Domain(DomainChange::Maintenance { domain }));
    assert!(matches!(world.phase(id), Phase::Committed(_)));
    world.begin(Spec::Domain(DomainChange::Detach { domain }))
}

/// Does what the worker is told until the transaction has its end, and keeps what it wrote: the head first.
fn detach(world: &mut World, session: SessionRef, id: TxnId) -> Vec<DomainCatalog> {
    let mut written: Vec<DomainCatalog> = Vec::new();
    while world.phase(id) == &Phase::Running {
        let Some(assignment) = world.assignments("w1").into_iter().next() else {
            world.apply(Command::Tick);
            continue;
        };
        match &assignment.order {
            Order::WriteCatalog { catalog, .. } => {
                assert_eq!(catalog.piece as usize, written.len() + 1);
                written.push((**catalog).clone());
            }
            Order::DetachDomain { catalog, .. } => {
                assert_eq!(catalog.pieces as usize, written.len(), "the head comes last");
                written.insert(0, (**catalog).clone());
            }
            other => panic!("{other:?}"),
        }
        world.report(session, assignment.token, done(&assignment.order).expect("a report"));
    }
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    written
}

fn attach(head: &DomainCatalog, prefix: &str) -> Spec {
    let mut contents = head.contents.clone();
    for disk in &mut contents.disks {
        disk.name = name(&format!("{prefix}{}", disk.name));
    }
    let more = MorePieces { pieces: head.pieces, detached_at: head.detached_at, prefix: prefix.to_owned() };
    Spec::Domain(DomainChange::Attach(Box::new(AttachDomain {
        domain: head.domain,
        name: head.name.clone(),
        path: "/srv/d1".to_owned(),
        local: true,
        contents,
        renamed: !prefix.is_empty(),
        catalog: String::new(),
        more: (head.pieces > 0).then_some(more),
    })))
}

fn piece(catalog: &DomainCatalog) -> Report {
    let contents = Box::new(catalog.contents.clone());
    Report::Catalog { detached_at: catalog.detached_at, piece: catalog.piece, contents }
}

fn visible(world: &World) -> usize {
    world.state.disks.values().filter(|disk| !world.state.is_hidden(disk)).count()
}

#[test]
fn a_large_domain_is_detached_and_attached_piece_by_piece_and_seen_whole_or_not_at_all() {
    let (mut world, session, domain) = domain_with_disks(two_disks_a_piece());
    let before: Vec<_> = world.state.disks.values().cloned().collect();
    let id = begin_detach(&mut world, domain);
    assert_eq!(visible(&world), DISKS, "until the storage has all of it");
    let written = detach(&mut world, session, id);
    assert_eq!(written.len(), 4);
    assert!(written.iter().all(|piece| piece.contents.rows() <= 6 && piece.detached_at == written[0].detached_at));
    assert!(world.state.domains.is_empty() && world.state.disks.is_empty() && world.state.volumes.is_empty());

    let id = world.begin(attach(&written[0], ""));
    world.work("w1", session);
    let mut read = Vec::new();
    while world.phase(id) == &Phase::Running {
        assert_eq!(visible(&world), 0, "nothing half-made is seen");
        let assignment = world.assignments("w1").remove(0);
        let Order::ReadCatalog { piece: number, .. } = assignment.order else { panic!("{assignment:?}") };
        read.push(number);
        world.report(session, assignment.token, piece(&written[number as usize]));
    }
    assert_eq!(read, [1, 2, 3]);
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    assert_eq!(visible(&world), DISKS);
    let after: Vec<_> = world.state.disks.values().cloned().collect();
    assert_eq!(after, before);
    assert!(world.state.domains.get(&domain).expect("it is back").state.is_active());
}

#[test]
fn a_worker_that_dies_between_two_pieces_loses_nothing() {
    let (mut world, session, domain) = domain_with_disks(two_disks_a_piece());
    let id = begin_detach(&mut world, domain);
    let first = world.assignments("w1").remove(0);
    world.report(session, first.token, done(&first.order).expect("a report"));
    world.apply(Command::ExpireSessions { sessions: vec![session] });
    assert_eq!(world.state.txns.get(&id).expect("the transaction").phase_word(), "fencing");
    let session = world.open_worker("w1", "p2");
    let second = world.assignments("w1").remove(0);
    let Order::WriteCatalog { catalog, .. } = &second.order else { panic!("{second:?}") };
    assert_eq!(catalog.piece, 2, "it goes on where it was");
    let mut numbers = Vec::new();
    while world.phase(id) == &Phase::Running {
        match world.assignments("w1").into_iter().next() {
            Some(assignment) => {
                if let Order::WriteCatalog { catalog, .. } = &assignment.order {
                    numbers.push(catalog.piece);
                }
                world.report(session, assignment.token, done(&assignment.order).expect("a report"));
            }
            None => _ = world.apply(Command::Tick),
        }
    }
    assert_eq!(numbers, [2, 3]);
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
}

#[test]
fn a_detach_that_is_aborted_while_a_piece_is_written_leaves_the_domain_where_it_is() {
    let (mut world, session, domain) = domain_with_disks(two_disks_a_piece());
    let id = begin_detach(&mut world, domain);
    let first = world.assignments("w1").remove(0);
    abort(&mut world, id);
    assert_eq!(world.phase(id), &Phase::Running, "its worker still writes");
    world.report(session, first.token, done(&first.order).expect("a report"));
    assert_eq!(world.refusal_of(id).reason, "ABORTED");
    assert!(world.assignments("w1").is_empty() && world.state.locks.is_empty());
    assert_eq!(visible(&world), DISKS);
    // Whoever wants it later begins at the first piece.
    let id = world.begin(Spec::Domain(DomainChange::Detach { domain }));
    assert_eq!(detach(&mut world, session, id).len(), 4);
}

#[test]
fn a_detach_that_is_aborted_while_its_head_is_written_is_done_all_the_same_and_says_so() {
    let (mut world, session, domain) = domain_with_disks(two_disks_a_piece());
    let id = begin_detach(&mut world, domain);
    while !matches!(world.assignments("w1")[0].order, Order::DetachDomain { .. }) {
        world.work("w1", session);
    }
    abort(&mut world, id);
    world.work("w1", session);
    while world.state.domains.contains(&domain) {
        world.apply(Command::Tick);
    }
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
}

fn abort(world: &mut World, txn: TxnId) {
    world.apply(Command::Abort { txn, reason: "another time".into() });
}

/// A domain of which one piece has arrived, the attach, and the catalog.
fn half_attached(prefix: &str) -> (World, SessionRef, TxnId, Vec<DomainCatalog>) {
    let (mut world, session, domain) = domain_with_disks(two_disks_a_piece());
    let id = begin_detach(&mut world, domain);
    let written = detach(&mut world, session, id);
    let id = world.begin(attach(&written[0], prefix));
    world.work("w1", session);
    let orders = world.assignments("w1");
    let reading = orders.iter().find(|at| matches!(at.order, Order::ReadCatalog { .. })).expect("a piece to read");
    world.report(session, reading.token, piece(&written[1]));
    assert!(world.state.disks.len() > 2 && visible(&world) == 0);
    (world, session, id, written)
}

/// The order to give a domain back that is not attached after all.
fn giving_back(world: &World) -> (Token, DomainCatalog) {
    let found = world.assignments("w1").into_iter().find_map(|at| match at.order {
        Order::DetachDomain { catalog, .. } => Some((at.token, *catalog)),
        _ => None,
    });
    found.expect("its mark is to be released")
}

#[test]
fn an_attach_that_is_aborted_between_two_pieces_gives_the_domain_back_and_takes_out_what_had_come() {
    let (mut world, session, id, mut written) = half_attached("old-");
    let domain = written[0].domain;
    abort(&mut world, id);
    let (token, head) = giving_back(&world);
    assert_eq!((&head.contents, head.detached_at), (&written[0].contents, written[0].detached_at));
    assert_eq!((head.piece, head.pieces), (0, written[0].pieces));
    assert!(world.state.domains.contains(&domain) && visible(&world) == 0, "it is this cluster's until then");
    // One call that fails is no reason to keep it.
    let failed = Report::Failed { reason: "BUSY".into(), message: "not now".into(), hint: String::new() };
    world.report(session, token, failed);
    assert_eq!(world.phase(id), &Phase::Running);
    world.pass(60_000);
    let (token, head) = giving_back(&world);
    world.report(session, token, Report::Done { volumes: Vec::new(), bytes: 0 });
    while world.state.domains.contains(&domain) {
        world.apply(Command::Tick);
    }
    assert_eq!(world.refusal_of(id).reason, "ABORTED");
    assert!(!world.refusal_of(id).message.contains("mark"), "{}", world.refusal_of(id));
    assert!(world.state.disks.is_empty() && world.state.volumes.is_empty() && world.state.locks.is_empty());
    assert!(world.assignments("w1").is_empty() && world.state.projections.is_empty());
    assert!(world.state.forgotten.is_empty(), "it may be attached again");

    written[0] = head;
    let id = world.begin(attach(&written[0], ""));
    world.work("w1", session);
    for catalog in &written[1..] {
        let token = world.assignments("w1").remove(0).token;
        world.report(session, token, piece(catalog));
    }
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    assert_eq!(visible(&world), DISKS);
}

#[test]
fn an_attach_that_ends_where_nobody_can_give_the_domain_back_says_so() {
    let says = |world: &World, id: TxnId| {
        let refusal = world.refusal_of(id);
        assert!(refusal.message.contains("may name this cluster"), "{refusal}");
        assert!(refusal.hint.contains("sdm domain attach /srv/d1/"), "{refusal}");
        assert_eq!((refusal.reason.as_str(), world.state.disks.len()), ("ABORTED", 0));
    };
    // A worker says that it will never do.
    let (mut world, session, id, written) = half_attached("");
    abort(&mut world, id);
    let (token, _) = giving_back(&world);
    let never = Refusal::new(Class::Denied, "OTHER_CLUSTERS_DOMAIN", "it is another's");
    world.report(session, token, Report::Refused(never));
    while world.state.domains.contains(&written[0].domain) {
        world.apply(Command::Tick);
    }
    says(&world, id);
    // Nobody reaches it: nobody is waited for.
    let (mut world, session, id, written) = half_attached("");
    world.unreach(session, written[0].domain);
    abort(&mut world, id);
    while world.state.domains.contains(&written[0].domain) {
        world.apply(Command::Tick);
    }
    says(&world, id);
}

#[test]
fn a_piece_of_another_detach_or_with_a_name_that_is_taken_ends_the_attach() {
    type Spoil = fn(&mut DomainCatalog);
    let spoils: [(Spoil, &str); 4] = [
        (|piece| piece.detached_at += 1, "BAD_DOMAIN_CATALOG"),
        (|piece| piece.piece += 1, "BAD_DOMAIN_CATALOG"),
        (|piece| piece.contents.disks[0].name = name("disk-taken"), "DISK_EXISTS"),
        (|piece| piece.contents.volumes[0].virtual_size = 0, "BAD_DOMAIN_CATALOG"),
    ];
    for (spoil, reason) in spoils {
        let (mut world, session, domain) = domain_with_disks(two_disks_a_piece());
        let other = world.add_domain("w1", session, "d2");
        world.add_disk("w1", session, "disk-taken", other);
        let id = begin_detach(&mut world, domain);
        let mut written = detach(&mut world, session, id);
        let id = world.begin(attach(&written[0], ""));
        world.work("w1", session);
        let reading = world.assignments("w1").remove(0);
        spoil(&mut written[1]);
        world.report(session, reading.token, piece(&written[1]));
        let (token, _) = giving_back(&world);
        world.report(session, token, Report::Done { volumes: Vec::new(), bytes: 0 });
        while world.state.domains.contains(&domain) {
            world.apply(Command::Tick);
        }
        assert_eq!(world.refusal_of(id).reason, reason);
        assert_eq!((world.state.disks.len(), visible(&world)), (1, 1), "only what was here stays");
    }
}

#[test]
fn disks_of_all_pieces_get_the_prefix_and_their_words_are_written_anew() {
    let (mut world, session, domain) = domain_with_disks(two_disks_a_piece());
    let id = begin_detach(&mut world, domain);
    let written = detach(&mut world, session, id);
    let id = world.begin(attach(&written[0], "old-"));
    world.work("w1", session);
    for catalog in &written[1..] {
        let orders = world.assignments("w1");
        let reading = orders.iter().find(|at| matches!(at.order, Order::ReadCatalog { .. })).expect("a piece to read");
        let token = reading.token;
        world.report(session, token, piece(catalog));
    }
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    assert!(world.state.disks.values().all(|disk| disk.name.as_str().starts_with("old-disk-")));
    assert_eq!(world.state.projections.len(), DISKS);
}

/// A volume that several disks share goes with the first of them, and the others find it there.
#[test]
fn linked_clones_may_come_in_other_pieces_than_what_they_share() {
    let mut world = World::founded_with(two_disks_a_piece());
    let (session, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", session, "base", domain);
    let make = Spec::CreateSnapshot { disk, name: name("s1"), description: String::new() };
    world.begin(make);
    world.work("w1", session);
    let base = world.state.disks.get(&disk).expect("the disk").volumes[0];
    for number in 0..4 {
        let (name, description) = (name(&format!("clone-{number}")), String::new());
        world.begin(Spec::CloneLinked { disk, snapshot: Some(base), name, description });
        world.work("w1", session);
    }
    assert_eq!(world.state.users_of(base).count(), 5);
    for row in world.state.garbage.values().map(|row| row.id).collect::<Vec<_>>() {
        world.apply(Command::Collect { garbage: vec![row] });
        world.work("w1", session);
    }
    world.work("w1", session);
    let id = begin_detach(&mut world, domain);
    let written = detach(&mut world, session, id);
    assert!(written.len() > 1);
    assert_eq!(written.iter().flat_map(|piece| &piece.contents.volumes).filter(|row| row.id == base).count(), 1);
    let id = world.begin(attach(&written[0], ""));
    world.work("w1", session);
    for catalog in &written[1..] {
        let token = world.assignments("w1").remove(0).token;
        world.report(session, token, piece(catalog));
    }
    assert!(matches!(world.phase(id), Phase::Committed(_)), "{:?}", world.phase(id));
    assert_eq!(world.state.users_of(base).count(), 5);
}

/// Each piece travels in one command, and in one frame to an I/O process.
#[test]
fn the_heaviest_pieces_fit_one_command_and_one_frame() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    for number in 0..120 {
        let disk = world.add_disk("w1", session, &format!("{}{number:03}", "n".repeat(125)), domain);
        let description = "\"".repeat(200);
        world.begin(Spec::DescribeDisk { disk, description });
        world.work("w1", session);
    }
    let id = begin_detach(&mut world, domain);
    let written = detach(&mut world, session, id);
    assert!(written.len() > 1, "they are more than one piece");
    for catalog in &written {
        let text = serde_json::to_string(catalog).expect("it encodes").len();
        assert!(text < 200 << 10, "{text} bytes of text");
        let token = Token::default();
        world.report(session, token, piece(catalog));
        let entry = encode_entry(world.entries.last().expect("that one")).len();
        assert!(entry < COMMAND_BYTES_MAX, "{entry} bytes in an entry");
    }
}

fn hostile(wanted: &str, spoil: impl FnOnce(&mut DomainContents)) {
    hostile_to(wanted, |contents, _| spoil(contents));
}

fn hostile_to(wanted: &str, spoil: impl FnOnce(&mut DomainContents, DiskId)) {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let kept = world.add_domain("w1", session, "d2");
    let disk = world.add_disk("w1", session, "a", domain);
    world.begin(Spec::CreateSnapshot { disk, name: name("s1"), description: String::new() });
    world.work("w1", session);
    world.add_disk("w1", session, "b", domain);
    let garbage = world.state.garbage.values().map(|row| row.id).collect();
    world.apply(Command::Collect { garbage });
    world.work("w1", session);
    // What is in the trash and what is garbage here is nobody else's either.
    world.begin(Spec::Garbage(GarbageOrder::SetRetention { domain: kept, retention_ms: Some(86_400_000) }));
    let trashed = world.add_disk("w1", session, "t", kept);
    world.begin(Spec::DeleteDisk { disk: trashed });
    world.work("w1", session);
    let id = begin_detach(&mut world, domain);
    let mut head = detach(&mut world, session, id).remove(0);
    head.contents.disks.sort_by(|a, b| a.name.cmp(&b.name));
    spoil(&mut head.contents, trashed);
    let id = world.begin(attach(&head, ""));
    let refusal = world.refusal_of(id);
    assert_eq!(refusal.reason, "BAD_DOMAIN_CATALOG", "{wanted}: {refusal}");
    assert!(refusal.message.contains(wanted), "{wanted}: {refusal}");
    assert!(world.state.disks.is_empty(), "nothing of it is believed");
}

fn leaf(contents: &mut DomainContents) -> &mut sdm_state::catalog::Volume {
    let id = *contents.disks[0].volumes.last().expect("a leaf");
    contents.volumes.iter_mut().find(|row| row.id == id).expect("its row")
}

fn base(contents: &mut DomainContents) -> &mut sdm_state::catalog::Volume {
    let id = contents.disks[0].volumes[0];
    contents.volumes.iter_mut().find(|row| row.id == id).expect("its row")
}

#[test]
fn a_catalog_that_somebody_wrote_by_hand_keeps_the_rules_of_chains_or_is_refused() {
    hostile("is broken", |contents| leaf(contents).parent = None);
    hostile("only qcow2 can be", |contents| leaf(contents).format = Format::Raw);
    hostile("smaller than the one beneath", |contents| leaf(contents).virtual_size = 4096);
    hostile("lacks its volume", |contents| {
        let base = contents.disks[0].volumes[0];
        contents.disks[0].volumes[0] = VolumeId::derive("nowhere", &[]);
        contents.volumes.retain(|row| row.id != base);
    });
    hostile("chain of 0 volumes", |contents| {
        contents.disks[1].volumes.clear();
        contents.volumes.retain(|row| row.format == Format::Qcow2 || row.snapshot.is_some());
    });
    hostile("chain of 40 volumes", |contents| {
        let id = contents.disks[1].volumes[0];
        contents.disks[1].volumes = vec![id; 40];
    });
    hostile("others use", |contents| {
        let own = contents.disks[1].volumes[0];
        contents.disks[1].volumes = contents.disks[0].volumes.clone();
        contents.volumes.retain(|row| row.id != own);
    });
}

#[test]
fn a_catalog_that_somebody_wrote_by_hand_keeps_the_limits_or_is_refused() {
    hostile("has 0 bytes", |contents| base(contents).virtual_size = 0);
    hostile("are possible", |contents| leaf(contents).virtual_size = u64::MAX);
    hostile("allocated", |contents| leaf(contents).allocated_bytes = u64::MAX);
    hostile("at most", |contents| contents.disks[0].description = "x".repeat(100_000));
    hostile("one line", |contents| contents.disks[0].description = "a\nb".to_owned());
    hostile("retention", |contents| contents.retention_ms = Some(u64::MAX));
    hostile("have one id or name", |contents| contents.disks[1].name = contents.disks[0].name.clone());
    hostile("have one id or name", |contents| {
        let twice = contents.volumes[0].clone();
        contents.volumes.push(twice);
    });
}

#[test]
fn a_catalog_that_somebody_wrote_by_hand_names_nothing_that_is_here_or_will_be() {
    hostile("does not have the name", |contents| contents.placements[0].token.index += 1);
    hostile_to("in the trash already", |contents, trashed| {
        let placement = contents.disks[1].placement;
        contents.disks[1].id = trashed;
        contents.placements.iter_mut().filter(|row| row.id == placement).for_each(|row| row.disk = trashed);
    });
}
