//! A rolling restart under load: whatever clients ask for meanwhile is done. No command fails, through
//! whichever members it goes.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use host::send;
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
