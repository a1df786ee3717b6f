//! Feature levels and hashes of the state: what a cluster of an older build takes, when it rises, and
//! when members compare.

mod world;

use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::command::AddMember;
use sdm_state::hashes::HASHES_KEPT;
use sdm_state::settings::Settings;
use sdm_state::txns::Spec;
use world::World;
use world::member;
use world::request;

fn report(world: &World, member: u64, hash: [u8; 32]) -> Command {
    let index = world.state.last_hash_point().map_or(0, |point| point.index);
    Command::ReportStateHash { member, index, hash }
}

#[test]
fn below_their_level_commands_are_refused_and_who_holds_the_level_back_is_named() {
    let mut world = World::founded_at(1);
    world.apply(Command::AddMember(member("m2")));
    let before = (world.state.members.sum(), world.state.hashes.sum());
    let refusal = world.refused(Command::ReportStateHash { member: 1, index: 1, hash: [1; 32] });
    assert_eq!(refusal.reason, "FEATURE_LEVEL");
    let blockers: Vec<&str> = refusal.blockers.iter().map(|blocker| blocker.id.as_str()).collect();
    assert_eq!(blockers, ["m1"], "m2 supports it");
    assert_eq!((world.state.members.sum(), world.state.hashes.sum()), before);
    let begun = world.begin_as(request(7), Spec::Noop { resource: "bench/1".into() }, 0);
    let Reply::Refused(refusal) = begun else { panic!("a part of a command has a level, too: {begun}") };
    assert_eq!(refusal.reason, "FEATURE_LEVEL");
    assert!(world.state.txns.is_empty(), "nothing is remembered of it: the id may be used again");
}

#[test]
fn the_level_is_that_of_the_first_entry_and_rises_only_when_all_support_it() {
    assert_eq!(World::founded_at(0).state.meta.feature_level, 1, "an entry without a level is of the first");
    let mut world = World::founded_at(1);
    assert_eq!(world.state.meta.feature_level, 1);
    assert_eq!(world.refused(Command::RaiseFeatureLevel { level: 2 }).reason, "FEATURE_LEVEL");
    world.apply(Command::ReportMember { id: 1, version: "2".into(), feature_level_max: 2 });
    assert_eq!(world.apply(Command::RaiseFeatureLevel { level: 2 }), Reply::Done);
    assert_eq!(world.state.meta.feature_level, 2);
    assert_eq!(world.apply(Command::RaiseFeatureLevel { level: 1 }), Reply::Done, "it never sinks");
    assert_eq!(world.state.meta.feature_level, 2);
    let older = Command::AddMember(AddMember { feature_level_max: 1, ..member("old") });
    assert_eq!(world.refused(older).reason, "FEATURE_LEVEL");
}

#[test]
fn a_hash_is_taken_at_the_first_entry_past_each_interval_and_the_last_few_are_kept() {
    let mut world = World::founded_with(Settings { state_hash_every: 4, ..Settings::default() });
    for _ in 0..5 {
        world.apply(Command::Tick);
    }
    assert_eq!(world.state.last_hash_point().map(|point| point.index), Some(4));
    // Entries without a command have indexes, too.
    world.index = 12;
    world.apply(Command::Tick);
    assert_eq!(world.state.last_hash_point().map(|point| point.index), Some(13));
    for _ in 0..100 {
        world.apply(Command::Tick);
    }
    assert_eq!(world.state.hashes.len(), HASHES_KEPT);
}

#[test]
fn a_cluster_of_the_first_level_takes_no_hashes_and_one_that_is_told_to_takes_none_either() {
    let mut old = World::founded_at(1);
    old.index = 100_000;
    old.apply(Command::Tick);
    let mut never = World::founded_with(Settings { state_hash_every: 0, ..Settings::default() });
    never.index = 100_000;
    never.apply(Command::Tick);
    assert!(old.state.hashes.is_empty() && never.state.hashes.is_empty());
}

#[test]
fn what_parted_once_differs_in_every_later_hash() {
    let mut a = World::founded_with(Settings { state_hash_every: 4, ..Settings::default() });
    let mut b = World::founded_with(Settings { state_hash_every: 4, ..Settings::default() });
    b.apply(Command::AddMember(member("only-here")));
    a.apply(Command::Tick);
    for _ in 0..4 {
        a.apply(Command::Tick);
        b.apply(Command::Tick);
    }
    // The difference itself goes; the hash that saw it stays.
    for world in [&mut a, &mut b] {
        world.apply(Command::RemoveMember { id: 2 });
        for _ in 0..40 {
            world.apply(Command::Tick);
        }
    }
    assert_eq!(b.state.members.len(), 1);
    assert_ne!(a.state.last_hash_point().map(|point| point.own), b.state.last_hash_point().map(|point| point.own));
}

#[test]
fn reports_are_kept_by_member_for_points_that_there_are() {
    let mut world = World::founded_with(Settings { state_hash_every: 16, ..Settings::default() });
    for _ in 0..16 {
        world.apply(Command::Tick);
    }
    for hash in [[1; 32], [2; 32]] {
        let command = report(&world, 1, hash);
        world.apply(command);
    }
    let point = world.state.last_hash_point().cloned().expect("a point");
    assert_eq!(point.reports.into_iter().collect::<Vec<_>>(), [(1, [2; 32])], "the last word counts");
    let stranger = report(&world, 9, [1; 32]);
    assert_eq!(world.refused(stranger).reason, "MEMBER_NOT_FOUND");
    let hash = world.state.hashes.sum();
    let unknown = Command::ReportStateHash { member: 1, index: 3, hash: [9; 32] };
    assert_eq!(world.apply(unknown), Reply::Done);
    assert_eq!(world.state.hashes.sum(), hash, "nothing to compare with");
}

#[test]
fn equal_entries_give_equal_points_also_across_a_snapshot() {
    let mut a = World::founded_with(Settings { state_hash_every: 4, ..Settings::default() });
    let mut b = World::founded_with(Settings { state_hash_every: 4, ..Settings::default() });
    for round in 0..20 {
        if round == 7 {
            b.state = State::from_rows(b.state.to_rows()).expect("its own rows");
        }
        a.apply(Command::Tick);
        b.apply(Command::Tick);
    }
    assert_eq!(a.state.last_hash_point(), b.state.last_hash_point());
}
