//! Attachments: who may use a disk, what they keep off, and what becomes of them.

mod world;

use sdm_proto::ids::DiskId;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Class;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::domain_change::DomainChange;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::workers::WorkerChange;
use world::World;
use world::identity;
use world::name;
use world::worker_id;

fn open(world: &mut World, nonce: &str) -> SessionRef {
    let owner = SessionOwner::Client("vm agent".into());
    match world.apply(Command::OpenSession(OpenSession { owner, ttl_ms: 10_000, nonce: nonce.into() })) {
        Reply::Session { session, .. } => session,
        other => panic!("no session: {other}"),
    }
}

fn attach(world: &mut World, disk: DiskId, host: &str, access: Access, session: Option<SessionRef>) -> TxnId {
    let worker = worker_id(host);
    world.begin(Spec::Attachment(AttachmentChange::Attach { disk, worker, access, session }))
}

fn detach(world: &mut World, disk: DiskId, host: Option<&str>, stopped: bool) -> TxnId {
    let worker = host.map(worker_id);
    world.begin(Spec::Attachment(AttachmentChange::Detach { disk, worker, stopped }))
}

fn is_committed(world: &World, id: TxnId) -> bool {
    matches!(world.phase(id), Phase::Committed(_))
}

/// Workers w1 and w2 reach d1 and d2; disks a and b are in d1.
fn scene() -> (World, SessionRef, SessionRef, DiskId) {
    let mut world = World::founded();
    let (s1, d1) = world.with_domain("w1", "d1");
    let d2 = world.add_domain("w1", s1, "d2");
    let disk = world.add_disk("w1", s1, "a", d1);
    world.add_disk("w1", s1, "b", d1);
    let s2 = world.open_worker("w2", "p1");
    world.reach(s2, d1, 1 << 39);
    world.reach(s2, d2, 1 << 39);
    (world, s1, s2, disk)
}

#[test]
fn one_writes_or_many_read() {
    let (mut world, _, _, disk) = scene();
    let first = attach(&mut world, disk, "w1", Access::Read, None);
    let second = attach(&mut world, disk, "w2", Access::Read, None);
    assert!(is_committed(&world, first) && is_committed(&world, second));
    let again = attach(&mut world, disk, "w2", Access::Read, None);
    assert_eq!(world.refusal_of(again).reason, "ALREADY_ATTACHED");
    detach(&mut world, disk, Some("w1"), false);
    let writer = attach(&mut world, disk, "w1", Access::Write, None);
    let refusal = world.refusal_of(writer);
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "ATTACHED"));
    detach(&mut world, disk, None, false);
    let writer = attach(&mut world, disk, "w1", Access::Write, None);
    assert!(is_committed(&world, writer));
    for access in [Access::Read, Access::Write] {
        let more = attach(&mut world, disk, "w2", access, None);
        assert_eq!(world.refusal_of(more).reason, "ATTACHED");
    }
}

#[test]
fn a_grant_has_a_token_and_tokens_rise() {
    let (mut world, _, _, disk) = scene();
    let mut last = None;
    for _ in 0..3 {
        let id = attach(&mut world, disk, "w1", Access::Write, None);
        let Phase::Committed(outcome) = world.phase(id) else { panic!("{:?}", world.phase(id)) };
        let token = outcome.attachment.expect("a token");
        assert!(Some(token) > last);
        last = Some(token);
        detach(&mut world, disk, None, false);
    }
}

#[test]
fn a_write_attachment_ends_the_leafs_hash_and_a_read_attachment_does_not() {
    let (mut world, _, _, disk) = scene();
    let hash = |world: &World| {
        let leaf = world.state.disks.get(&disk).unwrap().volumes.last().copied().unwrap();
        world.state.volumes.get(&leaf).unwrap().blake3
    };
    attach(&mut world, disk, "w1", Access::Read, None);
    assert!(hash(&world).is_some());
    detach(&mut world, disk, None, false);
    attach(&mut world, disk, "w1", Access::Write, None);
    assert_eq!(hash(&world), None);
}

#[test]
fn operations_on_an_attached_disk_are_refused_with_who_has_it_and_how_to_end_that() {
    let (mut world, s1, _, disk) = scene();
    let to = world.state.domain_named(&name("d2")).unwrap().id;
    attach(&mut world, disk, "w2", Access::Write, None);
    for spec in [Spec::MoveDisk { disk, to }, Spec::DeleteDisk { disk }, Spec::ExportDisk { disk }] {
        let id = world.begin(spec.clone());
        let refusal = world.refusal_of(id);
        assert_eq!(refusal.reason, "ATTACHED", "{}", spec.kind());
        assert!(refusal.message.contains("host w2") && refusal.message.contains("durably"), "{refusal}");
        assert!(refusal.hint.contains("sdm disk detach a --host w2"), "{refusal}");
    }
    detach(&mut world, disk, None, false);
    attach(&mut world, disk, "w2", Access::Read, None);
    let export = world.begin(Spec::ExportDisk { disk });
    assert_eq!(world.phase(export), &Phase::Running, "what only reads goes beside readers");
    world.work("w1", s1);
    let mover = world.begin(Spec::MoveDisk { disk, to });
    assert_eq!(world.refusal_of(mover).reason, "ATTACHED");
}

#[test]
fn a_disk_that_is_being_moved_is_attached_only_afterwards() {
    let (mut world, s1, s2, disk) = scene();
    let to = world.state.domain_named(&name("d2")).unwrap().id;
    let mover = world.begin(Spec::MoveDisk { disk, to });
    let waiting = attach(&mut world, disk, "w1", Access::Write, None);
    assert!(matches!(world.phase(waiting), Phase::Waiting { .. }));
    world.work("w1", s1);
    world.work("w2", s2);
    assert!(is_committed(&world, mover) && is_committed(&world, waiting), "{:?}", world.phase(waiting));
}

#[test]
fn hosts_that_are_lost_drained_or_blind_get_nothing() {
    let (mut world, s1, s2, disk) = scene();
    let domain = world.state.domain_named(&name("d1")).unwrap().id;
    world.unreach(s1, domain);
    let id = attach(&mut world, disk, "w1", Access::Read, None);
    assert_eq!(world.refusal_of(id).reason, "DOMAIN_UNREACHABLE");
    world.begin(Spec::Worker(WorkerChange::Drain { worker: worker_id("w2") }));
    let id = attach(&mut world, disk, "w2", Access::Read, None);
    assert_eq!(world.refusal_of(id).reason, "WORKER_DRAINING");
    world.apply(Command::ExpireSessions { sessions: vec![s2] });
    let id = attach(&mut world, disk, "w2", Access::Read, None);
    assert_eq!(world.refusal_of(id).reason, "WORKER_LOST");
    let id = attach(&mut world, disk, "w9", Access::Read, None);
    assert_eq!(world.refusal_of(id).reason, "WORKER_NOT_FOUND");
    world.begin(Spec::Domain(DomainChange::Maintenance { domain }));
    let id = attach(&mut world, disk, "w1", Access::Read, None);
    assert_eq!(world.refusal_of(id).reason, "DOMAIN_IN_MAINTENANCE");
}

#[test]
fn a_session_that_ends_gives_up_what_it_read_and_leaves_what_it_may_have_written() {
    let (mut world, _, _, disk) = scene();
    let other = world.state.disk_named(&name("b")).unwrap().id;
    let client = open(&mut world, "agent of host 1");
    attach(&mut world, disk, "w1", Access::Write, Some(client));
    attach(&mut world, other, "w1", Access::Read, Some(client));
    world.apply(Command::ExpireSessions { sessions: vec![client] });
    assert_eq!(world.state.attachments_of(other).count(), 0);
    let left = world.state.attachments_of(disk).next().cloned().expect("it stays");
    assert!(left.is_unfenced());
    let id = world.begin(Spec::DeleteDisk { disk });
    let refusal = world.refusal_of(id);
    assert_eq!(refusal.reason, "ATTACHED");
    assert!(refusal.message.contains("unfenced") && refusal.hint.contains("--stopped"), "{refusal}");
    let plain = detach(&mut world, disk, None, false);
    assert_eq!(world.refusal_of(plain).reason, "FENCE_REQUIRED");
    let looked = detach(&mut world, disk, Some("w1"), true);
    assert!(is_committed(&world, looked), "somebody looked at the live host");
}

#[test]
fn the_same_client_gets_its_attachment_back() {
    let (mut world, _, _, disk) = scene();
    let client = open(&mut world, "agent");
    attach(&mut world, disk, "w1", Access::Write, Some(client));
    let token = world.state.attachments_of(disk).next().unwrap().token;
    world.apply(Command::ExpireSessions { sessions: vec![client] });
    open(&mut world, "somebody else");
    assert!(world.state.attachments_of(disk).next().unwrap().is_unfenced());
    let resumed = open(&mut world, "agent");
    let row = world.state.attachments_of(disk).next().unwrap();
    assert!(!row.is_unfenced() && row.token == token && row.session() == Some(resumed.id));
    world.apply(Command::ExpireSessions { sessions: vec![resumed] });
    assert!(world.state.attachments_of(disk).next().unwrap().is_unfenced(), "its end is that of the new session");
}

#[test]
fn a_host_that_started_anew_or_is_confirmed_down_writes_no_more() {
    for reboots in [true, false] {
        let (mut world, s1, _, disk) = scene();
        let client = open(&mut world, "agent");
        attach(&mut world, disk, "w1", Access::Write, Some(client));
        world.apply(Command::ExpireSessions { sessions: vec![client, s1] });
        assert_eq!(world.state.unfenced_attachments().len(), 1);
        if reboots {
            // First another process on the same boot: that proves nothing about what else runs there.
            world.open_worker("w1", "p2");
            assert_eq!(world.state.unfenced_attachments().len(), 1);
            let mut identity = identity("w1", "p3");
            identity.boot_id = "next boot".into();
            let open = OpenSession { owner: SessionOwner::Worker(identity), ttl_ms: 10_000, nonce: "w1 p3".into() };
            world.apply(Command::OpenSession(open));
        } else {
            let down = WorkerChange::ConfirmDown { worker: worker_id("w1"), session: s1.id };
            let id = world.begin(Spec::Worker(down));
            assert!(is_committed(&world, id), "{:?}", world.phase(id));
        }
        assert_eq!(world.state.attachments.len(), 0);
        let id = world.begin(Spec::DeleteDisk { disk });
        assert!(is_committed(&world, id), "{:?}", world.phase(id));
    }
}

#[test]
fn a_durable_attachment_outlives_every_session_and_the_loss_of_its_host() {
    let (mut world, s1, _, disk) = scene();
    attach(&mut world, disk, "w1", Access::Write, None);
    world.apply(Command::ExpireSessions { sessions: vec![s1] });
    world.pass(3_600_000);
    let row = world.state.attachments_of(disk).next().expect("it stays");
    assert!(!row.is_unfenced());
    world.open_worker("w1", "p2");
    let id = detach(&mut world, disk, None, false);
    assert!(is_committed(&world, id), "whoever gave it takes it back");
}

#[test]
fn what_a_lost_host_may_write_is_detached_with_proof_alone() {
    for looked in [true, false] {
        let (mut world, s1, s2, disk) = scene();
        let other = world.state.disk_named(&name("b")).unwrap().id;
        attach(&mut world, disk, "w1", Access::Write, None);
        attach(&mut world, other, "w1", Access::Read, None);
        world.apply(Command::ExpireSessions { sessions: vec![s1] });
        let id = detach(&mut world, disk, None, false);
        let refusal = world.refusal_of(id);
        assert_eq!(refusal.reason, "FENCE_REQUIRED");
        let down = format!("sdm worker confirm-down w1 --session {} --reason", s1.id);
        assert!(refusal.hint.contains(&down), "{refusal}");
        assert!(refusal.hint.contains("sdm disk detach a --host w1 --stopped --reason"), "{refusal}");
        let id = world.begin(Spec::DeleteDisk { disk });
        assert!(world.refusal_of(id).hint.contains(&down), "the first answer leads there as well");
        if !looked {
            let down = WorkerChange::ConfirmDown { worker: worker_id("w1"), session: s1.id };
            world.begin(Spec::Worker(down));
        }
        let id = detach(&mut world, disk, None, looked);
        assert!(is_committed(&world, id), "{:?}", world.phase(id));
        let reader = detach(&mut world, other, None, false);
        assert!(is_committed(&world, reader), "who reads hurts nobody");
        let next = attach(&mut world, disk, "w2", Access::Write, None);
        assert!(is_committed(&world, next), "{:?} {s2:?}", world.phase(next));
    }
}

#[test]
fn only_a_live_session_of_a_client_owns_attachments() {
    let (mut world, s1, _, disk) = scene();
    let id = attach(&mut world, disk, "w1", Access::Read, Some(s1));
    assert_eq!(world.refusal_of(id).reason, "NOT_A_CLIENT");
    let client = open(&mut world, "agent");
    world.apply(Command::CloseSession(client));
    let id = attach(&mut world, disk, "w1", Access::Read, Some(client));
    assert_eq!(world.refusal_of(id).reason, "SESSION_EXPIRED");
}

#[test]
fn what_is_not_attached_or_not_clear_is_not_detached() {
    let (mut world, _, _, disk) = scene();
    let id = detach(&mut world, disk, None, false);
    assert_eq!(world.refusal_of(id).reason, "NOT_ATTACHED");
    attach(&mut world, disk, "w1", Access::Read, None);
    attach(&mut world, disk, "w2", Access::Read, None);
    let id = detach(&mut world, disk, None, false);
    let refusal = world.refusal_of(id);
    assert_eq!((refusal.reason.as_str(), refusal.blockers.len()), ("HOST_NEEDED", 2));
}

#[test]
fn an_illegal_disk_is_not_attached() {
    let (mut world, _, _, disk) = scene();
    let leaf = world.state.disks.get(&disk).unwrap().volumes[0];
    let id = world.begin(Spec::SetVolumeLegality { disk, volume: leaf, legal: false });
    assert!(is_committed(&world, id), "{:?}", world.phase(id));
    let id = attach(&mut world, disk, "w1", Access::Read, None);
    assert_eq!(world.refusal_of(id).reason, "DISK_ILLEGAL");
}
