//! What a newer sdm wrote into a member's folder: it is refused by name, before anything is changed.

mod common;

use common::append;
use common::id;
use common::open;
use common::snapshot;
use common::tick;
use common::vote;
use openraft::storage::RaftLogStorage;
use sdm_raft_store::LogEntry;
use sdm_raft_store::Payload;
use sdm_raft_store::SimulatedDisk;
use sdm_raft_store::disk::Crash;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::command::AddMember;
use sdm_state::command::Found;
use sdm_state::members::FEATURE_LEVEL_MAX;
use sdm_state::settings::Settings;
use std::collections::BTreeMap;

/// Values of the log, and names of the snapshots.
type Contents = (BTreeMap<Vec<u8>, Option<Vec<u8>>>, Vec<String>);

/// Everything on the disk.
fn contents(machine: &SimulatedDisk) -> Contents {
    let values = machine.log_keys().into_iter().map(|key| (key.clone(), machine.log_value(&key)));
    (values.collect(), machine.snapshot_names())
}

/// A stopped member with entries 0 to 3 in its log.
async fn stopped() -> SimulatedDisk {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    append(&mut opened.log_store, (0..4).map(|index| tick(1, index)).collect()).await;
    drop(opened);
    machine.crash(Crash::LoseUnsynced);
    machine
}

#[tokio::test]
async fn an_entry_of_a_newer_version_is_refused_when_the_member_starts_and_nothing_is_changed() {
    let machine = stopped().await;
    let newer = u16::try_from(FEATURE_LEVEL_MAX + 1).expect("small");
    assert!(machine.forge_log_entry(2, |payload| payload[1..3].copy_from_slice(&newer.to_be_bytes())));
    let before = contents(&machine);
    let refused = open(&machine.start(), 1).await.expect_err("a newer entry").to_string();
    for said in ["log entry 2", &format!("version {newer}"), "newer version of sdm"] {
        assert!(refused.contains(said), "{refused}");
    }
    assert!(!refused.contains("damaged"), "{refused}");
    assert_eq!(contents(&machine), before);
}

#[tokio::test]
async fn a_command_of_an_unknown_name_is_refused_when_it_is_read() {
    let machine = stopped().await;
    assert!(machine.forge_log_entry(3, |payload| {
        let at = position(payload, b"Tick");
        payload[at..at + 4].copy_from_slice(b"Tock");
    }));
    let before = contents(&machine);
    let mut opened = open(&machine.start(), 1).await.expect("its version is known");
    let mut reader = openraft::storage::RaftLogStorage::get_log_reader(&mut opened.log_store).await;
    let read = openraft::storage::RaftLogReader::try_get_log_entries(&mut reader, 0..4).await;
    let refused = read.expect_err("nobody knows it");
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
    let fatal = opened.fatal.get().expect("the member stops").to_string();
    for said in ["log entry 3", "does not know Tock", "newer version of sdm"] {
        assert!(fatal.contains(said), "{fatal}");
    }
    assert_eq!(contents(&machine), before);
}

fn found(feature_level_max: u32) -> LogEntry {
    let member = AddMember {
        name: "m1".parse().expect("a name"),
        address: "m1:7400".to_owned(),
        incarnation: "one".to_owned(),
        version: "test".to_owned(),
        feature_level_max,
    };
    let identity = common::identity(1);
    let command = Command::Found(Found {
        cluster_id: identity.cluster_id,
        pool_id: identity.pool_id,
        epoch: 1,
        member,
        settings: Settings::default(),
    });
    LogEntry { log_id: id(1, 1), payload: Payload::Normal(Entry { stamp_ms: 0, entropy: [0; 16], command }) }
}

/// Makes every checksum of a snapshot file right again.
fn seal_snapshot(bytes: &mut [u8]) {
    let mut at = 8;
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
        let end = at + 8 + length;
        if end == bytes.len() {
            // The footer's hash is over all before it.
            let hash = blake3::hash(&bytes[..at]);
            bytes[end - 32..].copy_from_slice(hash.as_bytes());
        }
        let sum = crc32c::crc32c(&bytes[at + 8..end]);
        bytes[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
}

/// A stopped member with one snapshot, changed.
async fn with_snapshot(change: impl FnOnce(&mut [u8])) -> SimulatedDisk {
    let machine = SimulatedDisk::new();
    let mut opened = open(&machine.start(), 1).await.expect("opens");
    append(&mut opened.log_store, vec![tick(1, 0), found(FEATURE_LEVEL_MAX)]).await;
    opened.log_store.save_vote(&vote(1)).await.expect("durable");
    snapshot(&mut opened.state_machine, vec![found(FEATURE_LEVEL_MAX)]).await;
    drop(opened);
    machine.crash(Crash::LoseUnsynced);
    let [name] = machine.snapshot_names().try_into().expect("one");
    assert!(machine.damage_snapshot(&name, |bytes| {
        change(bytes);
        seal_snapshot(bytes);
    }));
    machine
}

fn position(bytes: &[u8], of: &[u8]) -> usize {
    bytes.windows(of.len()).position(|part| part == of).expect("it is there")
}

#[tokio::test]
async fn a_snapshot_of_a_newer_feature_level_is_refused_and_stays_as_it_is() {
    let newer = u8::try_from(FEATURE_LEVEL_MAX + 1).expect("small");
    let in_header = |bytes: &mut [u8]| bytes[position(bytes, b"format") + 6] = newer;
    let in_first_row = |bytes: &mut [u8]| {
        let row = position(bytes, &[b'S', 0, newer - 1]);
        bytes[row + 2] = newer;
    };
    let unchanged = with_snapshot(|_| ()).await;
    open(&unchanged.start(), 1).await.expect("sealed as it was written");
    for machine in [with_snapshot(in_header).await, with_snapshot(in_first_row).await] {
        let before = contents(&machine);
        let refused = open(&machine.start(), 1).await.expect_err("a newer snapshot").to_string();
        assert!(refused.contains("a newer sdm wrote") && refused.contains(&newer.to_string()), "{refused}");
        assert!(!refused.contains("damaged"), "{refused}");
        assert_eq!(contents(&machine), before);
    }
}

#[tokio::test]
async fn a_snapshot_says_in_its_first_bytes_of_which_feature_level_its_cluster_is() {
    for level in 1..=FEATURE_LEVEL_MAX {
        let machine = SimulatedDisk::new();
        let mut opened = open(&machine.start(), 1).await.expect("opens");
        snapshot(&mut opened.state_machine, vec![found(level)]).await;
        let name = machine.snapshot_names().remove(0);
        let mut format = None;
        machine.damage_snapshot(&name, |bytes| {
            // The header is a map that begins with its format.
            format = Some(u32::from(bytes[position(bytes, b"format") + 6]));
        });
        assert_eq!(format, Some(level));
    }
}
