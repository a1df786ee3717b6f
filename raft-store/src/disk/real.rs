//! Opening a member's folder on a real file system: made if missing, locked, its layout checked.
//!
//! ```text
//! DATA_DIR/lock            flock of the process that runs this member, with its pid
//! DATA_DIR/identity.json   who the member is
//! DATA_DIR/witness         how far the log had come
//! DATA_DIR/log/            the log's segments
//! DATA_DIR/snapshots/      snap-TERM-NODE-INDEX
//! ```

use super::member_disk::Closed;
use super::member_disk::Execution;
use super::member_disk::MemberDisk;
use super::real_files::RealFiles;
use super::real_files::drop_cached;
use super::real_files::sync_folder;
use super::segments::SegmentDatabase;
use crate::fatal::REPLACE_MEMBER;
use crate::identity::IDENTITY_FILE;
use crate::log::WITNESS_FILE;
use rustix::fs::FlockOperation;
use rustix::fs::flock;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

const LOCK_FILE: &str = "lock";
const LOG_FOLDER: &str = "log";
const SNAPSHOT_FOLDER: &str = "snapshots";
/// A pid and a line end, with room to spare.
const PID_BYTES_MAX: u64 = 32;
/// What mkfs leaves in the root of a fresh ext4.
const LOST_AND_FOUND: &str = "lost+found";

/// Why a folder cannot be a member's.
#[derive(Debug, thiserror::Error)]
pub enum OpenFolderError {
    /// Another process runs a member on it.
    #[error(
        "the data folder {} is in use by another process{holder}; each member needs a folder of its \
         own: stop that process, or give another --data-dir", folder.display()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// ` (pid N)` when the lock file says so.
        holder: String,
    },
    /// It holds something, but no member.
    #[error(
        "the folder {} is not empty and holds no member (found {found}); give an empty or a new \
         folder as --data-dir", folder.display()
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// The first few names in it.
        found: String,
    },
    /// The file system refused.
    #[error("cannot {operation} {}: {source}; check the path, its owner and its mount", path.display())]
    Files {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The log database could not be opened.
    #[error(
        "cannot open the log database {}: {source}; {hint}",
        folder.join(LOG_FOLDER).display(), hint = log_hint(source)
    )]
    Log {
        /// The member's folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn log_hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space on the file system of the data folder, then start this member again".to_owned()
        }
        io::ErrorKind::Unsupported => "nothing was changed in it".to_owned(),
        io::ErrorKind::InvalidData => format!("the log is damaged: {REPLACE_MEMBER}"),
        _ => format!(
            "check the disk of the data folder (dmesg, smartctl) and start this member again; if the disk is sound, \
             the log is damaged: {REPLACE_MEMBER}"
        ),
    }
}

/// The lock on a member's folder. The kernel frees it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: File,
    _closed: watch::Sender<()>,
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Before the sender goes: who waited for it opens the folder at once.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn lock(folder: &Path, closed: watch::Sender<()>) -> Result<FolderLock, OpenFolderError> {
    let path = folder.join(LOCK_FILE);
    let failed = |operation| {
        let path = path.clone();
        move |source| OpenFolderError::Files { operation, path, source }
    };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let read = Read::take(&file, PID_BYTES_MAX).read_to_string(&mut pid).is_ok();
            let known = read && pid.trim().parse::<u32>().is_ok();
            let holder = if known { format!(" (pid {})", pid.trim()) } else { String::new() };
            return Err(OpenFolderError::InUse { folder: folder.to_owned(), holder });
        }
        Err(errno) => return Err(failed("lock")(errno.into())),
    }
    // Only to name the holder to whoever finds it locked.
    file.set_len(0).map_err(failed("write"))?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed("write"))?;
    Ok(FolderLock { file, _closed: closed })
}

/// The lock on a folder that a test made.
#[cfg(test)]
pub(super) fn lock_for_test(folder: &Path, closed: watch::Sender<()>) -> FolderLock {
    lock(folder, closed).expect("nobody else has it")
}

/// Refuses a folder that holds something, unless it is a member's or was about to become one.
fn refuse_foreign(folder: &Path) -> Result<(), OpenFolderError> {
    let ours = [LOCK_FILE, LOG_FOLDER, SNAPSHOT_FOLDER, IDENTITY_FILE, WITNESS_FILE, LOST_AND_FOUND];
    let failed = |source| OpenFolderError::Files { operation: "list", path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name == IDENTITY_FILE {
            return Ok(());
        }
        // A temporary identity is a member that died while it was made.
        if !ours.contains(&name.as_str()) && !name.starts_with(IDENTITY_FILE) {
            found.push(name);
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    found.sort();
    found.truncate(3);
    Err(OpenFolderError::Foreign { folder: folder.to_owned(), found: found.join(", ") })
}

/// Makes a folder and those above it that are missing, all of them durable.
fn make_folder(folder: &Path) -> Result<(), OpenFolderError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| OpenFolderError::Files { operation, path, source }
    };
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    std::fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let sync_parent = |made: &Path| {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new(".")))
    };
    // A name is durable only once the folder that holds it is synced.
    for made in &missing {
        sync_parent(made).map_err(failed("sync the parent of", made))?;
    }
    // One that was there may come from a start that was cut off before it synced; where the parent
    // is not ours to open, somebody else made the folder.
    match sync_parent(folder) {
        Err(error) if missing.is_empty() && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result.map_err(failed("sync the parent of", folder)),
    }
}

/// Opens and locks a member's folder. Blocks.
pub(crate) fn open(folder: &Path) -> Result<MemberDisk, OpenFolderError> {
    make_folder(folder)?;
    refuse_foreign(folder)?;
    let (guard, closed) = Closed::pair();
    let lock = Arc::new(lock(folder, guard)?);
    make_folder(&folder.join(SNAPSHOT_FOLDER))?;
    make_folder(&folder.join(LOG_FOLDER))?;
    let witness = folder.join(WITNESS_FILE);
    drop_cached(&witness).map_err(|source| OpenFolderError::Files { operation: "sync", path: witness, source })?;
    let log = SegmentDatabase::open(&folder.join(LOG_FOLDER), lock.clone())
        .map_err(|source| OpenFolderError::Log { folder: folder.to_owned(), source })?;
    Ok(MemberDisk {
        log: Arc::new(log),
        root: Arc::new(RealFiles::new(folder.to_owned(), lock.clone())),
        snapshots: Arc::new(RealFiles::new(folder.join(SNAPSHOT_FOLDER), lock)),
        execution: Execution::Threads,
        closed,
    })
}
