//! Garbage with real processes: what is in the trash comes back as it was, a plan deletes what it names,
//! an audit tells what is ours and lost from what is nobody's, and neither deaths nor workers that hang
//! make a collection lose or leave anything.

mod cluster;
mod host;
mod images;
mod ovirt;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use cluster::items;
use cluster::list;
use cluster::nothing_is_open;
use cluster::request_id;
use cluster::text_of;
use host::Stopped;
use host::children_of;
use host::text;
use host::until;
use images::differing_bytes;
use images::noise;
use serde_json::Value;
use std::path::Path;
use std::path::PathBuf;

fn folder_of(sdm: &Sdm, disk: &str) -> PathBuf {
    PathBuf::from(text_of(&sdm.done(&["disk", "show", disk]), "path"))
}

fn create(sdm: &Sdm, disk: &str, domain: &str) -> PathBuf {
    sdm.done(&["disk", "create", disk, "--domain", domain, "--size", "1MiB"]);
    folder_of(sdm, disk)
}

/// The only row of trash.
#[track_caller]
fn only_trash(sdm: &Sdm) -> Value {
    let rows = items(&sdm.done(&["gc", "trash", "list"]));
    let [row] = &rows[..] else { panic!("one row of trash, not {rows:#?}") };
    row.clone()
}

/// Deletes a disk that is kept, and answers with the id of its trash.
fn to_trash(sdm: &Sdm, disk: &str) -> String {
    sdm.done(&["disk", "delete", disk]);
    text_of(&only_trash(sdm), "id").to_owned()
}

#[track_caller]
fn collected(sdm: &Sdm, folders: &[&Path]) {
    sdm.done(&["gc", "run"]);
    assert_eq!(list(sdm, "gc"), Vec::<Value>::new());
    for folder in folders {
        ovirt::nothing_is_left_over(folder);
    }
    nothing_is_open(sdm);
}

#[test]
fn what_is_in_the_trash_comes_back_as_it_was_until_its_deletion_is_assigned() {
    let cluster = Cluster::start(&Shape::smallest());
    let shelf = cluster.make_domain("shelf");
    let (sdm, files) = (cluster.sdm(), host::Scratch::new("files"));
    let file = noise(files.path(), "kept", 4);
    sdm.done(&["domain", "set", "shelf", "--retention", "1h"]);
    sdm.done(&["disk", "import", text(&file), "--name", "kept", "--domain", "shelf", "--format", "raw"]);
    let before = sdm.done(&["disk", "show", "kept"]);
    let trash = to_trash(&sdm, "kept");
    let row = only_trash(&sdm);
    assert_eq!((&row["disk"], &row["state"], &row["restorable"]), (&"kept".into(), &"trash".into(), &true.into()));
    assert_eq!(list(&sdm, "disk"), Vec::<Value>::new());
    sdm.done(&["gc", "run"]);
    assert!(Path::new(text_of(&before, "path")).is_dir(), "its retention is not over");

    // Only shown, then done, then repeated.
    sdm.done(&["gc", "trash", "restore", &trash, "--dry-run"]);
    only_trash(&sdm);
    let id = request_id(&sdm);
    let restored = sdm.done(&["gc", "trash", "restore", &trash, "--request-id", &id]);
    assert_eq!(sdm.done(&["gc", "trash", "restore", &trash, "--request-id", &id]), restored);
    let after = sdm.done(&["disk", "show", "kept"]);
    for same in ["id", "path", "volumes"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    let exported = files.path().join("exported");
    sdm.done(&["disk", "export", "kept", text(&exported)]);
    assert_eq!(differing_bytes(&file, &exported), None);

    // Its name is somebody else's by then.
    let trash = to_trash(&sdm, "kept");
    create(&sdm, "kept", "shelf");
    sdm.refused(&["gc", "trash", "restore", &trash]).says(4, "DISK_EXISTS", &["kept"]);
    sdm.done(&["gc", "trash", "restore", &trash, "--name", "kept-before"]);
    assert_eq!(sdm.done(&["disk", "show", "kept-before"])["id"], before["id"]);

    // For good.
    let trash = to_trash(&sdm, "kept-before");
    sdm.done(&["gc", "trash", "purge", &trash]);
    collected(&sdm, &[&shelf]);
    sdm.refused(&["gc", "trash", "restore", &trash]).says(3, "GARBAGE_NOT_FOUND", &[&trash]);
    assert_eq!(ovirt::read_domain(&shelf).len(), 1);
}

#[test]
fn trash_is_named_by_its_disk_where_only_one_had_that_name() {
    let cluster = Cluster::start(&Shape::smallest());
    let shelf = cluster.make_domain("shelf");
    let sdm = cluster.sdm();
    create(&sdm, "twice", "shelf");
    let plan = sdm.done(&["disk", "delete", "twice", "--dry-run"]).to_string();
    assert!(plan.contains("gone for good at once") && plan.contains("--retention"), "{plan}");
    sdm.done(&["domain", "set", "shelf", "--retention", "1h"]);
    let plan = sdm.done(&["disk", "delete", "twice", "--dry-run"]).to_string();
    assert!(plan.contains("3600 s") && plan.contains("sdm gc trash restore twice"), "{plan}");
    let first = to_trash(&sdm, "twice");
    sdm.done(&["gc", "trash", "restore", "twice"]);
    let second = to_trash(&sdm, "twice");
    assert_ne!(first, second);
    create(&sdm, "twice", "shelf");
    sdm.done(&["disk", "delete", "twice"]);
    for verb in ["restore", "purge"] {
        let refused = sdm.refused(&["gc", "trash", verb, "twice"]);
        refused.says(2, "AMBIGUOUS_NAME", &["twice"]);
        assert!(refused.blockers().iter().any(|at| at.contains(&second)), "{:?}", refused.blockers());
    }
    sdm.done(&["gc", "trash", "purge", &second]);
    sdm.done(&["gc", "trash", "purge", "twice"]);
    collected(&sdm, &[&shelf]);
}

#[test]
fn a_plan_deletes_exactly_what_it_names_and_what_is_held_stays() {
    let cluster = Cluster::start(&Shape::smallest());
    let shelf = cluster.make_domain("shelf");
    let sdm = cluster.sdm();
    sdm.done(&["domain", "set", "shelf", "--retention", "1h"]);
    let folder = create(&sdm, "planned", "shelf");
    let trash = to_trash(&sdm, "planned");
    assert_eq!(items(&sdm.done(&["gc", "plan"])), Vec::<Value>::new(), "nothing is due");
    let plan = sdm.done(&["gc", "plan", "--trash", "--domain", "shelf"]);
    assert_eq!(plan["items"][0]["id"], trash.as_str());
    let id = plan["plan"].to_string();
    sdm.refused(&["gc", "hold", &trash]).says(2, "REASON_MISSING", &["--reason"]);
    sdm.done(&["gc", "hold", &trash, "--reason", "the auditors look at it"]);
    let refused = sdm.refused(&["gc", "apply", &id]);
    refused.says(5, "PLAN_CHANGED", &["nothing was deleted"]);
    assert!(refused.blockers().iter().any(|blocker| blocker.contains(&trash)), "{:?}", refused.blockers());
    let told = sdm.done(&["gc", "status"]);
    assert!(told["domains"][0]["blocked_by"][0].as_str().is_some_and(|why| why.contains("auditors")), "{told:#}");
    sdm.refused(&["gc", "trash", "purge", &trash]).says(5, "GARBAGE_HELD", &["auditors"]);
    assert!(folder.is_dir());
    sdm.done(&["gc", "unhold", &trash]);
    // Held and given free: as it was.
    let id = sdm.done(&["gc", "plan", "--trash"])["plan"].to_string();
    sdm.done(&["gc", "apply", &id, "--dry-run"]);
    assert!(folder.is_dir());
    sdm.done(&["gc", "apply", &id]);
    collected(&sdm, &[&shelf]);
    assert!(!folder.exists());
    assert_eq!(sdm.done(&["gc", "show-plan", &id])["items"][0]["gone"], true);
    sdm.refused(&["gc", "apply", &id]).says(5, "PLAN_APPLIED", &[]);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("the folder is new");
    for entry in std::fs::read_dir(from).expect("it is there").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file is copied");
    }
}

/// Kind and name of each finding.
fn found(audit: &Value) -> Vec<(String, String)> {
    let findings = audit["findings"].as_array().cloned().unwrap_or_default();
    findings.iter().map(|f| (text_of(f, "kind").to_owned(), text_of(f, "name").to_owned())).collect()
}

#[test]
fn an_audit_tells_what_is_ours_and_lost_from_what_is_nobodys_and_what_is_missing() {
    let cluster = Cluster::start(&Shape::smallest());
    let shelf = cluster.make_domain("shelf");
    let (sdm, aside) = (cluster.sdm(), host::Scratch::new("aside"));
    create(&sdm, "there", "shelf");
    let missing = create(&sdm, "missing", "shelf");
    let lost = create(&sdm, "lost", "shelf");
    let (copy, images) = (aside.path().join("lost"), shelf.join("images"));
    copy_folder(&lost, &copy);
    sdm.done(&["disk", "delete", "lost"]);
    collected(&sdm, &[&shelf]);
    // What a late worker left behind, a folder that won once, one of somebody else, a file, and a disk that somebody
    // took away.
    let mark: Value =
        serde_json::from_slice(&std::fs::read(copy.join(".sdm")).expect("it has a mark")).expect("the mark is JSON");
    let (token, owner) = (text_of(&mark, "token"), text_of(&mark, "cluster"));
    let (attempt, _) = token.rsplit_once('-').expect("epoch, index and ordinal");
    let late = images.join(format!(".sdm-{attempt}-77-{}", &owner[..8]));
    std::fs::create_dir(&late).expect("the folder is new");
    copy_folder(&copy, &lost);
    let strange = images.join("6e3f3c1c-5f0a-4d7b-9d5e-0a1b2c3d4e5f");
    copy_folder(&copy, &strange);
    std::fs::write(images.join("notes.txt"), "mine").expect("a file is written");
    std::fs::rename(&missing, aside.path().join("missing")).expect("it is taken away");

    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let audit = sdm.done(&["gc", "audit", "shelf", "--grace", "200ms"]);
    let of = |kind: &str, name: String| (kind.to_owned(), name);
    let mut expected = vec![
        of("orphan", name(&late)),
        of("unknown", name(&lost)),
        of("unknown", name(&strange)),
        of("unknown", "notes.txt".to_owned()),
        of("lost", name(&missing)),
    ];
    let mut told = found(&audit);
    told.sort();
    expected.sort();
    assert_eq!(told, expected, "{audit:#}");
    let finding = |kind: &str| audit["findings"].as_array().and_then(|all| all.iter().find(|f| f["kind"] == kind));
    assert_eq!(finding("lost").expect("it is told")["disk"], "missing");
    let evidence = |path: &Path| {
        let of_it = audit["findings"].as_array().and_then(|all| all.iter().find(|f| f["name"] == name(path)));
        text_of(of_it.expect("it is told"), "evidence").to_owned()
    };
    assert!(evidence(&lost).contains("committed"), "{audit:#}");
    assert!(late.is_dir() && list(&sdm, "gc").is_empty(), "an audit changes nothing");

    let audit = sdm.done(&["gc", "audit", "shelf", "--grace", "200ms", "--apply"]);
    assert_eq!(audit["adopted"], 1, "{audit:#}");
    sdm.done(&["gc", "run"]);
    assert!(!late.exists(), "the orphan is there");
    assert!(lost.is_dir() && strange.is_dir() && images.join("notes.txt").is_file(), "what is nobody's was touched");
    std::fs::rename(aside.path().join("missing"), &missing).expect("it is brought back");
    let audit = sdm.done(&["gc", "audit", "shelf", "--grace", "200ms"]);
    assert!(found(&audit).iter().all(|(kind, _)| kind == "unknown"), "{audit:#}");
}

#[test]
fn an_audit_while_disks_are_made_finds_no_orphan() {
    let cluster = Cluster::start(&Shape::smallest());
    let shelf = cluster.make_domain("shelf");
    let sdm = cluster.sdm();
    for round in 0..3 {
        let audit = sdm.start(&["gc", "audit", "shelf", "--grace", "1s", "--apply"]);
        let names: Vec<String> = (0..12).map(|n| format!("made-{round}-{n}")).collect();
        for disk in &names {
            create(&sdm, disk, "shelf");
        }
        let audit = audit.finish().result();
        assert_eq!(
            (&audit["orphans"], &audit["lost"], &audit["adopted"]),
            (&0.into(), &0.into(), &0.into()),
            "{audit:#}"
        );
        for disk in &names {
            assert!(folder_of(&sdm, disk).is_dir(), "{disk}");
            sdm.done(&["disk", "delete", disk]);
        }
    }
    collected(&sdm, &[&shelf]);
}

#[test]
fn a_deleted_clone_leaves_the_bytes_of_its_template_alone() {
    let cluster = Cluster::start(&Shape::smallest());
    let shelf = cluster.make_domain("shelf");
    let (sdm, files) = (cluster.sdm(), host::Scratch::new("files"));
    let file = noise(files.path(), "base", 4);
    sdm.done(&["disk", "import", text(&file), "--name", "base", "--domain", "shelf", "--format", "raw"]);
    sdm.done(&["template", "make", "base", "golden"]);
    sdm.done(&["disk", "clone", "golden", "web", "--linked"]);
    let clone = folder_of(&sdm, "web");
    sdm.done(&["domain", "set", "shelf", "--retention", "1h"]);
    let trash = to_trash(&sdm, "web");
    sdm.done(&["gc", "trash", "restore", &trash]);
    let trash = to_trash(&sdm, "web");
    sdm.done(&["gc", "trash", "purge", &trash]);
    collected(&sdm, &[&shelf]);
    assert!(!clone.exists());
    let exported = files.path().join("exported");
    sdm.done(&["disk", "export", "golden", text(&exported)]);
    assert_eq!(differing_bytes(&file, &exported), None, "the template is not what it was");
}

/// Moves a disk and holds the garbage that this leaves; its id. The collectors do not get it before: nobody takes
/// new work until it is held.
fn move_and_hold(cluster: &Cluster, sdm: &Sdm, disk: &str, to: &str) -> String {
    let host = cluster.pid("host-1");
    let worker = Stopped::new([vec![host], children_of(host)].concat());
    let id = request_id(sdm);
    let moving = sdm.start(&["disk", "move", disk, "--to", to, "--request-id", &id]);
    until("the move is assigned", || {
        let txn = sdm.run(&["txn", "show", &id]);
        if txn.stdout.contains("host-1") { Ok(()) } else { Err(txn.stdout + &txn.stderr) }
    });
    sdm.done(&["worker", "drain", "host-1", "--reason", "nothing but this move"]);
    worker.go_on();
    moving.finish().result();
    let rows = list(sdm, "gc");
    let [row] = &rows[..] else { panic!("one row of garbage, not {rows:#?}") };
    let garbage = text_of(row, "id").to_owned();
    sdm.done(&["gc", "hold", &garbage, "--reason", "caught"]);
    sdm.done(&["worker", "undrain", "host-1"]);
    garbage
}

fn state_of(sdm: &Sdm, id: &str) -> String {
    let rows = list(sdm, "gc");
    rows.iter().find(|row| row["id"] == id).map_or_else(|| "gone".to_owned(), |row| text_of(row, "state").to_owned())
}

/// Whether every thread of a process sleeps, and goes on sleeping for a few looks.
fn is_idle(pid: u32) -> bool {
    let sleeps = || {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
        let states = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        // What stands behind the name's closing bracket.
        states.into_iter().all(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')))
    };
    (0..5).all(|_| {
        std::thread::yield_now();
        sleeps()
    })
}

#[track_caller]
fn is_being_deleted(sdm: &Sdm, id: &str) {
    until("the deletion is assigned", || {
        let state = state_of(sdm, id);
        if state == "deleting" { Ok(()) } else { Err(state) }
    });
}

#[test]
fn a_disk_that_came_back_is_not_touched_by_a_deletion_that_hung_all_the_time() {
    let mut cluster = Cluster::start(&Shape::usual());
    let (a, b) = (cluster.make_domain("shelf-1"), cluster.make_domain("shelf-2"));
    let (sdm, files) = (cluster.sdm(), host::Scratch::new("files"));
    let file = noise(files.path(), "there-and-back", 4);
    sdm.done(&["disk", "import", text(&file), "--name", "web", "--domain", "shelf-1", "--format", "raw"]);
    let garbage = move_and_hold(&cluster, &sdm, "web", "shelf-2");
    // Everything of the worker that touches storage stands still; then it is told to delete.
    let host = cluster.pid("host-1");
    let hands = Stopped::new(children_of(host));
    let begun = || cluster.said("host-1").matches("starting an attempt").count();
    let before = begun();
    sdm.done(&["gc", "unhold", &garbage]);
    is_being_deleted(&sdm, &garbage);
    // It has the order and has handed it on: its hands have it, and do not move.
    until("the worker began the deletion", || if begun() > before { Ok(()) } else { Err(format!("{before}")) });
    until("and has nothing left to do", || if is_idle(host) { Ok(()) } else { Err("it runs".to_owned()) });
    let worker = Stopped::new(vec![host]);
    cluster.await_worker_state("host-1", "lost");
    cluster.add_worker("host-2", &[]);
    cluster.start_node("host-2");
    cluster.await_reach("shelf-1", &["host-2"]);
    cluster.await_reach("shelf-2", &["host-2"]);
    sdm.done(&["disk", "move", "web", "--to", "shelf-1"]);
    collected(&sdm, &[&a, &b]);
    let moved = sdm.done(&["disk", "show", "web"]);

    // The first thing that a deletion takes away is what an earlier run of itself had renamed: an empty folder under that
    // name goes when the late one runs, and only then.
    let cluster_id = text_of(&sdm.done(&["status"]), "cluster_id").replace('-', "");
    let trace = a.join("images").join(format!(".sdm-{garbage}-{}", &cluster_id[..8]));
    std::fs::create_dir(&trace).expect("the other worker's deletion is over");
    // The worker itself stands still a little longer: it would end its hands before they do anything.
    hands.go_on();
    until("the late deletion has run", || if trace.exists() { Err(trace.display().to_string()) } else { Ok(()) });
    worker.go_on();
    cluster.await_worker("host-1");
    cluster.await_reach("shelf-1", &["host-1", "host-2"]);
    assert_eq!(sdm.done(&["disk", "show", "web"]), moved);
    let exported = files.path().join("exported");
    sdm.done(&["disk", "export", "web", text(&exported)]);
    assert_eq!(differing_bytes(&file, &exported), None, "the late deletion took what is in use");
    collected(&sdm, &[&a, &b]);
    assert_eq!(ovirt::read_domain(&a).len(), 1);
}

#[test]
fn whoever_dies_in_a_collection_nothing_is_lost_and_nothing_is_left() {
    let mut cluster = Cluster::start(&Shape::usual());
    let (a, b) = (cluster.make_domain("shelf-1"), cluster.make_domain("shelf-2"));
    let sdm = cluster.sdm();
    create(&sdm, "stays", "shelf-1");
    let stays = sdm.done(&["disk", "show", "stays"]);
    for round in 0..3 {
        let disk = format!("goes-{round}");
        create(&sdm, &disk, "shelf-1");
        let garbage = move_and_hold(&cluster, &sdm, &disk, "shelf-2");
        let hands = Stopped::new(children_of(cluster.pid("host-1")));
        sdm.done(&["gc", "unhold", &garbage]);
        // Its first entry is in the log, its second is not.
        is_being_deleted(&sdm, &garbage);
        let leader = cluster.leader();
        let follower = cluster.member_names().into_iter().find(|name| *name != leader).expect("three members");
        let victim = [leader, follower, "host-1".to_owned()][round].clone();
        cluster.kill(&victim);
        hands.go_on();
        // At once again, while the rest goes on.
        cluster.start_node(&victim);
        cluster.await_members(3);
        cluster.await_worker("host-1");
        cluster.await_reach("shelf-1", &["host-1"]);
        cluster.await_reach("shelf-2", &["host-1"]);
        // And right after the deletion of the rest was asked for.
        sdm.done(&["disk", "delete", &disk]);
        let leader = cluster.leader();
        cluster.kill(&leader);
        cluster.start_node(&leader);
        cluster.await_members(3);
        cluster.await_reach("shelf-2", &["host-1"]);
        until("the collectors have done it by themselves", || {
            let left = sdm.run(&["gc", "list"]);
            let rows = if left.code == 0 { items(&left.result()) } else { return Err(format!("{left:?}")) };
            if rows.is_empty() { Ok(()) } else { Err(format!("{rows:?}")) }
        });
        collected(&sdm, &[&a, &b]);
        assert_eq!(sdm.done(&["disk", "show", "stays"]), stays);
    }
    cluster.nobody_panicked();
}
