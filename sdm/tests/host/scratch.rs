//! Folders for tests. They go away with the test, and also when the test's process is killed: a
//! janitor (a shell that reads a pipe until its end) unmounts what is mounted in the folder and
//! removes it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// Set, folders stay.
const KEEP: &str = "SDM_TEST_KEEP";

/// `$1` is the folder. Removed twice at most: a process that was told to die may still write.
const JANITOR: &str = r#"
cat >/dev/null
cut -d' ' -f5 /proc/self/mountinfo | grep -F "$1/" | sort -r | while read -r mount; do umount -l "$mount"; done
rm -rf --one-file-system "$1" 2>/dev/null || { sleep 1; rm -rf --one-file-system "$1"; }
"#;

/// A folder.
pub struct Scratch {
    path: PathBuf,
    janitor: Option<Child>,
}

impl Scratch {
    /// Makes a new one. It lies beside the build, on a real disk, not where tmpfs may be.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let path = path.canonicalize().expect("a folder just made has a path");
        let janitor = std::env::var_os(KEEP).is_none().then(|| janitor(&path));
        Self { path, janitor }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A folder in it, made if missing.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

fn janitor(path: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", JANITOR, "sh"]).arg(path).stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().expect("a shell starts")
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(mut janitor) = self.janitor.take() else {
            eprintln!("kept: {}", self.path.display());
            return;
        };
        // The end of the pipe tells it to begin.
        drop(janitor.stdin.take());
        _ = janitor.wait();
    }
}
