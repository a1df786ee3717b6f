//! The folders of members that were killed, looked into without a change.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use host::text;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

/// Every file below a folder, with a hash of its bytes, its length and its mode.
fn fingerprint(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("readable") {
            let path = entry.expect("readable").path();
            let metadata = std::fs::symlink_metadata(&path).expect("there");
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            let bytes = if metadata.is_file() { std::fs::read(&path).expect("readable") } else { Vec::new() };
            let changed = metadata.modified().expect("a time");
            let print = format!("{} {} {changed:?}", blake3::hash(&bytes).to_hex(), metadata.len());
            found.insert(path, print);
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder is made");
    for entry in std::fs::read_dir(from).expect("a folder is read") {
        let entry = entry.expect("a folder is read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}

fn lines(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn members_that_were_killed_replay_to_the_same_state_and_their_folders_stay_as_they_were() {
    let mut cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    for number in 0..5 {
        sdm.done(&["disk", "create", &format!("disk-{number}"), "--domain", "shelf-1", "--size", "64K"]);
    }
    let (nobody, folder) = (Sdm::default(), cluster.path("node-a"));
    let running = nobody.refused(&["offline", "dump", text(&folder)]);
    running.says(5, "MEMBER_RUNNING", &["running", &cluster.pid("node-a").to_string()]);
    cluster.kill_members();

    let scratch = cluster.scratch().folder("offline");
    let mut hashes = Vec::new();
    let mut reach = u64::MAX;
    let look = |verb: &str, folder: &Path, more: &[&str]| {
        let line = ["offline", verb, text(folder), "--scratch", text(&scratch)];
        nobody.run(&[line.as_slice(), more].concat())
    };
    let before: Vec<_> = cluster.member_names().iter().map(|name| fingerprint(&cluster.path(name))).collect();
    for name in cluster.member_names() {
        let dumped = look("dump", &cluster.path(&name), &[]).result();
        assert_eq!(dumped["identity"]["name"], name.as_str());
        reach = reach.min(dumped["log"]["last"].as_u64().expect("entries"));
    }
    for name in cluster.member_names() {
        let folder = cluster.path(&name);
        let verified = look("verify", &folder, &[]).result();
        assert_eq!((&verified["whole"], verified["entries"].as_u64() >= Some(reach)), (&Value::from(true), true));
        let replayed = look("replay", &folder, &["--to", &reach.to_string()]).result();
        assert_eq!((replayed["index"].as_u64(), replayed["tables"]["disks"].as_u64()), (Some(reach), Some(5)));
        hashes.push(replayed["state_hash"].clone());
        let disks = lines(&look("replay", &folder, &["--to", &reach.to_string(), "--dump", "disks"]).stdout);
        assert_eq!(disks.len(), 5);
        let entries = lines(&look("dump", &folder, &["--from", "1", "--to", &reach.to_string()]).stdout);
        assert_eq!(entries.len() as u64, reach, "{name}");
        assert!(entries.iter().any(|entry| entry["kind"] == "begin"), "no transaction began");
        look("replay", &folder, &["--to", "99999999"]).refusal().says(3, "OUT_OF_REACH", &["99999999"]);
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "members came to different states: {hashes:?}");
    let after: Vec<_> = cluster.member_names().iter().map(|name| fingerprint(&cluster.path(name))).collect();
    assert_eq!(before, after, "looking changed something");
    assert_eq!(std::fs::read_dir(&scratch).expect("there").count(), 0, "copies stayed behind");
    nobody.refused(&["offline", "verify", text(&scratch)]).says(3, "NO_MEMBER", &["no member"]);
    let folder = cluster.path("node-a");
    let tables = look("dump", &folder, &[]).result()["tables"].clone();
    assert!(tables["hashes"].is_u64(), "{tables}");

    // What is damaged ends with one code, whoever finds it, and is told of the member's folder.
    let damaged = cluster.path("damaged");
    copy(&folder, &damaged);
    std::fs::remove_file(damaged.join("witness")).expect("it has one");
    for verb in ["verify", "dump"] {
        let refused = look(verb, &damaged, &[]).refusal();
        refused.says(8, "FOLDER_DAMAGED", &[text(&damaged)]);
        assert!(!refused.error.to_string().contains(text(&scratch)), "{refused:?}");
    }
    let started = nobody.run_for_people(&[
        "coordinator",
        "--name",
        "node-a",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        text(&damaged),
    ]);
    assert!(started.code == 8 && started.stderr.contains("LOG_UNUSABLE"), "{started:?}");

    // And they still start.
    for name in cluster.member_names() {
        cluster.start_node(&name);
    }
    cluster.await_members(3);
}
