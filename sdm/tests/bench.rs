//! `sdm bench`: what it reports, and that it leaves nothing behind, however it ends.

mod cluster;
mod host;

use cluster::Sdm;
use cluster::Shared;
use cluster::list;
use cluster::text_of;
use host::until;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Sessions are counted: one load at a time.
static ONE: Mutex<()> = Mutex::new(());

fn sessions(sdm: &Sdm) -> u64 {
    sdm.done(&["status"])["counts"]["sessions"].as_u64().expect("a number")
}

fn check(report: &Value, clients: u64) {
    let number = |field: &str| report[field].as_f64().unwrap_or_else(|| panic!("no {field} in {report}"));
    assert_eq!((report["clients"].as_u64(), report["errors"].as_u64()), (Some(clients), Some(0)), "{report}");
    assert!(number("ops") > 0.0 && number("ops_per_sec") > 0.0 && number("seconds") > 0.0, "{report}");
    assert!(number("p50_us") > 0.0 && number("p50_us") <= number("p99_us"), "{report}");
    assert!(number("p99_us") <= number("max_us"), "{report}");
}

#[test]
fn loads_report_their_figures_and_leave_nothing_behind() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let before = sessions(&sdm);
    check(&sdm.done(&["bench", "locks", "--clients", "5", "--seconds", "1"]), 5);
    check(&sdm.done(&["bench", "txns", "--clients", "2", "--seconds", "1"]), 2);
    assert_eq!(sessions(&sdm), before);
    assert!(list(&sdm, "lock").is_empty());
}

#[test]
fn disks_of_a_load_are_counted_and_gone_afterwards_with_their_garbage() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let domains = ["bench-1", "bench-2"].map(|name| {
        let folder = cluster.make_domain(name);
        cluster.await_reach(name, &["host-1"]);
        folder
    });
    sdm.done(&["domain", "set", "bench-1", "--retention", "1d"]);
    let keeper = sdm.done(&["disk", "create", "keeper", "--domain", "bench-1", "--size", "1GiB"]);
    sdm.done(&["disk", "delete", "keeper"]);
    let trash = list(&sdm, "gc").len();
    let arguments = ["bench", "disks", "--clients", "4", "--seconds", "1", "--domain", "bench-1,bench-2"];
    let report = sdm.done(&arguments);
    check(&report, 4);
    assert!(report["deleted"].as_u64() >= report["ops"].as_u64(), "{report}");
    assert_eq!((report["disks_left"].as_u64(), report["garbage_left"].as_u64()), (Some(0), Some(0)), "{report}");
    assert!(list(&sdm, "disk").iter().all(|disk| !disk["name"].as_str().unwrap_or_default().starts_with("bench-")));
    assert_eq!(list(&sdm, "gc").len(), trash, "what others deleted stays in the trash");
    let left = |folder: &std::path::Path| std::fs::read_dir(folder.join("images")).expect("images").count();
    assert_eq!(domains.iter().map(|folder| left(folder)).sum::<usize>(), 1, "{keeper}");
}

#[test]
fn a_load_that_is_interrupted_tells_what_it_measured_and_closes_its_sessions() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let before = sessions(&sdm);
    let load = sdm.start(&["bench", "locks", "--clients", "3", "--seconds", "3600"]);
    // A client that holds its second lock has done with its first.
    let mut seen = BTreeSet::new();
    until("one of the clients is at its second lock", || {
        seen.extend(list(&sdm, "lock").iter().map(|lock| text_of(lock, "id").to_owned()));
        if seen.len() > 3 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    host::send(load.pid(), Signal::INT);
    let ended = load.finish();
    assert_eq!(ended.code, 130, "{ended:?}");
    check(&serde_json::from_str(&ended.stdout).expect("figures"), 3);
    assert_eq!(sessions(&sdm), before);
}

#[test]
fn a_load_whose_time_is_cut_tells_what_it_measured() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let before = sessions(&sdm);
    for kind in ["locks", "txns"] {
        let ended = sdm.run(&["--timeout", "3s", "bench", kind, "--clients", "2", "--seconds", "3600"]);
        assert_eq!(ended.code, 9, "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).expect("figures");
        // Each client was in the middle of one, at most.
        assert!(report["ops"].as_u64() > Some(0) && report["errors"].as_u64() <= Some(2), "{report}");
    }
    assert_eq!(sessions(&sdm), before);
}

#[test]
fn impossible_loads_are_refused_as_usage() {
    let sdm = Sdm::default();
    for arguments in [["--clients", "0"], ["--clients", "5000"], ["--seconds", "0"], ["--seconds", "x"]] {
        let ended = sdm.run(&[&["bench", "locks"], &arguments[..]].concat());
        assert_eq!(ended.code, 2, "{ended:?}");
    }
}
