//! The lock table as operators meet it, with real processes: disks that a script locks, commands under its token,
//! locks that explain themselves, and what is given back, broken, or refused to be broken.

mod cluster;
mod host;
mod images;

use cluster::Cluster;
use cluster::Place;
use cluster::Sdm;
use cluster::Shape;
use cluster::Shared;
use cluster::Started;
use cluster::hold_move;
use cluster::list;
use cluster::request_id;
use cluster::story;
use cluster::text_of;
use host::Scratch;
use host::text;
use host::until;
use images::noise;
use serde_json::Value;
use std::path::Path;

/// Says that it runs, and goes on until it is told to end.
const HOLD: &str =
    "echo $SDM_LOCK_SESSION > \"$1.new\" && mv \"$1.new\" \"$1\"; while [ ! -e \"$2\" ]; do sleep 0.02; done";

/// A command under a lock; its session.
fn hold(sdm: &Sdm, folder: &Scratch, name: &str, resources: &[&str]) -> (Started, String) {
    let (session, stop) = (folder.join(&format!("{name}.session")), folder.join(&format!("{name}.stop")));
    let mut line = vec!["lock", "acquire", "--wait", "30s"];
    line.extend(resources);
    line.extend(["--", "sh", "-c", HOLD, "sh", text(&session), text(&stop)]);
    let started = sdm.start(&line);
    let session = until("the lock is held", || {
        std::fs::read_to_string(&session).map(|said| said.trim().to_owned()).map_err(|error| error.to_string())
    });
    (started, session)
}

fn let_go(folder: &Scratch, name: &str) {
    std::fs::write(folder.join(&format!("{name}.stop")), "").expect("the folder takes files");
}

/// The id of the lock set that is held on this.
#[track_caller]
fn lock_on(sdm: &Sdm, name: &str) -> String {
    let named = |lock: &Value| lock["names"].as_array().is_some_and(|names| names.iter().any(|own| own == name));
    let held = |lock: &Value| lock["state"] != "waiting";
    let locks = list(sdm, "lock");
    let lock = locks.iter().find(|lock| named(lock) && held(lock));
    text_of(lock.unwrap_or_else(|| panic!("{name} is not locked: {locks:#?}")), "id").to_owned()
}

fn disk(sdm: &Sdm, name: &str, domain: &str) {
    sdm.done(&["disk", "create", name, "--domain", domain, "--size", "1MiB"]);
}

fn commands(explained: &Value) -> Vec<&str> {
    let ways = explained["ways_out"].as_array().expect("ways out");
    ways.iter().filter_map(|way| way["command"].as_str()).collect()
}

fn roles(explained: &Value) -> Vec<String> {
    let links = explained["chain"].as_array().expect("a chain");
    links.iter().map(|link| format!("{} {}", text_of(link, "role"), text_of(link, "kind"))).collect()
}

/// The program under test, as a command under a lock runs it.
fn inner<'a>(endpoints: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&[env!("CARGO_BIN_EXE_sdm"), "-o", "json", "--endpoints", endpoints], rest].concat()
}

#[test]
fn a_disk_that_a_script_locks_is_its_own_until_it_ends() {
    let cluster = Cluster::start(&Shape::usual());
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    for shelf in ["shelf-1", "shelf-2"] {
        cluster.make_domain(shelf);
    }
    disk(&sdm, "a", "shelf-1");
    let (script, session) = hold(&sdm, &files, "a", &["disk/a"]);
    let lock = lock_on(&sdm, "disk/a");
    let refused = sdm.refused(&["disk", "delete", "a", "--no-wait-lock"]);
    refused.says(5, "LOCKED", &[&lock]);
    assert!(refused.hint().contains(&format!("sdm lock explain {lock}")), "{}", refused.hint());
    // Others in the same domain are not held up.
    disk(&sdm, "b", "shelf-1");
    let explained = sdm.done(&["lock", "explain", "disk/a"]);
    assert_eq!((text_of(&explained, "id"), text_of(&explained, "state")), (lock.as_str(), "held"));
    assert_eq!(roles(&explained), ["held by session"]);
    assert!(commands(&explained).contains(&format!("sdm lock release {lock} --session {session}").as_str()));
    let people = sdm.run_for_people(&["lock", "explain", &lock]).stdout;
    assert!(people.contains(" safe ways out\n   1. ") && people.contains("   not safe: "), "{people}");
    let shown = sdm.done(&["lock", "show", &lock]);
    assert_eq!(text_of(&shown, "owner_id"), session);
    for name in ["disk/a", "disk/a:X"] {
        let on_disk = sdm.done(&["lock", "show", name]);
        assert_eq!(on_disk["items"].as_array().map(Vec::len), Some(1), "{on_disk}");
        assert_eq!(text_of(&on_disk["items"][0], "id"), lock);
    }
    sdm.refused(&["lock", "show", "disk/b"]).says(3, "LOCK_NOT_FOUND", &["disk/b"]);
    // Somebody waits, and is told of in the explanation.
    let waiting = sdm.start(&["disk", "delete", "a"]);
    until("the deletion waits", || {
        let explained = sdm.done(&["lock", "explain", &lock]);
        let blocks = explained["blocks"].as_array().map(Vec::len).unwrap_or_default();
        if blocks == 1 { Ok(()) } else { Err(explained.to_string()) }
    });
    let told = sdm.done(&["explain", "disk/a"]);
    assert_eq!((text_of(&told, "kind"), text_of(&told, "state")), ("disk", "locked"), "{told}");
    let_go(&files, "a");
    assert_eq!(script.finish().code, 0);
    waiting.finish().result();
    cluster.nobody_panicked();
}

#[test]
fn a_command_under_a_lock_takes_none_of_its_own_and_needs_all_that_it_touches() {
    let cluster = Cluster::start(&Shape::usual());
    let sdm = cluster.sdm();
    for shelf in ["shelf-1", "shelf-2"] {
        cluster.make_domain(shelf);
    }
    disk(&sdm, "a", "shelf-1");
    let endpoints = cluster.member_names().iter().map(|name| cluster.address_of(name).to_owned()).collect::<Vec<_>>();
    let endpoints = endpoints.join(",");
    let id = request_id(&sdm);
    let command = inner(&endpoints, &["disk", "move", "a", "--to", "shelf-2", "--request-id", &id]);
    let short = sdm.run(&[&["lock", "acquire", "disk/a", "--"], command.as_slice()].concat());
    assert_eq!(short.code, 5, "{short:?}");
    assert!(short.stderr.contains("TOKEN_DOES_NOT_COVER"), "{short:?}");
    assert!(short.stderr.contains("domain/shelf-2:IX is missing"), "{short:?}");
    let id = request_id(&sdm);
    let command = inner(&endpoints, &["disk", "move", "a", "--to", "shelf-2", "--request-id", &id]);
    let whole = sdm.run(&[&["lock", "acquire", "disk/a", "domain/shelf-2:IX", "--"], command.as_slice()].concat());
    assert_eq!(whole.code, 0, "{whole:?}");
    let (txn, _) = story(&sdm, &id);
    assert!(txn["under_token"].is_string() && txn["phase"] == "committed", "{txn}");
    // A lock of a name of one's own vouches for no more than that it is held: operations lock for themselves.
    let command = inner(&endpoints, &["disk", "delete", "a"]);
    let own = sdm.run(&[&["lock", "acquire", "mine", "--"], command.as_slice()].concat());
    assert_eq!(own.code, 0, "{own:?}");
    until("all locks are free", || {
        let locks = list(&sdm, "lock");
        if locks.is_empty() { Ok(()) } else { Err(format!("{locks:?}")) }
    });
}

#[test]
fn a_broken_lock_ends_the_command_under_it_and_goes_to_who_waits() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let (first, session) = hold(&sdm, &files, "first", &["torn"]);
    let lock = lock_on(&sdm, "user/torn");
    let files_of_second = Scratch::new("files");
    let second = {
        let (sdm, files) = (cluster.sdm(), &files_of_second);
        let stop = files.join("second.stop");
        std::fs::write(&stop, "").expect("the folder takes files");
        sdm.start(&["lock", "acquire", "torn", "--wait", "60s", "--", "true"])
    };
    until("somebody waits", || {
        let waiters = sdm.done(&["lock", "show", &lock])["waiters"].as_u64().unwrap_or_default();
        if waiters == 1 { Ok(()) } else { Err(format!("{waiters} wait")) }
    });
    let planned = sdm.done(&["lock", "break", &lock, "--reason", "it hangs", "--dry-run"]);
    assert!(planned["dry_run"] == true && planned["would"][0].as_str().is_some_and(|line| line.contains("user/torn")));
    assert_eq!(lock_on(&sdm, "user/torn"), lock, "a dry run does nothing");
    sdm.refused(&["lock", "release", &lock]).says(6, "SESSION_NOT_NAMED", &[&session]);
    let broken = sdm.done(&["lock", "break", &lock, "--reason", "it hangs"]);
    assert_eq!(broken["lock"]["id"], lock.as_str());
    assert_eq!(second.finish().code, 0, "whoever waits gets it at once");
    let ended = first.finish().refusal();
    assert_eq!((ended.code, ended.reason()), (12, "LOCK_BROKEN"));
    assert!(ended.message().contains("it hangs"), "{}", ended.message());
    sdm.refused(&["lock", "break", &lock, "--reason", "again"]).says(3, "LOCK_NOT_FOUND", &[&lock]);
}

#[test]
fn a_lock_is_given_back_by_its_session() {
    let cluster = Shared::cluster();
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    let (holder, session) = hold(&sdm, &files, "own", &["given-back"]);
    let lock = lock_on(&sdm, "user/given-back");
    sdm.refused(&["lock", "release", &lock, "--session", "1"]).says(6, "LOCK_OF_ANOTHER", &[&session]);
    sdm.done(&["lock", "release", &lock, "--session", &session]);
    assert_eq!(sdm.run(&["lock", "acquire", "given-back", "--", "true"]).code, 0);
    let_go(&files, "own");
    assert_eq!(holder.finish().code, 0);
}

#[test]
fn a_disks_lock_is_not_broken_while_its_session_lives() {
    let cluster = Cluster::start(&Shape::smallest());
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    cluster.make_domain("shelf-1");
    disk(&sdm, "a", "shelf-1");
    let (holder, session) = hold(&sdm, &files, "a", &["disk/a"]);
    let lock = lock_on(&sdm, "disk/a");
    let refused = sdm.refused(&["lock", "break", &lock, "--reason", "impatient"]);
    refused.says(5, "FENCE_REQUIRED", &["disk/a"]);
    assert!(refused.hint().contains("the lease ends within"), "{}", refused.hint());
    let explained = sdm.done(&["lock", "explain", &lock]);
    assert!(!commands(&explained).iter().any(|command| command.contains("lock break")), "{session}: {explained}");
    let_go(&files, "a");
    assert_eq!(holder.finish().code, 0);
    sdm.done(&["disk", "delete", "a"]);
}

#[test]
fn a_running_transaction_is_told_from_its_lock_to_its_workers_session_and_ends_when_asked() {
    let mut cluster = Cluster::start(&Shape::usual());
    let (sdm, files) = (cluster.sdm(), Scratch::new("files"));
    cluster.make_domain("shelf-1");
    let folder = cluster.make_domain("shelf-2");
    let file = noise(files.path(), "a", 96);
    import(&sdm, &file, "a", "shelf-1");
    let place = Place { domain: "shelf-2", folder: &folder };
    let (id, held) = hold_move(&cluster, &sdm, "host-1", "a", "shelf-1", place);
    let lock = lock_on(&sdm, "disk/a");
    let explained = sdm.done(&["lock", "explain", &lock]);
    assert_eq!(roles(&explained), ["held for transaction", "through job", "at worker", "lease session"]);
    assert_eq!(explained["chain"][3]["state"], "live");
    assert!(commands(&explained).contains(&format!("sdm txn abort {id}").as_str()), "{explained}");
    sdm.refused(&["lock", "break", &lock, "--reason", "now"]).says(5, "FENCE_REQUIRED", &["host-1"]);
    sdm.refused(&["txn", "retry", &id]).says(5, "TXN_RUNNING", &["host-1"]);
    let (txn, _) = story(&sdm, &id);
    let standing = &txn["standing"];
    assert_eq!((text_of(standing, "state"), text_of(standing, "owner")), ("running", "host-1"), "{txn}");
    // Its worker is killed: what it wrote is garbage, and the transaction says whom it waits for.
    drop(held.stopped);
    cluster.kill("host-1");
    until("nobody works for it", || {
        let explained = sdm.done(&["lock", "explain", &lock]);
        if text_of(&explained, "state") == "stale" { Ok(()) } else { Err(explained.to_string()) }
    });
    let (txn, _) = story(&sdm, &id);
    assert!(["retrying", "unassigned"].contains(&text_of(&txn["standing"], "state")), "{txn}");
    let explained = sdm.done(&["lock", "explain", &lock]);
    assert!(commands(&explained).contains(&format!("sdm txn retry {id}").as_str()), "{explained}");
    sdm.done(&["txn", "retry", &id, "--dry-run"]);
    let planned = sdm.done(&["txn", "abort", &id, "--dry-run"]);
    assert!(planned["would"].as_array().is_some_and(|lines| lines.len() >= 2), "{planned}");
    assert_eq!(story(&sdm, &id).0["phase"], "running", "a dry run does nothing");
    sdm.done(&["txn", "retry", &id]);
    sdm.done(&["txn", "abort", &id, "--reason", "enough"]);
    let refused = sdm.refused(&["txn", "retry", &id]);
    refused.says(5, "TXN_FINAL", &["aborted"]);
    let logged = sdm.done(&["txn", "log", "--object", "disk/a"]);
    let logged = logged["items"].as_array().expect("a list");
    let story = logged.iter().find(|txn| text_of(txn, "id") == id).expect("it is in the log");
    assert!(!story["history"].as_array().expect("a history").is_empty());
    let moves = sdm.done(&["txn", "list", "--kind", "disk-move", "--object", "a"]);
    assert!(moves["items"].as_array().is_some_and(|items| items.iter().all(|txn| txn["kind"] == "disk-move")));
    assert_eq!(held.command.finish().code, 8);
}

fn import(sdm: &Sdm, file: &Path, name: &str, domain: &str) {
    sdm.done(&["disk", "import", text(file), "--name", name, "--domain", domain, "--format", "raw"]);
}
