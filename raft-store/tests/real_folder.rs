//! A member's folder on a real file system: one process at a time, nothing foreign, nothing lost.

mod common;

use common::append;
use common::blank;
use common::blanks;
use common::id;
use common::indexes;
use common::large;
use common::open;
use common::read;
use common::saved_vote;
use common::snapshot;
use common::tick;
use common::vote;
use openraft::storage::RaftLogStorage;
use sdm_raft_store::IdentityFile;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::disk::OpenFolderError;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

async fn disk(folder: &Path) -> MemberDisk {
    MemberDisk::open(folder).await.expect("the folder opens")
}

/// The file that the log's next record goes into.
fn newest_segment(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder.join("log")).expect("listed").map(|entry| entry.expect("listed").path());
    entries.filter(|path| path.extension().is_none()).max().expect("a segment")
}

#[tokio::test]
async fn a_folder_is_made_if_missing_and_opens_for_one_at_a_time() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("a/b");
    let first = disk(&folder).await;
    let refused = MemberDisk::open(&folder).await.expect_err("in use");
    assert!(matches!(refused, OpenFolderError::InUse { .. }));
    assert!(refused.to_string().contains(&format!("pid {}", std::process::id())), "{refused}");
    let closed = first.closed();
    drop(first);
    closed.wait().await;
    disk(&folder).await;
}

#[tokio::test]
async fn lost_and_found_is_ignored_and_a_foreign_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("lost+found")).expect("made");
    drop(disk(folder.path()).await);
    let foreign = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(foreign.path().join("thesis.tex"), "x").expect("written");
    let refused = MemberDisk::open(foreign.path()).await.expect_err("foreign");
    assert!(refused.to_string().contains("thesis.tex") && refused.to_string().contains("--data-dir"), "{refused}");
    assert_eq!(std::fs::read_dir(foreign.path()).expect("listed").count(), 1, "nothing was made in it");
}

#[tokio::test]
async fn a_path_that_cannot_be_a_folder_is_refused_with_its_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("written");
    let refused = MemberDisk::open(&file).await.expect_err("a file");
    assert!(refused.to_string().contains("file"), "{refused}");
}

#[tokio::test]
async fn everything_is_there_again_after_an_orderly_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let opened = {
        let disk = disk(folder.path()).await;
        let mut opened = open(&disk, 7).await.expect("opens");
        let log = &mut opened.log_store;
        log.save_vote(&vote(4)).await.expect("durable");
        let entries: Vec<_> = (0..40).map(|index| large(4, index, 20_000)).collect();
        append(log, entries).await;
        log.truncate_after(Some(id(4, 30))).await.expect("durable");
        append(log, blanks(5, 31..1031)).await;
        snapshot(&mut opened.state_machine, vec![tick(4, 20)]).await;
        opened.log_store.purge(id(4, 20)).await.expect("accepted");
        append(&mut opened.log_store, vec![blank(5, 1031)]).await;
        opened
    };
    let closed = opened.closed.clone();
    drop(opened);
    closed.wait().await;

    let disk = disk(folder.path()).await;
    let mut opened = open(&disk, 7).await.expect("opens again");
    assert_eq!(opened.identity, common::identity(7));
    assert_eq!(opened.view.load().applied, Some(id(4, 20)));
    let log = &mut opened.log_store;
    assert_eq!(saved_vote(log).await, Some(vote(4)));
    assert_eq!(indexes(log).await, (21..1032).collect::<Vec<_>>());
    assert_eq!(read(log, 29..33).await, [large(4, 29, 20_000), large(4, 30, 20_000), blank(5, 31), blank(5, 32)]);
}

#[tokio::test]
async fn a_start_that_was_cut_off_does_not_keep_the_next_one_from_opening() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let closed = {
        let disk = disk(folder.path()).await;
        let mut opened = open(&disk, 7).await.expect("opens");
        append(&mut opened.log_store, blanks(4, 0..50)).await;
        opened.closed.clone()
    };
    closed.wait().await;
    // A segment that was being made, and a record of which only a part was written.
    for torn in ["", "0123456789abcdef"] {
        std::fs::write(folder.path().join("log/segment.tmp"), torn).expect("written");
        let newest = newest_segment(folder.path());
        let mut bytes = std::fs::read(&newest).expect("readable");
        bytes.extend_from_slice(torn.as_bytes());
        std::fs::write(&newest, bytes).expect("written");
        let disk = disk(folder.path()).await;
        let mut opened = open(&disk, 7).await.expect("opens again");
        assert_eq!(indexes(&mut opened.log_store).await, (0..50).collect::<Vec<_>>());
        let closed = opened.closed.clone();
        drop((disk, opened));
        closed.wait().await;
    }
}

#[tokio::test]
async fn a_record_changed_behind_our_back_is_found_and_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk_before = disk(folder.path()).await;
    let mut opened = open(&disk_before, 1).await.expect("opens");
    append(&mut opened.log_store, blanks(1, 0..10)).await;
    append(&mut opened.log_store, blanks(1, 10..11)).await;
    let closed = opened.closed.clone();
    drop((opened, disk_before));
    closed.wait().await;

    let newest = newest_segment(folder.path());
    let mut bytes = std::fs::read(&newest).expect("readable");
    let key = [b"l".as_slice(), &6u64.to_be_bytes(), &[0, 0]].concat();
    let at = bytes.windows(key.len()).position(|window| window == key).expect("the entry is there");
    bytes[at + key.len() + 9] ^= 1;
    std::fs::write(&newest, bytes).expect("written");

    let refused = MemberDisk::open(folder.path()).await.expect_err("damaged").to_string();
    assert!(refused.contains("segment-0000000001 is damaged") && refused.contains("member replace"), "{refused}");
}

#[tokio::test]
async fn a_log_of_the_database_before_the_first_release_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("log")).expect("made");
    for name in ["db", "conf"] {
        std::fs::write(folder.path().join("log").join(name), "sled").expect("written");
    }
    let refused = MemberDisk::open(folder.path()).await.expect_err("another database").to_string();
    assert!(refused.contains("add it anew") && refused.contains("backup"), "{refused}");
    assert_eq!(std::fs::read_dir(folder.path().join("log")).expect("listed").count(), 2);
}

#[tokio::test]
async fn a_lost_identity_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk_before = disk(folder.path()).await;
    let opened = open(&disk_before, 1).await.expect("opens");
    let closed = opened.closed.clone();
    drop((opened, disk_before));
    closed.wait().await;
    std::fs::remove_file(folder.path().join("identity.json")).expect("removed");
    let disk = disk(folder.path()).await;
    assert_eq!(IdentityFile::of(&disk).read().await.expect("readable"), None);
    let refused = sdm_raft_store::open(&disk).await.expect_err("nobody's");
    assert!(refused.to_string().contains("identity.json"), "{refused}");
}

/// Set in the process that is killed: the folder it writes to.
const CHILD: &str = "SDM_TEST_CHILD_FOLDER";

/// What the killed process does: it appends for ever and says what is durable.
#[tokio::test]
async fn child_appends_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let disk = disk(Path::new(&folder)).await;
    let mut log = open(&disk, 1).await.expect("opens").log_store;
    let mut next = indexes(&mut log).await.last().map_or(0, |last| last + 1);
    loop {
        log.save_vote(&vote(next + 1)).await.expect("durable");
        append(&mut log, vec![large(next + 1, next, 10_000), blank(next + 1, next + 1)]).await;
        println!("durable {}", next + 1);
        std::io::stdout().flush().expect("told");
        next += 2;
    }
}

#[test]
fn a_process_that_is_killed_loses_nothing_that_was_durable() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut durable = 0;
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child_appends_until_it_is_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let said = lines
            .map_while(Result::ok)
            .filter_map(|line| line.split_once("durable ").and_then(|(_, index)| index.trim().parse::<u64>().ok()));
        durable = said.take(40).last().expect("it wrote something");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let disk = disk(folder.path()).await;
        let mut log = open(&disk, 1).await.expect("opens after kills").log_store;
        let found = indexes(&mut log).await;
        assert!(found.last() >= Some(&durable), "{:?} < {durable}", found.last());
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
        let voted = saved_vote(&mut log).await.expect("voted");
        assert!(voted.leader_id.term >= durable);
    });
}
