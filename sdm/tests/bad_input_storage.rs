//! Storage and commands that give way in the middle: no space left, storage that hangs, an importing
//! command that is killed, two commands on one disk. Nothing is lost, and nobody else is held up.

mod cluster;
mod host;
mod images;

use cluster::Cluster;
use cluster::Held;
use cluster::Place;
use cluster::Sdm;
use cluster::Shape;
use cluster::Shared;
use cluster::Started;
use cluster::dot_names;
use cluster::has_bytes;
use cluster::hold_export;
use cluster::hold_import;
use cluster::hold_move;
use cluster::import_line;
use cluster::items;
use cluster::list;
use cluster::names;
use cluster::nothing_is_open;
use cluster::story;
use cluster::text_of;
use host::Mount;
use host::Need;
use host::PATIENCE;
use host::Scratch;
use host::Stopped;
use host::ready;
use host::text;
use host::until;
use host::within;
use images::differing_bytes;
use images::noise;
use images::noise_with_holes;
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

/// Operations that may slip through before they are caught in their middle.
const TRIES: usize = 8;

const MIB: u64 = 1 << 20;

fn import(sdm: &Sdm, file: &Path, name: &str, domain: &str) -> Value {
    sdm.done(&["disk", "import", text(file), "--name", name, "--domain", domain, "--format", "raw"])
}

#[track_caller]
fn holds(sdm: &Sdm, disk: &str, file: &Path, work: &Scratch) {
    let exported = work.join("exported");
    sdm.done(&["disk", "export", disk, text(&exported), "--overwrite"]);
    assert_eq!(differing_bytes(file, &exported), None, "{disk} is not what was imported");
}

/// Takes all that is left of a file system.
fn fill_up(path: &Path) {
    let mut file = File::create(path).expect("the file is made");
    for piece in [vec![1; 1 << 20], vec![1; 4096]] {
        while file.write_all(&piece).and_then(|()| file.sync_data()).is_ok() {}
    }
}

#[test]
fn a_copy_that_runs_out_of_space_leaves_the_source_whole_and_says_how_much_was_missing() {
    let needs = [Need::Tool("mkfs.ext4"), Need::Root, Need::Device("/dev/loop-control")];
    if !ready("a_copy_that_runs_out_of_space_leaves_the_source_whole_and_says_how_much_was_missing", &needs) {
        return;
    }
    let cluster = Cluster::start(&Shape::smallest());
    let sdm = cluster.sdm();
    let work = Scratch::new("files");
    cluster.make_domain("large");
    let path = cluster.path("small");
    let mount = Mount::small_ext4(&path, 128 * MIB);
    // It is a mount point, so nobody has to say --local.
    let made = sdm.done(&["domain", "create", "small", "--path", text(&path)]);
    let folder = path.join(text_of(&made["domain"], "id"));
    until("its figures are known", || {
        let shown = sdm.done(&["domain", "show", "small"]);
        if shown["total_bytes"].as_u64() > Some(0) { Ok(()) } else { Err(shown.to_string()) }
    });
    let (file, too_large) = (noise_with_holes(work.path(), "128M", 128), noise(work.path(), "256M", 256));
    import(&sdm, &file, "web-01", "large");

    // What cannot fit is refused before a byte is written.
    let begin = ["disk", "import", text(&too_large), "--name", "db-01", "--domain", "small", "--format", "raw"];
    sdm.refused(&begin).says(7, "NO_SPACE", &["small", "lacks"]);
    assert_eq!(dot_names(&folder).len(), 0);

    let (id, held) = hold_move(&cluster, &sdm, "host-1", "web-01", "large", Place { domain: "small", folder: &folder });
    let filler = path.join("filler");
    fill_up(&filler);
    let refused = held.go_on().finish().refusal();
    refused.says(7, "NO_SPACE", &["bytes"]);
    assert!(refused.message().chars().any(|c| c.is_ascii_digit()), "how much is missing? {refused:?}");
    let (txn, _) = story(&sdm, &id);
    assert_eq!(txn["phase"], "aborted", "{txn}");
    assert_eq!(sdm.done(&["disk", "show", "web-01"])["domain"], "large");
    holds(&sdm, "web-01", &file, &work);
    let (_, held) = hold_import_into_the_full(&cluster, &file, &filler, Place { domain: "small", folder: &folder });
    held.go_on().finish().refusal().says(7, "NO_SPACE", &["bytes"]);
    assert_eq!(names(&list(&sdm, "disk")), ["web-01"]);
    // The operator's own disk may be full as well.
    let exported = path.join("exported");
    sdm.refused(&["disk", "export", "web-01", text(&exported)]).states(7, "NO_SPACE", &[text(&exported)]);
    sdm.done(&["gc", "run"]);
    assert_eq!(dot_names(&folder).len(), 0, "half a copy is there");
    let left: Vec<_> =
        std::fs::read_dir(&path).expect("it is listed").filter_map(|e| Some(e.ok()?.file_name())).collect();
    assert_eq!(left.len(), 3, "the domain, the filler and lost+found: {left:?}");
    nothing_is_open(&sdm);

    std::fs::remove_file(&filler).expect("it is there");
    // Until the worker has told that there is space again, it is refused as before.
    within(PATIENCE, "the move is done", || {
        let moved = sdm.run(&["disk", "move", "web-01", "--to", "small"]);
        if moved.code == 0 { Ok(()) } else { Err(moved.stderr) }
    });
    holds(&sdm, "web-01", &file, &work);
    drop(cluster);
    drop(mount);
}

/// There is room again when the import begins, and none when it is in its middle.
fn hold_import_into_the_full(cluster: &Cluster, file: &Path, filler: &Path, place: Place) -> (String, Held) {
    std::fs::remove_file(filler).expect("it is there");
    until("the worker has seen the room", || {
        let shown = cluster.sdm().done(&["domain", "show", place.domain]);
        if shown["free_bytes"].as_u64() > Some(100 << 20) { Ok(()) } else { Err(shown.to_string()) }
    });
    let held = hold_import(cluster, "host-1", file, "db-01", place);
    fill_up(filler);
    held
}

#[test]
fn storage_that_hangs_holds_up_nobody_but_itself() {
    let needs = [Need::Tool("bindfs"), Need::Tool("setpriv"), Need::Root, Need::Device("/dev/fuse")];
    if !ready("storage_that_hangs_holds_up_nobody_but_itself", &needs) {
        return;
    }
    let cluster = Cluster::start(&Shape::smallest());
    let sdm = cluster.sdm();
    let work = Scratch::new("files");
    let (behind, path) = (cluster.path("behind"), cluster.path("served"));
    let mount = Mount::served(&behind, &path, &work.join("bindfs.log"));
    cluster.make_domain("sound");
    let made = sdm.done(&["domain", "create", "served", "--path", text(&path)]);
    let folder = behind.join(text_of(&made["domain"], "id"));
    sdm.done(&["disk", "create", "served-disk", "--domain", "served", "--size", "1M"]);
    sdm.done(&["disk", "create", "doomed", "--domain", "served", "--size", "1M"]);
    let file = noise(work.path(), "96M", 96);
    import(&sdm, &file, "web-01", "sound");

    let (command, stopped) = hang_in_the_middle(&sdm, &mount, &folder);
    let shown = until("the domain is unreachable", || {
        let shown = sdm.done(&["domain", "show", "served"]);
        if shown["state"] == "unreachable" { Ok(shown) } else { Err(shown.to_string()) }
    });
    assert!(text_of(&shown, "state_reason").contains("hang"), "{shown}");
    everybody_else_goes_on(&cluster, &sdm);
    let refused = sdm.refused(&["disk", "create", "x", "--domain", "served", "--size", "1M"]);
    refused.says(5, "DOMAIN_UNREACHABLE", &["served"]);
    assert!(refused.blockers().iter().any(|line| line.contains("host-1") && line.contains("hang")), "{refused:?}");
    // What needs no storage is done at once; its bytes are deleted when the domain is back.
    sdm.done(&["disk", "delete", "doomed"]);

    stopped.go_on();
    until("the domain is back", || {
        let shown = sdm.done(&["domain", "show", "served"]);
        if shown["state"] == "reachable" { Ok(()) } else { Err(shown.to_string()) }
    });
    let moved = command.finish().result();
    assert_eq!(moved["disk"]["domain"], "served", "{moved}");
    holds(&sdm, "web-01", &file, &work);
    sdm.done(&["disk", "create", "afterwards", "--domain", "served", "--size", "1M"]);
    sdm.done(&["gc", "run"]);
    assert_eq!(dot_names(&folder).len(), 0);
    nothing_is_open(&sdm);
    drop(cluster);
    drop(mount);
}

/// A move into the served domain, whose daemon stops in the middle of it. Only what lies behind the
/// mount is looked at: a look at the mount itself would hang.
fn hang_in_the_middle(sdm: &Sdm, mount: &Mount, behind: &Path) -> (Started, Stopped) {
    for _ in 0..TRIES {
        let mut command = sdm.start(&["disk", "move", "web-01", "--to", "served"]);
        while command.is_running() {
            if dot_names(behind).iter().any(|name| has_bytes(&behind.join("images").join(name))) {
                let stopped = Stopped::new(vec![mount.daemon()]);
                if !dot_names(behind).is_empty() {
                    return (command, stopped);
                }
            }
        }
        command.finish().result();
        sdm.done(&["disk", "move", "web-01", "--to", "sound"]);
        sdm.done(&["gc", "run"]);
    }
    panic!("the disk was moved {TRIES} times before the storage could hang");
}

fn everybody_else_goes_on(cluster: &Cluster, sdm: &Sdm) {
    for number in 0..3 {
        let name = format!("beside-{number}");
        let begun = Instant::now();
        sdm.done(&["disk", "create", &name, "--domain", "sound", "--size", "1M"]);
        sdm.done(&["disk", "delete", &name]);
        assert!(begun.elapsed() < Duration::from_secs(30), "{name} was held up for {:?}", begun.elapsed());
    }
    let exported = cluster.path("beside");
    sdm.done(&["disk", "create", "beside", "--domain", "sound", "--size", "1M"]);
    sdm.done(&["disk", "export", "beside", text(&exported)]);
    assert_eq!(sdm.done(&["domain", "show", "sound"])["state"], "reachable");
    let worker = &list(sdm, "worker")[0];
    assert_eq!((&worker["name"], &worker["state"]), (&"host-1".into(), &"live".into()), "{worker}");
}

#[test]
fn an_import_whose_command_is_killed_is_taken_over_under_its_request_id() {
    let cluster = Shared::cluster();
    let folder = cluster.make_domain("taken-over");
    let work = Scratch::new("files");
    let file = noise(work.path(), "64M", 64);
    let (id, held) =
        hold_import(&cluster, "host-1", &file, "taken-over", Place { domain: "taken-over", folder: &folder });
    let Held { command, stopped, .. } = held;
    command.kill();
    stopped.go_on();
    let sdm = cluster.sdm();
    until("the worker misses the sender", || {
        let (txn, told) = story(&sdm, &id);
        let missed = told.iter().any(|line| line.contains("broke off"));
        if missed && txn["phase"] == "running" { Ok(()) } else { Err(txn.to_string()) }
    });
    assert!(!names(&list(&sdm, "disk")).contains(&"taken-over".to_owned()), "half of a disk is visible");
    // By another member, as it may be.
    let line = import_line(&file, "taken-over", "taken-over", &id);
    let other = cluster.sdm_at(&["node-c"]);
    let first = other.done(&line);
    assert_eq!(first["transaction"]["id"], id.as_str());
    holds(&sdm, "taken-over", &file, &work);
    // It is complete: the file is read no more, not even looked for.
    std::fs::remove_file(&file).expect("it is there");
    let again = sdm.done(&line);
    assert_eq!(again["disk"], first["disk"]);
}

#[test]
fn an_import_whose_command_never_comes_back_is_given_up() {
    let cluster = Shared::cluster();
    let folder = cluster.make_domain("given-up");
    let work = Scratch::new("files");
    let file = noise(work.path(), "64M", 64);
    let (id, held) = hold_import(&cluster, "host-1", &file, "given-up", Place { domain: "given-up", folder: &folder });
    let Held { command, stopped, .. } = held;
    command.kill();
    stopped.go_on();
    let sdm = cluster.sdm();
    let txn = within(Duration::from_secs(120), "it is given up", || {
        let (txn, _) = story(&sdm, &id);
        if txn["phase"] == "aborted" { Ok(txn) } else { Err(txn.to_string()) }
    });
    assert_eq!(txn["refusal"]["reason"], "SOURCE_GONE", "{txn}");
    assert!(!text_of(&txn["refusal"], "hint").is_empty(), "{txn}");
    until("what was received is gone", || {
        let left = dot_names(&folder);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // Its name is free again.
    import(&sdm, &file, "given-up", "given-up");
    let line = import_line(&file, "given-up", "given-up", &id);
    let again = sdm.refused(&line);
    assert_eq!(again.reason(), "SOURCE_GONE", "{again:?}");
}

/// The locks of a transaction's disk, as listed.
fn waiting(sdm: &Sdm, why: &str) -> Vec<Value> {
    let of = |lock: &Value| lock["state"] == "waiting" && text_of(lock, "why").contains(why);
    list(sdm, "lock").into_iter().filter(of).collect()
}

#[test]
fn the_second_command_on_a_disk_waits_or_names_who_holds_it() {
    let cluster = Shared::cluster();
    cluster.make_domain("two-at-once");
    let sdm = cluster.sdm();
    let (work, exports) = (Scratch::new("files"), Scratch::new("exports"));
    let file = noise(work.path(), "96M", 96);
    import(&sdm, &file, "two-at-once", "two-at-once");
    let (export, stopped, target) = hold_export(&sdm, "two-at-once", exports.path());
    let open = items(&sdm.done(&["txn", "list", "--open"]));
    let of = |txn: &&Value| txn["kind"] == "disk-export" && text_of(txn, "summary").contains("two-at-once");
    let holder = text_of(open.iter().find(of).expect("the export goes on"), "id").to_owned();

    let refused = sdm.refused(&["disk", "delete", "two-at-once", "--no-wait-lock"]);
    refused.says(5, "LOCKED", &["two-at-once", &holder]);
    assert!(refused.blockers().iter().any(|line| line.starts_with("lock ") && line.contains(&holder)), "{refused:?}");
    let refused = sdm.refused(&["disk", "delete", "two-at-once", "--wait-lock", "1s"]);
    refused.says(5, "LOCK_WAIT_OVER", &["two-at-once", &holder]);
    // Two who only read do not disturb each other.
    holds(&sdm, "two-at-once", &file, &work);

    let mut delete = sdm.start(&["disk", "delete", "two-at-once"]);
    let lock = until("the second command waits", || {
        let waiting = waiting(&sdm, "delete disk two-at-once");
        waiting.first().cloned().ok_or_else(|| "no lock waits".to_owned())
    });
    assert!(lock["blockers"].to_string().contains(&holder), "{lock}");
    assert!(delete.is_running());
    stopped.go_on();
    export.finish().result();
    assert_eq!(differing_bytes(&file, &target), None);
    assert_eq!(delete.finish().result()["transaction"]["phase"], "committed");
    sdm.refused(&["disk", "show", "two-at-once"]).says(3, "DISK_NOT_FOUND", &["two-at-once"]);
}

#[test]
fn what_changed_while_a_command_waited_is_told_instead_of_done() {
    let cluster = Shared::cluster();
    cluster.make_domain("changing-1");
    let folder = cluster.make_domain("changing-2");
    let sdm = cluster.sdm();
    let work = Scratch::new("files");
    let file = noise(work.path(), "64M", 64);
    import(&sdm, &file, "changing", "changing-1");
    let (id, held) =
        hold_move(&cluster, &sdm, "host-1", "changing", "changing-1", Place { domain: "changing-2", folder: &folder });
    let second = sdm.start(&["disk", "move", "changing", "--to", "changing-2"]);
    until("the second move waits", || {
        let waiting = waiting(&sdm, "move disk changing");
        waiting.first().map(|_| ()).ok_or_else(|| "no lock waits".to_owned())
    });
    held.go_on().finish().result();
    second.finish().refusal().says(5, "CHANGED_WHILE_WAITING", &["changing"]);
    assert_eq!(story(&sdm, &id).0["phase"], "committed");
    assert_eq!(sdm.done(&["disk", "show", "changing"])["domain"], "changing-2");
    holds(&sdm, "changing", &file, &work);
}

#[test]
fn a_name_is_taken_from_the_moment_that_somebody_begins_to_use_it() {
    let cluster = Shared::cluster();
    let folder = cluster.make_domain("one-name");
    let sdm = cluster.sdm();
    let work = Scratch::new("files");
    let file = noise(work.path(), "64M", 64);
    let (id, held) = hold_import(&cluster, "host-1", &file, "one-name", Place { domain: "one-name", folder: &folder });
    let create = ["disk", "create", "one-name", "--domain", "one-name", "--size", "1M"];
    let refused = sdm.refused(&[&create[..], &["--no-wait-lock"]].concat());
    refused.says(5, "LOCKED", &["one-name", &id]);
    let second = sdm.start(&create);
    until("the second waits", || {
        let waiting = waiting(&sdm, "create disk one-name");
        waiting.first().map(|_| ()).ok_or_else(|| "no lock waits".to_owned())
    });
    held.go_on().finish().result();
    second.finish().refusal().says(4, "DISK_EXISTS", &["one-name", "while it waited"]);
    holds(&sdm, "one-name", &file, &work);
}
