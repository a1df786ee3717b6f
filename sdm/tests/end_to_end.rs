//! Real images go through a real cluster while parts of it are killed, and come back as they were.

mod cluster;
mod host;
mod images;
mod ovirt;

use cluster::Cluster;
use cluster::Held;
use cluster::Place;
use cluster::Sdm;
use cluster::Shape;
use cluster::hold_move;
use cluster::list;
use cluster::nothing_is_open;
use cluster::story;
use cluster::text_of;
use host::ready;
use host::text;
use images::Form;
use images::Images;
use images::TOOLS;
use images::check_export;
use serde_json::Value;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;

/// One heavy cluster at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn images() -> &'static Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    IMAGES.get_or_init(Images::make)
}

/// A disk that was imported, and where its bytes lay then.
struct Imported {
    form: &'static Form,
    folder: PathBuf,
}

fn import_all(sdm: &Sdm, domain: &str) -> Vec<Imported> {
    let import = |form: &'static Form| {
        let Form { name, format, file } = form;
        let made = sdm.done(&["disk", "import", text(file), "--name", name, "--domain", domain, "--format", format]);
        let mut hash = blake3::Hasher::new();
        hash.update_reader(std::fs::File::open(file).expect("the image is there")).expect("it is read");
        let hash = hash.finalize().to_hex();
        assert_eq!(made["transaction"]["outcome"]["blake3"], hash.as_str(), "{name}");
        assert_eq!(made["disk"]["volumes"][0]["blake3"], hash.as_str(), "{name}");
        let folder = PathBuf::from(text_of(&made["disk"], "path"));
        assert!(folder.is_dir(), "{name}: {}", folder.display());
        Imported { form, folder }
    };
    images().forms.iter().map(import).collect()
}

/// Exports every disk and compares it with what was imported.
fn export_all(cluster: &Cluster, sdm: &Sdm, imported: &[Imported]) {
    let work = cluster.scratch().folder("exported");
    for Imported { form, .. } in imported {
        let file = work.join(form.name);
        let exported = sdm.done(&["disk", "export", form.name, text(&file)]);
        assert_eq!(exported["transaction"]["phase"], "committed", "{exported}");
        check_export(form, &file, &work);
        std::fs::remove_file(&file).expect("it was just made");
    }
}

/// Collects, and checks that only the disks at their new place are left.
fn collect_and_look(sdm: &Sdm, imported: &[Imported], from: &Path, to: &Path) {
    sdm.done(&["gc", "run"]);
    assert_eq!(list(sdm, "gc"), Vec::<Value>::new());
    nothing_is_open(sdm);
    for Imported { form, folder } in imported {
        assert!(!folder.exists(), "{}: its old folder is there: {}", form.name, folder.display());
    }
    assert_eq!(ovirt::read_domain(from).len(), 0);
    assert_eq!(ovirt::read_domain(to).len(), imported.len());
    ovirt::nothing_is_left_over(from);
    ovirt::nothing_is_left_over(to);
}

#[track_caller]
fn tells(told: &[String], part: &str) {
    assert!(told.iter().any(|line| line.contains(part)), "no word of {part:?} in {told:#?}");
}

#[test]
fn disks_move_from_worker_to_worker_while_the_leader_is_killed() {
    if !ready("disks_move_from_worker_to_worker_while_the_leader_is_killed", TOOLS) {
        return;
    }
    let _alone = alone();
    let mut cluster = Cluster::start(&Shape::two_shelves());
    let (from, to) = (cluster.make_domain("shelf-1"), cluster.make_domain("shelf-2"));
    let imported = import_all(&cluster.sdm(), "shelf-1");
    assert_eq!(ovirt::read_domain(&from).len(), imported.len());

    let leader = cluster.leader();
    let mut members = cluster.member_names();
    // The commands that wait talk to the one that is going to die.
    members.sort_by_key(|name| *name != leader);
    let sdm = cluster.sdm_at(&members.iter().map(String::as_str).collect::<Vec<_>>());
    let place = Place { domain: "shelf-2", folder: &to };
    let hold = |disk: &Imported| hold_move(&cluster, &sdm, "host-2", disk.form.name, "shelf-1", place);
    let held: Vec<(String, Held)> = imported.iter().map(hold).collect();
    assert_eq!(list(&sdm, "lock").len(), imported.len());
    cluster.kill(&leader);
    let successor = cluster.leader_other_than(&leader);
    for (id, _) in &held {
        assert_eq!(story(&sdm, id).0["phase"], "running", "it was not in its middle when the leader died");
    }
    let ids: Vec<String> = held.iter().map(|(id, _)| id.clone()).collect();
    let commands: Vec<_> = held.into_iter().map(|(_, held)| held.go_on()).collect();
    for command in commands {
        let moved = command.finish().result();
        assert_eq!(moved["disk"]["domain"], "shelf-2", "{moved}");
    }

    for id in &ids {
        let (txn, told) = story(&sdm, id);
        assert_eq!(txn["phase"], "committed", "{txn}");
        tells(&told, "assigned to worker host-2, which pulls from worker host-1");
        assert!(!told.iter().any(|line| line.contains("attempt 2")), "the leader's death cost an attempt: {told:#?}");
    }
    let collector = members.iter().find(|name| **name != leader && **name != successor).expect("a third member");
    collect_and_look(&cluster.sdm_at(&[collector]), &imported, &from, &to);
    export_all(&cluster, &sdm, &imported);
    cluster.start_node(&leader);
    cluster.await_members(3);
}

#[test]
fn disks_move_on_at_another_worker_when_the_copying_one_is_killed() {
    if !ready("disks_move_on_at_another_worker_when_the_copying_one_is_killed", TOOLS) {
        return;
    }
    let _alone = alone();
    let mut cluster = Cluster::start(&Shape::usual());
    let (from, to) = (cluster.make_domain("shelf-1"), cluster.make_domain("shelf-2"));
    let sdm = cluster.sdm();
    let imported = import_all(&sdm, "shelf-1");
    let place = Place { domain: "shelf-2", folder: &to };
    let hold = |disk: &Imported| hold_move(&cluster, &sdm, "host-1", disk.form.name, "shelf-1", place);
    let held: Vec<(String, Held)> = imported.iter().map(hold).collect();
    cluster.add_worker("host-2", &[]);
    cluster.start_node("host-2");
    for domain in ["shelf-1", "shelf-2"] {
        cluster.await_reach(domain, &["host-2"]);
    }
    for (id, _) in &held {
        assert_eq!(story(&sdm, id).0["phase"], "running", "it was not in its middle when its worker died");
    }
    cluster.kill("host-1");
    for (id, held) in held {
        let moved = held.command.finish().result();
        assert_eq!(moved["disk"]["domain"], "shelf-2", "{moved}");
        let (txn, told) = story(&sdm, &id);
        assert_eq!(txn["phase"], "committed", "{txn}");
        tells(&told, "assigned to worker host-1");
        tells(&told, "worker host-1 is lost");
        tells(&told, "assigned to worker host-2");
    }
    cluster.await_worker_state("host-1", "lost");
    collect_and_look(&sdm, &imported, &from, &to);
    cluster.start_node("host-1");
    cluster.await_worker("host-1");
    export_all(&cluster, &sdm, &imported);
    nothing_is_open(&sdm);
}
