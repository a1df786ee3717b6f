//! Mounts of tests: small file systems, read-only views, and file systems served by a process that
//! can be stopped.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::PATIENCE;
use super::Process;
use super::run;
use super::text;
use super::try_run;
use super::within;

/// A mount. Dropping it unmounts.
pub struct Mount {
    path: PathBuf,
    daemon: Option<Process>,
}

impl Mount {
    /// A new ext4 of this many bytes in a file beside `path`, all of it for everybody. Needs root and
    /// loop devices.
    ///
    /// # Panics
    /// A tool fails.
    pub fn small_ext4(path: &Path, bytes: u64) -> Self {
        let image = path.with_extension("ext4");
        let file = std::fs::File::create_new(&image).expect("the image is new");
        file.set_len(bytes).expect("the image gets its size");
        run("mkfs.ext4", &["-q", "-m", "0", text(&image)]);
        std::fs::create_dir_all(path).expect("the mount point is made");
        run("mount", &["-o", "loop", text(&image), text(path)]);
        Self { path: path.to_owned(), daemon: None }
    }

    /// The folder itself, mounted over itself, read-only. None where the host does not allow that.
    pub fn read_only(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).expect("the mount point is made");
        let mounted = try_run("mount", &["--bind", text(path), text(path)]);
        let mount = mounted.status.success().then(|| Self { path: path.to_owned(), daemon: None })?;
        try_run("mount", &["-o", "remount,bind,ro", text(path)]).status.success().then_some(mount)
    }

    /// `path` shows `source` through a process of its own. Needs root, bindfs and /dev/fuse.
    ///
    /// # Panics
    /// It does not come up.
    pub fn served(source: &Path, path: &Path, log: &Path) -> Self {
        std::fs::create_dir_all(source).expect("the source is made");
        std::fs::create_dir_all(path).expect("the mount point is made");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "bindfs", "-f", text(source), text(path)]);
        let daemon = Process::start("bindfs", command, log);
        let mount = Self { path: path.to_owned(), daemon: Some(daemon) };
        within(PATIENCE, "bindfs serves", || if is_mounted(path) { Ok(()) } else { Err("no mount yet".to_owned()) });
        mount
    }

    /// The process that serves it.
    ///
    /// # Panics
    /// The kernel serves it alone.
    pub fn daemon(&self) -> u32 {
        self.daemon.as_ref().expect("a mount with a process").pid()
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(text(path)))
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Killed first, a daemon that hangs cannot hold up the rest.
        drop(self.daemon.take());
        try_run("umount", &["-l", text(&self.path)]);
    }
}
