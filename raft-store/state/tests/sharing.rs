//! What disks share, and how that ends: flattening while others come and go, moves of what is shared, reading what is
//! frozen beside a writer, and names that several want at once.

mod world;

use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_state::Command;
use sdm_state::assignments::From;
use sdm_state::assignments::Order;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Format;
use sdm_state::command::SessionRef;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use world::World;
use world::done;
use world::name;
use world::worker_id;

struct Scene {
    world: World,
    worker: SessionRef,
    domain: DomainId,
    disk: DiskId,
}

impl Scene {
    /// A disk with a snapshot, of which there is a linked clone.
    fn new(settings: Settings) -> Self {
        let mut world = World::founded_with(settings);
        let (worker, domain) = world.with_domain("w1", "d1");
        let disk = world.add_disk("w1", worker, "a", domain);
        let mut scene = Self { world, worker, domain, disk };
        scene.committed(Spec::CreateSnapshot { disk, name: name("s1"), description: String::new() });
        let snapshot = Some(scene.row("a").volumes[0]);
        scene.committed(Spec::CloneLinked { disk, snapshot, name: name("b"), description: String::new() });
        scene
    }

    fn work(&mut self) {
        while !self.world.assignments("w1").is_empty() {
            self.world.work("w1", self.worker);
        }
    }

    #[track_caller]
    fn committed(&mut self, spec: Spec) {
        let id = self.world.begin(spec);
        self.work();
        assert!(matches!(self.world.phase(id), Phase::Committed(_)), "{:?}", self.world.phase(id));
    }

    fn row(&self, disk: &str) -> Disk {
        self.world.state.disk_named(&name(disk)).expect("the disk").clone()
    }

    fn create(&self, disk: &str) -> Spec {
        Spec::CreateDisk {
            name: name(disk),
            domain: self.domain,
            size: 1 << 20,
            format: Format::Raw,
            preallocated: false,
            description: String::new(),
        }
    }
}

#[test]
fn a_flatten_goes_on_as_it_began_when_others_stop_sharing_meanwhile() {
    let mut scene = Scene::new(Settings::default());
    let before = scene.row("a");
    let id = scene.world.begin(Spec::FlattenDisk { disk: scene.disk });
    let assignment = scene.world.assignments("w1").remove(0);
    let Order::Build { layers, .. } = &assignment.order else { panic!("{assignment:?}") };
    assert_eq!(layers[0].from, From::Bytes(before.volumes[0]));
    let clone = scene.row("b").id;
    scene.world.begin(Spec::DeleteDisk { disk: clone });
    let again = scene.world.assignments("w1").into_iter().find(|one| one.token == assignment.token);
    assert_eq!(again.as_ref(), Some(&assignment), "the worker is told the same");
    scene.world.report(scene.worker, assignment.token, done(&assignment.order).expect("a report"));
    assert!(matches!(scene.world.phase(id), Phase::Committed(_)), "{:?}", scene.world.phase(id));
    let after = scene.row("a");
    assert_eq!(after.volumes.len(), 2);
    assert_ne!(after.volumes[0], before.volumes[0]);
    assert_eq!(scene.world.state.snapshot_named(&after, &name("s1")).map(|row| row.id), Some(after.volumes[0]));
    assert!(scene.world.state.volumes.get(&before.volumes[0]).is_none(), "nobody uses it any more");
    // Now it is flat, and a second time does nothing.
    let entries = scene.world.index;
    scene.committed(Spec::FlattenDisk { disk: scene.disk });
    assert_eq!((scene.world.index - entries, scene.row("a")), (1, after));
}

#[test]
fn an_aborted_flatten_leaves_the_disk_as_it_was() {
    let mut scene = Scene::new(Settings::default());
    let clone = scene.row("b");
    let id = scene.world.begin(Spec::FlattenDisk { disk: clone.id });
    let token = scene.world.assignments("w1")[0].token;
    scene.world.apply(Command::Abort { txn: id, reason: "enough".into() });
    assert_eq!(scene.row("b"), clone);
    assert!(scene.world.state.locks.is_empty());
    assert!(scene.world.state.garbage.values().any(|row| row.made_by == token));
    let full = Refusal::new(Class::Exhausted, "NO_SPACE", "the file system is full").hint("free some");
    let id = scene.world.begin(Spec::FlattenDisk { disk: clone.id });
    let token = scene.world.assignments("w1")[0].token;
    scene.world.report(scene.worker, token, Report::Refused(full));
    assert_eq!((scene.world.refusal_of(id).reason.as_str(), scene.row("b")), ("NO_SPACE", clone));
}

#[test]
fn what_is_shared_with_the_trash_is_not_moved_until_that_is_purged_or_the_disk_is_flat() {
    let mut scene = Scene::new(Settings { retention_ms: 600_000, ..Settings::default() });
    let to = scene.world.add_domain("w1", scene.worker, "d2");
    let clone = scene.row("b").id;
    scene.committed(Spec::DeleteDisk { disk: clone });
    let moved = scene.world.begin(Spec::MoveDisk { disk: scene.disk, to });
    let refusal = scene.world.refusal_of(moved).clone();
    assert_eq!((refusal.reason.as_str(), refusal.blockers[0].kind.as_str()), ("SHARED_VOLUME", "garbage"));
    assert!(refusal.hint.contains("sdm disk flatten a"), "{}", refusal.hint);
    scene.committed(Spec::FlattenDisk { disk: scene.disk });
    let moved = scene.world.begin(Spec::MoveDisk { disk: scene.disk, to });
    assert!(matches!(scene.world.phase(moved), Phase::Running), "{:?}", scene.world.phase(moved));
}

#[test]
fn what_is_frozen_is_read_beside_a_writer_and_what_is_written_is_not() {
    let mut scene = Scene::new(Settings::default());
    let attach =
        AttachmentChange::Attach { disk: scene.disk, worker: worker_id("w1"), access: Access::Write, session: None };
    scene.committed(Spec::Attachment(attach));
    let (disk, to) = (scene.disk, scene.domain);
    let copy = |snapshot, of: &str| Spec::CopyDisk {
        disk,
        snapshot,
        name: name(of),
        description: String::new(),
        to,
        format: None,
        preallocated: false,
        collapse: true,
        template: false,
    };
    let clone = |snapshot, of: &str| Spec::CloneLinked { disk, snapshot, name: name(of), description: String::new() };
    let frozen = Some(scene.row("a").volumes[0]);
    scene.committed(copy(frozen, "copy"));
    scene.committed(clone(frozen, "clone"));
    for spec in [copy(None, "c"), clone(None, "c"), Spec::FlattenDisk { disk }] {
        let id = scene.world.begin(spec);
        assert_eq!(scene.world.refusal_of(id).reason, "ATTACHED");
    }
}

#[test]
fn the_second_of_two_who_want_a_name_is_told_the_same_whether_it_waited_or_not() {
    let mut scene = Scene::new(Settings::default());
    scene.world.begin(scene.create("wanted"));
    let waited = scene.world.begin(scene.create("wanted"));
    assert!(matches!(scene.world.phase(waited), Phase::Waiting { .. }));
    scene.work();
    let late = scene.world.begin(scene.create("wanted"));
    for id in [waited, late] {
        let refusal = scene.world.refusal_of(id);
        assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Conflict, "DISK_EXISTS"));
    }
    assert!(scene.world.refusal_of(waited).message.contains("while it waited"));
}
