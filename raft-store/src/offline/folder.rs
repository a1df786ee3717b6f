//! A stopped member's folder: locked, and a copy of it opened as a member would open it.

use crate::disk::Closed;
use crate::disk::MemberDisk;
use crate::disk::OpenFolderError;
use crate::identity::IDENTITY_FILE;
use crate::open::OpenError;
use crate::open::Opened;
use crate::open::open;
use rustix::fs::FlockOperation;
use rustix::fs::flock;
use std::error::Error;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

const LOCK: &str = "lock";
const SNAPSHOTS: &str = "snapshots";
const LOST_AND_FOUND: &str = "lost+found";

/// A pid and a line end, with room to spare.
const PID_BYTES_MAX: u64 = 32;

/// Folders in a member's folder are one deep; a database may add a few.
const DEPTH_MAX: usize = 8;

/// Why a folder cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum StoppedError {
    /// There is no member in it.
    #[error("{} holds no member ({missing} is missing)", folder.display())]
    NoMember {
        /// The folder.
        folder: PathBuf,
        /// What a member's folder has.
        missing: &'static str,
    },
    /// A member runs on it.
    #[error("the member of {} is running{holder}", folder.display())]
    Running {
        /// The folder.
        folder: PathBuf,
        /// ` (pid N)` when the lock file says so.
        holder: String,
    },
    /// It cannot be read, or the copy cannot be written.
    #[error("cannot {operation} {}: {source}", path.display())]
    Files {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The copy cannot be opened.
    #[error("{}: {}", folder.display(), told(folder, scratch, source))]
    Folder {
        /// The member's folder.
        folder: PathBuf,
        /// Where the copy was.
        scratch: PathBuf,
        /// Why not.
        source: OpenFolderError,
    },
    /// What is in it is not whole.
    #[error("{}: {}", folder.display(), told(folder, scratch, source))]
    Content {
        /// The member's folder.
        folder: PathBuf,
        /// Where the copy was.
        scratch: PathBuf,
        /// Why not.
        source: OpenError,
    },
}

/// An error about the copy, told of the folder that was copied: the copy is gone when it is read.
fn told(folder: &Path, scratch: &Path, error: &dyn Error) -> String {
    error.to_string().replace(&scratch.display().to_string(), &folder.display().to_string())
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoppedError {
    move |source| StoppedError::Files { operation, path: path.to_owned(), source }
}

/// A folder that goes with its last user.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a scratch folder stays behind");
        }
    }
}

/// A locked folder and the copy of it that is looked at.
#[derive(Debug)]
pub struct StoppedFolder {
    // The fields end in this order: the copy is closed before it is removed.
    pub(super) disk: MemberDisk,
    scratch: Scratch,
    path: PathBuf,
    _lock: File,
}

impl StoppedFolder {
    /// Locks a member's folder and copies it below `scratch`, which needs room for the log. Nothing
    /// in the folder is changed, now or later.
    ///
    /// # Errors
    /// A member runs on it, it holds none, or it cannot be read.
    pub async fn open(folder: &Path, scratch: &Path) -> Result<Self, StoppedError> {
        let (from, below) = (folder.to_owned(), scratch.to_owned());
        let copying = tokio::task::spawn_blocking(move || {
            let lock = lock(&from)?;
            let scratch = copy(&from, &below)?;
            Ok::<_, StoppedError>((lock, scratch))
        });
        let (lock, scratch) = copying.await.map_err(|panic| failed("copy", folder)(io::Error::other(panic)))??;
        let disk = MemberDisk::open(&scratch.0).await.map_err(|source| StoppedError::Folder {
            folder: folder.to_owned(),
            scratch: scratch.0.clone(),
            source,
        })?;
        Ok(Self { disk, scratch, path: folder.to_owned(), _lock: lock })
    }

    /// The member's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a member would start from.
    ///
    /// # Errors
    /// What would keep it from starting.
    pub async fn opened(&self) -> Result<Opened, StoppedError> {
        open(&self.disk).await.map_err(|source| StoppedError::Content {
            folder: self.path.clone(),
            scratch: self.scratch.0.clone(),
            source,
        })
    }

    /// Lets the copy go and waits until it is gone. What was opened must be dropped before.
    pub async fn close(self) {
        let closed: Closed = self.disk.closed();
        drop(self.disk);
        closed.wait().await;
        drop(self.scratch);
    }
}

/// The lock of a running member, taken without a write to its file.
fn lock(folder: &Path) -> Result<File, StoppedError> {
    let missing = |missing| StoppedError::NoMember { folder: folder.to_owned(), missing };
    let path = folder.join(LOCK);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(LOCK)),
        Err(error) => return Err(failed("open", &path)(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let read = Read::take(&file, PID_BYTES_MAX).read_to_string(&mut pid).is_ok();
            let known = read && pid.trim().parse::<u32>().is_ok();
            let holder = if known { format!(" (pid {})", pid.trim()) } else { String::new() };
            return Err(StoppedError::Running { folder: folder.to_owned(), holder });
        }
        Err(errno) => return Err(failed("lock", &path)(errno.into())),
    }
    if !folder.join(IDENTITY_FILE).exists() {
        return Err(missing(IDENTITY_FILE));
    }
    Ok(file)
}

fn copy(folder: &Path, below: &Path) -> Result<Scratch, StoppedError> {
    static COPIES: AtomicU64 = AtomicU64::new(0);
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let path = below.join(format!("sdm-offline-{}-{number}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed("create", &path))?;
    let scratch = Scratch(path);
    for entry in std::fs::read_dir(folder).map_err(failed("list", folder))? {
        let entry = entry.map_err(failed("list", folder))?;
        let name = entry.file_name();
        let to = scratch.0.join(&name);
        if name == LOCK || name == LOST_AND_FOUND {
            continue;
        }
        if name == SNAPSHOTS { link_files(&entry.path(), &to)? } else { copy_tree(&entry.path(), &to, DEPTH_MAX)? }
    }
    Ok(scratch)
}

/// Renaming or removing one of these names touches the link alone.
fn link_files(from: &Path, to: &Path) -> Result<(), StoppedError> {
    std::fs::create_dir(to).map_err(failed("create", to))?;
    let from = std::fs::canonicalize(from).map_err(failed("open", from))?;
    for entry in std::fs::read_dir(&from).map_err(failed("list", &from))? {
        let entry = entry.map_err(failed("list", &from))?;
        let link = to.join(entry.file_name());
        std::os::unix::fs::symlink(entry.path(), &link).map_err(failed("link", &link))?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path, depth: usize) -> Result<(), StoppedError> {
    let kind = std::fs::symlink_metadata(from).map_err(failed("look at", from))?;
    if kind.is_file() {
        std::fs::copy(from, to).map_err(failed("copy", from))?;
    } else if kind.is_dir() && depth > 0 {
        std::fs::create_dir(to).map_err(failed("create", to))?;
        for entry in std::fs::read_dir(from).map_err(failed("list", from))? {
            let entry = entry.map_err(failed("list", from))?;
            copy_tree(&entry.path(), &to.join(entry.file_name()), depth - 1)?;
        }
    }
    Ok(())
}
