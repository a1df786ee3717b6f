//! Members of a real cluster: who they are, and what is left when the leader dies.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use cluster::list;
use cluster::request_id;
use host::Stopped;
use host::send;
use host::text;
use host::until;
use serde_json::Value;
use std::net::SocketAddrV4;
use std::time::Duration;

/// By name: members are told in the order in which they came.
fn reachable(status: &Value) -> Vec<&str> {
    let members = status["members"].as_array().expect("members");
    let mut names: Vec<&str> =
        members.iter().filter(|m| m["reachable"] == true).filter_map(|m| m["name"].as_str()).collect();
    names.sort_unstable();
    names
}

fn with_role(status: &Value, role: &str) -> usize {
    status["members"].as_array().expect("members").iter().filter(|member| member["role"] == role).count()
}

#[test]
fn three_members_go_on_without_their_leader_and_take_it_back() {
    let mut cluster = Cluster::start(&Shape::usual().hosts(&[]));
    let before = cluster.sdm().done(&["status", "--check"]);
    assert_eq!(reachable(&before), ["node-a", "node-b", "node-c"]);
    assert_eq!((with_role(&before, "leader"), with_role(&before, "follower")), (1, 2));

    let killed = cluster.leader();
    cluster.kill(&killed);
    cluster.leader_other_than(&killed);
    let after = until("the dead one is told", || {
        let status = cluster.status()?;
        if reachable(&status).len() == 2 { Ok(status) } else { Err(status.to_string()) }
    });
    assert!(!reachable(&after).contains(&killed.as_str()));
    let dead = after["members"].as_array().unwrap().iter().find(|member| member["name"] == *killed).unwrap();
    assert_ne!(dead["error"], "", "an unreachable member says why: {dead}");
    assert_eq!(after["cluster_id"], before["cluster_id"]);
    assert!([10, 11].contains(&cluster.sdm().run(&["status", "--check"]).code));

    cluster.start_node(&killed);
    cluster.await_members(3);
}

#[test]
fn a_single_survivor_of_three_says_what_each_endpoint_answered() {
    let mut cluster = Cluster::start(&Shape::usual().hosts(&[]));
    cluster.kill("node-a");
    cluster.kill("node-b");
    let status = until("the survivor knows that it is alone", || {
        let status = cluster.status()?;
        if status["has_quorum"] == false { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(reachable(&status), ["node-c"]);
    assert_eq!(cluster.sdm().run(&["status", "--check"]).code, 11);

    let reading = cluster.sdm().refused(&["disk", "list"]);
    let writing = cluster.sdm().refused(&["disk", "delete", "web-01"]);
    for refused in [reading, writing] {
        refused.says(20, "NO_QUORUM", &["1 of 3"]);
        let blockers = refused.blockers();
        assert_eq!(blockers.len(), 3, "{refused:?}");
        for name in cluster.member_names() {
            let address = cluster.address_of(&name);
            let line = blockers.iter().find(|line| line.starts_with(&format!("endpoint {address}: ")));
            let line = line.unwrap_or_else(|| panic!("{name} is not told: {refused:?}"));
            let expected = if name == "node-c" { "reaches 1 of 3 voters" } else { "Connection refused" };
            assert!(line.contains(expected), "{line}");
        }
    }
    // A command that may not wait so long says the same, and what became of its request; so does one for a lock.
    let hurried = cluster.sdm().refused(&["--timeout", "2s", "disk", "delete", "web-01"]);
    hurried.says(20, "NO_QUORUM", &["timed out after 2.0s", "1 of 3", "is not known"]);
    assert!(hurried.hint().contains("sdm txn show "), "{hurried:?}");
    let lock = cluster.sdm().refused(&["--timeout", "2s", "lock", "acquire", "x", "--", "true"]);
    lock.says(20, "NO_QUORUM", &["timed out after 2.0s", "1 of 3"]);
    for refused in [hurried, lock] {
        let blockers = refused.blockers();
        assert_eq!(blockers.len(), 3, "{refused:?}");
        assert!(
            blockers.iter().any(|line| line.contains("node-c reaches 1 of 3 voters") && line.contains("[NO_QUORUM]")),
            "{refused:?}"
        );
        assert_eq!(blockers.iter().filter(|line| line.contains("Connection refused")).count(), 2, "{refused:?}");
    }
    cluster.start_node("node-a");
    cluster.leader();
    cluster.sdm().refused(&["disk", "delete", "web-01"]).says(3, "DISK_NOT_FOUND", &["web-01"]);
}

#[test]
fn a_member_that_comes_later_waits_for_its_turn_and_a_learner_never_votes() {
    let mut cluster = Cluster::prepare(&Shape::usual().hosts(&[]));
    // Those that join are there before the one that they join.
    cluster.start_node("node-c");
    cluster.start_node("node-b");
    cluster.start_node("node-a");
    cluster.await_members(3);
    cluster.add_learner("node-l");
    cluster.start_node("node-l");
    let status = until("the learner is up to date", || {
        let status = cluster.status()?;
        let up = reachable(&status).contains(&"node-l") && status["members"][3]["lag"] == 0;
        if up { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(with_role(&status, "learner"), 1, "{status}");
    // It serves like any other.
    assert_eq!(cluster.sdm_at(&["node-l"]).done(&["status"])["has_quorum"], true);
    cluster.sdm_at(&["node-l"]).refused(&["disk", "show", "x"]).says(3, "DISK_NOT_FOUND", &["x"]);
}

#[test]
fn a_leader_that_hangs_is_replaced_and_comes_back_as_one_of_the_others() {
    let cluster = Cluster::start(&Shape::usual().hosts(&[]));
    let leader = cluster.leader();
    let stopped = Stopped::new(vec![cluster.pid(&leader)]);
    let successor = cluster.leader_other_than(&leader);
    let id = request_id(&cluster.sdm_at(&[&successor]));
    assert_eq!(cluster.sdm_at(&[&leader, &successor]).run(&["disk", "list"]).code, 0, "a silent member is passed over");
    stopped.go_on();
    cluster.await_members(3);
    // What it knew is old; what it answers is not.
    assert_eq!(request_id(&cluster.sdm_at(&[&leader])).len(), id.len());
    assert!(list(&cluster.sdm_at(&[&leader]), "member").iter().any(|member| member["role"] == "leader"));
}

#[test]
fn members_that_are_told_to_end_do_so_at_once_and_in_order() {
    let mut cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    for name in ["host-1".to_owned(), cluster.leader()] {
        send(cluster.pid(&name), rustix::process::Signal::TERM);
        let status = cluster.process(&name).expect("it runs").ended(Duration::from_secs(30));
        assert_eq!(status.code(), Some(0), "{name}: {}", cluster.said(&name));
        cluster.kill(&name);
        cluster.leader_other_than(&name);
        cluster.start_node(&name);
    }
    cluster.await_members(3);
    cluster.await_reach("shelf-1", &["host-1"]);
    cluster.sdm().done(&["disk", "create", "web-01", "--domain", "shelf-1", "--size", "1M"]);
}

#[test]
fn a_process_opens_no_port_but_its_own_and_takes_a_folder_with_lost_and_found() {
    let mut cluster = Cluster::prepare(&Shape::smallest());
    for name in ["node-a", "host-1"] {
        // A new file system of its own is what operators give to a member.
        cluster.scratch().folder(&format!("{name}/lost+found"));
        cluster.start_node(name);
    }
    cluster.await_members(1);
    cluster.await_worker("host-1");
    cluster.make_domain("shelf-1");
    for name in ["node-a", "host-1"] {
        let address: SocketAddrV4 = cluster.address_of(name).parse().unwrap();
        let bytes = u32::from_ne_bytes(address.ip().octets());
        let expected = format!("{bytes:08X}:{:04X}", address.port());
        assert_eq!(cluster.process(name).expect("it runs").listens_at(), [expected], "{name}");
    }
}

#[test]
fn a_member_keeps_what_its_folder_holds_whatever_it_is_told() {
    let mut cluster = Cluster::start(&Shape::smallest().hosts(&[]));
    let before = cluster.sdm().done(&["status"]);
    cluster.kill("node-a");
    cluster.start_node("node-a");
    cluster.await_members(1);
    let after = cluster.sdm().done(&["status"]);
    assert_eq!(before["cluster_id"], after["cluster_id"]);
    assert!(cluster.said("node-a").contains("--bootstrap and --join are ignored"), "{}", cluster.said("node-a"));
    // Two processes cannot share it.
    let folder = cluster.path("node-a");
    let again = ["coordinator", "--name", "node-a", "--listen", "127.0.0.1:0", "--data-dir", text(&folder)];
    let refused = Sdm::default().refused(&again);
    refused.states(5, "FOLDER_IN_USE", &[text(&folder), "another --data-dir"]);
    // A folder that holds nothing is no member.
    let empty = cluster.path("empty");
    let nobody = ["coordinator", "--name", "node-x", "--listen", "127.0.0.1:0", "--data-dir", text(&empty)];
    let refused = Sdm::default().refused(&nobody);
    refused.says(refused.code, refused.reason(), &[text(&empty)]);
    assert!(refused.hint().contains("--bootstrap"), "{refused:?}");
}
