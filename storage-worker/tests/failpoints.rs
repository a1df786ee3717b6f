//! Storage that fails, and processes that die, at chosen calls: what is left is never half a placement.
//! Built only with the feature `failpoints`.

#![cfg(feature = "failpoints")]

mod fixture;

use fixture::create_domain;
use fixture::delete_order;
use fixture::done;
use fixture::images;
use fixture::placed;
use fixture::placement_path;
use fixture::root;
use sdm_proto::failpoint;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::run;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use tokio::sync::Mutex;

/// Plans are the process's, so tests that make some take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// Where the process under test finds its domain.
const DOMAIN: &str = "SDM_TEST_DOMAIN";

const SIGABRT: i32 = 6;

async fn new_domain(path: &Path) -> DomainRoot {
    let domain = root(path, 1);
    done(run(Order::CreateDomain(create_domain(domain.clone())), Ports::silent()).await);
    domain
}

fn create(domain: &DomainRoot) -> Order {
    fixture::create_disk(domain, 1, VolumeFormat::Qcow2, 1 << 20)
}

fn names(domain: &DomainRoot) -> Vec<String> {
    let entries = std::fs::read_dir(images(domain)).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn a_call_that_fails_ends_the_attempt_as_failed_and_publishes_nothing() {
    let _turn = TURN.lock().await;
    for (point, action) in [
        ("storage.fsync", "eio"),
        ("storage.fsync", "eio@3"),
        ("storage.write", "eio"),
        ("storage.truncate", "eio"),
        ("storage.rename", "eio"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let domain = new_domain(folder.path()).await;
        assert!(failpoint::arm(&format!("{point}={action}")), "{point}={action}");
        let outcome = run(create(&domain), Ports::silent()).await;
        failpoint::disarm(point);
        assert!(matches!(outcome, Outcome::Failed(_)), "{point}={action}: {outcome:?}");
        assert!(!placement_path(&domain, 1).exists(), "{point}={action}");
        assert!(names(&domain).iter().all(|name| name.starts_with(".sdm-")), "{point}={action}");
        // The same attempt, begun again, does not believe what the failed one left.
        placed(run(create(&domain), Ports::silent()).await);
    }
}

#[tokio::test]
async fn a_full_file_system_is_refused_and_leaves_nothing() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    assert!(failpoint::arm("storage.write=enospc"));
    let outcome = run(create(&domain), Ports::silent()).await;
    failpoint::disarm("storage.write");
    assert_eq!(fixture::refusal(outcome).code.as_str(), "NO_SPACE");
    assert!(names(&domain).is_empty());
}

/// What the process does until its failpoint ends it.
#[tokio::test]
async fn child_creates_a_disk_until_its_failpoint() {
    let Some(path) = std::env::var_os(DOMAIN) else { return };
    let outcome = run(create(&root(Path::new(&path), 1)), Ports::silent()).await;
    panic!("the failpoint did not end it: {outcome:?}");
}

#[tokio::test]
async fn a_process_that_dies_leaves_a_dot_folder_which_a_deletion_removes() {
    let _turn = TURN.lock().await;
    // The folder's own sync is the last call before the rename.
    for plan in ["storage.rename=abort", "storage.fsync=abort", "storage.write=abort", "storage.chmod=abort"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let domain = new_domain(folder.path()).await;
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child_creates_a_disk_until_its_failpoint", "--nocapture"])
            .env("SDM_FAILPOINTS", plan)
            .env(DOMAIN, folder.path())
            .output()
            .expect("it starts");
        assert_eq!(child.status.signal(), Some(SIGABRT), "{plan}: {child:?}");
        assert_eq!(names(&domain), [".sdm-1-1-0"], "{plan}");
        done(run(Order::DeletePlacement(delete_order(&domain, 1)), Ports::silent()).await);
        assert!(names(&domain).is_empty(), "{plan}");
    }
}

#[tokio::test]
async fn a_process_that_dies_after_its_rename_leaves_a_whole_placement() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    // The sync of the folder above is the one call after the rename: count the calls of a whole run.
    let mut ended_after_rename = false;
    for call in 1..100 {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child_creates_a_disk_until_its_failpoint", "--nocapture"])
            .env("SDM_FAILPOINTS", format!("storage.fsync=abort@{call}"))
            .env(DOMAIN, folder.path())
            .output()
            .expect("it starts");
        if child.status.signal() != Some(SIGABRT) {
            break;
        }
        ended_after_rename = placement_path(&domain, 1).exists();
        if ended_after_rename {
            break;
        }
    }
    assert!(ended_after_rename, "no sync follows the rename");
    // The same attempt finds its work done.
    assert_eq!(placed(run(create(&domain), Ports::silent()).await).volumes.len(), 1);
    assert_eq!(names(&domain).len(), 1);
}
