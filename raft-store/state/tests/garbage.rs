//! Garbage that never surprises: trash comes back until its deletion is assigned, what is held stays,
//! a plan is carried out exactly or not at all, and only what nobody owns is an orphan.

mod world;

use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::RestoreAs;
use sdm_state::catalog::Format;
use sdm_state::command::SessionRef;
use sdm_state::garbage::Garbage;
use sdm_state::garbage::Kind;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::garbage_order::Orphan;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use world::World;
use world::name;

/// How long the domain keeps deleted disks.
const KEPT_MS: u64 = 3_600_000;

/// A cluster whose domain keeps deleted disks for an hour, with a disk in it.
struct Kept {
    world: World,
    session: SessionRef,
    domain: DomainId,
    disk: DiskId,
}

impl Kept {
    fn new() -> Self {
        let mut world = World::founded_with(Settings { session_ttl_max_ms: u64::MAX, ..Settings::default() });
        let (session, domain) = world.with_domain("w1", "d1");
        let disk = world.add_disk("w1", session, "a", domain);
        let mut kept = Self { world, session, domain, disk };
        kept.done(GarbageOrder::SetRetention { domain, retention_ms: Some(KEPT_MS) });
        kept
    }

    fn order(&mut self, order: GarbageOrder) -> Result<(), Refusal> {
        let id = self.world.begin(Spec::Garbage(order));
        match self.world.phase(id) {
            Phase::Committed(_) => Ok(()),
            Phase::Refused(refusal) => Err(refusal.clone()),
            other => panic!("{other:?}"),
        }
    }

    fn done(&mut self, order: GarbageOrder) {
        if let Err(refusal) = self.order(order) {
            panic!("{refusal}");
        }
    }

    fn delete(&mut self) -> Garbage {
        let id = self.world.begin(Spec::DeleteDisk { disk: self.disk });
        assert!(matches!(self.world.phase(id), Phase::Committed(_)));
        self.only()
    }

    fn only(&self) -> Garbage {
        let [row] = &self.world.state.garbage.values().collect::<Vec<_>>()[..] else { panic!("one garbage") };
        (*row).clone()
    }

    fn collect(&mut self) -> Vec<Token> {
        let garbage = self.world.state.garbage.values().map(|row| row.id).collect();
        let Reply::Collected(assigned) = self.world.apply(Command::Collect { garbage }) else { panic!() };
        assigned
    }

    fn plan(&mut self, trash: bool) -> u64 {
        self.done(GarbageOrder::PlanCollection { domain: None, kind: None, trash });
        self.world.index
    }

    fn abandoned_attempt(&mut self) -> Token {
        let spec = Spec::CreateDisk {
            name: name("b"),
            domain: self.domain,
            size: 4096,
            format: Format::Raw,
            preallocated: false,
            description: String::new(),
        };
        let id = self.world.begin(spec);
        let token = self.world.assignments("w1")[0].token;
        self.world.apply(Command::Abort { txn: id, reason: "test".into() });
        token
    }
}

#[test]
fn a_deleted_disk_comes_back_as_it_was_within_its_retention() {
    let mut kept = Kept::new();
    let before = kept.world.state.disks.get(&kept.disk).unwrap().clone();
    let volumes: Vec<_> = kept.world.state.volumes.values().cloned().collect();
    let placement = kept.world.state.placements.get(&before.placement).unwrap().clone();
    let trash = kept.delete();
    assert!(kept.world.state.disks.is_empty() && kept.world.state.placements.is_empty());
    kept.world.pass(KEPT_MS - 60_000);
    assert_eq!(kept.collect(), [], "its retention is not over");
    kept.done(GarbageOrder::RestoreDisk { garbage: trash.id, name: None });
    let state = &kept.world.state;
    assert_eq!(state.disks.get(&kept.disk), Some(&before));
    assert_eq!(state.volumes.values().cloned().collect::<Vec<_>>(), volumes);
    assert_eq!(state.placements.get(&placement.id), Some(&placement));
    assert!(state.garbage.is_empty() && state.locks.is_empty());
}

#[test]
fn a_projection_that_a_worker_writes_when_its_disk_gets_into_the_trash_is_answered_before_the_next_goes_out() {
    let mut kept = Kept::new();
    kept.world.begin(Spec::RenameDisk { disk: kept.disk, name: name("b") });
    let told = kept.world.assignments("w1")[0].token;
    kept.delete();
    kept.world.pass(1000);
    let tokens = |kept: &Kept| kept.world.assignments("w1").iter().map(|told| told.token).collect::<Vec<_>>();
    assert_eq!(tokens(&kept), [told], "one writes at a time");
    let done = Report::Done { volumes: Vec::new(), bytes: 0 };
    kept.world.report(kept.session, told, done.clone());
    let next = tokens(&kept);
    assert!(next.len() == 1 && next[0] != told, "what the trash is to say is written now: {next:?}");
    kept.world.report(kept.session, next[0], done);
    assert!(kept.world.state.projections.is_empty());
}

#[test]
fn a_restore_is_refused_from_the_moment_its_deletion_is_assigned_even_when_that_failed() {
    let mut kept = Kept::new();
    let trash = kept.delete();
    kept.world.pass(KEPT_MS);
    assert_eq!(kept.collect(), [trash.id]);
    let restore = GarbageOrder::RestoreDisk { garbage: trash.id, name: None };
    kept.world.pass(5_000);
    let refusal = kept.order(restore.clone()).unwrap_err();
    assert_eq!(refusal.reason, "DELETION_ASSIGNED");
    assert!(refusal.message.contains("w1") && refusal.message.contains("5 s ago"), "{}", refusal.message);
    let token = kept.world.assignments("w1")[0].token;
    let failed = Report::Failed { reason: "IO".into(), message: "no".into(), hint: String::new() };
    kept.world.report(kept.session, token, failed);
    assert_eq!(kept.order(restore).unwrap_err().reason, "DELETION_ASSIGNED");
}

#[test]
fn a_restore_under_a_taken_name_is_refused_and_works_under_another() {
    let mut kept = Kept::new();
    let trash = kept.delete();
    let (session, domain) = (kept.session, kept.domain);
    kept.world.add_disk("w1", session, "a", domain);
    let refusal = kept.order(GarbageOrder::RestoreDisk { garbage: trash.id, name: None }).unwrap_err();
    assert_eq!(refusal.reason, "DISK_EXISTS");
    assert!(refusal.hint.contains("--name"), "{}", refusal.hint);
    kept.done(GarbageOrder::RestoreDisk { garbage: trash.id, name: Some(name("a-old")) });
    assert_eq!(kept.world.state.disk_named(&name("a-old")).unwrap().id, kept.disk);
    let refusal = kept.order(GarbageOrder::RestoreDisk { garbage: trash.id, name: None }).unwrap_err();
    assert_eq!(refusal.reason, "GARBAGE_NOT_FOUND");
}

#[test]
fn what_a_move_left_is_never_restorable_and_has_no_retention() {
    let mut kept = Kept::new();
    let session = kept.session;
    let to = kept.world.add_domain("w1", session, "d2");
    kept.world.begin(Spec::MoveDisk { disk: kept.disk, to });
    kept.world.work("w1", session);
    let row = kept.only();
    assert_eq!((row.kind, row.due_ms), (Kind::Superseded, row.since_ms));
    let refusal = kept.order(GarbageOrder::RestoreDisk { garbage: row.id, name: None }).unwrap_err();
    assert_eq!(refusal.reason, "NOT_RESTORABLE");
}

#[test]
fn without_retention_a_deleted_disk_is_due_at_once_and_cannot_come_back() {
    let mut kept = Kept::new();
    kept.done(GarbageOrder::SetRetention { domain: kept.domain, retention_ms: None });
    let row = kept.delete();
    assert!(row.trash.is_none());
    assert!(kept.world.state.volumes.is_empty());
    assert_eq!(kept.collect(), [row.id]);
}

#[test]
fn what_is_held_is_not_collected_until_it_is_given_free() {
    let mut kept = Kept::new();
    let row = kept.delete();
    let hold = |reason: &str| GarbageOrder::Hold { garbage: row.id, reason: reason.to_owned() };
    assert_eq!(kept.order(hold("")).unwrap_err().reason, "REASON_MISSING");
    kept.done(hold("the auditors look at it"));
    let first = kept.only();
    kept.done(hold("the auditors look at it"));
    assert_eq!(kept.only(), first, "held twice is held once");
    kept.world.pass(KEPT_MS);
    assert_eq!(kept.collect(), []);
    assert!(kept.world.state.waiting_garbage().places().next().is_none());
    let purge = kept.order(GarbageOrder::PurgeTrash { garbage: vec![row.id] }).unwrap_err();
    assert_eq!(purge.reason, "GARBAGE_HELD");
    assert!(purge.message.contains("the auditors look at it"));
    kept.done(GarbageOrder::Unhold { garbage: row.id });
    assert_eq!(kept.collect(), [row.id]);
    assert_eq!(kept.order(hold("too late")).unwrap_err().reason, "DELETION_ASSIGNED");
}

#[test]
fn a_purge_deletes_trash_before_its_time_and_nothing_else() {
    let mut kept = Kept::new();
    let trash = kept.delete();
    kept.done(GarbageOrder::PurgeTrash { garbage: vec![trash.id] });
    assert!(kept.only().work.attempt.is_some(), "assigned in the same entry");
    let session = kept.session;
    kept.world.work("w1", session);
    assert!(kept.world.state.garbage.is_empty());
    kept.abandoned_attempt();
    let other = kept.only().id;
    assert_eq!(kept.order(GarbageOrder::PurgeTrash { garbage: vec![other] }).unwrap_err().reason, "NOT_IN_TRASH");
}

#[test]
fn a_plan_is_carried_out_as_it_was_made_once() {
    let mut kept = Kept::new();
    let trash = kept.delete();
    assert_eq!(kept.plan(false), kept.world.index);
    assert!(kept.world.state.gc_plans.values().all(|plan| plan.items.is_empty()), "its retention is not over");
    let plan = kept.plan(true);
    let apply = GarbageOrder::ApplyPlan { plan, skip_changed: false };
    kept.done(apply.clone());
    assert!(kept.only().work.attempt.is_some());
    assert_eq!(kept.only().id, trash.id);
    assert_eq!(kept.order(apply).unwrap_err().reason, "PLAN_APPLIED");
    assert_eq!(
        kept.order(GarbageOrder::ApplyPlan { plan: 4711, skip_changed: false }).unwrap_err().reason,
        "PLAN_NOT_FOUND"
    );
}

#[test]
fn a_plan_whose_rows_changed_is_refused_with_what_changed_and_does_nothing() {
    let mut kept = Kept::new();
    let trash = kept.delete();
    kept.abandoned_attempt();
    let plan = kept.plan(true);
    assert_eq!(kept.world.state.gc_plans.get(&plan).unwrap().items.len(), 2);
    kept.done(GarbageOrder::Hold { garbage: trash.id, reason: "wait".into() });
    let refusal = kept.order(GarbageOrder::ApplyPlan { plan, skip_changed: false }).unwrap_err();
    assert_eq!((refusal.reason.as_str(), refusal.blockers.len()), ("PLAN_CHANGED", 1));
    assert_eq!(refusal.blockers[0].id, trash.id.to_string());
    assert!(kept.world.state.garbage.values().all(|row| row.work.attempt.is_none()));
    kept.done(GarbageOrder::ApplyPlan { plan, skip_changed: true });
    let assigned: Vec<_> = kept.world.state.garbage.values().filter(|row| row.work.attempt.is_some()).collect();
    assert_eq!((assigned.len(), assigned[0].kind), (1, Kind::ClosedAttempt));
}

#[test]
fn a_plan_notices_what_was_restored_and_not_what_was_deleted_as_it_wants() {
    let mut kept = Kept::new();
    let trash = kept.delete();
    kept.abandoned_attempt();
    let plan = kept.plan(true);
    let session = kept.session;
    kept.collect();
    kept.world.work("w1", session);
    assert_eq!(kept.only().id, trash.id, "the collectors took the other one");
    assert!(kept.world.state.changed_since(kept.world.state.gc_plans.get(&plan).unwrap()).next().is_none());
    kept.done(GarbageOrder::RestoreDisk { garbage: trash.id, name: None });
    let refusal = kept.order(GarbageOrder::ApplyPlan { plan, skip_changed: false }).unwrap_err();
    assert!(refusal.blockers[0].description.contains("restored"), "{refusal:?}");
}

#[test]
fn plans_expire_and_only_the_last_few_are_kept() {
    let mut kept = Kept::new();
    kept.delete();
    let first = kept.plan(true);
    let most = kept.world.state.meta.settings.gc_plans_max;
    let last = (0..most).map(|_| kept.plan(true)).last().unwrap();
    assert!(!kept.world.state.gc_plans.contains(&first));
    assert_eq!(kept.world.state.gc_plans.len() as u64, most);
    kept.world.pass(kept.world.state.meta.settings.gc_plan_kept_ms);
    let refusal = kept.order(GarbageOrder::ApplyPlan { plan: last, skip_changed: false }).unwrap_err();
    assert_eq!(refusal.reason, "PLAN_EXPIRED");
}

fn orphan(token: Token, txn: Option<sdm_proto::ids::TxnId>) -> Orphan {
    Orphan { token, txn, bytes: 7, evidence: "seen twice".into() }
}

#[test]
fn only_what_nobody_owns_becomes_garbage() {
    let mut kept = Kept::new();
    let disk = kept.world.state.disks.get(&kept.disk).unwrap().clone();
    let won = kept.world.state.placements.get(&disk.placement).unwrap().token;
    let lost = kept.abandoned_attempt();
    let id = kept.world.begin(Spec::CreateDisk {
        name: name("c"),
        domain: kept.domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    });
    let running = kept.world.assignments("w1")[0].token;
    let future = Token { index: u64::MAX, ..won };
    let elsewhere = Token { epoch: won.epoch + 1, ..won };
    let open = Token { index: won.index, ordinal: 99, ..won };
    let orphans = [won, lost, running, future, elsewhere].map(|token| orphan(token, None));
    let orphans = orphans.into_iter().chain([orphan(open, Some(id))]).collect();
    let before: Vec<_> = kept.world.state.garbage.values().cloned().collect();
    kept.done(GarbageOrder::AdoptOrphans { domain: kept.domain, orphans });
    assert_eq!(kept.world.state.garbage.values().cloned().collect::<Vec<_>>(), before);

    // What a worker that was given up made late, after its garbage was deleted already.
    let session = kept.session;
    kept.world.work("w1", session);
    kept.collect();
    kept.world.work("w1", session);
    assert!(kept.world.state.garbage.is_empty());
    let twice = vec![orphan(lost, None), orphan(lost, None)];
    kept.done(GarbageOrder::AdoptOrphans { domain: kept.domain, orphans: twice });
    let row = kept.only();
    assert_eq!((row.kind, row.made_by), (Kind::Orphan, lost));
    assert_eq!(row.placement, None, "what a dot name tells is no evidence against a published folder");
    assert_eq!(kept.collect(), [row.id]);
}

/// The catalog lost the row of a placement that won (its domain went and came back without it, say).
#[test]
fn a_published_folder_is_an_orphan_only_while_its_transaction_says_that_it_lost() {
    let mut kept = Kept::new();
    let disk = kept.world.state.disks.get(&kept.disk).unwrap().clone();
    let won = kept.world.state.placements.get(&disk.placement).unwrap().clone();
    let other = Token { ordinal: 99, ..won.token };
    assert_eq!(kept.world.state.is_orphan(other, Some(won.txn)), Ok(()), "another attempt of it");
    let forgotten = sdm_proto::ids::TxnId::derive("forgotten", &[]);
    let why = kept.world.state.is_orphan(other, Some(forgotten)).unwrap_err();
    assert!(why.contains("forgotten"), "{why}");
    assert_eq!(kept.world.state.is_orphan(other, None), Ok(()), "a dot name is read by nobody");
    let lost = kept.abandoned_attempt();
    let txn = kept.only().txn;
    kept.collect();
    let session = kept.session;
    kept.world.work("w1", session);
    kept.done(GarbageOrder::AdoptOrphans { domain: kept.domain, orphans: vec![orphan(lost, Some(txn))] });
    assert_eq!(kept.only().placement, Some(lost.placement(kept.world.state.cluster_id())));
}

#[test]
fn an_unmarked_name_younger_than_an_open_transaction_may_be_its() {
    let mut kept = Kept::new();
    let open = kept.world.begin(Spec::CreateDisk {
        name: name("c"),
        domain: kept.domain,
        size: 4096,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    });
    let lost = kept.world.assignments("w1")[0].token;
    let failed = Report::Failed { reason: "IO".into(), message: "no".into(), hint: String::new() };
    kept.world.report(kept.session, lost, failed);
    kept.collect();
    let deletion = kept.world.assignments("w1").last().unwrap().token;
    kept.world.report(kept.session, deletion, Report::Done { volumes: Vec::new(), bytes: 0 });
    assert!(kept.world.state.garbage.is_empty());
    kept.done(GarbageOrder::AdoptOrphans { domain: kept.domain, orphans: vec![orphan(lost, None)] });
    assert!(kept.world.state.garbage.is_empty(), "its transaction goes on");
    kept.world.apply(Command::Abort { txn: open, reason: "test".into() });
    kept.done(GarbageOrder::AdoptOrphans { domain: kept.domain, orphans: vec![orphan(lost, None)] });
    assert_eq!(kept.world.state.garbage.values().filter(|row| row.kind == Kind::Orphan).count(), 1);
}

#[test]
fn where_space_is_short_its_own_closed_attempts_go_before_another_attempt() {
    let mut kept = Kept::new();
    let (session, domain) = (kept.session, kept.domain);
    kept.world.reach(session, domain, 1 << 39);
    kept.world.begin(Spec::ImportDisk {
        name: name("big"),
        domain,
        format: Format::Raw,
        file_size: 1 << 38,
        allocated_bytes: 1 << 38,
    });
    let first = kept.world.assignments("w1")[0].token;
    // The attempt has filled the domain, then it fails.
    kept.world.report(session, first, Report::Checkpoint { durable_bytes: 1 << 38 });
    kept.world.reach(session, domain, 1 << 30);
    let failed = Report::Failed { reason: "IO".into(), message: "no".into(), hint: String::new() };
    kept.world.report(session, first, failed);
    kept.world.pass(2_000);
    let [deletion] = &kept.world.assignments("w1")[..] else { panic!("the deletion alone") };
    let deletion = deletion.token;
    assert_eq!(kept.only().work.attempt.as_ref().unwrap().token, deletion);
    kept.world.pass(5_000);
    assert_eq!(kept.world.assignments("w1").len(), 1, "no attempt before the space is free");
    kept.world.reach(session, domain, 1 << 39);
    kept.world.report(session, deletion, Report::Done { volumes: Vec::new(), bytes: 1 << 38 });
    kept.world.pass(2_000);
    let next = kept.world.assignments("w1");
    assert_eq!(next.len(), 1);
    assert!(next[0].token > deletion, "the import goes on");
}

#[test]
fn trash_of_a_restored_cluster_is_held_because_somebody_may_use_the_disk_by_now() {
    let mut kept = Kept::new();
    let trash = kept.delete();
    let restore = RestoreAs {
        cluster_id: ClusterId::derive("another cluster", &[]),
        member: world::member("m9"),
        member_id: 99,
        index: kept.world.index,
    };
    let state = kept.world.state.clone().restored(restore);
    let row = state.garbage.get(&trash.id).unwrap();
    assert!(row.held.is_some() && !state.is_collectable(row));
    assert!(state.waiting_garbage().places().next().is_none());
    let volumes = &row.trash.as_ref().unwrap().disk.volumes;
    assert!(volumes.iter().all(|id| !state.volumes.get(id).unwrap().legal), "whether it is there nobody knows");
    assert_eq!(sdm_state::invariants::check(&state), Ok(()));

    // What was being deleted at the backup is nobody's in any history.
    kept.world.pass(KEPT_MS);
    assert_eq!(kept.collect(), [trash.id]);
    let restore = RestoreAs {
        cluster_id: ClusterId::derive("another cluster", &[]),
        member: world::member("m9"),
        member_id: 99,
        index: kept.world.index,
    };
    let state = kept.world.state.clone().restored(restore);
    let row = state.garbage.get(&trash.id).unwrap();
    assert!(row.held.is_none() && row.trash.is_none() && state.volumes.is_empty());
    assert_eq!(sdm_state::invariants::check(&state), Ok(()));
}

/// Plans of two rows at most, which look at sixteen; so many disks are deleted, and an attempt is given up after that.
fn heap(disks: usize, retention_ms: u64) -> Kept {
    let mut kept = Kept::new();
    kept.world.state.meta.settings.gc_plan_items_max = 2;
    let (session, domain) = (kept.session, kept.domain);
    kept.done(GarbageOrder::SetRetention { domain, retention_ms: Some(retention_ms) });
    for number in 0..disks {
        let disk = kept.world.add_disk("w1", session, &format!("heap-{number}"), domain);
        kept.world.begin(Spec::DeleteDisk { disk });
    }
    kept.world.pass(1_000);
    kept.abandoned_attempt();
    kept
}

fn plan_of(kept: &mut Kept, kind: Option<Kind>) -> sdm_state::gc_plans::GcPlan {
    kept.done(GarbageOrder::PlanCollection { domain: None, kind, trash: false });
    let id = kept.world.index;
    kept.world.state.gc_plans.get(&id).expect("the plan").clone()
}

#[test]
fn a_plan_of_one_kind_finds_it_behind_any_heap_of_another() {
    let mut kept = heap(20, 0);
    let plan = plan_of(&mut kept, Some(Kind::ClosedAttempt));
    let [item] = &plan.items[..] else { panic!("{plan:?}") };
    let row = kept.world.state.garbage.get(&item.garbage).expect("it is there");
    assert_eq!((row.kind, plan.left_out, plan.cut), (Kind::ClosedAttempt, 0, false));
}

#[test]
fn a_plan_says_when_it_did_not_look_at_all_of_a_heap() {
    let mut kept = heap(20, 0);
    let plan = plan_of(&mut kept, None);
    assert_eq!((plan.items.len(), plan.left_out, plan.cut), (2, 14, true));
    let mut kept = heap(10, 0);
    let plan = plan_of(&mut kept, None);
    assert_eq!((plan.items.len(), plan.left_out, plan.cut), (2, 9, false));
}

/// What will be due in a moment is looked at behind all that is: it never hides that, also in another domain.
#[test]
fn what_is_due_is_planned_before_what_will_be() {
    let mut kept = heap(20, 30_000);
    let plan = plan_of(&mut kept, None);
    let [item] = &plan.items[..] else { panic!("{plan:?}") };
    let row = kept.world.state.garbage.get(&item.garbage).expect("it is there");
    assert_eq!((row.kind, plan.left_out, plan.cut), (Kind::ClosedAttempt, 0, true));
}
