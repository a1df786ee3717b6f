//! Copies caught in their middle. Not by time: a copy's I/O process is stopped when its folder under
//! a dot name holds bytes, and the copy counts as caught only if that folder is still there when the
//! process stands still, since its rename is what ends a copy.

use super::Cluster;
use super::Sdm;
use super::Started;
use super::request_id;
use super::story;
use crate::host::PATIENCE;
use crate::host::Stopped;
use crate::host::children_of;
use crate::host::text;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

/// Operations that may slip through before they are caught.
const TRIES: usize = 8;

/// Time between two looks: a copy of some MiB must not slip through.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

/// A copy that stands still.
pub struct Held {
    /// The command that began it, and waits.
    pub command: Started,
    /// Its I/O processes at the worker that writes.
    pub stopped: Stopped,
    /// Its folder's dot name.
    pub dot_name: String,
}

impl Held {
    /// Lets the copy go on; the command is left to the caller.
    pub fn go_on(self) -> Started {
        let Self { command, stopped, .. } = self;
        stopped.go_on();
        command
    }
}

/// A domain and its own folder.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Its name.
    pub domain: &'a str,
    /// Its folder.
    pub folder: &'a Path,
}

/// Begins to move a disk and stops the copy in its middle at this worker. What slips through is moved
/// back and begun again. Answers with the request's id too.
///
/// # Panics
/// It slips through every time.
#[track_caller]
pub fn hold_move(cluster: &Cluster, sdm: &Sdm, worker: &str, disk: &str, from: &str, to: Place) -> (String, Held) {
    for _ in 0..TRIES {
        let id = request_id(sdm);
        let begin = || sdm.start(&["disk", "move", disk, "--to", to.domain, "--request-id", &id]);
        if let Some(held) = hold_in_the_middle(cluster, worker, to.folder, begin) {
            let (txn, _) = story(sdm, &id);
            assert_eq!((&txn["phase"], &txn["attempt"]["worker"]), (&"running".into(), &worker.into()), "{txn}");
            return (id, held);
        }
        sdm.done(&["disk", "move", disk, "--to", from]);
    }
    panic!("{disk} was moved {TRIES} times before anybody could stop it");
}

/// Begins to import a raw file and stops the copy in its middle at this worker. Answers with the
/// request's id too.
///
/// # Panics
/// It slips through every time.
#[track_caller]
pub fn hold_import(cluster: &Cluster, worker: &str, file: &Path, name: &str, to: Place) -> (String, Held) {
    let sdm = cluster.sdm();
    for _ in 0..TRIES {
        let id = request_id(&sdm);
        let begin = || sdm.start(&import_line(file, name, to.domain, &id));
        if let Some(held) = hold_in_the_middle(cluster, worker, to.folder, begin) {
            return (id, held);
        }
        sdm.done(&["disk", "delete", name]);
    }
    panic!("{name} was imported {TRIES} times before anybody could stop it");
}

/// The command that imports a raw file under a request's id.
pub fn import_line<'a>(file: &'a Path, name: &'a str, domain: &'a str, id: &'a str) -> [&'a str; 11] {
    ["disk", "import", text(file), "--name", name, "--domain", domain, "--format", "raw", "--request-id", id]
}

/// Begins to export a disk into an empty folder and stops the command in the middle of the file.
/// Answers with the file that it is going to make.
///
/// # Panics
/// It slips through every time.
#[track_caller]
pub fn hold_export(sdm: &Sdm, disk: &str, folder: &Path) -> (Started, Stopped, PathBuf) {
    for number in 0..TRIES {
        let file = folder.join(format!("{disk}-{number}"));
        let mut command = sdm.start(&["disk", "export", disk, text(&file)]);
        while command.is_running() {
            if has_bytes(folder) && !file.exists() {
                let stopped = Stopped::new(vec![command.pid()]);
                if !file.exists() {
                    return (command, stopped, file);
                }
            }
        }
        command.finish().result();
        std::fs::remove_file(&file).expect("it was just made");
    }
    panic!("{disk} was exported {TRIES} times before anybody could stop it");
}

/// Names under `images/` of a domain's folder that begin with a dot.
pub fn dot_names(domain: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(domain.join("images")) else { return BTreeSet::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with('.')).collect()
}

/// Begins what makes a placement in the domain with this folder, at this worker, and stops it in its
/// middle. None when it was through before; then the command is waited for.
///
/// # Panics
/// Neither happens, or the command fails.
#[track_caller]
pub fn hold_in_the_middle(
    cluster: &Cluster,
    worker: &str,
    domain: &Path,
    begin: impl FnOnce() -> Started,
) -> Option<Held> {
    let worker = cluster.pid(worker);
    let known = dot_names(domain);
    let mut command = begin();
    let begun = Instant::now();
    loop {
        let written = dot_names(domain).into_iter().find(|name| !known.contains(name) && holds_bytes(domain, name));
        if let Some(dot_name) = written {
            let pids = children_of(worker).into_iter().filter(|pid| writes_to(*pid, &dot_name)).collect();
            let stopped = Stopped::new(pids);
            if !stopped.pids().is_empty() && dot_names(domain).contains(&dot_name) {
                return Some(Held { command, stopped, dot_name });
            }
        }
        if !command.is_running() {
            command.finish().result();
            return None;
        }
        assert!(begun.elapsed() < PATIENCE, "the copy neither began nor ended");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Whether the process has a file of that folder open: the worker has others, for probes.
pub fn writes_to(pid: u32, dot_name: &str) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.into_iter().any(|target| target.components().any(|part| part.as_os_str() == dot_name))
}

/// Whether some volume of the placement has bytes on the disk; its other files do not count.
fn holds_bytes(domain: &Path, name: &str) -> bool {
    let volume = |name: &str| !name.contains('.');
    any_has_bytes(&domain.join("images").join(name), volume)
}

/// Whether some file in a folder has bytes on the disk.
pub fn has_bytes(folder: &Path) -> bool {
    any_has_bytes(folder, |_| true)
}

fn any_has_bytes(folder: &Path, counts: impl Fn(&str) -> bool) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(&counts))
        .any(|entry| entry.metadata().is_ok_and(|file| file.blocks() > 0))
}
