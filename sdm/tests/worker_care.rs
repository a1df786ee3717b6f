//! Workers that operators drain, remove or confirm down, with real processes: what a lost worker may
//! still write in place waits for proof, and a worker that wakes from a false one cuts nothing.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use cluster::list;
use cluster::nothing_is_open;
use cluster::request_id;
use cluster::story;
use cluster::text_of;
use host::Stopped;
use host::children_of;
use host::until;
use std::path::Path;

fn create<'a>(disk: &'a str, domain: &'a str) -> [&'a str; 9] {
    ["disk", "create", disk, "--domain", domain, "--size", "16MiB", "--format", "raw"]
}

fn session_of(sdm: &Sdm, worker: &str) -> String {
    text_of(&sdm.done(&["worker", "show", worker]), "session_id").to_owned()
}

#[test]
fn a_drained_worker_gets_nothing_new_until_it_is_undrained() {
    let cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    let drained = sdm.done(&["worker", "drain", "host-1", "--reason", "new memory"]);
    assert_eq!(text_of(&drained["worker"], "state"), "draining");
    sdm.refused(&create("a", "shelf-1")).says(5, "DOMAIN_UNREACHABLE", &["shelf-1"]);
    let checks = sdm.done(&["status"])["checks"].to_string();
    assert!(checks.contains("WORKER_DRAINING") && checks.contains("sdm worker undrain host-1"), "{checks}");
    sdm.refused(&["worker", "drain", "nobody"]).says(3, "WORKER_NOT_FOUND", &["nobody"]);
    sdm.done(&["worker", "undrain", "host-1"]);
    sdm.done(&create("a", "shelf-1"));
}

#[test]
fn a_worker_is_removed_when_nothing_names_it_and_not_before() {
    let mut cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    cluster.add_worker("host-2", &[]);
    cluster.start_node("host-2");
    cluster.await_reach("shelf-1", &["host-1", "host-2"]);
    let sdm = cluster.sdm();
    sdm.done(&create("a", "shelf-1"));
    sdm.refused(&["worker", "remove", "host-2", "--yes"]).says(5, "WORKER_LIVE", &["host-2"]);
    sdm.done(&["disk", "attach", "a", "--host", "host-2"]);
    cluster.kill("host-2");
    cluster.await_worker_state("host-2", "lost");
    let refused = sdm.refused(&["worker", "remove", "host-2", "--yes"]);
    refused.says(5, "WORKER_IN_USE", &["nothing was changed"]);
    assert!(
        refused.blockers().iter().any(|at| at.contains("sdm disk detach a --host host-2")),
        "{:?}",
        refused.blockers()
    );
    sdm.refused(&["worker", "remove", "host-2"]).says(2, "CONFIRMATION_NEEDED", &["host-2"]);
    // Nothing proves that a guest there does not write any more.
    let detach = ["disk", "detach", "a", "--host", "host-2"];
    sdm.refused(&detach).says(5, "FENCE_REQUIRED", &["host-2", "nothing proves"]);
    sdm.done(&[&detach[..], &["--stopped", "--reason", "the host was taken away"]].concat());
    sdm.done(&["worker", "remove", "host-2", "--yes"]);
    sdm.refused(&["worker", "show", "host-2"]).says(3, "WORKER_NOT_FOUND", &["host-2"]);
    assert_eq!(list(&sdm, "worker").len(), 1);
}

/// Story 2: a worker is paused before it grows a disk, falsely confirmed down, a later and larger growth is done
/// elsewhere, and the worker wakes.
#[test]
fn a_worker_that_wakes_from_a_false_confirmation_cuts_nothing() {
    let mut cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    sdm.done(&create("a", "shelf-1"));
    let shown = sdm.done(&["disk", "show", "a"]);
    let file = Path::new(text_of(&shown["volumes"][0], "path")).to_owned();
    let length = || std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
    let session = session_of(&sdm, "host-1");
    let reason = ["--reason", "it does not answer"];
    let confirm = ["worker", "confirm-down", "host-1", "--session", &session];
    sdm.refused(&[&confirm[..], &reason[..]].concat()).says(5, "WORKER_LIVE", &["host-1"]);
    // The whole worker stands still before it hears of the growth, which is assigned to it all the same.
    let host = cluster.pid("host-1");
    let worker = Stopped::new([vec![host], children_of(host)].concat());
    let id = request_id(&sdm);
    let growing = sdm.start(&["disk", "resize", "a", "20MiB", "--request-id", &id]);
    until("the growth is assigned", || {
        let txn = sdm.run(&["txn", "show", &id]);
        if txn.stdout.contains("host-1") { Ok(()) } else { Err(txn.stdout + &txn.stderr) }
    });
    cluster.await_worker_state("host-1", "lost");
    assert_eq!(text_of(&story(&sdm, &id).0, "phase"), "fencing");
    let checks = sdm.done(&["status"])["checks"].to_string();
    assert!(checks.contains("TXN_FENCING") && checks.contains("sdm worker confirm-down host-1"), "{checks}");
    // What an abort would do, and does: nothing before the proof.
    let would = sdm.done(&["txn", "abort", &id, "--dry-run"])["would"].to_string();
    assert!(would.contains("not be aborted at once") && would.contains("confirm-down host-1"), "{would}");
    let recorded = sdm.refused(&["txn", "abort", &id, "--reason", "no more"]);
    recorded.says(5, "ABORT_RECORDED", &[&id, "no more"]);
    assert!(recorded.hint().contains("sdm worker confirm-down host-1"), "{recorded:?}");
    assert_eq!(text_of(&story(&sdm, &id).0, "phase"), "fencing", "an abort releases nothing");
    let refused = sdm.refused(&["disk", "delete", "a", "--no-wait-lock"]);
    refused.says(5, "LOCKED", &["resize"]);
    sdm.refused(&confirm).says(2, "REASON_NEEDED", &["reason"]);
    let old = ["worker", "confirm-down", "host-1", "--session", "1", "--reason", "x"];
    sdm.refused(&old).says(5, "WRONG_SESSION", &["host-1"]);

    sdm.done(&[&confirm[..], &reason[..]].concat());
    let aborted = growing.finish();
    assert_eq!(aborted.code, 8, "{}{}", aborted.stdout, aborted.stderr);
    cluster.add_worker("host-2", &[]);
    cluster.start_node("host-2");
    cluster.await_reach("shelf-1", &["host-2"]);
    sdm.done(&["disk", "resize", "a", "40MiB"]);
    assert_eq!(length(), 40 << 20);

    worker.go_on();
    cluster.await_worker_state("host-1", "live");
    cluster.await_reach("shelf-1", &["host-1", "host-2"]);
    // A step goes through the woken worker, so all that it had in hand is behind it.
    sdm.done(&["worker", "drain", "host-2"]);
    sdm.done(&create("b", "shelf-1"));
    assert_eq!(length(), 40 << 20, "the woken worker cut the disk");
    assert_eq!(sdm.done(&["disk", "show", "a"])["virtual_size"], 40 << 20);
    sdm.done(&["domain", "check", "shelf-1"]);
    nothing_is_open(&sdm);
}

#[test]
fn a_lost_worker_that_comes_back_finishes_what_it_had_in_place() {
    let cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    sdm.done(&create("a", "shelf-1"));
    let host = cluster.pid("host-1");
    let worker = Stopped::new([vec![host], children_of(host)].concat());
    let id = request_id(&sdm);
    let growing = sdm.start(&["disk", "resize", "a", "24MiB", "--request-id", &id]);
    cluster.await_worker_state("host-1", "lost");
    until("it waits for a proof", || {
        let phase = text_of(&story(&sdm, &id).0, "phase").to_owned();
        if phase == "fencing" { Ok(()) } else { Err(phase) }
    });
    worker.go_on();
    assert_eq!(growing.finish().result()["disk"]["virtual_size"], 24 << 20);
    nothing_is_open(&sdm);
}
