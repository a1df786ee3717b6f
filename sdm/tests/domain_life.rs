//! The life of domains with real processes: maintenance, names, check, detach and attach, format; also
//! while a move runs into them, and while the leader dies.

mod cluster;
mod host;
mod images;
mod ovirt;

use cluster::Cluster;
use cluster::Place;
use cluster::Sdm;
use cluster::Shape;
use cluster::hold_move;
use cluster::list;
use cluster::nothing_is_open;
use cluster::request_id;
use cluster::text_of;
use host::Scratch;
use host::Stopped;
use host::children_of;
use host::text;
use host::until;
use images::differing_bytes;
use images::noise;
use serde_json::Value;
use std::path::Path;

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

fn create<'a>(disk: &'a str, domain: &'a str) -> [&'a str; 9] {
    ["disk", "create", disk, "--domain", domain, "--size", "16MiB", "--format", "raw"]
}

/// The DESCRIPTION that the domain's metadata has.
fn described(folder: &Path) -> String {
    let metadata = std::fs::read_to_string(folder.join("dom_md/metadata")).unwrap_or_default();
    let line = metadata.lines().find_map(|line| line.strip_prefix("DESCRIPTION=")).unwrap_or_default();
    line.to_owned()
}

#[test]
fn maintenance_refuses_what_is_new_and_says_since_when_and_who() {
    let cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    let result = sdm.done(&["domain", "maintenance", "shelf-1", "--reason", "new switch"]);
    assert_eq!(result["still_running"], Value::Array(Vec::new()));
    let refused = sdm.refused(&create("a", "shelf-1"));
    refused.says(5, "DOMAIN_IN_MAINTENANCE", &["shelf-1", "new switch"]);
    assert_eq!(refused.hint(), "sdm domain activate shelf-1");
    let shown = sdm.done(&["domain", "show", "shelf-1"]);
    assert_eq!(text_of(&shown, "state"), "maintenance");
    assert_eq!(text_of(&shown["maintenance"], "reason"), "new switch");
    let status = sdm.done(&["status"]);
    assert!(status["checks"].to_string().contains("DOMAIN_MAINTENANCE"), "{status}");
    sdm.done(&["domain", "maintenance", "shelf-1"]);
    sdm.done(&["domain", "activate", "shelf-1"]);
    sdm.done(&create("a", "shelf-1"));
}

/// Story 3, with a maintenance in between: the move into it finishes, and nobody formats it under the move.
#[test]
fn a_move_that_runs_into_a_domain_finishes_in_its_maintenance_and_no_format_comes_between() {
    let mut cluster = Cluster::start(&Shape::usual());
    let (from, to) = (cluster.make_domain("shelf-1"), cluster.make_domain("shelf-2"));
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let file = noise(files.path(), "moved", 96);
    import(&sdm, &file, "moved", "shelf-1");
    let place = Place { domain: "shelf-2", folder: &to };
    let (id, held) = hold_move(&cluster, &sdm, "host-1", "moved", "shelf-1", place);
    let told = sdm.done(&["domain", "maintenance", "shelf-2"]);
    assert!(told["still_running"].to_string().contains(&id), "the answer names what runs: {told}");
    sdm.done(&["domain", "maintenance", "shelf-1"]);
    for line in [["domain", "delete", "shelf-2", "--yes"], ["domain", "detach", "shelf-1", "--yes"]] {
        let refused = sdm.refused(&line);
        refused.says(5, "DOMAIN_IN_USE", &["nothing was changed"]);
        assert!(
            refused.blockers().iter().any(|at| at.contains(&format!("sdm txn abort {id}"))),
            "{:?}",
            refused.blockers()
        );
    }
    // The leader dies in between: whoever leads next knows it all.
    let leader = cluster.leader();
    cluster.kill(&leader);
    let command = held.go_on();
    assert_eq!(command.finish().result()["disk"]["domain"], "shelf-2");
    cluster.start_node(&leader);
    sdm.done(&["gc", "run"]);
    sdm.refused(&["domain", "delete", "shelf-2", "--yes"]).says(5, "DOMAIN_IN_USE", &["shelf-2"]);
    sdm.done(&["domain", "delete", "shelf-1", "--yes"]);
    sdm.done(&["gc", "run"]);
    until("its folder is gone", || if from.exists() { Err(from.display().to_string()) } else { Ok(()) });
    sdm.done(&["domain", "activate", "shelf-2"]);
    holds(&sdm, "moved", &file, files.path());
    nothing_is_open(&sdm);
}

#[test]
fn a_renamed_domain_says_so_on_its_storage_too() {
    let cluster = Cluster::start(&Shape::usual());
    let folder = cluster.make_domain("shelf-1");
    cluster.make_domain("shelf-2");
    let sdm = cluster.sdm();
    sdm.refused(&["domain", "rename", "shelf-1", "shelf-2"]).says(4, "DOMAIN_EXISTS", &["shelf-2"]);
    sdm.done(&["domain", "rename", "shelf-1", "archive"]);
    sdm.refused(&["domain", "show", "shelf-1"]).says(3, "DOMAIN_NOT_FOUND", &["shelf-1"]);
    until("the storage has the name", || {
        let (shown, name) = (sdm.done(&["domain", "show", "archive"]), described(&folder));
        if name == "archive" && shown["projection_pending"] == false { Ok(()) } else { Err(format!("{name}: {shown}")) }
    });
    sdm.done(&create("a", "archive"));
    ovirt::read_domain(&folder);
}

#[test]
fn a_detached_domain_is_attached_again_with_the_bytes_of_its_disks() {
    let cluster = Cluster::start(&Shape::usual());
    let folder = cluster.make_domain("shelf-1");
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let file = noise(files.path(), "kept", 24);
    import(&sdm, &file, "kept", "shelf-1");
    sdm.done(&["disk", "create", "thin", "--domain", "shelf-1", "--size", "16MiB", "--format", "qcow2"]);
    let before = [sdm.done(&["disk", "show", "kept"]), sdm.done(&["disk", "show", "thin"])];
    sdm.refused(&["domain", "detach", "shelf-1", "--yes"]).says(5, "DOMAIN_ACTIVE", &["shelf-1"]);
    sdm.done(&["domain", "maintenance", "shelf-1"]);
    sdm.refused(&["domain", "detach", "shelf-1"]).says(2, "CONFIRMATION_NEEDED", &["shelf-1"]);
    let plan = sdm.done(&["domain", "detach", "shelf-1", "--dry-run"]);
    assert!(plan.to_string().contains("detach domain shelf-1"), "{plan}");
    let given_up = sdm.done(&["domain", "detach", "shelf-1", "--yes"]);
    assert_eq!(text_of(&given_up, "folder"), text(&folder));
    sdm.refused(&["disk", "show", "kept"]).says(3, "DISK_NOT_FOUND", &["kept"]);
    assert!(folder.join("images").exists(), "its bytes stay where they are");
    // A clash is refused with the names; nothing was taken over by then.
    cluster.make_domain("shelf-2");
    sdm.done(&create("kept", "shelf-2"));
    let refused = sdm.refused(&["domain", "attach", text(&folder), "--local"]);
    refused.says(4, "DISK_EXISTS", &["1 disks"]);
    assert!(refused.blockers().iter().any(|at| at.starts_with("disk kept")), "{:?}", refused.blockers());
    let id = request_id(&sdm);
    let line = ["domain", "attach", text(&folder), "--local", "--rename-prefix", "old-", "--request-id", &id];
    let attached = sdm.done(&line);
    assert_eq!(text_of(&attached["domain"], "name"), "shelf-1");
    assert_eq!(sdm.done(&line)["transaction"]["id"], attached["transaction"]["id"], "a repetition changes nothing");
    let after = sdm.done(&["disk", "show", "old-kept"]);
    let kept = |disk: &Value| ["id", "path", "blake3"].map(|key| disk["volumes"][0][key].clone());
    assert_eq!((&after["id"], kept(&after)), (&before[0]["id"], kept(&before[0])));
    for (disk, leaf) in [("old-kept", &before[0]), ("old-thin", &before[1])] {
        let now = sdm.done(&["disk", "show", disk]);
        assert_eq!(kept(&now), kept(leaf), "{disk} is what it was, where it was");
    }
    holds(&sdm, "old-kept", &file, files.path());
    sdm.done(&["domain", "check", "shelf-1", "--hash"]);
    sdm.refused(&["domain", "attach", text(&folder), "--local"]).says(4, "DOMAIN_EXISTS", &[]);
    nothing_is_open(&sdm);
}

#[test]
fn another_cluster_takes_a_detached_domain_in_and_only_a_detached_one() {
    let ours = Cluster::start(&Shape::smallest());
    let theirs = Cluster::start(&Shape::smallest());
    let folder = ours.make_domain("shelf-1");
    let (sdm, other, files) = (ours.sdm(), theirs.sdm(), Scratch::new("files"));
    let file = noise(files.path(), "kept", 24);
    import(&sdm, &file, "kept", "shelf-1");
    let attach = ["domain", "attach", text(&folder), "--local", "--name", "taken"];
    sdm.done(&["domain", "maintenance", "shelf-1"]);
    let refused = other.refused(&attach);
    assert_eq!(refused.code, 5, "{}", refused.message());
    sdm.done(&["domain", "detach", "shelf-1", "--yes"]);
    other.done(&attach);
    holds(&other, "kept", &file, files.path());
    other.done(&["disk", "delete", "kept"]);
    other.done(&["gc", "run"]);
    ovirt::nothing_is_left_over(&folder);
}

#[test]
fn a_check_tells_what_is_not_as_the_catalog_says_and_changes_nothing() {
    let cluster = Cluster::start(&Shape::usual());
    let folder = cluster.make_domain("shelf-1");
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    import(&sdm, &noise(files.path(), "good", 8), "good", "shelf-1");
    import(&sdm, &noise(files.path(), "spoilt", 8), "spoilt", "shelf-1");
    let clean = sdm.done(&["domain", "check", "shelf-1", "--hash"]);
    assert_eq!((&clean["placements"], &clean["findings"]), (&2.into(), &Value::Array(Vec::new())));
    let shown = sdm.done(&["disk", "show", "spoilt"]);
    let volume = Path::new(text_of(&shown["volumes"][0], "path")).to_owned();
    let mut bytes = std::fs::read(&volume).expect("the volume");
    bytes[4096] ^= 0xff;
    std::fs::write(&volume, bytes).expect("written");
    assert_eq!(sdm.done(&["domain", "check", "shelf-1"])["findings"], Value::Array(Vec::new()), "sizes are as before");
    let found = sdm.run(&["domain", "check", "shelf-1", "--hash"]);
    assert_eq!(found.code, 8, "{}{}", found.stdout, found.stderr);
    assert!(found.stdout.contains("HASH_WRONG") && found.stdout.contains("spoilt"), "{}", found.stdout);
    std::fs::remove_file(&volume).expect("removed");
    let found = sdm.run(&["domain", "check", "shelf-1"]);
    assert_eq!(found.code, 8);
    assert!(found.stdout.contains("VOLUME_MISSING"), "{}", found.stdout);
    assert_eq!(sdm.done(&["disk", "show", "spoilt"]), shown, "a check changes nothing");
    assert!(folder.exists());
}

/// An empty folder in place of a domain: its storage is not mounted. Nothing of it is deleted, and nothing is lost track of.
#[test]
fn what_is_not_found_is_not_deleted_and_goes_on_when_the_storage_is_back() {
    let cluster = Cluster::start(&Shape::usual());
    let (folder, other) = (cluster.make_domain("shelf-1"), cluster.make_domain("shelf-2"));
    let (sdm, away) = (cluster.sdm(), Scratch::new("away"));
    sdm.done(&create("a", "shelf-1"));
    sdm.done(&create("b", "shelf-2"));
    let placement = Path::new(text_of(&sdm.done(&["disk", "show", "a"]), "path")).to_owned();
    sdm.done(&["domain", "maintenance", "shelf-1"]);
    sdm.done(&["domain", "activate", "shelf-1"]);
    let unmount = |folder: &Path| {
        let hidden = away.path().join(folder.file_name().expect("a name"));
        std::fs::rename(folder, &hidden).expect("moved away");
        hidden
    };
    // A disk's garbage: the deletion is begun before anybody notices.
    let hidden = unmount(&folder);
    sdm.done(&["disk", "delete", "a"]);
    let failed = sdm.run(&["gc", "run", "--domain", "shelf-1"]);
    assert_eq!(failed.code, 8, "{}{}", failed.stdout, failed.stderr);
    assert!(failed.stderr.contains("sdm domain forget"), "{}", failed.stderr);
    // Others are not held up by it.
    sdm.done(&["disk", "delete", "b"]);
    sdm.done(&["gc", "run", "--domain", "shelf-2"]);
    assert_eq!(list(&sdm, "gc").len(), 1);
    std::fs::rename(&hidden, &folder).expect("mounted again");
    cluster.await_reach("shelf-1", &["host-1"]);
    until("it is gone", || if placement.exists() { Err(placement.display().to_string()) } else { Ok(()) });
    until("its row is gone", || if list(&sdm, "gc").is_empty() { Ok(()) } else { Err("garbage".to_owned()) });
    // A whole domain.
    sdm.done(&["domain", "maintenance", "shelf-2"]);
    let hidden = unmount(&other);
    sdm.done(&["domain", "delete", "shelf-2", "--yes"]);
    until("the deletion is refused", || {
        let rows = list(&sdm, "gc");
        let error = rows.first().map(|row| text_of(row, "last_error").to_owned()).unwrap_or_default();
        if error.contains("is not at") { Ok(()) } else { Err(error) }
    });
    std::fs::rename(&hidden, &other).expect("mounted again");
    until("its row is gone", || if list(&sdm, "gc").is_empty() { Ok(()) } else { Err("garbage".to_owned()) });
    let rest: Vec<_> = std::fs::read_dir(other.parent().expect("a path")).expect("a folder").flatten().collect();
    assert!(!other.exists() && rest.is_empty(), "{rest:?}");
    nothing_is_open(&sdm);
}

#[test]
fn a_domain_whose_storage_is_lost_is_forgotten_with_its_disks_and_is_nobodys_when_it_comes_back() {
    let cluster = Cluster::start(&Shape::usual());
    let folder = cluster.make_domain("shelf-1");
    cluster.make_domain("shelf-2");
    let (sdm, away) = (cluster.sdm(), Scratch::new("away"));
    sdm.done(&["domain", "set", "shelf-1", "--retention", "1h"]);
    sdm.done(&create("lost", "shelf-1"));
    sdm.done(&create("trashed", "shelf-1"));
    let deleted = sdm.done(&["disk", "delete", "trashed"]);
    let trash = text_of(&deleted["transaction"]["outcome"], "trash_id").to_owned();
    assert_eq!(deleted["transaction"]["outcome"]["kept_ms"], 3_600_000);
    sdm.done(&["gc", "trash", "restore", "trashed"]);
    sdm.refused(&["gc", "trash", "restore", "trashed"]).says(3, "TRASH_NOT_FOUND", &["trashed"]);
    sdm.refused(&["gc", "trash", "restore", &trash]).says(3, "GARBAGE_NOT_FOUND", &[&trash]);
    sdm.done(&["disk", "delete", "trashed"]);
    let forget = ["domain", "forget", "shelf-1", "--reason", "its server burnt down", "--confirm", "shelf-1"];
    sdm.refused(&forget).says(5, "DOMAIN_REACHED", &["shelf-1"]);
    let hidden = away.path().join("hidden");
    std::fs::rename(&folder, &hidden).expect("moved away");
    until("nobody reaches it", || {
        let state = text_of(&sdm.done(&["domain", "show", "shelf-1"]), "state").to_owned();
        if state == "unreachable" { Ok(()) } else { Err(state) }
    });
    sdm.refused(&["domain", "forget", "shelf-1"]).says(2, "CONFIRMATION_NEEDED", &["shelf-1"]);
    sdm.refused(&["domain", "forget", "shelf-1", "--confirm", "shelf-2"]).says(2, "CONFIRMATION_NEEDED", &["shelf-2"]);
    sdm.refused(&["domain", "forget", "shelf-1", "--confirm", "shelf-1"]).says(2, "REASON_MISSING", &[]);
    let plan = sdm.done(&["domain", "forget", "shelf-1", "--reason", "fire", "--dry-run"]).to_string();
    assert!(plan.contains("1 disks out of the catalog: lost") && plan.contains("with the trash trashed"), "{plan}");
    sdm.done(&["disk", "show", "lost"]);
    let id = request_id(&sdm);
    let line = [&forget[..], &["--request-id", &id]].concat();
    sdm.done(&line);
    sdm.done(&line);
    sdm.refused(&["disk", "show", "lost"]).says(3, "DISK_NOT_FOUND", &["lost"]);
    assert!(list(&sdm, "gc").is_empty());
    assert_eq!(list(&sdm, "domain").len(), 1);
    // It comes back.
    std::fs::rename(&hidden, &folder).expect("there again");
    let refused = sdm.refused(&["domain", "attach", text(&folder), "--local"]);
    refused.says(5, "DOMAIN_FORGOTTEN", &["its server burnt down"]);
    let path = folder.parent().expect("a path");
    let refused = sdm.refused(&["domain", "create", "again", "--path", text(path), "--local"]);
    assert!(refused.message().contains("already holds"), "{}", refused.message());
    assert!(folder.join("images").exists(), "nothing of it was touched");
    nothing_is_open(&sdm);
}

#[test]
fn two_domains_never_lie_on_one_path() {
    let cluster = Cluster::start(&Shape::usual());
    let folder = cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    let path = folder.parent().expect("a path");
    for path in [path, &folder] {
        sdm.refused(&["domain", "create", "again", "--path", text(path), "--local"]).says(
            4,
            "DOMAIN_PATH_TAKEN",
            &["shelf-1"],
        );
    }
}

/// Handing a domain over is work in place: nobody else does it meanwhile, and the same host finishes it.
#[test]
fn a_detach_and_an_attach_are_finished_by_their_worker_after_its_death() {
    let mut cluster = Cluster::start(&Shape::usual());
    let folder = cluster.make_domain("shelf-1");
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let file = noise(files.path(), "kept", 8);
    import(&sdm, &file, "kept", "shelf-1");
    sdm.done(&["domain", "maintenance", "shelf-1"]);
    let detach = ["domain", "detach", "shelf-1", "--yes"];
    let attach = ["domain", "attach", text(&folder), "--local"];
    for line in [&detach[..], &attach[..]] {
        let id = request_id(&sdm);
        let host = cluster.pid("host-1");
        // An attach asks the worker before it begins, so that one stands still only once it is begun.
        let begun = |sdm: &Sdm| {
            until("it is begun", || {
                let txn = sdm.run(&["txn", "show", &id]);
                if txn.code == 0 { Ok(()) } else { Err(txn.stderr) }
            });
        };
        let stopped = (line[1] == "detach").then(|| Stopped::new([vec![host], children_of(host)].concat()));
        let command = sdm.start(&[line, &["--request-id", &id]].concat());
        begun(&sdm);
        cluster.kill("host-1");
        drop(stopped);
        cluster.start_node("host-1");
        command.finish().result();
    }
    cluster.await_reach("shelf-1", &["host-1"]);
    holds(&sdm, "kept", &file, files.path());
    nothing_is_open(&sdm);
}
