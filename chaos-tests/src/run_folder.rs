//! The folder of one run: images, mount points, logs. Its name begins with the prefix by which the
//! janitor knows what is ours, and a lock in it says whether the run is alive. It goes with the run;
//! evidence is moved beside it, under another name.

use crate::janitor;
use anyhow::Context;
use anyhow::Result;
use rustix::fs::FlockOperation;
use rustix::fs::flock;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

/// What the name of every run's folder begins with.
pub const PREFIX: &str = "sdm-chaos-";

/// The file whose lock a living run holds.
pub const LOCK: &str = "lock";

/// A run's folder. Dropping it removes it.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Removes what dead runs left in `base`, and makes a folder for this one.
    ///
    /// # Errors
    /// The file system's.
    pub fn make(base: &Path) -> Result<Self> {
        std::fs::create_dir_all(base).with_context(|| format!("making {}", base.display()))?;
        let base = base.canonicalize()?;
        janitor::clean(&base);
        let path = base.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        let lock = File::create_new(path.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder in it.
    ///
    /// # Errors
    /// The file system's.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        janitor::remove(&self.path);
    }
}
