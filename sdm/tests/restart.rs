//! Members and workers that die and come back on their folders, with the very arguments of the first
//! time.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use cluster::list;
use cluster::names;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Disks that are acknowledged before everything dies.
const ACKNOWLEDGED: usize = 12;

/// Operators that make disks at the same time.
const OPERATORS: usize = 4;

/// Makes disks until told to stop; notes the name of each that was acknowledged.
fn make_disks(sdm: &Sdm, operator: usize, acknowledged: &Mutex<BTreeSet<String>>, stop: &AtomicBool) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("disk-{operator}-{number}");
        let made = sdm.run(&["disk", "create", &name, "--domain", "shelf-1", "--size", "64K", "--timeout", "20s"]);
        if made.code == 0 {
            acknowledged.lock().expect("nobody panics").insert(name);
        } else {
            assert!(!made.stderr.contains("panicked"), "{}", made.stderr);
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_after_all_members_died_at_once() {
    let mut cluster = Cluster::start(&Shape::usual());
    let folder = cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    let (acknowledged, stop) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    for round in 0..2 {
        stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for operator in 0..OPERATORS {
                let (sdm, acknowledged, stop) = (sdm.clone(), &acknowledged, &stop);
                scope.spawn(move || make_disks(&sdm, round * OPERATORS + operator, acknowledged, stop));
            }
            let enough = (round + 1) * ACKNOWLEDGED;
            host::until("enough disks are acknowledged", || {
                let count = acknowledged.lock().expect("nobody panics").len();
                if count >= enough { Ok(()) } else { Err(format!("{count} of {enough}")) }
            });
            cluster.kill_members();
            stop.store(true, Ordering::Relaxed);
        });
        for name in cluster.member_names() {
            cluster.start_node(&name);
        }
        cluster.await_members(3);
        let there: BTreeSet<String> = names(&list(&sdm, "disk")).into_iter().collect();
        let lost: Vec<_> = acknowledged.lock().expect("nobody panics").difference(&there).cloned().collect();
        assert!(lost.is_empty(), "acknowledged and lost in round {round}: {lost:?}");
        for disk in list(&sdm, "disk") {
            let path = cluster::text_of(&disk, "path").to_owned();
            assert!(std::path::Path::new(&path).starts_with(&folder) && std::path::Path::new(&path).is_dir(), "{disk}");
        }
        cluster.await_worker("host-1");
        sdm.done(&["disk", "create", &format!("after-{round}"), "--domain", "shelf-1", "--size", "64K"]);
    }
}

#[test]
fn a_member_and_a_worker_come_back_on_their_folders() {
    let mut cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    sdm.done(&["disk", "create", "before", "--domain", "shelf-1", "--size", "1M"]);
    let before = sdm.done(&["status"]);
    for name in cluster.member_names() {
        cluster.kill(&name);
        cluster.leader_other_than(&name);
        cluster.start_node(&name);
        cluster.await_members(3);
    }
    let identity = list(&sdm, "worker")[0]["id"].clone();
    cluster.kill("host-1");
    cluster.start_node("host-1");
    host::until("the worker has a new session", || {
        let worker = list(&sdm, "worker")[0].clone();
        let again = cluster.said("host-1").matches("listening").count() == 2;
        if again && worker["state"] == "live" { Ok(()) } else { Err(worker.to_string()) }
    });
    assert_eq!(list(&sdm, "worker")[0]["id"], identity, "the worker has another identity");
    cluster.await_reach("shelf-1", &["host-1"]);
    let after = sdm.done(&["status"]);
    assert_eq!((&before["cluster_id"], &before["pool_id"]), (&after["cluster_id"], &after["pool_id"]));
    let ids = |status: &serde_json::Value| -> BTreeSet<u64> {
        status["members"].as_array().into_iter().flatten().filter_map(|member| member["id"].as_u64()).collect()
    };
    assert_eq!(ids(&before), ids(&after), "members have other ids");
    sdm.done(&["disk", "create", "after", "--domain", "shelf-1", "--size", "1M"]);
    assert_eq!(names(&list(&sdm, "disk")).len(), 2);
}
