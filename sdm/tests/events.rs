//! Events, with real processes: what happened is told once, in order, from any member, and goes on at another one
//! when the one that tells dies.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Shape;
use cluster::Shared;
use cluster::text_of;
use host::until;
use serde_json::Value;
use std::io::BufRead;
use std::io::BufReader;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

type Told = Arc<Mutex<Vec<Value>>>;

fn key(event: &Value) -> (u64, u64) {
    (event["index"].as_u64().unwrap_or_default(), event["ordinal"].as_u64().unwrap_or_default())
}

/// Follows events at these members, in the background.
fn follow(endpoints: &str, since: u64) -> (std::process::Child, Told) {
    let mut command = cluster::program();
    command.args(["-o", "jsonl", "--endpoints", endpoints, "events", "--follow", "--since", &since.to_string()]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let (told, pipe) = (Told::default(), child.stdout.take().expect("a pipe"));
    let lines = Arc::clone(&told);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            lines.lock().expect("nobody panicked with it").push(event);
        }
    });
    (child, told)
}

#[test]
fn what_happened_is_told_once_and_in_order_also_when_the_member_that_tells_dies() {
    let mut cluster = Cluster::start(&Shape::usual());
    let sdm = cluster.sdm();
    cluster.make_domain("shelf-1");
    let names = cluster.member_names();
    let endpoints: Vec<String> = names.iter().map(|name| cluster.address_of(name).to_owned()).collect();
    let since = sdm.done(&["events"])["revision"].as_u64().expect("an index");
    // It begins at the first endpoint: that one is killed in the middle.
    let (mut child, told) = follow(&endpoints.join(","), since);
    let make = |n: u32| {
        let others = cluster::Sdm { endpoints: endpoints[1..].to_vec(), ..cluster.sdm() };
        others.done(&["disk", "create", &format!("disk-{n}"), "--domain", "shelf-1", "--size", "1MiB"]);
    };
    (0..4).for_each(make);
    until("the first ones are told", || {
        let count = told.lock().expect("nobody panicked with it").len();
        if count >= 4 { Ok(()) } else { Err(format!("{count} events")) }
    });
    cluster.kill(&names[0]);
    let others = cluster::Sdm { endpoints: endpoints[1..].to_vec(), ..cluster.sdm() };
    for n in 4..8 {
        others.done(&["disk", "create", &format!("disk-{n}"), "--domain", "shelf-1", "--size", "1MiB"]);
    }
    until("all disks are told of", || {
        let told = told.lock().expect("nobody panicked with it");
        let made = |event: &&Value| event["kind"] == "disk-made" && text_of(event, "object").starts_with("disk/disk-");
        let disks = told.iter().filter(made).count();
        if disks == 8 { Ok(()) } else { Err(format!("{disks} of 8 disks")) }
    });
    child.kill().expect("it runs");
    child.wait().expect("it ended");
    let told: Vec<(u64, u64)> = told.lock().expect("nobody panicked with it").iter().map(key).collect();
    assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "told twice or out of order: {told:?}");
    let all = others.done(&["events", "--since", &since.to_string()]);
    let all: Vec<(u64, u64)> = all["items"].as_array().expect("events").iter().map(key).collect();
    assert_eq!(told, all[..told.len()], "the stream left something out");
    cluster.nobody_panicked();
}

#[test]
fn every_member_tells_the_same() {
    let cluster = Shared::cluster();
    let all = cluster.sdm().done(&["events"]);
    let until_index = all["revision"].as_u64().expect("an index");
    let first: Vec<(u64, u64)> = all["items"].as_array().expect("events").iter().map(key).collect();
    assert!(!first.is_empty());
    for name in cluster.member_names() {
        let told = cluster.sdm_at(&[&name]).done(&["events"]);
        let told: Vec<(u64, u64)> = told["items"].as_array().expect("events").iter().map(key).collect();
        let told: Vec<(u64, u64)> = told.into_iter().filter(|(index, _)| *index <= until_index).collect();
        assert_eq!(told, first, "{name} tells otherwise");
    }
}

#[test]
fn kinds_are_told_apart_and_an_index_to_come_is_refused() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let workers = sdm.done(&["events", "--kind", "worker"]);
    let workers = workers["items"].as_array().expect("events");
    assert!(!workers.is_empty() && workers.iter().all(|event| text_of(event, "kind").starts_with("worker-")));
    sdm.refused(&["events", "--since", "999999999"]).says(2, "INDEX_IN_FUTURE", &["999999999"]);
    let people = sdm.run_for_people(&["events"]).stdout;
    assert!(people.contains("worker-live") && people.contains("worker/host-1"), "{people}");
}
