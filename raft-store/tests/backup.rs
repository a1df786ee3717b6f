//! Backups: whole ones are restored from, all others are refused, and what is restored opens.

use sdm_proto::ids::ClusterId;

use sdm_proto::ids::PoolId;
use sdm_raft_store::LeaderId;
use sdm_raft_store::LogId;
use sdm_raft_store::StateView;
use sdm_raft_store::backup::Backup;
use sdm_raft_store::backup::BackupError;
use sdm_raft_store::backup::BackupFacts;
use sdm_raft_store::backup::RestoreError;
use sdm_raft_store::backup::RestorePlan;
use sdm_raft_store::backup::WrittenBackup;
use sdm_raft_store::backup::check_backup;
use sdm_raft_store::backup::restore_backup;
use sdm_raft_store::backup::write_backup;
use sdm_raft_store::disk::FileWriter;
use sdm_raft_store::offline::ReplayError;
use sdm_raft_store::offline::StoppedError;
use sdm_raft_store::offline::StoppedFolder;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::State;
use sdm_state::command::AddMember;
use sdm_state::command::Found;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::settings::Settings;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use uuid::Uuid;

#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl FileWriter for Memory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().expect("nobody panics").extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn cluster(n: u128) -> ClusterId {
    ClusterId::from_uuid(Uuid::from_u128(n))
}

/// A cluster of one member with a few sessions.
fn view() -> StateView {
    let mut state = State::default();
    let mut apply = |index, command| {
        state.apply(index, &Entry { stamp_ms: index * 10, entropy: [1; 16], command });
    };
    apply(
        1,
        Command::Found(Found {
            cluster_id: cluster(1),
            pool_id: PoolId::from_uuid(Uuid::from_u128(2)),
            epoch: 1,
            member: AddMember {
                name: "m1".parse().expect("a name"),
                address: "m1:7400".into(),
                incarnation: "first".into(),
                version: "test".into(),
                feature_level_max: 2,
            },
            settings: Settings::default(),
        }),
    );
    for index in 2..6 {
        let open = OpenSession { owner: SessionOwner::Client("me".into()), ttl_ms: 5_000, nonce: index.to_string() };
        apply(index, Command::OpenSession(open));
    }
    let applied = LogId { leader_id: LeaderId { term: 3, node_id: 1 }, index: 7 };
    StateView { applied: Some(applied), state, ..StateView::default() }
}

fn written() -> (Vec<u8>, WrittenBackup) {
    let memory = Memory::default();
    let facts = BackupFacts { member: "m1".into(), sdm_version: "test".into(), created_unix_ms: 5 };
    let written = write_backup(&view(), facts, Box::new(memory.clone())).expect("written");
    let bytes = memory.0.lock().expect("nobody panics").clone();
    (bytes, written)
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn check(&self, bytes: &[u8]) -> Result<Backup, BackupError> {
        let path = self.path("backup");
        std::fs::write(&path, bytes).expect("written");
        check_backup(&path)
    }
}

#[test]
fn a_backup_reads_back_as_what_was_written() {
    let (bytes, written) = written();
    assert_eq!(bytes.len() as u64, written.bytes);
    let backup = Place::new().check(&bytes).expect("whole");
    assert_eq!((backup.header, backup.blake3), (written.header, written.blake3));
    assert_eq!(backup.state.hash(), view().state.hash());
}

#[test]
fn every_flipped_byte_and_every_cut_is_found() {
    let (bytes, _) = written();
    let place = Place::new();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        assert!(place.check(&flipped).is_err(), "byte {at} of {}", bytes.len());
    }
    for length in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        assert!(place.check(&bytes[..length]).is_err(), "cut at {length}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(place.check(&longer).is_err(), "longer than it was");
}

#[test]
fn what_is_wrong_with_a_file_is_told_apart() {
    let (bytes, _) = written();
    let place = Place::new();
    assert!(matches!(place.check(b"#!/bin/sh\necho I am no backup at all\n"), Err(BackupError::Foreign)));
    assert!(matches!(place.check(b""), Err(BackupError::Foreign)));
    assert!(matches!(place.check(&bytes[..bytes.len() - 3]), Err(BackupError::Truncated(_))));
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    assert!(matches!(place.check(&flipped), Err(BackupError::Damaged(_))));
    assert!(matches!(place.check(&newer(&bytes)), Err(BackupError::Newer(_))));
    assert!(matches!(check_backup(&place.path("none")), Err(BackupError::Io(_))));
}

/// The same file with a header of a later format.
fn newer(bytes: &[u8]) -> Vec<u8> {
    let length = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
    let header = String::from_utf8(bytes[16..16 + length].to_vec()).expect("text");
    let header = header.replacen("\"format\":1", "\"format\":9,\"more\":true", 1);
    let front = [
        &bytes[..8],
        &u32::try_from(header.len()).expect("short").to_le_bytes(),
        &crc32c::crc32c(header.as_bytes()).to_le_bytes(),
    ];
    [front.concat().as_slice(), header.as_bytes(), &bytes[16 + length..]].concat()
}

fn plan(n: u128) -> RestorePlan {
    RestorePlan {
        cluster_id: cluster(n),
        incarnation: Uuid::from_u128(n + 1),
        name: "r1".parse().expect("a name"),
        address: "r1:7400".into(),
        sdm_version: "test".into(),
    }
}

/// Every file below a folder with its content.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path.clone());
                found.insert(path, Vec::new());
            } else {
                found.insert(path.clone(), std::fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

#[tokio::test]
async fn a_restored_folder_is_a_member_alone_and_looking_into_it_changes_nothing() {
    let place = Place::new();
    let backup = place.check(&written().0).expect("whole");
    let folder = place.path("member");
    let restored = restore_backup(backup, &folder, plan(9)).await.expect("restored");
    assert_eq!((restored.identity.cluster_id, restored.identity.epoch, restored.index), (cluster(9), 2, 7));
    assert_eq!(restored.identity.node_id, 8);

    let before = content(&folder);
    let scratch = place.path("scratch");
    std::fs::create_dir(&scratch).expect("made");
    let stopped = StoppedFolder::open(&folder, &scratch).await.expect("stopped");
    let survey = stopped.survey().await.expect("whole");
    assert_eq!((survey.snapshot.map(|snapshot| snapshot.index), survey.voters), (Some(7), vec![8]));
    let verdict = stopped.verify().await.expect("listed");
    assert_eq!((verdict.problems, verdict.snapshots), (Vec::<String>::new(), vec![7]));
    let replayed = stopped.replay(Some(7)).await.expect("replayed");
    assert!(replayed.state.is_suspended() && replayed.state.sessions.is_empty());
    assert!(matches!(stopped.replay(Some(8)).await, Err(ReplayError::OutOfReach { wanted: 8, .. })));
    // While it is looked at, no member starts on it, and a second look is refused, too.
    let running = StoppedFolder::open(&folder, &scratch).await;
    assert!(matches!(running, Err(StoppedError::Running { .. })), "{running:?}");
    assert!(sdm_raft_store::MemberDisk::open(&folder).await.is_err());
    stopped.close().await;
    assert_eq!(content(&folder), before, "the folder was changed");
    assert_eq!(std::fs::read_dir(&scratch).expect("there").count(), 0, "the copy stayed");
}

#[tokio::test]
async fn a_folder_that_holds_anything_is_not_restored_into() {
    let place = Place::new();
    let bytes = written().0;
    let folder = place.path("member");
    std::fs::create_dir(&folder).expect("made");
    std::fs::write(folder.join("thesis.tex"), "years of work").expect("written");
    let refused = restore_backup(place.check(&bytes).expect("whole"), &folder, plan(9)).await;
    assert!(matches!(refused, Err(RestoreError::NotEmpty { .. })), "{refused:?}");
    assert_eq!(content(&folder).len(), 1);
}

#[tokio::test]
async fn damage_in_a_stopped_folder_is_named_and_the_folder_left_alone() {
    let place = Place::new();
    let folder = place.path("member");
    restore_backup(place.check(&written().0).expect("whole"), &folder, plan(9)).await.expect("restored");
    let snapshots = folder.join("snapshots");
    let name = std::fs::read_dir(&snapshots).expect("there").next().expect("one").expect("readable").path();
    let mut bytes = std::fs::read(&name).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&name, bytes).expect("written");
    let before = content(&folder);
    let stopped = StoppedFolder::open(&folder, place.folder.path()).await.expect("stopped");
    let verdict = stopped.verify().await.expect("listed");
    assert!(verdict.problems.iter().any(|problem| problem.contains("snap-")), "{:?}", verdict.problems);
    assert!(verdict.problems.len() == 2, "the log behind it has no beginning: {:?}", verdict.problems);
    assert!(stopped.survey().await.is_err());
    stopped.close().await;
    assert_eq!(content(&folder), before);
    let nobody = StoppedFolder::open(place.folder.path(), place.folder.path()).await;
    assert!(matches!(nobody, Err(StoppedError::NoMember { .. })), "{nobody:?}");
}
