//! Locks for scripts: `sdm lock acquire` with real commands under it, contenders, signals, and members
//! and holders that die or stand still.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use cluster::Shared;
use cluster::Started;
use cluster::list;
use cluster::text_of;
use host::Scratch;
use host::Stopped;
use host::children_of;
use host::send;
use host::text;
use host::until;
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::path::PathBuf;

/// Says which token it holds, and goes on until it is told to end.
const HOLD: &str =
    "echo \"$SDM_LOCK_TOKEN\" > \"$1.new\" && mv \"$1.new\" \"$1\"; while [ ! -e \"$2\" ]; do sleep 0.02; done; exit 7";

/// A command that holds a lock, or waits for it.
struct Holder {
    started: Started,
    token: PathBuf,
    stop: PathBuf,
}

impl Holder {
    fn start(sdm: &Sdm, folder: &Scratch, name: &str, resource: &str, options: &[&str]) -> Self {
        let (token, stop) = (folder.join(&format!("{name}.token")), folder.join(&format!("{name}.stop")));
        let mut line = vec!["lock", "acquire", resource];
        line.extend(options);
        line.extend(["--", "sh", "-c", HOLD, "sh", text(&token), text(&stop)]);
        Self { started: sdm.start(&line), token, stop }
    }

    /// Waits until it holds the lock; its token.
    #[track_caller]
    fn held(&mut self) -> (u64, u64, u32) {
        until("the lock is held", || {
            if !self.started.is_running() {
                return Err("the command has ended".to_owned());
            }
            let said = std::fs::read_to_string(&self.token).map_err(|error| error.to_string())?;
            token(&said).ok_or(said)
        })
    }

    fn waits(&self) -> bool {
        !self.token.exists()
    }

    #[track_caller]
    fn ends_with(self, code: i32) {
        std::fs::write(&self.stop, "").expect("the folder takes files");
        let finished = self.started.finish();
        assert_eq!(finished.code, code, "{finished:?}");
    }
}

fn token(text: &str) -> Option<(u64, u64, u32)> {
    let mut parts = text.trim().split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The lock sets of a resource, as (state, owner, why).
fn locks_of(sdm: &Sdm, resource: &str) -> Vec<(String, String, String)> {
    let names = |lock: &Value| lock["resources"].to_string().contains(&format!("\"{resource}\""));
    let row = |lock: Value| ["state", "owner_id", "why"].map(|key| text_of(&lock, key).to_owned()).into();
    list(sdm, "lock").into_iter().filter(names).map(row).collect()
}

#[track_caller]
fn becomes_free(sdm: &Sdm, resource: &str) {
    until("the lock is free", || match locks_of(sdm, resource) {
        locks if locks.is_empty() => Ok(()),
        locks => Err(format!("{locks:?}")),
    });
}

#[track_caller]
fn waits_in_line(sdm: &Sdm, resource: &str, count: usize) {
    until("requests wait", || {
        let locks = locks_of(sdm, resource);
        let waiting = locks.iter().filter(|(state, ..)| state == "waiting").count();
        if waiting == count { Ok(()) } else { Err(format!("{locks:?}")) }
    });
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn the_command_finds_its_token_and_its_exit_code_is_the_answer() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let script = "echo \"$SDM_LOCK_TOKEN $SDM_LOCK_RESOURCE $SDM_LOCK_SESSION\"; exit 42";
    let finished = sdm.run(&["lock", "acquire", "answer", "--", "sh", "-c", script]);
    assert_eq!(finished.code, 42, "{finished:?}");
    let words: Vec<&str> = finished.stdout.split_whitespace().collect();
    assert!(token(words[0]).is_some() && words[1] == "user/answer" && words[2].parse::<u64>().is_ok(), "{words:?}");
    let killed = sdm.run(&["lock", "acquire", "answer", "--", "sh", "-c", "kill -USR1 $$"]);
    assert_eq!(killed.code, 128 + 10, "{killed:?}");
    assert_eq!(sdm.run(&["lock", "acquire", "user/answer", "--", "true"]).code, 0);
    becomes_free(&sdm, "user/answer");
}

#[test]
fn a_command_that_is_not_there_or_cannot_run_ends_as_with_env_and_leaves_no_lock() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    sdm.refused(&["lock", "acquire", "missing", "--", "/no/such/command"]).says(
        127,
        "COMMAND_NOT_FOUND",
        &["/no/such"],
    );
    let plain = files.join("plain");
    std::fs::write(&plain, "echo").unwrap();
    sdm.refused(&["lock", "acquire", "missing", "--", text(&plain)]).says(126, "COMMAND_NOT_RUN", &["plain"]);
    becomes_free(&sdm, "user/missing");
}

#[test]
fn without_a_wait_the_refusal_names_who_holds_it_and_since_when() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let mut holder = Holder::start(&sdm, &files, "first", "busy", &["--reason", "nightly backup"]);
    holder.held();
    let refused = sdm.refused(&["lock", "acquire", "busy", "--", "true"]);
    refused.says(5, "LOCKED", &["user/busy", "nightly backup"]);
    let blockers = refused.blockers();
    assert!(blockers[0].contains("nightly backup") && blockers[0].contains("held for"), "{blockers:?}");
    assert!(refused.hint().contains("--wait"), "{refused:?}");
    let late = sdm.refused(&["lock", "acquire", "busy", "--wait", "1s", "--", "true"]);
    late.says(5, "LOCK_WAIT_TIMEOUT", &["waited 1 s", "nightly backup"]);
    holder.ends_with(7);
    becomes_free(&sdm, "user/busy");
}

#[test]
fn who_waits_gets_it_in_turn_with_a_greater_token_and_never_beside_another() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let mut first = Holder::start(&sdm, &files, "first", "queue", &[]);
    let token = first.held();
    let mut second = Holder::start(&sdm, &files, "second", "queue", &["--wait", "2m"]);
    waits_in_line(&sdm, "user/queue", 1);
    let mut third = Holder::start(&sdm, &files, "third", "queue", &["--wait", "2m"]);
    waits_in_line(&sdm, "user/queue", 2);
    assert!(second.waits() && third.waits());
    first.ends_with(7);
    let next = second.held();
    assert!(next > token && third.waits());
    second.ends_with(7);
    assert!(third.held() > next);
    third.ends_with(7);
}

#[test]
fn contenders_never_run_together() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    // Making a folder that is there fails: two at once would be seen.
    let script = "mkdir \"$1\" || exit 99; sleep 0.1; rmdir \"$1\"; echo x >> \"$2\"";
    let (inside, done) = (files.join("inside"), files.join("done"));
    let start = || {
        let command = ["--", "sh", "-c", script, "sh", text(&inside), text(&done)];
        sdm.start(&[&["lock", "acquire", "contended", "--wait", "2m"][..], &command].concat())
    };
    let contenders: Vec<Started> = (0..5).map(|_| start()).collect();
    for contender in contenders {
        let finished = contender.finish();
        assert_eq!(finished.code, 0, "{finished:?}");
    }
    assert_eq!(std::fs::read_to_string(&done).unwrap().lines().count(), 5);
}

#[test]
fn those_who_share_hold_it_together_and_who_excludes_waits_for_all_of_them() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let mut readers = ["a", "b"].map(|name| Holder::start(&sdm, &files, name, "shared", &["--mode", "S"]));
    readers.iter_mut().for_each(|reader| _ = reader.held());
    let mut writer = Holder::start(&sdm, &files, "writer", "shared", &["--wait", "2m"]);
    waits_in_line(&sdm, "user/shared", 1);
    let [a, b] = readers;
    a.ends_with(7);
    assert!(writer.waits());
    b.ends_with(7);
    writer.held();
    writer.ends_with(7);
}

#[test]
fn a_signal_ends_the_command_with_what_it_started_and_releases_the_lock() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    for (name, signal) in [("term", Signal::TERM), ("int", Signal::INT)] {
        let pids = files.join(name);
        let script = "sleep 1000 & echo \"$$ $!\" > \"$1.new\"; mv \"$1.new\" \"$1\"; wait";
        let started = sdm.start(&["lock", "acquire", name, "--", "sh", "-c", script, "sh", text(&pids)]);
        let pids: Vec<u32> = until("the command runs", || {
            let said = std::fs::read_to_string(&pids).map_err(|error| error.to_string())?;
            Ok(said.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
        });
        assert_eq!(pids.len(), 2);
        send(started.pid(), signal);
        let finished = started.finish();
        assert_eq!(finished.code, 128 + 15, "{finished:?}");
        assert!(pids.iter().all(|pid| is_gone(*pid)), "of {pids:?} some are left");
        becomes_free(&sdm, &format!("user/{name}"));
    }
}

#[test]
fn a_command_that_does_not_end_is_killed_when_it_is_asked_again() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let deaf = files.join("deaf");
    let script = "trap 'echo > \"$1.heard\"' TERM; echo > \"$1\"; while true; do sleep 0.05; done";
    let started = sdm.start(&["lock", "acquire", "deaf", "--", "sh", "-c", script, "sh", text(&deaf)]);
    until("the command runs", || if deaf.exists() { Ok(()) } else { Err("not yet".to_owned()) });
    send(started.pid(), Signal::TERM);
    let heard = files.join("deaf.heard");
    until("the command was asked", || if heard.exists() { Ok(()) } else { Err("not yet".to_owned()) });
    send(started.pid(), Signal::TERM);
    let finished = started.finish();
    assert_eq!(finished.code, 128 + 9, "{finished:?}");
    becomes_free(&sdm, "user/deaf");
}

#[test]
fn who_is_interrupted_while_waiting_leaves_the_line() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let mut holder = Holder::start(&sdm, &files, "holder", "line", &[]);
    holder.held();
    let waiting = Holder::start(&sdm, &files, "waiting", "line", &["--wait", "5m"]);
    waits_in_line(&sdm, "user/line", 1);
    send(waiting.started.pid(), Signal::INT);
    waiting.started.finish().refusal().says(130, "INTERRUPTED", &[]);
    waits_in_line(&sdm, "user/line", 0);
    let timed = ["--timeout", "300ms", "lock", "acquire", "line", "--wait", "5m", "--", "true"];
    sdm.refused(&timed).says(9, "TIMED_OUT", &["timed out after 0.3s"]);
    waits_in_line(&sdm, "user/line", 0);
    holder.ends_with(7);
}

#[test]
fn a_holder_that_is_killed_takes_its_command_with_it_and_its_lease_releases_the_lock() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let mut holder = Holder::start(&sdm, &files, "holder", "killed", &["--ttl", "3s"]);
    holder.held();
    let [command] = children_of(holder.started.pid())[..] else { panic!("one command") };
    holder.started.kill();
    until("the command is gone", || if is_gone(command) { Ok(()) } else { Err(format!("{command} lives")) });
    let mut next = Holder::start(&sdm, &files, "next", "killed", &["--wait", "1m"]);
    next.held();
    next.ends_with(7);
}

#[test]
fn a_holder_that_stood_still_past_its_lease_ends_its_command_and_says_so() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let mut holder = Holder::start(&sdm, &files, "holder", "frozen", &["--ttl", "3s"]);
    let token = holder.held();
    let [command] = children_of(holder.started.pid())[..] else { panic!("one command") };
    let frozen = Stopped::new(vec![holder.started.pid()]);
    let mut next = Holder::start(&sdm, &files, "next", "frozen", &["--wait", "1m"]);
    assert!(next.held() > token);
    assert!(!is_gone(command), "nobody could end it yet: that is what the token is for");
    frozen.go_on();
    let refused = holder.started.finish().refusal();
    refused.says(12, "SESSION_LOST", &["the command was ended"]);
    assert!(refused.hint().contains("SDM_LOCK_TOKEN"), "{refused:?}");
    assert!(is_gone(command));
    next.ends_with(7);
}

#[test]
fn a_command_whose_members_are_gone_is_killed_before_its_lease_is_over() {
    let cluster = Cluster::start(&Shape::usual());
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let ready = files.join("ready");
    // Deaf to SIGTERM: only SIGKILL ends it.
    let script = "trap '' TERM; : > \"$1\"; while :; do sleep 0.05; done";
    let line = ["lock", "acquire", "alone", "--ttl", "6s", "--", "sh", "-c", script, "sh", text(&ready)];
    let holder = sdm.start(&line);
    until("the command runs", || if ready.exists() { Ok(()) } else { Err("not yet".to_owned()) });
    let [command] = children_of(holder.pid())[..] else { panic!("one command") };
    let members = Stopped::new(cluster.member_names().iter().map(|name| cluster.pid(name)).collect());
    let begun = std::time::Instant::now();
    until("the command is gone", || if is_gone(command) { Ok(()) } else { Err(format!("{command} lives")) });
    // The lease was renewed last before the members stood still. What is more than its 6 s is the machine's.
    assert!(begun.elapsed() < std::time::Duration::from_secs(8), "it outlived its lease: {:?}", begun.elapsed());
    members.go_on();
    holder.finish().refusal().says(12, "SESSION_LOST", &["the command was ended"]);
}

#[test]
fn other_resources_and_bad_options_are_refused_before_anything_runs() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let ran = files.join("ran");
    let refused =
        |options: &[&str]| sdm.refused(&[&["lock", "acquire"][..], options, &["--", "touch", text(&ran)]].concat());
    refused(&["disk/web-01"]).says(3, "DISK_NOT_FOUND", &["web-01"]);
    refused(&["a b"]).says(2, "BAD_RESOURCE", &[]);
    for (slip, spelling) in [("user/z:s", "user/z:S"), ("foo/z", "user/foo/z"), ("disks/a:X", "disk/NAME")] {
        let told = refused(&[slip]);
        told.says(2, "BAD_RESOURCE", &[slip]);
        assert!(told.hint().contains(spelling), "{told:?}");
    }
    refused(&["name/worker/a"]).says(2, "BAD_RESOURCE", &["name/worker/a"]);
    refused(&["a", "--wait", "5"]).says(2, "BAD_DURATION", &["--wait"]);
    refused(&["a", "--wait", "2d"]).says(2, "BAD_LOCK_WAIT", &[]);
    refused(&["a", "--mode", "SIX"]).says(2, "USAGE", &[]);
    refused(&["a", "--reason", "two\nlines"]).says(2, "BAD_REASON", &[]);
    assert!(!ran.exists());
}

#[test]
fn a_lock_outlives_the_leader_and_so_does_a_wait_for_it() {
    let mut cluster = Cluster::start(&Shape::usual());
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let leader = cluster.leader();
    // Both talk to the leader first.
    let mut order = vec![cluster.address_of(&leader).to_owned()];
    order.extend(sdm.endpoints.iter().filter(|address| **address != order[0]).cloned().collect::<Vec<_>>());
    let at_leader = Sdm { endpoints: order, ..sdm.clone() };
    let mut holder = Holder::start(&at_leader, &files, "holder", "steady", &[]);
    let token = holder.held();
    let mut waiting = Holder::start(&at_leader, &files, "waiting", "steady", &["--wait", "2m"]);
    waits_in_line(&sdm, "user/steady", 1);
    cluster.kill(&leader);
    // Longer, by the cluster's clock, than a lease without a renewal would last.
    let session = locks_of(&sdm, "user/steady")[0].1.clone();
    let clock_ms = || sdm.done(&["status"])["clock_ms"].as_u64().unwrap_or_default();
    let over_ms = clock_ms() + 2 * u64::try_from(sdm_proto::limits::SESSION_TTL.as_millis()).unwrap();
    until("two leases' time is over", || {
        let locks = locks_of(&sdm, "user/steady");
        assert_eq!((locks.len(), &locks[0].1), (2, &session), "{locks:?}");
        assert!(waiting.waits() && holder.started.is_running());
        let now_ms = clock_ms();
        if now_ms >= over_ms { Ok(()) } else { Err(format!("{now_ms} of {over_ms} ms")) }
    });
    holder.ends_with(7);
    assert!(waiting.held() > token);
    waiting.ends_with(7);
    becomes_free(&sdm, "user/steady");
}
