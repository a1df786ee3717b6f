//! What a request did is remembered by everybody, also by who has it from a snapshot: a repetition is answered, never
//! done again; when the result is forgotten, that is remembered.

mod world;

use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::catalog::Format;
use sdm_state::command::Begin;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use world::World;
use world::name;
use world::request;

fn create(domain: DomainId, disk: &str) -> Spec {
    Spec::CreateDisk {
        name: name(disk),
        domain,
        size: 1 << 20,
        format: Format::Raw,
        preallocated: false,
        description: String::new(),
    }
}

fn again(world: &World, id: TxnId, spec: &Spec, looked_up_ms: u64) -> Entry {
    let begin = Begin {
        id,
        request_hash: *world::blake3_of(spec),
        not_after_ms: world.now_ms + 600_000,
        looked_up_ms,
        unix_ms: 0,
        initiator: "test".into(),
        reason: String::new(),
        lock_wait_ms: 0,
        spec: spec.clone(),
        under: None,
    };
    Entry { stamp_ms: world.now_ms, entropy: [1; 16], command: Command::Begin(begin) }
}

/// A member that was started anew, with nothing but the snapshot.
fn from_snapshot(state: &State) -> State {
    State::from_rows(state.to_rows()).expect("a snapshot is read")
}

#[test]
fn a_repetition_after_a_snapshot_is_answered_and_not_done_again() {
    let mut world = World::founded();
    let (session, domain) = world.with_domain("w1", "d1");
    let (made, refused) = (create(domain, "a"), create(DomainId::derive("none", &[]), "b"));
    world.begin_as(request(101), made.clone(), 0);
    world.work("w1", session);
    world.begin_as(request(102), refused.clone(), 0);
    // The name belongs to somebody else by now.
    let disk = world.state.disk_named(&name("a")).expect("it was made").id;
    world.begin(Spec::RenameDisk { disk, name: name("c") });
    world.work("w1", session);

    let mut restarted = from_snapshot(&world.state);
    for (id, spec) in [(101, &made), (102, &refused)] {
        let before = restarted.txns.get(&request(id)).cloned();
        let reply = restarted.apply(world.index + 1, &again(&world, request(id), spec, world.now_ms));
        world.index += 1;
        assert_eq!(reply, Reply::Txn(request(id)));
        assert_eq!(restarted.txns.get(&request(id)).cloned(), before, "it was done again");
    }
    assert!(matches!(restarted.txns.get(&request(101)).expect("the first").phase, Phase::Committed(_)));
    assert!(matches!(restarted.txns.get(&request(102)).expect("the second").phase, Phase::Refused(_)));
    assert!(restarted.disk_named(&name("a")).is_none(), "a second disk was made");
}

#[test]
fn that_results_were_forgotten_is_remembered_after_a_snapshot() {
    let mut world = World::founded_with(Settings { finished_txns_max: 3, ..Settings::default() });
    let (session, domain) = world.with_domain("w1", "d1");
    let (made, looked_up) = (create(domain, "a"), world.now_ms);
    world.begin_as(request(101), made.clone(), 0);
    world.work("w1", session);
    world.pass(1_000);
    for round in 0..6_u8 {
        world.begin_as(request(110 + round), create(domain, &format!("x{round}")), 0);
        world.work("w1", session);
    }
    world.pass(1_000);
    assert!(world.state.txns.get(&request(101)).is_none(), "it is still remembered");
    let gone = world.state.disk_named(&name("a")).expect("it was made").id;
    world.begin(Spec::DeleteDisk { disk: gone });

    let mut restarted = from_snapshot(&world.state);
    let reply = restarted.apply(world.index + 1, &again(&world, request(101), &made, looked_up));
    let Reply::Refused(refusal) = reply else { panic!("it was taken: {reply}") };
    assert_eq!(refusal.reason, "REQUEST_TOO_OLD");
    assert!(restarted.disk_named(&name("a")).is_none(), "it was done a second time");
}
