//! Places where no domain can be made, and domains into which somebody planted what must not be
//! there: refused with the cause, nothing changed, and nobody else is held up.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Refused;
use cluster::Sdm;
use cluster::Shape;
use cluster::Shared;
use cluster::list;
use cluster::names;
use cluster::text_of;
use host::Mount;
use host::Need;
use host::Scratch;
use host::ready;
use host::run;
use host::text;
use host::until;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;

fn create(sdm: &Sdm, name: &str, path: &Path, local: &[&str]) -> Refused {
    sdm.refused(&[&["domain", "create", name, "--path", text(path)], local].concat())
}

/// Nothing of the refused domain is left: neither in the catalog nor at the path.
#[track_caller]
fn nothing_came_of(sdm: &Sdm, name: &str, path: &Path, entries: usize) {
    assert!(!names(&list(sdm, "domain")).contains(&name.to_owned()));
    let there = std::fs::read_dir(path).map(Iterator::count).unwrap_or(0);
    assert_eq!(there, entries, "entries of {}", path.display());
}

#[test]
fn a_path_must_be_a_folder_that_is_there() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let missing = cluster.path("no-such-folder");
    create(&sdm, "nowhere", &missing, &["--local"]).says(3, "PATH_MISSING", &[text(&missing)]);
    assert!(!missing.exists(), "a refused domain made its path");
    let file = cluster.path("a-plain-file");
    std::fs::write(&file, "bytes").unwrap();
    create(&sdm, "in-a-file", &file, &["--local"]).says(5, "NOT_A_DIRECTORY", &[text(&file)]);
    for bad in ["relative", "./x", "", "/x/../y", "/x//y", "/"] {
        let refused = sdm.refused(&["domain", "create", "bad-path", "--local", "--path", bad]);
        refused.says(2, "BAD_PATH", &[]);
    }
    nothing_came_of(&sdm, "nowhere", &missing, 0);
}

#[test]
fn a_plain_folder_is_no_domain_unless_the_user_says_local() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let folder = cluster.scratch().folder("plain-folder");
    create(&sdm, "not-mounted", &folder, &[]).says(5, "NOT_A_MOUNT_POINT", &[text(&folder)]);
    nothing_came_of(&sdm, "not-mounted", &folder, 0);
    sdm.done(&["domain", "create", "not-mounted", "--path", text(&folder), "--local"]);
}

#[test]
fn a_path_that_cannot_be_written_is_refused() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let folder = cluster.scratch().folder("read-only");
    let mut mount = None;
    if rustix::process::geteuid().is_root() {
        mount = Mount::read_only(&folder);
        if mount.is_none() {
            ready("a_path_that_cannot_be_written_is_refused", &[Need::Device("permission to mount read-only")]);
            return;
        }
    } else {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    create(&sdm, "read-only", &folder, &["--local"]).says(6, "NOT_WRITABLE", &[text(&folder)]);
    nothing_came_of(&sdm, "read-only", &folder, 0);
    drop(mount);
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    sdm.done(&["domain", "create", "read-only", "--path", text(&folder), "--local"]);
}

#[test]
fn a_path_holds_one_domain_of_one_pool() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    cluster.make_domain("first");
    let path = cluster.path("first");
    create(&sdm, "second", &path, &["--local"]).says(4, "DOMAIN_PATH_TAKEN", &["first", text(&path)]);
    nothing_came_of(&sdm, "second", &path, 1);
    // The same folder by another way, which the catalog cannot know; the worker finds out.
    let link = cluster.path("another-way");
    symlink(&path, &link).unwrap();
    create(&sdm, "second", &link, &["--local"]).says(4, "DOMAIN_PATH_IN_USE", &[text(&link)]);

    let other = Cluster::start(&Shape::smallest());
    let pool = text_of(&sdm.done(&["status"]), "pool_id").to_owned();
    let refused = create(&other.sdm(), "stolen", &path, &["--local"]);
    refused.says(5, "OTHER_POOLS_DOMAIN", &[text(&path), &pool]);
    nothing_came_of(&other.sdm(), "stolen", &path, 1);

    // What oVirt made has no mark of ours.
    let theirs = cluster.scratch().folder("ovirt/6d6d6d6d-1111-4222-8333-444444444444/dom_md");
    let metadata = "CLASS=Data\nSDUUID=6d6d6d6d-1111-4222-8333-444444444444\nTYPE=NFS\nVERSION=5\n";
    std::fs::write(theirs.join("metadata"), metadata).unwrap();
    let path = cluster.path("ovirt");
    let refused = create(&sdm, "adopted", &path, &["--local"]);
    refused.says(5, "FOREIGN_DOMAIN", &["6d6d6d6d-1111-4222-8333-444444444444"]);
    assert_eq!(std::fs::read_to_string(theirs.join("metadata")).unwrap(), metadata);
    // Other folders do not matter.
    let path = cluster.scratch().folder("lived-in");
    cluster.scratch().folder("lived-in/lost+found");
    std::fs::write(path.join("notes.txt"), "not ours").unwrap();
    sdm.done(&["domain", "create", "lived-in", "--path", text(&path), "--local"]);
    assert_eq!(std::fs::read_to_string(path.join("notes.txt")).unwrap(), "not ours");
}

#[test]
fn a_path_that_no_worker_is_for_is_refused_with_what_each_is_for() {
    let cluster = Cluster::start(&Shape::smallest().hosts(&[("host-1", &["shelf-1"])]));
    let sdm = cluster.sdm();
    let path = cluster.path("shelf-2");
    let refused = create(&sdm, "out-of-reach", &path, &["--local"]);
    refused.says(5, "NO_WORKER_FOR_PATH", &[text(&path)]);
    let reach = cluster.path("shelf-1");
    assert!(
        refused.blockers().iter().any(|line| line.contains("host-1") && line.contains(text(&reach))),
        "{refused:?}"
    );
    // A prefix is one of whole names.
    let beside = cluster.scratch().folder("shelf-10");
    create(&sdm, "beside", &beside, &["--local"]).says(5, "NO_WORKER_FOR_PATH", &[text(&beside)]);
    nothing_came_of(&sdm, "out-of-reach", &path, 0);
}

/// What can be planted, and what a message calls it.
fn plant(kind: &str, at: &Path, outside: &Path) {
    match kind {
        "symbolic link" => symlink(outside, at).unwrap(),
        "FIFO" => run("mkfifo", &[text(at)]).clear(),
        _ => run("mknod", &[text(at), "c", "1", "5"]).clear(),
    }
}

fn kinds(test: &str) -> Vec<&'static str> {
    let mut kinds = vec!["symbolic link", "FIFO"];
    if ready(&format!("{test}, with a device"), &[Need::Root]) {
        kinds.push("device");
    }
    kinds
}

#[test]
fn what_is_planted_in_place_of_a_volume_is_neither_followed_nor_opened() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let outside = Scratch::new("outside");
    let secret = outside.join("secret");
    std::fs::write(&secret, "not to be read, not to be changed").unwrap();
    cluster.make_domain("planted-from");
    let to = cluster.make_domain("planted-to");
    for (number, kind) in
        kinds("what_is_planted_in_place_of_a_volume_is_neither_followed_nor_opened").into_iter().enumerate()
    {
        let name = format!("planted-{number}");
        let made = sdm.done(&["disk", "create", &name, "--domain", "planted-from", "--size", "1M"]);
        let volume = Path::new(text_of(&made["disk"]["volumes"][0], "path")).to_owned();
        let kept = outside.join(&name);
        std::fs::rename(&volume, &kept).unwrap();
        plant(kind, &volume, &secret);
        let exported = outside.join("exported");
        let export = sdm.refused(&["disk", "export", &name, text(&exported)]);
        export.says(export.code, "UNEXPECTED_ENTRY", &[kind]);
        assert!(!exported.exists(), "{kind}: something was exported");
        let moved = sdm.refused(&["disk", "move", &name, "--to", "planted-to"]);
        moved.says(moved.code, "UNEXPECTED_ENTRY", &[kind]);
        assert_eq!(sdm.done(&["disk", "show", &name])["domain"], "planted-from");
        // It is taken away by whoever knows what it is, and all is well.
        std::fs::remove_file(&volume).unwrap();
        std::fs::rename(&kept, &volume).unwrap();
        sdm.done(&["disk", "move", &name, "--to", "planted-to"]);
    }
    until("nothing is left aside", || {
        let left = cluster::dot_names(&to);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "not to be read, not to be changed");
}

#[test]
fn a_planted_entry_is_not_deleted_with_the_disk_and_the_collector_says_so() {
    let cluster = Cluster::start(&Shape::smallest());
    let sdm = cluster.sdm();
    let outside = Scratch::new("outside");
    let secret = outside.join("secret");
    std::fs::write(&secret, "not to be deleted").unwrap();
    cluster.make_domain("shelf-1");
    let made = sdm.done(&["disk", "create", "web-01", "--domain", "shelf-1", "--size", "1M"]);
    let folder = Path::new(text_of(&made["disk"], "path")).to_owned();
    let planted = folder.join("planted");
    symlink(outside.path(), &planted).unwrap();
    sdm.done(&["disk", "delete", "web-01"]);
    let refused = sdm.refused(&["gc", "run"]);
    refused.says(8, "COLLECTION_FAILED", &["1 item"]);
    assert!(refused.blockers().iter().any(|line| line.contains("symbolic link")), "{refused:?}");
    assert!(secret.exists());
    let garbage = list(&sdm, "gc");
    assert!(text_of(&garbage[0], "last_error").contains("symbolic link"), "{garbage:?}");
    // Gone from where it was, or under the deletion's own name: wherever, the link is whole.
    let held = walk(&cluster.path("shelf-1")).into_iter().find(|path| path.ends_with("planted")).expect("it is there");
    std::fs::remove_file(held).unwrap();
    until("the rest is collected", || {
        let left = list(&sdm, "gc");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// All paths beneath a folder; links are not followed.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

#[test]
fn a_folder_that_was_replaced_by_a_link_is_not_followed() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let outside = Scratch::new("outside");
    let folder = cluster.make_domain("linked");
    let (images, moved) = (folder.join("images"), outside.join("images"));
    sdm.done(&["disk", "create", "linked-1", "--domain", "linked", "--size", "1M"]);
    std::fs::rename(&images, &moved).unwrap();
    symlink(&moved, &images).unwrap();
    let refused = sdm.refused(&["disk", "create", "linked-2", "--domain", "linked", "--size", "1M"]);
    refused.says(refused.code, "UNEXPECTED_ENTRY", &["symbolic link"]);
    let exported = outside.join("exported");
    let refused = sdm.refused(&["disk", "export", "linked-1", text(&exported)]);
    refused.says(refused.code, "UNEXPECTED_ENTRY", &["symbolic link"]);
    assert_eq!(std::fs::read_dir(&moved).unwrap().count(), 1, "something was written through the link");
    std::fs::remove_file(&images).unwrap();
    std::fs::rename(&moved, &images).unwrap();
    sdm.done(&["disk", "create", "linked-2", "--domain", "linked", "--size", "1M"]);
}

#[test]
fn a_domain_whose_metadata_was_replaced_is_unreachable_and_alone_in_that() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    cluster.make_domain("sound");
    let outside = Scratch::new("outside");
    let kinds = kinds("a_domain_whose_metadata_was_replaced_is_unreachable_and_alone_in_that");
    for (number, kind) in kinds.iter().enumerate() {
        let name = format!("spoilt-{number}");
        let metadata = cluster.make_domain(&name).join("dom_md/metadata");
        let kept = outside.join(&name);
        std::fs::rename(&metadata, &kept).unwrap();
        plant(kind, &metadata, &kept);
        // A probe may have come just when nothing was there; the next one tells what is.
        until(&format!("the domain is unreachable because of a {kind}"), || {
            let shown = sdm.done(&["domain", "show", &name]);
            let told = shown["state"] == "unreachable" && text_of(&shown, "state_reason").contains(kind);
            if told { Ok(()) } else { Err(shown.to_string()) }
        });
        let refused = sdm.refused(&["disk", "create", "x", "--domain", &name, "--size", "1M"]);
        refused.says(5, "DOMAIN_UNREACHABLE", &[&name]);
        assert!(refused.blockers().iter().any(|line| line.contains(kind)), "{refused:?}");
        sdm.done(&["disk", "create", &format!("beside-{number}"), "--domain", "sound", "--size", "1M"]);
        std::fs::remove_file(&metadata).unwrap();
        std::fs::rename(&kept, &metadata).unwrap();
        until("the domain is back", || {
            let shown = sdm.done(&["domain", "show", &name]);
            if shown["state"] == "reachable" { Ok(()) } else { Err(shown.to_string()) }
        });
        sdm.done(&["disk", "create", &format!("again-{number}"), "--domain", &name, "--size", "1M"]);
    }
}
