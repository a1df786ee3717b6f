//! Words on the storage that an attempt which was given up may still bring back: they are written elsewhere at once, and
//! once more when that attempt can write no more.

mod world;

use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::assignments::Order;
use sdm_state::command::SessionRef;
use sdm_state::domain_change::DomainChange;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::workers::WorkerChange;
use world::World;
use world::name;
use world::worker_id;

struct Scene {
    world: World,
    s1: SessionRef,
    s2: SessionRef,
    domain: DomainId,
    placement: PlacementId,
}

/// Worker w1 is to write the new name of a disk; w2 reaches the domain, too.
fn scene() -> Scene {
    let mut world = World::founded();
    let (s1, domain) = world.with_domain("w1", "d1");
    let disk = world.add_disk("w1", s1, "a", domain);
    world.begin(Spec::RenameDisk { disk, name: name("b") });
    let placement = world.state.disks.get(&disk).unwrap().placement;
    let s2 = world.open_worker("w2", "p1");
    world.reach(s2, domain, 1 << 30);
    let scene = Scene { world, s1, s2, domain, placement };
    assert!(scene.told("w1").is_some());
    scene
}

fn done() -> Report {
    Report::Done { volumes: Vec::new(), bytes: 0 }
}

impl Scene {
    /// The attempt that this worker has to write words.
    fn told(&self, worker: &str) -> Option<Token> {
        let words = |order: &Order| matches!(order, Order::Project { .. } | Order::RenameDomain { .. });
        self.world.assignments(worker).iter().find(|item| words(&item.order)).map(|item| item.token)
    }

    fn lose_w1(&mut self) {
        self.world.apply(Command::ExpireSessions { sessions: vec![self.s1] });
        self.world.pass(2_000);
    }

    #[track_caller]
    fn w2_writes(&mut self) {
        let token = self.told("w2").expect("w2 is to write it");
        self.world.report(self.s2, token, done());
    }

    fn is_pending(&self) -> bool {
        self.world.state.projections.contains(&self.placement)
    }

    fn confirm_down(&mut self) {
        let (worker, session) = (worker_id("w1"), self.s1.id);
        let id = self.world.begin(Spec::Worker(WorkerChange::ConfirmDown { worker, session }));
        assert!(matches!(self.world.phase(id), Phase::Committed(_)));
        self.world.pass(10);
    }
}

#[test]
fn what_a_lost_worker_may_still_change_is_written_elsewhere_and_once_more_when_it_is_back() {
    let mut scene = scene();
    scene.lose_w1();
    scene.w2_writes();
    assert!(scene.is_pending(), "w1 may still rename an older one over it");
    assert_eq!((scene.told("w1"), scene.told("w2")), (None, None));
    let s1 = scene.world.open_worker("w1", "p2");
    scene.world.reach(s1, scene.domain, 1 << 30);
    let token = scene.told("w1").expect("its own word settles it");
    scene.world.report(s1, token, done());
    assert!(!scene.is_pending());
}

#[test]
fn what_a_fenced_worker_wrote_last_is_written_over_by_an_attempt_that_began_after_that() {
    for (w2_is_done, removed) in [(true, false), (false, false), (true, true)] {
        let mut scene = scene();
        scene.lose_w1();
        if w2_is_done {
            scene.w2_writes();
            assert_eq!(scene.told("w2"), None);
        }
        if removed {
            let id = scene.world.begin(Spec::Worker(WorkerChange::Remove { worker: worker_id("w1") }));
            assert!(matches!(scene.world.phase(id), Phase::Committed(_)), "{:?}", scene.world.phase(id));
            scene.world.pass(10);
        } else {
            scene.confirm_down();
        }
        if !w2_is_done {
            // It began while w1 could still write.
            scene.w2_writes();
            assert!(scene.is_pending());
        }
        scene.w2_writes();
        assert!(!scene.is_pending());
    }
}

#[test]
fn a_worker_that_stays_away_costs_a_look_now_and_then() {
    let mut scene = scene();
    scene.lose_w1();
    for _ in 0..3 {
        scene.w2_writes();
        assert_eq!(scene.told("w2"), None);
        let pause = scene.world.state.meta.settings.late_writers_look_ms;
        scene.world.pass(pause - 10);
        assert_eq!(scene.told("w2"), None, "it is looked at no more often");
        scene.world.pass(20);
    }
    assert!(scene.is_pending());
}

#[test]
fn a_newer_name_is_written_at_once_whoever_is_late() {
    let mut scene = scene();
    scene.lose_w1();
    scene.w2_writes();
    let disk = scene.world.state.disk_named(&name("b")).unwrap().id;
    scene.world.begin(Spec::RenameDisk { disk, name: name("c") });
    scene.w2_writes();
    assert!(scene.is_pending());
}

#[test]
fn a_step_that_hung_at_a_live_worker_is_settled_by_another_one_there() {
    let mut scene = scene();
    let hung = scene.told("w1").unwrap();
    scene.world.pass(scene.world.state.meta.settings.step_max_ms);
    scene.world.pass(2_000);
    scene.w2_writes();
    let again = scene.told("w1").expect("attempts on one host take turns, so its word is the last");
    assert_ne!(again, hung);
    // It may fail, and others are asked meanwhile.
    let failed = Report::Failed { reason: "IO".into(), message: "eio".into(), hint: String::new() };
    scene.world.report(scene.s1, again, failed);
    scene.world.pass(60_000);
    scene.w2_writes();
    let again = scene.told("w1").expect("and w1 once more");
    scene.world.report(scene.s1, again, done());
    assert!(!scene.is_pending());
}

#[test]
fn a_domains_name_is_written_like_a_disks() {
    let mut scene = scene();
    scene.world.work("w1", scene.s1);
    let pending = |scene: &Scene| scene.world.state.domains.get(&scene.domain).unwrap().describing.is_some();
    let rename = |scene: &mut Scene, to: &str| {
        let domain = scene.domain;
        scene.world.begin(Spec::Domain(DomainChange::Rename { domain, name: name(to) }));
    };
    rename(&mut scene, "d2");
    let first = if scene.told("w1").is_some() { "w1" } else { "w2" };
    let (other, session) = if first == "w1" { ("w2", scene.s2) } else { ("w1", scene.s1) };
    // Renamed once more while the first name is being written: that one is given up.
    rename(&mut scene, "d3");
    for _ in 0..4 {
        if let Some(token) = scene.told(other) {
            scene.world.report(session, token, done());
        }
    }
    assert!(pending(&scene), "{first} may still write the older name");
    let token = scene.told(first).expect("its word settles it");
    let session = if first == "w1" { scene.s1 } else { scene.s2 };
    scene.world.report(session, token, done());
    assert!(!pending(&scene));
}

#[test]
fn a_domain_is_not_detached_while_somebody_may_write_there_late_and_the_way_out_is_said() {
    let mut scene = scene();
    scene.lose_w1();
    scene.w2_writes();
    let domain = scene.domain;
    scene.world.begin(Spec::Domain(DomainChange::Maintenance { domain }));
    let detach = scene.world.begin(Spec::Domain(DomainChange::Detach { domain }));
    let refusal = scene.world.refusal_of(detach).clone();
    let way = format!("sdm worker confirm-down w1 --session {} --reason WHY", scene.s1.id);
    assert!(refusal.blockers.iter().any(|blocker| blocker.description.contains(&way)), "{refusal}");
    scene.confirm_down();
    scene.w2_writes();
    let detach = scene.world.begin(Spec::Domain(DomainChange::Detach { domain }));
    assert_eq!(scene.world.phase(detach), &Phase::Running);
}
