//! A cluster is backed up while it works, lost with all its members, restored, held against its
//! storage and released; and of two clusters from one backup only one gets the storage.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use cluster::list;
use cluster::names;
use cluster::text_of;
use host::text;
use host::until;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// Bytes of the disk that must come back as it was.
const IMAGE_BYTES: usize = 3 << 20;

/// Positions of a backup at which a byte is flipped.
const FLIPS: usize = 12;

/// An image that compresses and repeats nowhere.
fn image(cluster: &Cluster) -> PathBuf {
    let path = cluster.path("image.raw");
    let mut bytes = vec![0; IMAGE_BYTES];
    blake3::Hasher::new().update(b"an image").finalize_xof().fill(&mut bytes);
    std::fs::write(&path, bytes).expect("written");
    path
}

/// Makes disks until told to stop.
fn make_disks(sdm: &Sdm, made: &AtomicUsize, stop: &AtomicBool) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        sdm.done(&["disk", "create", &format!("load-{number}"), "--domain", "shelf-1", "--size", "64K"]);
        made.fetch_add(1, Ordering::Relaxed);
    }
}

/// A backup that is taken while disks are made.
fn backup_under_load(cluster: &Cluster, file: &str) -> Value {
    let (made, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sdm = cluster.sdm();
    std::thread::scope(|scope| {
        scope.spawn(|| make_disks(&sdm, &made, &stop));
        let more = |count: usize| {
            until("disks are made", || {
                let now = made.load(Ordering::Relaxed);
                if now >= count { Ok(now) } else { Err(format!("{now} of {count}")) }
            })
        };
        let before = more(2);
        // Any member does it; what was acknowledged before is in it.
        let backup = cluster.sdm_at(&["node-c"]).done(&["backup", "create", file]);
        more(made.load(Ordering::Relaxed) + 2);
        stop.store(true, Ordering::Relaxed);
        let verified = Sdm::default().done(&["backup", "verify", file]);
        assert!(verified["tables"]["disks"].as_u64().unwrap_or_default() >= before as u64 + 2, "{verified}");
        for key in ["cluster_id", "index", "state_hash", "blake3", "bytes"] {
            assert_eq!(verified[key], backup[key], "{key}");
        }
        backup
    })
}

/// Restores into a new member and starts it; answers with its cluster's id.
fn restore(cluster: &mut Cluster, file: &str, name: &str) -> String {
    cluster.add_member(name);
    let (folder, address) = (cluster.path(name), cluster.address_of(name).to_owned());
    let line = ["backup", "restore", file, "--data-dir", text(&folder), "--name", name, "--advertise", &address];
    let restored = Sdm::default().done(&line);
    assert_eq!(restored["suspended"], true);
    Sdm::default().refused(&line).says(4, "FOLDER_NOT_EMPTY", &["not empty"]);
    cluster.start_node(name);
    until("the restored member leads", || {
        let status = cluster.sdm_at(&[name]).run(&["status"]);
        let status = if status.code == 0 { status.result() } else { return Err(status.stderr) };
        if status["has_quorum"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    text_of(&restored, "cluster_id").to_owned()
}

fn await_worker(sdm: &Sdm, name: &str) {
    until(&format!("{name} is live"), || {
        let workers = list(sdm, "worker");
        let live = workers.iter().any(|worker| worker["name"] == name && worker["state"] == "live");
        if live { Ok(()) } else { Err(format!("{workers:?}")) }
    });
}

fn await_reach(sdm: &Sdm, domain: &str, reached: bool) {
    until(&format!("{domain} is reached: {reached}"), || {
        let shown = sdm.done(&["domain", "show", domain]);
        let workers = shown["workers"].as_array().map_or(0, Vec::len);
        if (workers > 0) == reached { Ok(()) } else { Err(shown.to_string()) }
    });
}

#[test]
fn a_cluster_that_lost_all_its_members_is_restored_and_its_disks_are_what_they_were() {
    let mut cluster = Cluster::start(&Shape::usual());
    let folder = cluster.make_domain("shelf-1");
    let (sdm, image) = (cluster.sdm(), image(&cluster));
    sdm.done(&["disk", "import", text(&image), "--name", "web", "--domain", "shelf-1", "--format", "raw"]);
    sdm.done(&["disk", "create", "gone", "--domain", "shelf-1", "--size", "1M"]);
    sdm.done(&["disk", "create", "trash", "--domain", "shelf-1", "--size", "1M"]);
    let file = cluster.path("state.backup");
    let file = text(&file);
    let first = backup_under_load(&cluster, file);
    sdm.refused(&["backup", "create", file]).says(4, "FILE_EXISTS", &["exists already"]);
    let backup = sdm.done(&["backup", "create", file, "--force"]);
    assert!(backup["index"].as_u64() > first["index"].as_u64(), "{backup}");

    // What the backup does not know: a disk that is made, and one that is deleted after it.
    let late = sdm.done(&["disk", "create", "late", "--domain", "shelf-1", "--size", "1M"]);
    let late = PathBuf::from(text_of(&late["disk"], "path"));
    sdm.done(&["disk", "delete", "gone"]);
    sdm.done(&["gc", "run"]);
    cluster.kill_members();
    cluster.kill("host-1");

    let id = restore(&mut cluster, file, "node-r");
    assert_ne!(backup["cluster_id"], id.as_str());
    cluster.readmit("host-1", "node-r", &id);
    cluster.start_node("host-1");
    let sdm = cluster.sdm_at(&["node-r"]);
    await_worker(&sdm, "host-1");
    let status = sdm.done(&["status"]);
    let codes: Vec<_> = status["checks"].as_array().into_iter().flatten().map(|check| text_of(check, "code")).collect();
    assert!(codes.contains(&"SUSPENDED"), "{codes:?}");
    sdm.refused(&["disk", "create", "new", "--domain", "shelf-1", "--size", "1M"]).says(5, "SUSPENDED", &["backup"]);
    sdm.refused(&["gc", "run"]).says(5, "SUSPENDED", &["backup"]);
    sdm.refused(&["backup", "reconcile", "--release"]).says(5, "NOT_RECONCILED", &["1 of 1"]);

    let known = list(&sdm, "disk").len() as u64;
    let seen = sdm.done(&["backup", "reconcile", "--dry-run"])["domains"][0].clone();
    assert_eq!((&seen["state"], &seen["found_cluster_id"]), (&Value::from("read"), &backup["cluster_id"]));
    assert_eq!((seen["known"].as_u64(), seen["missing"].as_u64()), (Some(known - 1), Some(1)), "{seen}");
    assert_eq!(seen["unknown"].as_u64(), Some(1), "{seen}");
    let told: Vec<_> = seen["items"].as_array().into_iter().flatten().map(|item| text_of(item, "kind")).collect();
    assert!(told.contains(&"missing") && told.contains(&"unknown"), "{seen}");
    let reconciled = sdm.done(&["backup", "reconcile"]);
    assert_eq!(
        (&reconciled["domains"][0]["state"], reconciled["illegal_disks"].as_u64()),
        (&"adopted".into(), Some(1))
    );
    // Seen where one looks first, and not in the one disk alone.
    let illegal: Vec<_> = list(&sdm, "disk").into_iter().filter(|disk| disk["legal"] == false).collect();
    assert_eq!(names(&illegal), ["gone"]);
    let table = sdm.run_for_people(&["disk", "list"]).stdout;
    let line = table.lines().find(|line| line.starts_with("gone")).unwrap_or_default();
    assert!(table.contains("STATE") && line.contains("illegal"), "{table}");
    let status = sdm.done(&["status"]);
    let told = status["checks"].as_array().into_iter().flatten().find(|check| check["code"] == "ILLEGAL_VOLUMES");
    let told = told.unwrap_or_else(|| panic!("status does not tell: {status}"));
    assert!(text_of(told, "message").starts_with("1 volumes") && text_of(told, "hint").contains("sdm disk list"));
    assert_eq!(sdm.done(&["backup", "reconcile"])["suspended"], true, "a repetition changes nothing");
    sdm.done(&["backup", "reconcile", "--release"]);

    await_reach(&sdm, "shelf-1", true);
    let exported = cluster.path("exported.raw");
    sdm.done(&["disk", "export", "web", text(&exported)]);
    assert!(std::fs::read(&exported).expect("exported") == std::fs::read(&image).expect("the image"), "other bytes");
    sdm.refused(&["disk", "export", "gone", text(&cluster.path("x.raw"))]).says(5, "DISK_ILLEGAL", &["gone"]);
    sdm.done(&["disk", "create", "new", "--domain", "shelf-1", "--size", "1M"]);
    sdm.done(&["disk", "delete", "gone"]);
    sdm.done(&["disk", "delete", "trash"]);
    sdm.done(&["gc", "run"]);
    assert!(late.is_dir(), "what was made after the backup is never touched");
    assert!(late.starts_with(&folder));
    let left = names(&list(&sdm, "disk"));
    assert!(left.contains(&"web".to_owned()) && !left.contains(&"late".to_owned()), "{left:?}");

    // Others join as they would any cluster.
    cluster.add_joining("node-s", "node-r");
    cluster.start_node("node-s");
    until("two members vote", || {
        let status = cluster.sdm_at(&["node-s"]).run(&["status"]);
        let status = if status.code == 0 { status.result() } else { return Err(status.stderr) };
        let votes = |member: &&Value| member["reachable"] == true && member["role"] != "learner";
        let count = status["members"].as_array().into_iter().flatten().filter(votes).count();
        if count == 2 && status["has_quorum"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    cluster.sdm_at(&["node-s"]).done(&["disk", "create", "newer", "--domain", "shelf-1", "--size", "1M"]);
}

#[test]
fn of_two_clusters_from_one_backup_the_second_does_not_get_the_storage_of_the_first() {
    let hosts: &[(&'static str, &'static [&'static str])] = &[("host-1", &[]), ("host-2", &[])];
    let mut cluster = Cluster::start(&Shape::smallest().hosts(hosts));
    cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    sdm.done(&["disk", "create", "web", "--domain", "shelf-1", "--size", "1M"]);
    let file = cluster.path("state.backup");
    let file = text(&file);
    sdm.done(&["backup", "create", file]);
    cluster.kill_members();
    cluster.kill("host-1");
    cluster.kill("host-2");

    let first = restore(&mut cluster, file, "node-r");
    cluster.readmit("host-1", "node-r", &first);
    cluster.start_node("host-1");
    let second = restore(&mut cluster, file, "node-s");
    cluster.readmit("host-2", "node-s", &second);
    cluster.start_node("host-2");
    assert_ne!(first, second);
    let (one, two) = (cluster.sdm_at(&["node-r"]), cluster.sdm_at(&["node-s"]));
    await_worker(&one, "host-1");
    await_worker(&two, "host-2");

    one.done(&["backup", "reconcile"]);
    one.done(&["backup", "reconcile", "--release"]);
    let refused = two.refused(&["backup", "reconcile"]);
    refused.says(5, "OTHER_CLUSTERS_DOMAIN", &["1 of 1"]);
    assert!(refused.hint().contains(&format!("--take-from {first}")), "{}", refused.hint());
    assert!(refused.blockers()[0].contains(&first), "{:?}", refused.blockers());
    two.refused(&["backup", "reconcile", "--release"]).says(5, "NOT_RECONCILED", &["1 of 1"]);
    await_reach(&one, "shelf-1", true);
    one.done(&["disk", "create", "mine", "--domain", "shelf-1", "--size", "1M"]);

    // The operator says that the first is gone for good: then the second takes it, in a higher epoch,
    // and the first, which lives all the same, is shut out.
    let taken = two.done(&["backup", "reconcile", "--take-from", &first]);
    assert_eq!((taken["epoch"].as_u64(), &taken["domains"][0]["state"]), (Some(3), &"adopted".into()));
    assert_eq!(taken["domains"][0]["unknown"].as_u64(), Some(1), "{taken}");
    two.done(&["backup", "reconcile", "--release"]);
    await_worker(&two, "host-2");
    await_reach(&two, "shelf-1", true);
    two.done(&["disk", "create", "mine", "--domain", "shelf-1", "--size", "1M"]);
    await_reach(&one, "shelf-1", false);
}

#[test]
fn a_cluster_can_be_released_without_a_domain_that_is_out_of_reach() {
    let mut cluster = Cluster::start(&Shape::smallest());
    cluster.make_domain("shelf-1");
    let lost = cluster.make_domain("shelf-2");
    let sdm = cluster.sdm();
    let file = cluster.path("state.backup");
    let file = text(&file);
    sdm.done(&["backup", "create", file]);
    sdm.refused(&["backup", "reconcile"]).says(5, "NOT_RESTORED", &["nothing to reconcile"]);
    cluster.kill_members();
    cluster.kill("host-1");
    let away = lost.with_extension("away");
    std::fs::rename(&lost, &away).expect("renamed");

    let id = restore(&mut cluster, file, "node-r");
    cluster.readmit("host-1", "node-r", &id);
    cluster.start_node("host-1");
    let sdm = cluster.sdm_at(&["node-r"]);
    await_worker(&sdm, "host-1");
    sdm.refused(&["backup", "reconcile"]).says(5, "DOMAIN_MISSING", &["1 of 2"]);
    // What could be read is told, and the code says that it is not all.
    let seen = sdm.run(&["backup", "reconcile", "--dry-run"]);
    let told: Value = serde_json::from_str(&seen.stdout).expect("a report");
    assert_eq!((seen.code, told["domains"].as_array().map(Vec::len)), (5, Some(2)), "{seen:?}");
    assert!(seen.stderr.contains("1 of 2 domains could not be read"), "{seen:?}");
    let refused = sdm.refused(&["backup", "reconcile", "--release"]);
    assert!(refused.blockers()[0].contains("shelf-2"), "{:?}", refused.blockers());
    sdm.done(&["backup", "reconcile", "--release", "--without", "shelf-2"]);
    await_reach(&sdm, "shelf-1", true);
    sdm.done(&["disk", "create", "web", "--domain", "shelf-1", "--size", "1M"]);

    // It is back: the same command takes it.
    std::fs::rename(&away, &lost).expect("renamed");
    sdm.done(&["backup", "reconcile"]);
    await_reach(&sdm, "shelf-2", true);
    sdm.done(&["disk", "create", "db", "--domain", "shelf-2", "--size", "1M"]);
}

#[test]
fn files_that_are_no_whole_backup_are_refused_by_kind() {
    let cluster = Cluster::start(&Shape::smallest());
    let file = cluster.path("state.backup");
    cluster.sdm().done(&["backup", "create", text(&file)]);
    let (nobody, spoilt) = (Sdm::default(), cluster.path("spoilt"));
    let whole = std::fs::read(&file).expect("the backup");
    let verify = |bytes: &[u8]| {
        std::fs::write(&spoilt, bytes).expect("written");
        nobody.refused(&["backup", "verify", text(&spoilt)])
    };
    for flip in 1..=FLIPS {
        let at = whole.len() * flip / (FLIPS + 1);
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        verify(&bytes).says(8, "BACKUP_DAMAGED", &["damaged"]);
    }
    verify(&whole[..whole.len() - 1]).says(8, "BACKUP_DAMAGED", &["cut off"]);
    verify(b"PK a zip archive, as it happens").says(2, "NOT_A_BACKUP", &["not a backup"]);
    nobody.refused(&["backup", "verify", "no-such-file"]).says(3, "FILE_NOT_FOUND", &["no-such-file"]);
    // None of them makes a member.
    let folder = cluster.path("never");
    let line = ["--data-dir", text(&folder), "--name", "x", "--advertise", "127.0.0.1:7"];
    let restore = [&["backup", "restore", text(&spoilt)], line.as_slice()].concat();
    nobody.refused(&restore).says(2, "NOT_A_BACKUP", &["not a backup"]);
    assert!(!folder.exists());
}
