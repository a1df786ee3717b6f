//! A recorded log of the first release: its bytes must decode for ever and replay to the same state
//! hash, or members of two builds would part. `SDM_BLESS=1 cargo test -p sdm-state --test golden`
//! writes it anew, which is right only before a release or together with a new feature level.

mod world;

use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_state::Command;
use sdm_state::State;
use sdm_state::catalog::Format;
use sdm_state::command::AcquireLocks;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::envelope::decode_entry;
use sdm_state::envelope::encode_entry;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::reply::Reply;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use std::fmt::Write as _;
use std::path::PathBuf;
use world::World;
use world::name;
use world::request;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter_map(|c| char::from(c).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}

/// One of every command, and of every phase that a transaction can end in.
fn story() -> World {
    let mut world = World::founded();
    world.apply(Command::AddMember(world::member("m2")));
    world.apply(Command::ReportMember { id: 1, version: "0.1.0".into(), feature_level_max: 1 });
    world.apply(Command::RaiseFeatureLevel { level: 2 });
    let (s1, d1) = world.with_domain("w1", "d1");
    let (s2, d2) = world.with_domain("w2", "d2");
    let disk = world.add_disk("w1", s1, "web-01", d1);
    let import = Spec::ImportDisk {
        name: name("db"),
        domain: d2,
        format: Format::Qcow2,
        file_size: 1 << 20,
        allocated_bytes: 9,
    };
    world.begin(import.clone());
    let token = world.assignments("w2")[0].token;
    world.report(s2, token, Report::Peer { connected: true });
    world.report(s2, token, Report::Checkpoint { durable_bytes: 77 });
    world.report(
        s2,
        token,
        Report::Refused(Refusal::new(Class::Invalid, "QCOW2_CORRUPT", "no").hint("x").blocker("a", "b", "c")),
    );
    world.begin(Spec::MoveDisk { disk, to: d2 });
    world.begin_as(request(90), Spec::DeleteDisk { disk }, 60_000);
    world.apply(Command::Abort { txn: request(90), reason: "enough".into() });
    let token = world.assignments("w2")[0].token;
    world.report(s2, token, Report::Failed { reason: "IO".into(), message: "eio".into(), hint: String::new() });
    world.pass(3_000);
    world.work("w2", s2);
    world.begin(Spec::ExportDisk { disk });
    world.work("w2", s2);
    let open = OpenSession { owner: SessionOwner::Client("cli".into()), ttl_ms: 5_000, nonce: "n".into() };
    let Reply::Session { session, .. } = world.apply(Command::OpenSession(open)) else { panic!() };
    let resources =
        vec![(Resource::User("vm".into()), Mode::Shared), (Resource::User("vm".into()), Mode::IntentExclusive)];
    world.apply(Command::AcquireLocks(AcquireLocks { session, sequence: 1, resources, wait_ms: 0, why: "job".into() }));
    let lock = world.index;
    world.apply(Command::ReleaseLocks { session, sequence: 2, lock });
    world.apply(Command::CloseSession(session));
    let garbage = world.state.garbage.values().map(|garbage| garbage.id).collect();
    world.apply(Command::Collect { garbage });
    world.work("w1", s1);
    world.begin(Spec::DeleteDisk { disk });
    world.apply(Command::ExpireSessions { sessions: vec![s2] });
    world
}

#[test]
fn the_recorded_log_replays_to_the_recorded_hash() {
    if std::env::var_os("SDM_BLESS").is_some() {
        let world = story();
        let lines: Vec<String> = world.entries.iter().map(|entry| hex(&encode_entry(entry))).collect();
        std::fs::create_dir_all(file("")).unwrap();
        std::fs::write(file("log-v1.hex"), lines.join("\n") + "\n").unwrap();
        std::fs::write(file("log-v1.hash"), hex(&world.state.hash()) + "\n").unwrap();
    }
    let log = std::fs::read_to_string(file("log-v1.hex")).expect("the recorded log");
    let mut state = State::default();
    for (at, line) in log.lines().enumerate() {
        let entry = decode_entry(&unhex(line)).expect("a recorded entry decodes");
        assert_eq!(hex(&encode_entry(&entry)), line, "entry {} is written differently now", at + 1);
        state.apply(at as u64 + 1, &entry);
    }
    let recorded = std::fs::read_to_string(file("log-v1.hash")).expect("the recorded hash");
    assert_eq!(hex(&state.hash()), recorded.trim());
}

#[test]
fn the_recorded_log_holds_one_of_every_command() {
    let log = std::fs::read_to_string(file("log-v1.hex")).expect("the recorded log");
    let kinds: std::collections::BTreeSet<&str> =
        log.lines().map(|line| decode_entry(&unhex(line)).expect("an entry").command.kind()).collect();
    assert_eq!(kinds.len(), 15, "{kinds:?}");
}
