//! Workers that die, hang or come back late in the middle of a transfer: somebody else does their
//! work from the beginning, and what they still do harms nobody.

mod cluster;
mod host;
mod images;
mod ovirt;

use cluster::Cluster;
use cluster::Place;
use cluster::Sdm;
use cluster::Shape;
use cluster::dot_names;
use cluster::hold_export;
use cluster::hold_import;
use cluster::hold_move;
use cluster::list;
use cluster::nothing_is_open;
use cluster::story;
use cluster::text_of;
use cluster::writes_to;
use host::Scratch;
use host::Stopped;
use host::children_of;
use host::text;
use host::until;
use images::differing_bytes;
use images::noise;
use std::path::Path;

/// Size of the files in MiB.
const MIB: u64 = 96;

fn import(sdm: &Sdm, file: &Path, name: &str, domain: &str) {
    sdm.done(&["disk", "import", text(file), "--name", name, "--domain", domain, "--format", "raw"]);
}

#[track_caller]
fn holds(sdm: &Sdm, disk: &str, file: &Path, folder: &Path) {
    let exported = folder.join(format!("{disk}.exported"));
    sdm.done(&["disk", "export", disk, text(&exported), "--overwrite"]);
    assert_eq!(differing_bytes(file, &exported), None, "{disk} is not what was imported");
    std::fs::remove_file(exported).expect("it was just made");
}

#[test]
fn imports_and_exports_begin_again_at_another_worker_when_theirs_dies() {
    let mut cluster = Cluster::start(&Shape::usual());
    let folder = cluster.make_domain("shelf-1");
    let (sdm, files, exports) = (cluster.sdm(), Scratch::new("files"), Scratch::new("exports"));
    let (first, second) = (noise(files.path(), "first", MIB), noise(files.path(), "second", MIB));
    import(&sdm, &first, "first", "shelf-1");
    let (export, stopped, target) = hold_export(&sdm, "first", exports.path());
    let place = Place { domain: "shelf-1", folder: &folder };
    let (_, held) = hold_import(&cluster, "host-1", &second, "second", place);
    cluster.add_worker("host-2", &[]);
    cluster.start_node("host-2");
    cluster.await_reach("shelf-1", &["host-2"]);
    cluster.kill("host-1");
    stopped.go_on();
    let imported = held.command.finish().result();
    let (_, told) = story(&sdm, text_of(&imported["transaction"], "id"));
    for part in ["worker host-1 is lost", "assigned to worker host-2"] {
        assert!(told.iter().any(|line| line.contains(part)), "no word of {part:?} in {told:#?}");
    }
    export.finish().result();
    assert_eq!(differing_bytes(&first, &target), None);
    holds(&sdm, "second", &second, files.path());
    sdm.done(&["gc", "run"]);
    ovirt::nothing_is_left_over(&folder);
    nothing_is_open(&sdm);
}

#[test]
fn a_pull_begins_again_when_the_worker_of_its_source_dies_or_comes_back() {
    let mut cluster = Cluster::start(&Shape::two_shelves());
    let (from, to) = (cluster.make_domain("shelf-1"), cluster.make_domain("shelf-2"));
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let file = noise(files.path(), "pulled", MIB);
    import(&sdm, &file, "pulled", "shelf-1");
    let (id, held) = hold_move(&cluster, &sdm, "host-2", "pulled", "shelf-1", Place { domain: "shelf-2", folder: &to });
    cluster.kill("host-1");
    let command = held.go_on();
    // Nobody else reaches the source, so the move waits for who does.
    cluster.await_worker_state("host-1", "lost");
    assert_eq!(story(&sdm, &id).0["phase"], "running");
    assert_eq!(sdm.done(&["disk", "show", "pulled"])["domain"], "shelf-1");
    cluster.start_node("host-1");
    assert_eq!(command.finish().result()["disk"]["domain"], "shelf-2");
    holds(&sdm, "pulled", &file, files.path());
    sdm.done(&["gc", "run"]);
    ovirt::nothing_is_left_over(&from);
    ovirt::nothing_is_left_over(&to);
    nothing_is_open(&sdm);
}

#[test]
fn a_worker_that_comes_back_late_finds_its_work_done_and_harms_nothing() {
    let mut cluster = Cluster::start(&Shape::usual());
    let (from, to) = (cluster.make_domain("shelf-1"), cluster.make_domain("shelf-2"));
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let file = noise(files.path(), "late", MIB);
    import(&sdm, &file, "late", "shelf-1");
    let (id, held) = hold_move(&cluster, &sdm, "host-1", "late", "shelf-1", Place { domain: "shelf-2", folder: &to });
    let (dot_name, command) = (held.dot_name.clone(), held.command);
    // The whole worker stands still, not only its copy: nobody hears from it any more.
    let host = cluster.pid("host-1");
    let worker = Stopped::new([vec![host], children_of(host)].concat());
    cluster.add_worker("host-2", &[]);
    cluster.start_node("host-2");
    assert_eq!(command.finish().result()["disk"]["domain"], "shelf-2");
    let (_, told) = story(&sdm, &id);
    assert!(told.iter().any(|line| line.contains("worker host-1 is lost")), "{told:#?}");
    let moved = sdm.done(&["disk", "show", "late"]);
    sdm.done(&["gc", "run"]);
    assert!(!dot_names(&to).contains(&dot_name), "the lost attempt's folder is there");

    drop(held.stopped);
    worker.go_on();
    until("the late worker is one of us again", || {
        let workers = list(&sdm, "worker");
        let live = workers.iter().filter(|worker| worker["state"] == "live").count();
        if live == 2 { Ok(()) } else { Err(format!("{workers:?}")) }
    });
    until("its copy has ended", || {
        let writing: Vec<_> = children_of(host).into_iter().filter(|pid| writes_to(*pid, &dot_name)).collect();
        if writing.is_empty() { Ok(()) } else { Err(format!("{writing:?}")) }
    });
    assert_eq!(sdm.done(&["disk", "show", "late"]), moved, "the late worker changed the disk");
    holds(&sdm, "late", &file, files.path());
    sdm.done(&["gc", "run"]);
    ovirt::nothing_is_left_over(&from);
    ovirt::nothing_is_left_over(&to);
    nothing_is_open(&sdm);
}
