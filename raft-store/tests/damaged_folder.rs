//! A real folder in which bytes changed behind the member's back, at places all over its files: it
//! is refused with words that say what to do, or everything is there. Never is something missing.

mod common;

use common::append;
use common::blanks;
use common::id;
use common::large;
use common::open;
use common::saved_vote;
use common::snapshot;
use common::tick;
use common::vote;
use openraft::storage::RaftLogReader;
use openraft::storage::RaftLogStorage;
use sdm_raft_store::LogEntry;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::Vote;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// Longest that opening may take, damaged or not.
const PATIENCE: Duration = Duration::from_secs(60);

/// Places in each file that are changed, unless the environment says how many.
const PLACES: u64 = 60;
const PLACES_VARIABLE: &str = "SDM_TEST_PLACES";

/// What a member knows from its folder.
#[derive(Debug, PartialEq)]
struct Knows {
    vote: Option<Vote>,
    entries: Vec<LogEntry>,
    purged: Option<sdm_raft_store::LogId>,
    applied: Option<sdm_raft_store::LogId>,
    state: [u8; 32],
}

/// Opens a folder and reads all that is in it, or says why it does not open.
async fn knows(folder: &Path) -> Result<Knows, String> {
    let disk = MemberDisk::open(folder).await.map_err(|error| error.to_string())?;
    let mut opened = sdm_raft_store::open(&disk).await.map_err(|error| error.to_string())?;
    let view = opened.view.load();
    let log = &mut opened.log_store;
    let knows = Knows {
        vote: saved_vote(log).await,
        purged: log.get_log_state().await.map_err(|error| error.to_string())?.last_purged_log_id,
        entries: log.get_log_reader().await.try_get_log_entries(0..u64::MAX).await.map_err(|e| e.to_string())?,
        applied: view.applied,
        state: view.state.hash(),
    };
    let closed = opened.closed.clone();
    drop((opened, disk));
    closed.wait().await;
    Ok(knows)
}

/// A member with a past: votes, a truncation, snapshots, a purge, large entries.
async fn member(folder: &Path) -> Knows {
    let disk = MemberDisk::open(folder).await.expect("a new folder opens");
    let mut opened = open(&disk, 1).await.expect("opens");
    opened.log_store.save_vote(&vote(2)).await.expect("durable");
    for from in (0..3000).step_by(100) {
        append(&mut opened.log_store, blanks(2, from..from + 100)).await;
    }
    opened.log_store.truncate_after(Some(id(2, 2899))).await.expect("durable");
    opened.log_store.save_vote(&vote(3)).await.expect("durable");
    append(&mut opened.log_store, blanks(3, 2900..3100)).await;
    for index in [1000, 2000] {
        snapshot(&mut opened.state_machine, vec![tick(2, index)]).await;
    }
    opened.log_store.purge(id(2, 1500)).await.expect("accepted");
    append(&mut opened.log_store, (3100..3180).map(|index| large(3, index, 10_000)).collect()).await;
    opened.log_store.save_vote(&vote(4)).await.expect("durable");
    append(&mut opened.log_store, blanks(4, 3180..3200)).await;
    let closed = opened.closed.clone();
    drop((opened, disk));
    closed.wait().await;
    knows(folder).await.expect("it opens as it was left")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The files of a folder that hold something, relative to it.
fn files(folder: &Path, beneath: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder.join(beneath)).expect("listed") {
        let entry = entry.expect("listed");
        let path = beneath.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            files(folder, &path, found);
        } else if path != Path::new("lock") {
            found.push(path);
        }
    }
    found.sort();
}

/// Opens a copy of the folder with one change, and checks what comes of it. Whether it was refused.
async fn refused(folder: &Path, before: &Knows, what: &str, change: impl FnOnce(&Path)) -> bool {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let damaged = scratch.path().join("member");
    copy(folder, &damaged);
    change(&damaged);
    match tokio::time::timeout(PATIENCE, knows(&damaged)).await {
        Err(_) => panic!("{what}: opening hangs"),
        Ok(Ok(after)) => {
            assert!(after == *before, "{what}: it opened, and is not what it was");
            false
        }
        Ok(Err(reason)) => {
            let says_what_next = ["sdm member replace", "newer version of sdm", "restore identity.json"];
            assert!(says_what_next.iter().any(|next| reason.contains(next)), "{what}: {reason}");
            assert!(!reason.contains("panicked"), "{what}: {reason}");
            // A second start must not find it mended.
            let again = tokio::time::timeout(PATIENCE, knows(&damaged)).await.expect("it does not hang");
            assert!(again.is_err(), "{what}: refused ({reason}), and then opened");
            true
        }
    }
}

fn change_file(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("readable");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_anywhere_is_refused_or_does_no_harm() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("member");
    let before = member(&folder).await;
    let mut names = Vec::new();
    files(&folder, Path::new(""), &mut names);
    let places = std::env::var(PLACES_VARIABLE).ok().and_then(|places| places.parse().ok()).unwrap_or(PLACES);
    for name in names {
        let length = std::fs::metadata(folder.join(&name)).expect("there").len();
        let step = (length / places).max(1);
        let mut found = 0;
        let mut tried = 0;
        for place in (0..length).step_by(usize::try_from(step).expect("small")) {
            let what = format!("{} at {place} of {length}", name.display());
            let flip = |damaged: &Path| {
                change_file(&damaged.join(&name), |bytes| bytes[place as usize] ^= 0x11);
            };
            found += u64::from(refused(&folder, &before, &what, flip).await);
            tried += 1;
        }
        println!("{}: {found} of {tried} changed bytes were refused", name.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_cut_short_or_gone_is_refused_or_does_no_harm() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("member");
    let before = member(&folder).await;
    let mut names = Vec::new();
    files(&folder, Path::new(""), &mut names);
    for name in names {
        let length = std::fs::metadata(folder.join(&name)).expect("there").len();
        for tenth in 0..10 {
            let keep = length * tenth / 10;
            let what = format!("{} cut from {length} to {keep}", name.display());
            refused(&folder, &before, &what, |damaged| {
                change_file(&damaged.join(&name), |bytes| bytes.truncate(keep as usize));
            })
            .await;
        }
        // Without its identity a folder is nobody's, which is another error.
        if name != Path::new("identity.json") {
            let what = format!("{} gone", name.display());
            refused(&folder, &before, &what, |damaged| {
                std::fs::remove_file(damaged.join(&name)).expect("removed");
            })
            .await;
        }
    }
}
