//! Attachments of disks to hosts, with real processes: who has a disk keeps others from its data, and
//! what a client leaves behind is told apart from what is proved to be over.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use cluster::list;
use cluster::text_of;
use host::until;
use serde_json::Value;
use std::path::Path;

/// A cluster with host-1, shelf-1 and shelf-2, and the disk web-01 in shelf-1.
fn scene() -> (Cluster, Sdm) {
    let cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    cluster.make_domain("shelf-2");
    let sdm = cluster.sdm();
    sdm.done(&["disk", "create", "web-01", "--domain", "shelf-1", "--size", "16MiB", "--format", "raw"]);
    (cluster, sdm)
}

fn codes(sdm: &Sdm) -> Vec<String> {
    let status = sdm.done(&["status"]);
    let checks = status["checks"].as_array().cloned().unwrap_or_default();
    checks.iter().map(|check| text_of(check, "code").to_owned()).collect()
}

#[test]
fn an_attached_disk_is_kept_from_every_operation_on_its_data_until_it_is_detached() {
    let (_cluster, sdm) = scene();
    let given = sdm.done(&["disk", "attach", "web-01", "--host", "host-1", "--reason", "vm web-01"]);
    let attachment = &given["attachment"];
    assert_eq!((text_of(attachment, "access"), text_of(attachment, "state")), ("write", "attached"));
    assert_eq!(text_of(attachment, "format"), "raw");
    assert!(Path::new(text_of(attachment, "path")).is_file(), "the host is told where the bytes are: {attachment}");
    for line in [
        &["disk", "move", "web-01", "--to", "shelf-2"][..],
        &["disk", "delete", "web-01"],
        &["disk", "resize", "web-01", "32MiB"],
        &["snapshot", "create", "web-01", "s1"],
        &["disk", "convert", "web-01", "--format", "qcow2"],
        &["disk", "copy", "web-01", "web-02", "--to", "shelf-2"],
        &["disk", "export", "web-01", "/tmp/never-written"],
    ] {
        let refused = sdm.refused(line);
        refused.says(5, "ATTACHED", &["host-1", "vm web-01"]);
        assert!(refused.hint().contains("sdm disk detach web-01 --host host-1"), "{line:?}: {}", refused.hint());
    }
    sdm.refused(&["disk", "attach", "web-01", "--host", "host-1"]).says(4, "ALREADY_ATTACHED", &["host-1"]);
    let shown = sdm.done(&["disk", "show", "web-01"]);
    assert_eq!(shown["volumes"][0]["blake3"], Value::Null, "a guest may have written: {shown}");
    let listed = sdm.done(&["disk", "attachments", "web-01"]);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    sdm.done(&["disk", "detach", "web-01", "--host", "host-1"]);
    sdm.done(&["disk", "move", "web-01", "--to", "shelf-2"]);
    sdm.refused(&["disk", "detach", "web-01"]).says(5, "NOT_ATTACHED", &["web-01"]);
}

#[test]
fn readers_share_a_disk_and_reading_operations_go_beside_them() {
    let (mut cluster, sdm) = scene();
    cluster.add_worker("host-2", &[]);
    cluster.start_node("host-2");
    cluster.await_reach("shelf-1", &["host-1", "host-2"]);
    for host in ["host-1", "host-2"] {
        sdm.done(&["disk", "attach", "web-01", "--host", host, "--read-only"]);
    }
    sdm.refused(&["disk", "attach", "web-01", "--host", "host-1"]).says(4, "ALREADY_ATTACHED", &["reading"]);
    sdm.refused(&["disk", "detach", "web-01"]).says(2, "HOST_NEEDED", &["2 hosts"]);
    sdm.done(&["disk", "copy", "web-01", "web-02", "--to", "shelf-2"]);
    sdm.refused(&["disk", "delete", "web-01"]).says(5, "ATTACHED", &["reading"]);
    for host in ["host-1", "host-2"] {
        sdm.done(&["disk", "detach", "web-01", "--host", host]);
    }
    sdm.done(&["disk", "delete", "web-01"]);
}

#[test]
fn a_dry_run_of_an_attach_attaches_nothing() {
    let (_cluster, sdm) = scene();
    let plan = sdm.done(&["disk", "attach", "web-01", "--host", "host-1", "--dry-run"]);
    assert!(plan.to_string().contains("attach disk web-01 to host host-1 for writing"), "{plan}");
    assert_eq!(sdm.done(&["disk", "attachments"])["items"].as_array().map(Vec::len), Some(0));
    sdm.refused(&["disk", "attach", "web-01", "--host", "nobody", "--dry-run"]).says(
        3,
        "WORKER_NOT_FOUND",
        &["nobody"],
    );
}

#[test]
fn a_request_that_is_repeated_at_another_member_attaches_once() {
    let (cluster, sdm) = scene();
    let id = cluster::request_id(&sdm);
    let line = ["disk", "attach", "web-01", "--host", "host-1", "--request-id", &id];
    let first = cluster.sdm_at(&["node-a"]).done(&line);
    let again = cluster.sdm_at(&["node-b"]).done(&line);
    assert_eq!(text_of(&first["attachment"], "token"), text_of(&again["attachment"], "token"));
    assert_eq!(sdm.done(&["disk", "attachments"])["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_a_lost_client_may_have_written_stays_unfenced_until_somebody_looked() {
    let (_cluster, sdm) = scene();
    // The session is that of a command which holds a lock, and ends when it is killed.
    let holder = sdm.start(&["lock", "acquire", "user/vm-agent", "--ttl", "8s", "--", "sleep", "600"]);
    let mut session = String::new();
    until("the agent has its session", || {
        let locks = list(&sdm, "lock");
        let own = locks.iter().find(|lock| lock.to_string().contains("vm-agent") && lock["token"] != Value::Null);
        session = own.map(|lock| text_of(lock, "owner_id").to_owned()).unwrap_or_default();
        if session.is_empty() { Err(format!("{locks:?}")) } else { Ok(()) }
    });
    sdm.done(&["disk", "attach", "web-01", "--host", "host-1", "--session", &session, "--reason", "vm web-01"]);
    drop(holder.kill());
    until("the session is over", || {
        let items = sdm.done(&["disk", "attachments"]);
        if items["items"][0]["state"] == "unfenced" { Ok(()) } else { Err(items.to_string()) }
    });
    assert!(codes(&sdm).contains(&"ATTACHMENT_UNFENCED".to_owned()), "{:?}", codes(&sdm));
    let refused = sdm.refused(&["disk", "delete", "web-01"]);
    refused.says(5, "ATTACHED", &["unfenced"]);
    assert!(refused.hint().contains("--stopped"), "{}", refused.hint());
    sdm.refused(&["disk", "detach", "web-01"]).says(5, "FENCE_REQUIRED", &["nothing proves"]);
    sdm.refused(&["disk", "detach", "web-01", "--stopped"]).says(2, "REASON_NEEDED", &[]);
    sdm.done(&["disk", "detach", "web-01", "--stopped", "--reason", "looked: no qemu there"]);
    assert!(!codes(&sdm).contains(&"ATTACHMENT_UNFENCED".to_owned()));
    sdm.done(&["disk", "delete", "web-01"]);
}

#[test]
fn a_disk_whose_file_is_gone_or_cut_is_not_given_to_a_host() {
    let (_cluster, sdm) = scene();
    let path = |sdm: &Sdm| text_of(&sdm.done(&["disk", "show", "web-01"])["volumes"][0], "path").to_owned();
    let file = path(&sdm);
    let attach = ["disk", "attach", "web-01", "--host", "host-1"];
    let aside = format!("{file}.aside");
    std::fs::rename(&file, &aside).expect("it is renamed");
    for line in [&attach[..], &[&attach[..], &["--read-only"]].concat(), &[&attach[..], &["--dry-run"]].concat()] {
        let refused = sdm.refused(line);
        refused.says(5, "VOLUME_MISSING", &["web-01", "not whole"]);
        assert!(refused.hint().contains("sdm domain check shelf-1"), "{refused:?}");
    }
    std::fs::rename(&aside, &file).expect("it is renamed back");
    std::fs::File::options().write(true).open(&file).expect("it is there").set_len(4096).expect("it is cut");
    sdm.refused(&attach).says(5, "VOLUME_MISSING", &["SIZE_WRONG"]);
    assert!(sdm.done(&["disk", "attachments", "web-01"])["items"].as_array().is_some_and(Vec::is_empty));
    std::fs::File::options().write(true).open(&file).expect("it is there").set_len(16 << 20).expect("it is whole");
    sdm.done(&attach);
}
