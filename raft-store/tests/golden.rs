//! Committed bytes of a member's folder: what an earlier build wrote is read as it was meant, and what
//! this build writes is what later ones will have to read. After a change of the format that is meant,
//! `SDM_BLESS=1 cargo test -p sdm-raft-store --test golden` writes the present format anew; that of an
//! earlier one is never written again.

mod common;

use common::append;
use common::blank;
use common::id;
use common::identity;
use common::large;
use common::open;
use common::read;
use common::saved_vote;
use common::snapshot;
use common::tick;
use common::vote;
use openraft::storage::RaftLogStorage;
use sdm_raft_store::Identity;
use sdm_raft_store::IdentityFile;
use sdm_raft_store::LogEntry;
use sdm_raft_store::Opened;
use sdm_raft_store::Payload;
use sdm_raft_store::SimulatedDisk;
use sdm_state::command::AddMember;
use sdm_state::command::Found;
use sdm_state::settings::Settings;
use std::fmt::Write;
use std::path::PathBuf;

/// Logs with one record of marks, entries that name the one before, and a witness.
const PRESENT: &str = "folder-2.hex";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text grows");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16).expect("a digit")).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// Lines of a kind, a name or key, and bytes.
type Lines = Vec<(String, String, Vec<u8>)>;

fn committed(name: &str) -> Lines {
    let text = std::fs::read_to_string(path(name)).expect("the committed bytes are there");
    let line = |line: &str| {
        let mut parts = line.split(' ').map(str::to_owned);
        let mut next = || parts.next().expect("three parts");
        (next(), next(), unhex(&next()))
    };
    text.lines().map(line).collect()
}

/// A disk with these bytes on it.
fn disk_of(lines: &Lines) -> SimulatedDisk {
    let machine = SimulatedDisk::new();
    for (kind, name, bytes) in lines {
        match kind.as_str() {
            "log" => machine.put_log_value(&unhex(name), bytes),
            "snapshot" => machine.put_snapshot(name, bytes),
            "file" => machine.put_file(name, bytes),
            _ => {}
        }
    }
    machine
}

fn found() -> LogEntry {
    let member = AddMember {
        name: "m1".parse().expect("a name"),
        address: "m1:7400".to_owned(),
        incarnation: "one".to_owned(),
        version: "test".to_owned(),
        feature_level_max: 1,
    };
    let Identity { cluster_id, pool_id, .. } = identity(1);
    let settings = Settings::default();
    let command = sdm_state::Command::Found(Found { cluster_id, pool_id, epoch: 1, member, settings });
    let entry = sdm_state::Entry { stamp_ms: 5, entropy: [3; 16], command };
    LogEntry { log_id: id(1, 1), payload: Payload::Normal(entry) }
}

/// The entries that are left at the end of `write_story`.
fn left() -> Vec<LogEntry> {
    vec![tick(1, 2), blank(1, 3), large(4, 4, 4000), tick(4, 5), blank(4, 6)]
}

/// Writes a folder with one of everything.
async fn write_story(machine: &SimulatedDisk) -> [u8; 32] {
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    let entries = vec![large(1, 0, 5), found(), tick(1, 2), blank(1, 3)];
    opened.log_store.save_vote(&vote(1)).await.expect("durable");
    append(&mut opened.log_store, entries.clone()).await;
    snapshot(&mut opened.state_machine, entries).await;
    opened.log_store.purge(id(1, 1)).await.expect("accepted");
    opened.log_store.save_vote(&vote(4)).await.expect("durable");
    append(&mut opened.log_store, left().split_off(2)).await;
    opened.log_store.save_committed(Some(id(4, 5))).await.expect("accepted");
    let hash = opened.view.load().state.hash();
    close(opened).await;
    hash
}

async fn close(opened: Opened) {
    let closed = opened.closed.clone();
    drop(opened);
    closed.wait().await;
}

/// What is on the disk, as lines.
fn lines_of(machine: &SimulatedDisk, state: [u8; 32]) -> Lines {
    let mut lines = vec![("state".to_owned(), "hash".to_owned(), state.to_vec())];
    for key in machine.log_keys() {
        lines.push(("log".to_owned(), hex(&key), machine.log_value(&key).expect("there")));
    }
    for name in machine.snapshot_names() {
        let bytes = machine.durable_snapshot(&name).expect("there");
        lines.push(("snapshot".to_owned(), name, bytes));
    }
    for name in ["identity.json", "witness"] {
        lines.push(("file".to_owned(), name.to_owned(), machine.durable_file(name).expect("there")));
    }
    lines
}

/// Opens a disk with committed bytes and checks that they mean what the story says.
async fn check(machine: &SimulatedDisk, lines: &Lines) {
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    let log = &mut opened.log_store;
    assert_eq!(saved_vote(log).await, Some(vote(4)));
    assert_eq!(log.read_committed().await.expect("readable"), Some(id(4, 5)));
    assert_eq!(log.get_log_state().await.expect("state").last_purged_log_id, Some(id(1, 1)));
    assert_eq!(read(log, 0..u64::MAX).await, left());
    let view = opened.view.load();
    assert_eq!(view.applied, Some(id(1, 3)));
    let hash = &lines.iter().find(|(kind, ..)| kind == "state").expect("there").2;
    assert_eq!(&view.state.hash().to_vec(), hash);
    append(&mut opened.log_store, vec![blank(5, 7)]).await;
    close(opened).await;
}

#[tokio::test]
async fn the_present_format_is_the_committed_one() {
    let machine = SimulatedDisk::new();
    let state = write_story(&machine).await;
    let lines = lines_of(&machine, state);
    if std::env::var_os("SDM_BLESS").is_some() {
        let text: String = lines.iter().map(|(kind, name, bytes)| format!("{kind} {name} {}\n", hex(bytes))).collect();
        std::fs::write(path(PRESENT), text).expect("written");
    }
    let committed = committed(PRESENT);
    check(&disk_of(&committed), &committed).await;
    // How many batches there were is in the marks and the witness; the bytes of both are checked
    // where they are made.
    let counted = |(_, name, _): &&(String, String, Vec<u8>)| name != "witness" && *name != hex(b"mm");
    for (now, then) in lines.iter().filter(counted).zip(committed.iter().filter(counted)) {
        assert!(now == then, "{} {} is written otherwise than it was", now.0, now.1);
    }
    assert_eq!(lines.len(), committed.len());
}

#[tokio::test]
async fn a_newer_identity_is_refused_by_name_and_nothing_is_changed() {
    let lines = committed(PRESENT);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    for (at, (kind, name, bytes)) in lines.iter().enumerate() {
        if name != "identity.json" {
            continue;
        }
        let mut newer = lines.clone();
        newer[at].2 = text(bytes).replace("\"format\": 2", "\"format\": 9").into_bytes();
        assert_ne!(newer[at].2, *bytes, "{kind} {name}");
        let machine = disk_of(&newer);
        let refused = IdentityFile::of(&machine.start()).read().await.expect_err("refused").to_string();
        assert!(refused.contains("identity.json") && refused.contains("newer version"), "{refused}");
        assert_eq!(machine.durable_file(name), Some(newer[at].2.clone()));
    }
}
