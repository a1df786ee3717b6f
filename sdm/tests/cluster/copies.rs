//! Copies caught in their middle. Not by time: a copy's I/O process is stopped when its folder under
//! a dot name holds bytes, and the copy counts as caught only if that folder is still there when the
//! process stands still, since its rename is what ends a copy.

use super::Cluster;
use super::Started;
use crate::host::PATIENCE;
use crate::host::Stopped;
use crate::host::children_of;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

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
fn writes_to(pid: u32, dot_name: &str) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.into_iter().any(|target| target.components().any(|part| part.as_os_str() == dot_name))
}

/// Whether some volume in it has bytes on the disk.
fn holds_bytes(domain: &Path, name: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(domain.join("images").join(name)) else { return false };
    let volume = |name: &str| !name.contains('.');
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(volume))
        .any(|entry| entry.metadata().is_ok_and(|file| file.blocks() > 0))
}
