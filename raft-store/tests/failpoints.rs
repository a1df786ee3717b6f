//! A process that dies, or whose disk fails, exactly before and after each step of a write: what it
//! said was durable is there afterwards. Built only with the feature `failpoints`.

#![cfg(feature = "failpoints")]

mod common;

use common::append;
use common::blank;
use common::indexes;
use common::large;
use common::open;
use common::saved_vote;
use common::tick;
use common::vote;
use openraft::storage::RaftLogStorage;
use openraft::storage::RaftLogStorageExt;
use openraft::storage::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use sdm_raft_store::MemberDisk;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Set in the process that is killed: the folder it writes to.
const CHILD: &str = "SDM_TEST_CHILD_FOLDER";

const POINTS: [&str; 16] = [
    "log.append.before",
    "log.append.after",
    "log.vote.before",
    "log.vote.after",
    "log.write.before",
    "log.write.after",
    "log.segment.before",
    "log.segment.after",
    "log.fdatasync.before",
    "log.fdatasync.after",
    "witness.write.before",
    "witness.write.after",
    "snapshot.write.before",
    "snapshot.write.after",
    "snapshot.rename.before",
    "snapshot.rename.after",
];

/// A snapshot that takes longer has failed; its first retry is within this time.
const SNAPSHOT_TIME: Duration = Duration::from_secs(1);

/// What the process does until its failpoint ends it: vote, two entries, now and then a snapshot.
#[tokio::test]
async fn child_writes_until_its_failpoint() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let disk = MemberDisk::open(Path::new(&folder)).await.expect("the folder opens");
    let mut opened = open(&disk, 1).await.expect("opens");
    let mut next = indexes(&mut opened.log_store).await.last().map_or(0, |last| last + 1);
    for round in 0..200 {
        if opened.log_store.save_vote(&vote(next + 1)).await.is_err() {
            return;
        }
        println!("voted {}", next + 1);
        let entries = vec![large(next + 1, next, 100_000), blank(next + 1, next + 1)];
        if opened.log_store.blocking_append(entries).await.is_err() {
            return;
        }
        println!("durable {}", next + 1);
        if round % 5 == 0 {
            common::apply(&mut opened.state_machine, vec![tick(next + 1, next + 1)]).await;
            let mut builder = opened.state_machine.get_snapshot_builder().await;
            match tokio::time::timeout(SNAPSHOT_TIME, builder.build_snapshot()).await {
                Ok(Ok(_)) => {}
                // One that was written and whose name may not be durable ends the member.
                Ok(Err(_)) => {
                    assert!(opened.fatal.get().is_some());
                    return;
                }
                // One that could not be written is tried again, and the log goes on meanwhile.
                Err(_) => {
                    let after = vec![blank(next + 1, next + 2)];
                    opened.log_store.blocking_append(after).await.expect("the log goes on");
                    println!("durable {}", next + 2);
                    assert!(opened.fatal.get().is_none(), "a snapshot that fails stops nobody");
                    return;
                }
            }
            println!("snapshot {}", next + 1);
        }
        next += 2;
    }
    panic!("the failpoint did not end it");
}

/// The newest number that a process said after a word.
fn said(output: &str, word: &str) -> Option<u64> {
    let numbers = output.lines().filter_map(|line| line.split_once(word)?.1.trim().parse().ok());
    numbers.max()
}

async fn check(folder: &Path, output: &str, point: &str) {
    let disk = MemberDisk::open(folder).await.unwrap_or_else(|error| panic!("{point}: {error}"));
    let mut opened = open(&disk, 1).await.unwrap_or_else(|error| panic!("{point}: {error}"));
    let log = &mut opened.log_store;
    let found = indexes(log).await;
    assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "{point}");
    assert!(found.last().copied() >= said(output, "durable "), "{point}: an entry is lost");
    let voted = saved_vote(log).await.map(|vote| vote.leader_id.term);
    assert!(voted >= said(output, "voted "), "{point}: a vote is lost");
    let snapshot = opened.view.load().applied_index();
    assert!(snapshot >= said(output, "snapshot "), "{point}: a snapshot is lost");
    let next = found.len() as u64;
    append(log, vec![blank(next + 1, next)]).await;
    let closed = opened.closed.clone();
    drop((opened, disk));
    closed.wait().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_durable_is_lost_wherever_a_write_ends() {
    for point in POINTS {
        for action in ["abort", "eio", "enospc"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let mut output = String::new();
            for call in [3, 1] {
                let ended = Command::new(std::env::current_exe().expect("this test"))
                    .args(["--exact", "child_writes_until_its_failpoint", "--nocapture"])
                    .env(CHILD, folder.path())
                    .env("SDM_FAILPOINTS", format!("{point}={action}@{call}"))
                    .output()
                    .expect("started");
                output += &String::from_utf8_lossy(&ended.stdout);
                let complaint = String::from_utf8_lossy(&ended.stderr);
                assert!(!complaint.contains("panicked"), "{point}={action}: {complaint}");
                check(folder.path(), &output, point).await;
            }
        }
    }
}

/// The files of a folder's log, and how long each is.
fn log_files(folder: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(folder.join("log")).expect("listed");
    let known = entries.map(|entry| entry.expect("listed")).map(|entry| (entry.metadata().expect("known"), entry));
    let files = known.filter(|(metadata, _)| metadata.is_file());
    let mut found: Vec<_> =
        files.map(|(metadata, entry)| (entry.file_name().to_string_lossy().into_owned(), metadata.len())).collect();
    found.sort();
    found
}

/// What the process says whose folder cannot be read anew.
#[tokio::test]
async fn child_says_why_its_folder_does_not_open() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    match MemberDisk::open(Path::new(&folder)).await {
        Ok(_) => println!("opened"),
        Err(error) => println!("refused {error}"),
    }
}

#[tokio::test]
async fn a_start_reads_witness_and_log_from_the_disk_before_the_database_opens_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = MemberDisk::open(folder.path()).await.expect("the folder opens");
    let mut opened = open(&disk, 1).await.expect("opens");
    append(&mut opened.log_store, vec![blank(1, 0)]).await;
    let closed = opened.closed.clone();
    drop((opened, disk));
    closed.wait().await;
    let before = log_files(folder.path());
    let run = |call: usize| {
        let ended = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child_says_why_its_folder_does_not_open", "--nocapture"])
            .env(CHILD, folder.path())
            .env("SDM_FAILPOINTS", format!("folder.drop_cached.before=eio@{call}"))
            .output()
            .expect("started");
        String::from_utf8_lossy(&ended.stdout).into_owned()
    };
    // The witness, and then each file of the log.
    for call in 1..=1 + before.len() {
        let said = run(call);
        assert!(said.contains("refused") && said.contains("Input/output error"), "{call}: {said}");
        assert_eq!(log_files(folder.path()), before, "{call}: the database opened before all was read anew");
    }
    let said = run(2 + before.len());
    assert!(said.contains("opened"), "{said}");
}
