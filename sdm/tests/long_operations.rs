//! What an operator does while an operation runs: looks at it, leaves it, takes it back.

mod cluster;
mod host;
mod images;

use cluster::Cluster;
use cluster::Held;
use cluster::Place;
use cluster::Sdm;
use cluster::Shared;
use cluster::dot_names;
use cluster::hold_export;
use cluster::hold_import;
use cluster::hold_move;
use cluster::items;
use cluster::list;
use cluster::names;
use cluster::request_id;
use cluster::story;
use cluster::text_of;
use host::Scratch;
use host::send;
use host::text;
use host::until;
use images::differing_bytes;
use images::noise;
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::path::PathBuf;

/// Two domains of a test's own, and a disk in the first that holds `file`.
struct Stage {
    sdm: Sdm,
    from: String,
    to: String,
    target: PathBuf,
    file: PathBuf,
    work: Scratch,
}

fn stage(cluster: &Cluster, name: &str) -> Stage {
    let (from, to) = (format!("{name}-1"), format!("{name}-2"));
    cluster.make_domain(&from);
    let target = cluster.make_domain(&to);
    let work = Scratch::new("files");
    let file = noise(work.path(), name, 64);
    let sdm = cluster.sdm();
    sdm.done(&["disk", "import", text(&file), "--name", name, "--domain", &from, "--format", "raw"]);
    Stage { sdm, from, to, target, file, work }
}

impl Stage {
    fn hold_move(&self, cluster: &Cluster, disk: &str) -> (String, Held) {
        let to = Place { domain: &self.to, folder: &self.target };
        hold_move(cluster, &self.sdm, "host-1", disk, &self.from, to)
    }

    #[track_caller]
    fn disk_is(&self, disk: &str, domain: &str) {
        assert_eq!(self.sdm.done(&["disk", "show", disk])["domain"], domain);
        let exported = self.work.join("exported");
        self.sdm.done(&["disk", "export", disk, text(&exported), "--overwrite"]);
        assert_eq!(differing_bytes(&self.file, &exported), None, "{disk} is not what was imported");
    }
}

fn ended(sdm: &Sdm, id: &str, phase: &str) -> Value {
    until(&format!("{id} is {phase}"), || {
        let (txn, _) = story(sdm, id);
        if txn["phase"] == phase { Ok(txn) } else { Err(txn.to_string()) }
    })
}

#[test]
fn ctrl_c_leaves_the_move_to_go_on() {
    let cluster = Shared::cluster();
    let stage = stage(&cluster, "left-alone");
    let (id, held) = stage.hold_move(&cluster, "left-alone");
    let Held { command, stopped, .. } = held;
    send(command.pid(), Signal::INT);
    let refused = command.finish().refusal();
    refused.says(130, "INTERRUPTED", &[&id, "goes on"]);
    assert!(refused.hint().contains(&format!("sdm txn show {id}")), "{refused:?}");
    assert_eq!(story(&stage.sdm, &id).0["phase"], "running");
    stopped.go_on();
    ended(&stage.sdm, &id, "committed");
    stage.disk_is("left-alone", "left-alone-2");
}

#[test]
fn ctrl_c_ends_an_import_at_once_with_all_that_it_held() {
    let cluster = Shared::cluster();
    let stage = stage(&cluster, "not-wanted");
    let file = noise(stage.work.path(), "unwanted", 64);
    let folder = Place { domain: &stage.to, folder: &stage.target };
    let (id, held) = hold_import(&cluster, "host-1", &file, "unwanted", folder);
    let Held { command, stopped, .. } = held;
    send(command.pid(), Signal::INT);
    let refused = command.finish().refusal();
    refused.says(130, "INTERRUPTED", &[&id, "was aborted", "locks are released"]);
    let (txn, _) = story(&stage.sdm, &id);
    assert_eq!(txn["phase"], "aborted", "{txn}");
    let held: Vec<_> =
        list(&stage.sdm, "lock").into_iter().filter(|lock| text_of(lock, "why").contains("unwanted")).collect();
    assert!(held.is_empty(), "{held:?}");
    stopped.go_on();
    // Its name is free, without a minute's wait.
    let line =
        ["disk", "create", "unwanted", "--domain", &stage.to, "--size", "1MiB", "--format", "raw", "--no-wait-lock"];
    stage.sdm.done(&line);
}

#[test]
fn a_move_that_is_aborted_leaves_the_disk_where_it_was() {
    let cluster = Shared::cluster();
    let stage = stage(&cluster, "aborted");
    let (id, held) = stage.hold_move(&cluster, "aborted");
    let Held { command, stopped, dot_name } = held;
    let aborted = stage.sdm.done(&["txn", "abort", &id, "--reason", "second thoughts"]);
    assert_eq!(aborted["phase"], "aborted", "{aborted}");
    command.finish().refusal().says(8, "ABORTED", &["second thoughts"]);
    stopped.go_on();
    let (_, told) = story(&stage.sdm, &id);
    assert!(told.iter().any(|line| line.contains("second thoughts")), "{told:#?}");
    // Again changes nothing, and what is done cannot be undone this way.
    assert_eq!(stage.sdm.done(&["txn", "abort", &id])["phase"], "aborted");
    stage.disk_is("aborted", "aborted-1");
    stage.sdm.done(&["gc", "run"]);
    assert!(!dot_names(&stage.target).contains(&dot_name), "half a copy is there");
    let done = request_id(&stage.sdm);
    stage.sdm.done(&["disk", "move", "aborted", "--to", "aborted-2", "--request-id", &done]);
    let refused = stage.sdm.refused(&["txn", "abort", &done]);
    refused.says(5, "TXN_COMMITTED", &[&done]);
    stage.disk_is("aborted", "aborted-2");
}

#[test]
fn a_command_that_does_not_wait_answers_with_what_it_began() {
    let cluster = Shared::cluster();
    let stage = stage(&cluster, "not-waited");
    let id = request_id(&stage.sdm);
    let line = ["disk", "move", "not-waited", "--to", "not-waited-2", "--no-wait", "--request-id", &id];
    let begun = stage.sdm.done(&line);
    assert_eq!(begun["transaction"]["id"], id.as_str(), "{begun}");
    assert!(["running", "committed"].contains(&text_of(&begun["transaction"], "phase")), "{begun}");
    ended(&stage.sdm, &id, "committed");
    assert_eq!(stage.sdm.done(&line)["transaction"]["phase"], "committed");
    stage.disk_is("not-waited", "not-waited-2");
    let left = stage.sdm.done(&["gc", "run", "--no-wait"]);
    assert!(left["items"].is_array(), "{left}");
}

#[test]
fn what_runs_is_shown_as_a_transaction_a_job_and_a_lock() {
    let cluster = Shared::cluster();
    let stage = stage(&cluster, "looked-at");
    let (id, held) = stage.hold_move(&cluster, "looked-at");
    let sdm = &stage.sdm;
    let open = items(&sdm.done(&["txn", "list", "--open"]));
    let txn = open.iter().find(|txn| txn["id"] == id.as_str()).expect("it is open");
    assert_eq!(text_of(txn, "summary"), "move disk looked-at from looked-at-1 to looked-at-2");
    let job = list(sdm, "job").into_iter().find(|job| job["transaction_id"] == id.as_str()).expect("it has a job");
    assert_eq!((&job["worker"], &job["attempt"]), (&"host-1".into(), &1.into()), "{job}");
    assert_eq!(job["total_bytes"], 64 << 20, "{job}");
    let lock = list(sdm, "lock").into_iter().find(|lock| lock["owner_id"] == id.as_str()).expect("it has a lock");
    let modes: Vec<&str> = items_of(&lock, "resources").iter().map(|of| text_of(of, "mode")).collect();
    assert_eq!(modes, ["IX", "IX", "X"], "{lock}");
    for noun in ["txn", "job", "lock"] {
        let shown = sdm.run_for_people(&[noun, "list"]);
        assert!(shown.code == 0 && shown.stdout.contains("looked-at"), "{shown:?}");
    }
    let shown = sdm.run_for_people(&["txn", "show", &id]);
    for part in ["looked-at", "running", "host-1", "attempt"] {
        assert!(shown.stdout.contains(part), "no {part} in {}", shown.stdout);
    }
    held.go_on().finish().result();
}

fn items_of<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[test]
fn who_waits_is_told_for_whom_while_it_waits() {
    let cluster = Shared::cluster();
    let stage = stage(&cluster, "told");
    let (id, held) = stage.hold_move(&cluster, "told");
    let waiting = stage.sdm.start_for_people(&["disk", "delete", "told", "--wait-lock", "3s"]);
    let over = waiting.finish();
    assert_eq!((over.code, over.stdout.as_str()), (5, ""), "{over:?}");
    assert!(over.stderr.lines().any(|line| !line.starts_with("error") && line.contains(&id)), "{over:?}");
    held.go_on().finish().result();
    stage.disk_is("told", "told-2");
}

#[test]
fn what_a_command_cannot_end_itself_is_ended_with_it() {
    let cluster = Shared::cluster();
    let stage = stage(&cluster, "cut");
    // The file changes while it is sent: what arrives would be neither the old nor the new one.
    let file = noise(stage.work.path(), "changing", 64);
    let target = cluster.path("cut-1").join(text_of(&stage.sdm.done(&["domain", "show", "cut-1"]), "id"));
    let (id, held) = hold_import(&cluster, "host-1", &file, "changing", Place { domain: "cut-1", folder: &target });
    std::fs::File::options().write(true).open(&file).expect("it is there").set_len(1 << 20).expect("it is cut");
    let refused = held.go_on().finish().refusal();
    refused.states(5, "FILE_CHANGED", &[text(&file)]);
    let txn = ended(&stage.sdm, &id, "aborted");
    assert!(!names(&list(&stage.sdm, "disk")).contains(&"changing".to_owned()), "{txn}");

    // The folder of an export goes away.
    let exports = Scratch::new("exports");
    let folder = exports.folder("gone");
    let (command, stopped, _) = hold_export(&stage.sdm, "cut", &folder);
    std::fs::rename(&folder, exports.join("elsewhere")).expect("it is renamed");
    stopped.go_on();
    let over = command.finish();
    assert!(over.code == 0 || !over.stderr.contains("panicked"), "{over:?}");
    assert!(!Path::new(&folder).exists());
    until("nobody holds the disk", || {
        let locks: Vec<_> =
            list(&stage.sdm, "lock").into_iter().filter(|lock| text_of(lock, "why").contains("disk cut")).collect();
        if locks.is_empty() { Ok(()) } else { Err(format!("{locks:?}")) }
    });
    stage.disk_is("cut", "cut-1");
}
