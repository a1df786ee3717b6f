//! Members in the state: announced, joined, started, removed; each command repeated changes nothing.

mod world;

use sdm_proto::refusal::Refusal;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::members::AnnouncedMember;
use sdm_state::members::REMOVED_MEMBERS_KEPT;
use world::World;
use world::member;
use world::name;

fn announced(text: &str, address: &str, learner: bool) -> Command {
    Command::AnnounceMember(AnnouncedMember { name: name(text), address: address.to_owned(), learner })
}

fn refused(reply: Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => refusal,
        reply => panic!("was expected to be refused: {reply}"),
    }
}

fn join(world: &mut World, who: &str) -> u64 {
    match world.apply(Command::AddMember(member(who))) {
        Reply::Member(id) => id,
        reply => panic!("{reply}"),
    }
}

#[test]
fn an_id_is_never_given_again_and_a_name_is_free_for_a_new_folder() {
    let mut world = World::founded();
    let first = join(&mut world, "m2");
    for _ in 0..2 {
        assert_eq!(world.apply(Command::RemoveMember { id: first }), Reply::Done);
        assert!(world.state.was_removed(first));
        assert_eq!(world.state.meta.removed_members.len(), 1);
    }
    let refusal = world.state.refuse_removed(first).expect("it was removed");
    assert_eq!(refusal.reason, "REMOVED_MEMBER");
    assert!(refusal.message.contains("m2"), "{refusal}");
    let second = join(&mut world, "m2");
    assert!(second > first);
    assert_eq!(join(&mut world, "m2"), second, "the same folder asks again");
    let wiped = sdm_state::command::AddMember { incarnation: "another".into(), ..member("m2") };
    let refusal = refused(world.apply(Command::AddMember(wiped)));
    assert_eq!(refusal.reason, "MEMBER_EXISTS");
    assert!(refusal.hint.contains("sdm member remove m2"), "{refusal}");
    // Nobody knows yet whether an id of the future is one.
    assert!(!world.state.was_removed(second + 100));
    assert!(!State::default().was_removed(0));
}

#[test]
fn an_announced_name_is_one_address_and_one_role_until_it_joins_or_is_taken_back() {
    let mut world = World::founded();
    for _ in 0..2 {
        assert_eq!(world.apply(announced("m2", "m2:7400", true)), Reply::Done);
    }
    assert_eq!(refused(world.apply(announced("m2", "m2:7400", false))).reason, "ANNOUNCED_OTHERWISE");
    assert_eq!(refused(world.apply(announced("m1", "", false))).reason, "MEMBER_EXISTS");
    let elsewhere = sdm_state::command::AddMember { address: "x:1".into(), ..member("m2") };
    assert_eq!(refused(world.apply(Command::AddMember(elsewhere))).reason, "ANNOUNCED_ELSEWHERE");
    let id = join(&mut world, "m2");
    assert!(world.state.members.get(&id).expect("it joined").learner);
    assert_eq!(world.state.meta.announced_members, []);

    assert_eq!(world.apply(announced("m3", "", false)), Reply::Done);
    for _ in 0..2 {
        assert_eq!(world.apply(Command::WithdrawMember { name: name("m3") }), Reply::Done);
        assert_eq!(world.state.meta.announced_members, []);
    }
    let id = join(&mut world, "m3");
    assert!(!world.state.members.get(&id).expect("it joined").learner);
}

#[test]
fn starts_are_counted_up_only_and_a_late_report_moves_no_address() {
    let mut world = World::founded();
    let report = |starts, address: &str| Command::ReportStart { id: 1, starts, address: address.to_owned() };
    world.apply(report(3, "new:1"));
    world.apply(report(2, "old:1"));
    let row = world.state.members.get(&1).expect("the founder");
    assert_eq!((row.starts, row.address.as_str()), (3, "new:1"));
    world.apply(report(3, "newer:1"));
    assert_eq!(world.state.members.get(&1).expect("the founder").address, "newer:1");
    let unknown = Command::ReportStart { id: 999, starts: 1, address: String::new() };
    assert_eq!(refused(world.apply(unknown)).reason, "MEMBER_NOT_FOUND");
}

#[test]
fn announced_ones_count_and_only_so_many_removed_ones_are_remembered() {
    let mut world = World::founded();
    let most = world.state.meta.settings.members_max;
    for n in 1..most {
        assert_eq!(world.apply(announced(&format!("n{n}"), "", false)), Reply::Done);
    }
    assert_eq!(refused(world.apply(announced("one-more", "", false))).reason, "TOO_MANY_MEMBERS");
    for n in 1..most {
        world.apply(Command::WithdrawMember { name: name(&format!("n{n}")) });
    }
    for _ in 0..=REMOVED_MEMBERS_KEPT {
        let id = join(&mut world, "again");
        world.apply(Command::RemoveMember { id });
    }
    assert_eq!(world.state.meta.removed_members.len(), REMOVED_MEMBERS_KEPT);
    assert!(world.state.was_removed(2), "also without a note");
}
