//! File systems that are really full: small ones, mounted for the test. The log stops its member with
//! words, a snapshot waits, and what was acknowledged is there once there is room again. Needs root.

mod common;

use common::blank;
use common::identity;
use common::indexes;
use common::large;
use common::open;
use openraft::storage::RaftLogStorageExt;
use openraft::storage::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use sdm_raft_store::Identity;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::Opened;
use sdm_raft_store::seed_folder;
use sdm_state::command::AddMember;
use sdm_state::command::Found;
use sdm_state::fill::Fill;
use sdm_state::settings::Settings;
use std::io::ErrorKind;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

const MIB: usize = 1 << 20;

/// Size of the file systems. The smallest that mkfs.ext4 gives a journal is not far below.
const SYSTEM_MIB: usize = 32;

/// A file system of its own, gone with this.
struct Mounted {
    _parent: tempfile::TempDir,
    folder: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> bool {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            println!("{program}: {error}");
            false
        }
    }
}

impl Mounted {
    fn tmpfs() -> Option<Mounted> {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("mounted");
        std::fs::create_dir(&folder).expect("made");
        let size = format!("size={SYSTEM_MIB}m");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &size, "sdm-test", folder.to_str().expect("text")]);
        mounted.then_some(Mounted { _parent: parent, folder })
    }

    fn ext4() -> Option<Mounted> {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let (folder, image) = (parent.path().join("mounted"), parent.path().join("image"));
        std::fs::create_dir(&folder).expect("made");
        let file = std::fs::File::create(&image).expect("made");
        file.set_len((SYSTEM_MIB * MIB) as u64).expect("sized");
        let (image, shown) = (image.to_str().expect("text"), folder.to_str().expect("text"));
        let made = run("mkfs.ext4", &["-q", "-m", "0", image]) && run("mount", &["-o", "loop", image, shown]);
        made.then_some(Mounted { _parent: parent, folder })
    }

    /// Both kinds, as far as this machine lets the test have them.
    fn all() -> Vec<(&'static str, Mounted)> {
        let kinds = [("tmpfs", Mounted::tmpfs()), ("ext4", Mounted::ext4())];
        kinds
            .into_iter()
            .filter_map(|(name, mounted)| {
                if mounted.is_none() {
                    println!("SKIPPED: cannot mount a {name} for the test (it needs root)");
                }
                Some((name, mounted?))
            })
            .collect()
    }

    fn member(&self) -> PathBuf {
        self.folder.join("member")
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Takes all space but about `left` bytes.
    fn fill_up(&self, left: usize) {
        let mut file = std::fs::File::create(self.ballast()).expect("made");
        let piece = vec![1; 16 << 10];
        let full = loop {
            if let Err(error) = file.write_all(&piece).and_then(|()| file.sync_data()) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        let length = file.metadata().expect("there").len();
        file.set_len(length.saturating_sub(left as u64)).expect("cut");
        file.sync_all().expect("synced");
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("removed");
        run("sync", &["-f", self.folder.to_str().expect("text")]);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l", self.folder.to_str().unwrap_or_default()]);
    }
}

async fn disk(folder: &Path) -> MemberDisk {
    MemberDisk::open(folder).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn close(opened: Opened) {
    let closed = opened.closed.clone();
    drop(opened);
    tokio::time::timeout(PATIENCE, closed.wait()).await.expect("the folder is let go");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_system_stops_the_log_in_words_and_loses_nothing() {
    for (kind, mounted) in Mounted::all() {
        let mut opened = open(&disk(&mounted.member()).await, 1).await.expect("opens");
        mounted.fill_up(2 * MIB);
        let mut durable = 0;
        while opened.log_store.blocking_append(vec![large(1, durable, 20_000)]).await.is_ok() {
            durable += 1;
            assert!(durable < 10_000, "{kind}: it never was full");
        }
        assert!(durable > 10, "{kind}: {durable}");
        let fatal = opened.fatal.wait().await;
        assert_eq!(fatal.kind(), ErrorKind::StorageFull, "{kind}: {fatal}");
        assert!(fatal.to_string().contains("free space on the file system"), "{kind}: {fatal}");
        close(opened).await;

        mounted.make_room();
        let mut opened = open(&disk(&mounted.member()).await, 1).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
        let found = indexes(&mut opened.log_store).await;
        assert!(found.len() as u64 >= durable, "{kind}: {} of {durable} are left", found.len());
        let next = found.len() as u64;
        opened.log_store.blocking_append(vec![blank(1, next)]).await.expect("it goes on");
        close(opened).await;
    }
}

/// A member's folder with a state whose snapshot has more than a megabyte.
async fn member_with_a_large_state(folder: &Path) -> Opened {
    let identity = Identity { epoch: 1, ..identity(1) };
    let member = AddMember {
        name: "m1".parse().expect("a name"),
        address: "m1:7400".to_owned(),
        incarnation: "one".to_owned(),
        version: "test".to_owned(),
        feature_level_max: sdm_state::members::FEATURE_LEVEL_MAX,
    };
    let found = Found {
        cluster_id: identity.cluster_id,
        pool_id: identity.pool_id,
        epoch: 1,
        member,
        settings: Settings::default(),
    };
    let fill = Fill { volumes: 6000, disks: 2000, domains: 1, waiting: 0 };
    let state = fill.state(found).expect("it can be");
    let disk = disk(folder).await;
    let seeded = seed_folder(&disk, &identity, "m1:7400", state).await.expect("seeded");
    assert!(seeded.snapshot_bytes > MIB as u64, "{} bytes", seeded.snapshot_bytes);
    sdm_raft_store::open(&disk).await.expect("opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_without_room_waits_for_it_while_the_log_goes_on() {
    for (kind, mounted) in Mounted::all() {
        let mut opened = member_with_a_large_state(&mounted.member()).await;
        let first = opened.view.load().applied.expect("seeded");
        mounted.fill_up(700 << 10);
        let next = common::tick(2, first.index + 1);
        opened.log_store.blocking_append(vec![next.clone()]).await.expect("durable");
        common::apply(&mut opened.state_machine, vec![next]).await;
        let mut builder = opened.state_machine.get_snapshot_builder().await;
        let mut built = tokio::spawn(async move { builder.build_snapshot().await });
        let early = tokio::time::timeout(Duration::from_secs(1), &mut built).await;
        assert!(early.is_err() && opened.fatal.get().is_none(), "{kind}: it must wait for room");
        opened.log_store.blocking_append(vec![blank(2, first.index + 2)]).await.expect("the log goes on");

        mounted.make_room();
        let snapshot = tokio::time::timeout(PATIENCE, built).await.expect("in time").expect("no panic");
        assert_eq!(snapshot.expect("built").meta.last_log_id.map(|id| id.index), Some(first.index + 1), "{kind}");
        let state = opened.view.load().state.hash();
        close(opened).await;
        let opened = sdm_raft_store::open(&disk(&mounted.member()).await).await.expect("opens again");
        assert_eq!(opened.view.load().state.hash(), state, "{kind}");
        close(opened).await;
    }
}
