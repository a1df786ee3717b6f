//! Removes what a run left that was killed: mounts, loop devices, folders. Only beneath folders whose
//! name has our prefix and whose lock nobody holds.
//!
//! A run mounts in a mount namespace of its own, so the kernel unmounts with its last process, and a
//! loop device goes with its mount. What is left is mostly the folder.

use crate::loop_fs;
use crate::run_folder::LOCK;
use crate::run_folder::PREFIX;
use rustix::fs::FlockOperation;
use rustix::fs::flock;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

/// Gives this process, and all that it starts, mounts of its own. To be called before any thread is
/// started.
///
/// # Errors
/// The kernel refuses.
pub fn own_mounts() -> anyhow::Result<()> {
    // SAFETY: a new mount namespace touches no memory; no other thread exists that would keep the old one.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    loop_fs::tool("mount", &["--make-rprivate".as_ref(), "/".as_ref()])
}

/// Removes the folders of dead runs in `base`.
pub fn clean(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && entry.path().is_dir() && is_dead(&entry.path()) {
            eprintln!("chaos-tests: removing what a killed run left in {}", entry.path().display());
            remove(&entry.path());
        }
    }
}

fn is_dead(folder: &Path) -> bool {
    match File::open(folder.join(LOCK)) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
        // Killed before it made its lock; the folder holds nothing yet.
        Err(_) => std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()),
    }
}

/// Unmounts all that is mounted beneath a run's folder, and removes it.
pub fn remove(folder: &Path) {
    for mount_point in mounted_beneath(folder) {
        if let Err(error) = loop_fs::unmount(&mount_point) {
            eprintln!("chaos-tests: {} stays mounted: {error:#}", mount_point.display());
            return;
        }
    }
    if let Err(error) = std::fs::remove_dir_all(folder) {
        eprintln!("chaos-tests: {} stays: {error}", folder.display());
    }
}

/// Mount points beneath a folder, the innermost first.
fn mounted_beneath(folder: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    found.reverse();
    found
}

/// mountinfo writes blanks and the like as octal numbers.
fn unescaped(text: &str) -> PathBuf {
    let mut plain = text.to_owned();
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, character);
    }
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_run_lives_or_that_is_not_ours_stays() {
        let base = std::env::temp_dir().join(format!("janitor-{}", std::process::id()));
        for name in ["sdm-chaos-1", "sdm-chaos-2", "other"] {
            std::fs::create_dir_all(base.join(name)).expect("a folder");
            std::fs::write(base.join(name).join(LOCK), "").expect("a lock");
        }
        let held = File::open(base.join("sdm-chaos-1").join(LOCK)).expect("the lock");
        flock(&held, FlockOperation::NonBlockingLockExclusive).expect("locked");
        clean(&base);
        let left = |name: &str| base.join(name).exists();
        assert_eq!((left("sdm-chaos-1"), left("sdm-chaos-2"), left("other")), (true, false, true));
        std::fs::remove_dir_all(&base).expect("removed");
    }

    #[test]
    fn blanks_in_the_mount_table_are_read() {
        assert_eq!(unescaped("/a\\040b/c"), PathBuf::from("/a b/c"));
    }
}
