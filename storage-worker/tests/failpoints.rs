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
use sdm_storage_worker::domain::VolumeMetadata;
use sdm_storage_worker::work::DetachDomain;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::ProjectPlacement;
use sdm_storage_worker::work::ResizeVolume;
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

/// Runs an order on a thread of its own, as the child that is paused in the middle of it.
fn on_a_thread(order: Order) -> std::thread::JoinHandle<Outcome> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(run(order, Ports::silent()))
    })
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < patience, "it never came to pass that {what}");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_growth_that_is_paused_after_its_look_cuts_nothing_that_came_meanwhile() {
    let _turn = TURN.lock().await;
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    placed(run(fixture::create_disk(&domain, 1, VolumeFormat::Raw, MIB), Ports::silent()).await);
    let resize = ResizeVolume {
        domain: domain.clone(),
        placement: uuid::Uuid::from_u128(0xF000_0001),
        token: "1-1-0".to_owned(),
        volume: fixture::VOLUME,
        format: VolumeFormat::Raw,
        parent: None,
        preallocated: false,
        virtual_bytes: 20 * MIB,
        attempt: "1-2-0".to_owned(),
    };
    assert!(failpoint::arm("storage.fallocate=pause"));
    let late = on_a_thread(Order::ResizeVolume(resize));
    until("it looked at the file and is about to grow it", || failpoint::is_paused("storage.fallocate"));
    // Another host, on which this one's locks are not seen, makes it larger, and a guest writes to its end.
    let path = placement_path(&domain, 1).join(fixture::VOLUME.to_string());
    let file = std::fs::File::options().write(true).open(&path).expect("the file");
    file.set_len(40 * MIB).expect("grown");
    std::os::unix::fs::FileExt::write_all_at(&file, b"the end", 40 * MIB - 7).expect("written");
    failpoint::disarm("storage.fallocate");
    assert!(matches!(late.join().expect("it ends"), Outcome::Done(_)));
    let bytes = std::fs::read(&path).expect("read");
    assert_eq!((bytes.len() as u64, &bytes[bytes.len() - 7..]), (40 * MIB, &b"the end"[..]));
}

/// A projection of the first placement by this attempt.
fn projection(domain: &DomainRoot, attempt: &str, name: &str) -> Order {
    let Order::CreateDisk(order) = create(domain) else { unreachable!() };
    Order::ProjectPlacement(ProjectPlacement {
        domain: domain.clone(),
        placement: order.placement.placement,
        token: order.placement.token,
        disk_name: name.to_owned(),
        disk_description: String::new(),
        volumes: order.placement.volumes,
        attempt: attempt.to_owned(),
    })
}

fn written_name(domain: &DomainRoot) -> String {
    let path = placement_path(domain, 1).join(format!("{}.meta", fixture::VOLUME));
    VolumeMetadata::decode(&std::fs::read_to_string(path).expect("a .meta")).expect("it reads").disk_name
}

#[tokio::test]
async fn a_late_projection_renames_only_what_it_wrote_itself_and_the_next_one_mends_it() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    placed(run(create(&domain), Ports::silent()).await);
    // Given up before it wrote anything: it writes under its own name, and its rename comes last.
    assert!(failpoint::arm("storage.write=pause"));
    let late = on_a_thread(projection(&domain, "1-5-0", "older"));
    until("it is about to write", || failpoint::is_paused("storage.write"));
    done(run(projection(&domain, "1-6-0", "newer"), Ports::silent()).await);
    assert_eq!(written_name(&domain), "newer");
    failpoint::disarm("storage.write");
    // What it had made aside was taken away: it finds nothing to rename, or brings back its own words, whole.
    let outcome = late.join().expect("it ends");
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    assert_eq!(written_name(&domain), "newer");
    // Given up at its rename: nothing can stop that, so the projection that comes after it is the one that counts.
    assert!(failpoint::arm("storage.rename=pause"));
    let late = on_a_thread(projection(&domain, "1-7-0", "older"));
    until("it is about to rename", || failpoint::is_paused("storage.rename"));
    failpoint::disarm("storage.rename");
    done(late.join().expect("it ends"));
    assert_eq!(written_name(&domain), "older");
    done(run(projection(&domain, "1-8-0", "newer"), Ports::silent()).await);
    assert_eq!(written_name(&domain), "newer");
    let left: Vec<_> = std::fs::read_dir(placement_path(&domain, 1))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".new"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_late_projection_does_not_write_into_a_domain_that_was_given_up_meanwhile() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path()).await;
    placed(run(create(&domain), Ports::silent()).await);
    let before = written_name(&domain);
    // The first file's sync is the last call before it asks once more whose the domain is.
    assert!(failpoint::arm("storage.fsync=pause"));
    let late = on_a_thread(projection(&domain, "1-5-0", "older"));
    until("it has written its file aside", || failpoint::is_paused("storage.fsync"));
    let detach = DetachDomain { domain: domain.clone(), catalog: String::new(), attempt: "1-6-0".to_owned() };
    done(run(Order::DetachDomain(detach), Ports::silent()).await);
    failpoint::disarm("storage.fsync");
    assert_eq!(fixture::refusal(late.join().expect("it ends")).code.as_str(), "DOMAIN_RELEASED");
    assert_eq!(written_name(&domain), before);
}
