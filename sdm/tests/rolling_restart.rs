//! A rolling restart under load: whatever clients ask for meanwhile is done. No command fails, through
//! whichever members it goes.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use cluster::list;
use host::send;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What clients did while members came and went.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    done: AtomicUsize,
    failed: std::sync::Mutex<Vec<String>>,
}

impl Load {
    /// Runs commands until it is over, each with other members first.
    fn run(&self, sdm: &Sdm, command: impl Fn(usize) -> Vec<String>) {
        let mut turn = 0;
        while !self.over.load(Ordering::Relaxed) {
            let mut sdm = sdm.clone();
            let count = sdm.endpoints.len();
            sdm.endpoints.rotate_left(turn % count);
            let arguments = command(turn);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let finished = sdm.run(&arguments);
            if finished.code == 0 {
                self.done.fetch_add(1, Ordering::Relaxed);
            } else {
                self.failed.lock().expect("nobody panicked").push(format!("{finished:?}"));
            }
            turn += 1;
        }
    }

    /// Waits until so many more were done: the members that run serve.
    fn go_on(&self, count: usize) {
        let begin = self.done.load(Ordering::Relaxed);
        host::until("the clients go on", || {
            let done = self.done.load(Ordering::Relaxed) - begin;
            let failed = self.failed.lock().expect("nobody panicked").len();
            if done >= count || failed > 0 { Ok(()) } else { Err(format!("{done} of {count} commands")) }
        });
    }
}

/// Ends the load with the story, also where that fails.
struct Ends<'a>(&'a Load);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// A binary of an earlier build whose log this one reads (one that keeps its log in segments):
/// `SDM_OLDER_BINARY=… cargo test -p sdm --test rolling_restart`.
const OLDER_BINARY: &str = "SDM_OLDER_BINARY";

/// The feature level that the cluster is at.
fn level(sdm: &Sdm) -> u64 {
    sdm.done(&["status"])["feature_level"].as_u64().expect("a level")
}

/// The highest feature level that every member knows.
fn supported(sdm: &Sdm) -> u64 {
    let known = list(sdm, "member").into_iter();
    known.map(|member| member["feature_level_max"].as_u64().expect("a level")).min().expect("a member")
}

#[test]
fn a_cluster_of_an_earlier_build_is_upgraded_member_by_member_and_no_command_fails() {
    let Some(older) = std::env::var_os(OLDER_BINARY).map(PathBuf::from) else {
        eprintln!("SKIPPED: {OLDER_BINARY} names no binary of an earlier build");
        return;
    };
    let mut cluster = Cluster::start_with(&Shape::usual(), Some(older.clone()));
    cluster.make_domain("shelf-1");
    let (load, sdm) = (Load::default(), cluster.sdm());
    let before = supported(&sdm);
    host::until("its level is the one that it knows", || match level(&sdm) {
        now if now == before => Ok(()),
        now => Err(format!("it is {now} of {before}")),
    });
    std::thread::scope(|scope| {
        let _ends = Ends(&load);
        let (load, sdm) = (&load, &sdm);
        scope.spawn(move || {
            load.run(sdm, |turn| {
                let name = format!("disk-{turn}");
                ["disk", "create", &name, "--domain", "shelf-1", "--size", "1M"].map(str::to_owned).to_vec()
            });
        });
        scope.spawn(move || load.run(sdm, |_| ["disk", "list"].map(str::to_owned).to_vec()));
        load.go_on(6);
        cluster.upgrade();
        let leader = cluster.leader();
        let followers = cluster.member_names().into_iter().filter(|name| *name != leader);
        for name in followers.chain([leader.clone()]).collect::<Vec<_>>() {
            assert_eq!(level(sdm), before, "an earlier build is there yet");
            send(cluster.pid(&name), rustix::process::Signal::TERM);
            cluster.process(&name).expect("it runs").ended(Duration::from_secs(30));
            cluster.kill(&name);
            load.go_on(3);
            cluster.start_node(&name);
            cluster.await_members(3);
            load.go_on(3);
        }
        host::until("the level is the one that all know", || match (level(sdm), supported(sdm)) {
            (now, known) if now == known => Ok(()),
            (now, known) => Err(format!("it is {now} of {known}")),
        });
        load.go_on(3);
    });
    let failed = load.failed.lock().expect("nobody panicked");
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join("\n"));
    drop(failed);
    if level(&sdm) == before {
        eprintln!("SKIPPED: that there is no way back: {OLDER_BINARY} knows this build's feature level");
        return;
    }
    // There is no way back, and the earlier build says so.
    let name = "node-b";
    let folder = cluster.path(name);
    cluster.kill(name);
    let back = Command::new(older)
        .args(["coordinator", "--name", name, "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder)
        .output();
    let back = back.expect("it runs");
    let said = String::from_utf8_lossy(&back.stderr);
    assert!(!back.status.success() && said.contains("newer version of sdm"), "{said}");
}

#[test]
fn no_command_fails_while_every_member_is_restarted_and_one_is_killed() {
    let mut cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("shelf-1");
    let load = Load::default();
    let sdm = cluster.sdm();
    std::thread::scope(|scope| {
        let _ends = Ends(&load);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        let (load, sdm) = (&load, &sdm);
        scope.spawn(move || {
            load.run(sdm, |turn| {
                words(&["disk", "create", &format!("disk-{turn}"), "--domain", "shelf-1", "--size", "1M"])
            });
        });
        scope.spawn(move || load.run(sdm, |_| words(&["request-id"])));
        scope.spawn(move || load.run(sdm, |_| words(&["disk", "list"])));
        load.go_on(6);
        for name in ["node-a", "node-b", "node-c"] {
            send(cluster.pid(name), rustix::process::Signal::TERM);
            let status = cluster.process(name).expect("it runs").ended(Duration::from_secs(30));
            assert_eq!(status.code(), Some(0), "{name}: {}", cluster.said(name));
            cluster.kill(name);
            load.go_on(3);
            cluster.start_node(name);
            cluster.await_members(3);
            load.go_on(3);
        }
        let leader = cluster.leader();
        cluster.kill(&leader);
        load.go_on(6);
        cluster.start_node(&leader);
        cluster.await_members(3);
    });
    let failed = load.failed.lock().expect("nobody panicked");
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join("\n"));
}
