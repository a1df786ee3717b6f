//! `sdm member …` on real processes: a cluster grows, shrinks and loses a host for good; whoever must
//! not come back does not.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use cluster::list;
use host::send;
use host::until;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// The exit code of a member that must not go on.
const PRECONDITION: i32 = 5;

fn role_of(sdm: &Sdm, name: &str) -> Option<String> {
    let found = list(sdm, "member").into_iter().find(|member| member["name"] == name)?;
    found["role"].as_str().map(str::to_owned)
}

fn voters(answer: &Value) -> Vec<&str> {
    answer["voters"].as_array().expect("voters").iter().filter_map(Value::as_str).collect()
}

/// Done, and the same again changes nothing.
#[track_caller]
fn done_twice(sdm: &Sdm, arguments: &[&str]) -> Value {
    let first = sdm.done(arguments);
    let again = sdm.done(arguments);
    assert_eq!(again["changed"], false, "{arguments:?}: {first} {again}");
    again
}

#[track_caller]
fn ends_with(cluster: &mut Cluster, name: &str, reason: &str) {
    let ended = cluster.process(name).expect("it was started").ended(Duration::from_secs(60));
    assert_eq!(ended.code(), Some(PRECONDITION), "{name}: {}", cluster.said(name));
    assert!(cluster.said(name).contains(reason), "{name}: {}", cluster.said(name));
    cluster.kill(name);
}

#[test]
fn an_operator_grows_shrinks_and_repairs_a_cluster() {
    let mut cluster = Cluster::start(&Shape::usual().hosts(&[]));
    cluster.add_learner("node-l");
    let address = cluster.address_of("node-l").to_owned();
    let sdm = cluster.sdm();
    done_twice(&sdm, &["member", "add", "node-l", "--address", &address, "--learner"]);
    assert_eq!(role_of(&sdm, "node-l").as_deref(), Some("announced"));
    cluster.start_node("node-l");
    until("the learner is one", || match role_of(&sdm, "node-l") {
        Some(role) if role == "learner" => Ok(()),
        role => Err(format!("{role:?}")),
    });

    // A host is lost for good, and the learner takes its place.
    cluster.kill("node-c");
    let status = until("the dead one is told", || {
        let status = cluster.status()?;
        let checks = status["checks"].as_array().cloned().unwrap_or_default();
        let told = checks.into_iter().find(|check| check["code"] == "MEMBER_UNREACHABLE");
        told.ok_or_else(|| status.to_string())
    });
    for command in ["sdm member remove node-c", "sdm member replace node-c --with"] {
        assert!(status["hint"].as_str().unwrap_or_default().contains(command), "{status}");
    }
    let refused = sdm.refused(&["member", "remove", "node-b"]);
    refused.says(PRECONDITION, "QUORUM_WOULD_BE_LOST", &["node-a", "node-c", "a majority is 2"]);
    assert!(refused.blockers()[0].starts_with("member node-c: "), "{refused:?}");
    let replaced = done_twice(&sdm, &["member", "replace", "node-c", "--with", "node-l"]);
    assert_eq!(voters(&replaced), ["node-a", "node-b", "node-l"]);
    cluster.start_node("node-c");
    ends_with(&mut cluster, "node-c", "REMOVED_MEMBER");

    // The leadership goes where it is sent, and then its holder is removed.
    let moved = done_twice(&sdm, &["member", "transfer-leader", "--to", "node-l"]);
    assert_eq!(moved["leader"], "node-l");
    let removed = done_twice(&sdm, &["member", "remove", "node-l"]);
    assert_eq!(voters(&removed), ["node-a", "node-b"]);
    ends_with(&mut cluster, "node-l", "REMOVED_MEMBER");
    sdm.refused(&["member", "remove", "node-x"]).says(3, "MEMBER_NOT_FOUND", &["node-x"]);
    sdm.refused(&["member", "promote", "node-x"]).says(3, "MEMBER_NOT_FOUND", &["node-x"]);
    let table = sdm.run_for_people(&["member", "list"]);
    for part in ["NAME", "ROLE", "LAG", "VERSION", "LEVEL", "node-a", "node-b", "leader"] {
        assert!(table.stdout.contains(part), "no {part} in\n{}", table.stdout);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder is made");
    for entry in std::fs::read_dir(from).expect("a folder is read") {
        let entry = entry.expect("a folder is read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}

#[track_caller]
fn end(cluster: &mut Cluster, name: &str) {
    send(cluster.pid(name), rustix::process::Signal::TERM);
    cluster.process(name).expect("it runs").ended(Duration::from_secs(30));
    cluster.kill(name);
}

#[test]
fn a_folder_that_was_put_back_from_a_copy_does_not_take_part() {
    let mut cluster = Cluster::start(&Shape::usual().hosts(&[]));
    end(&mut cluster, "node-c");
    let (folder, saved) = (cluster.path("node-c"), cluster.path("saved"));
    copy(&folder, &saved);
    cluster.start_node("node-c");
    cluster.await_members(3);
    until("its start is reported", || {
        let said = cluster.said("node-c");
        let told = said.lines().any(|line| line.contains("the cluster knows this start") && line.contains("start=2"));
        if told { Ok(()) } else { Err(said) }
    });
    end(&mut cluster, "node-c");
    std::fs::remove_dir_all(&folder).expect("the folder is removed");
    copy(&saved, &folder);
    cluster.start_node("node-c");
    ends_with(&mut cluster, "node-c", "OLD_COPY");

    // What the message says, done: removed, joined anew on an empty folder.
    cluster.sdm().done(&["member", "remove", "node-c"]);
    std::fs::remove_dir_all(&folder).expect("the folder is removed");
    cluster.start_node("node-c");
    cluster.await_members(3);
}
