//! The demo's folder: fresh, with everything in it that the demo makes, and gone after a success.

use crate::output::Failure;
use crate::output::bytes_text;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

/// How many copies of the disk exist at once at most: the image, source, target, and the export.
const COPIES: u64 = 4;

/// Bytes for everything else: logs, the members' folders, and the floor that domains keep free.
const OTHER_BYTES: u64 = 512 << 20;

/// The folder.
#[derive(Debug)]
pub struct DemoFolder {
    path: PathBuf,
    temporary: bool,
}

impl DemoFolder {
    /// Makes it; a given one must be empty or missing.
    ///
    /// # Errors
    /// It cannot be made, or something is in it.
    pub fn create(given: Option<&Path>) -> Result<Self, Failure> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("sdm-demo-{:08x}", rand::random::<u32>())),
        };
        let trouble = |error: io::Error| {
            Failure::new(Class::Precondition, "BAD_FOLDER", format!("{} cannot be used: {error}", path.display()))
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(trouble)?;
        if std::fs::read_dir(&path).map_err(trouble)?.next().is_some() {
            let message = format!("--dir: {} is not empty", path.display());
            return Err(Refusal::new(Class::Precondition, "FOLDER_NOT_EMPTY", message)
                .hint("the demo makes a cluster of its own; give it a folder of its own")
                .into());
        }
        let path = std::fs::canonicalize(&path).map_err(trouble)?;
        let folder = Self { path, temporary: given.is_none() };
        for part in ["logs", "shelf-1", "shelf-2"] {
            std::fs::create_dir(folder.path.join(part)).map_err(trouble)?;
        }
        Ok(folder)
    }

    /// Looks whether a disk of this size fits as often as it must.
    ///
    /// # Errors
    /// It does not.
    pub fn check_space(&self, size: u64) -> Result<(), Failure> {
        let Ok(space) = rustix::fs::statvfs(&self.path) else { return Ok(()) };
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let needed = size.saturating_mul(COPIES).saturating_add(OTHER_BYTES);
        if free >= needed {
            return Ok(());
        }
        let (path, free, needed) = (self.path.display(), bytes_text(free), bytes_text(needed));
        let message = format!("{path} has {free} free, a demo of this size needs {needed}");
        Err(Refusal::new(Class::Exhausted, "NO_SPACE", message).hint("give a smaller --size, or another --dir").into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where each process's words are.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Removes it, unless the user named it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<(), Failure> {
        if !self.temporary {
            return Ok(());
        }
        std::fs::remove_dir_all(&self.path).map_err(|error| {
            let message = format!("{} cannot be removed: {error}", self.path.display());
            Failure::new(Class::Internal, "BAD_FOLDER", message)
        })
    }
}
