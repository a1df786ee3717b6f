//! The real folder.
//!
//! ```text
//! <data-dir>/worker.json          identity and membership; replaced as a whole, fsynced
//! <data-dir>/worker.lock          exclusive: one process per folder
//! <data-dir>/processes/<nonce>    shared lock of one process and of children that may touch anything
//! <data-dir>/processes/<nonce>.N  shared lock of its children that serve the paths that stand in it (JSON)
//! ```
//!
//! A file under `processes` whose lock can be had exclusively belongs to a process whose children
//! are all gone; it is removed.

use super::ChildrenLock;
use super::FolderError;
use super::Identity;
use super::Membership;
use super::Remains;
use super::WorkerFolder;
use super::host;
use rustix::fs::FlockOperation;
use sdm_proto::failpoint;
use sdm_proto::ids::WorkerId;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

const IDENTITY: &str = "worker.json";
const IDENTITY_NEW: &str = "worker.json.new";
const LOCK: &str = "worker.lock";
const PROCESSES: &str = "processes";
/// What mkfs leaves in a fresh file system.
const LOST_AND_FOUND: &str = "lost+found";
/// Sets of paths that get a lock of their own: more than one worker's domains and the copies between them.
const LOCKS_MAX: usize = 256;
/// Form of the identity file.
const VERSION: u32 = 1;
/// Nobody's identity file is longer.
const IDENTITY_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct IdentityFile {
    version: u32,
    worker_id: WorkerId,
    /// Used where the host has no id of its own.
    drawn_machine_id: String,
    cluster: Option<Membership>,
}

/// A folder on this host's disk.
#[derive(Debug)]
pub struct DiskFolder {
    path: PathBuf,
    identity: Identity,
    file: Mutex<IdentityFile>,
    children: ChildrenLock,
    /// Held until the folder is dropped.
    _exclusive: OwnedFd,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io { action, path: path.to_owned(), source }
}

fn sync(folder: &Path) -> Result<(), FolderError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("fsync", folder))
}

/// Refuses a folder that holds something else, before anything is written into it.
fn check_content(path: &Path) -> Result<(), FolderError> {
    let mut foreign = None;
    for entry in std::fs::read_dir(path).map_err(failed("read", path))? {
        let name = entry.map_err(failed("read", path))?.file_name().to_string_lossy().into_owned();
        match name.as_str() {
            LOCK | IDENTITY => return Ok(()),
            LOST_AND_FOUND | PROCESSES | IDENTITY_NEW => {}
            _ => foreign = Some(name),
        }
    }
    foreign.map_or(Ok(()), |found| Err(FolderError::Foreign { path: path.to_owned(), found }))
}

fn open_lock(path: &Path) -> Result<File, FolderError> {
    File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed("open", path))
}

/// Takes a lock without waiting; false when somebody holds one in the way.
fn try_lock(file: &File, operation: FlockOperation, path: &Path) -> Result<bool, FolderError> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(failed("lock", path)(error.into())),
    }
}

fn read_identity(path: &Path) -> Result<Option<IdentityFile>, FolderError> {
    use std::io::Read;
    let corrupt = |problem: String| FolderError::Corrupt { path: path.to_owned(), problem };
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(IDENTITY_BYTES_MAX).read_to_end(&mut bytes).map_err(failed("read", path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let file: IdentityFile = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    if file.version != VERSION {
        return Err(corrupt(format!("version {} is not {VERSION}", file.version)));
    }
    Ok(Some(file))
}

fn write_identity(folder: &Path, content: &IdentityFile) -> Result<(), FolderError> {
    let (new, path) = (folder.join(IDENTITY_NEW), folder.join(IDENTITY));
    let bytes = serde_json::to_vec_pretty(content).map_err(|error| failed("encode", &path)(io::Error::other(error)))?;
    failpoint::hit("worker.folder.write").map_err(failed("write", &new))?;
    let mut file = File::create(&new).map_err(failed("create", &new))?;
    file.write_all(&bytes).map_err(failed("write", &new))?;
    file.sync_all().map_err(failed("fsync", &new))?;
    failpoint::hit("worker.folder.rename").map_err(failed("rename", &path))?;
    std::fs::rename(&new, &path).map_err(failed("rename", &path))?;
    sync(folder)
}

impl DiskFolder {
    /// Opens the folder, makes it if missing, and locks it. Blocks.
    ///
    /// # Errors
    /// Another process has it, it holds something else, or it cannot be read or written.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        std::fs::create_dir_all(path).map_err(failed("create", path))?;
        check_content(path)?;
        let lock_path = path.join(LOCK);
        let lock = open_lock(&lock_path)?;
        if !try_lock(&lock, FlockOperation::NonBlockingLockExclusive, &lock_path)? {
            return Err(FolderError::InUse { path: path.to_owned() });
        }
        let file = match read_identity(&path.join(IDENTITY))? {
            Some(file) => file,
            None => {
                let file = IdentityFile {
                    version: VERSION,
                    worker_id: WorkerId::from_uuid(host::random_uuid()),
                    drawn_machine_id: host::random_uuid().simple().to_string(),
                    cluster: None,
                };
                write_identity(path, &file)?;
                file
            }
        };
        let process_nonce = host::random_uuid().to_string();
        let children = Self::lock_for_children(path, &process_nonce)?;
        let identity = Identity {
            worker: file.worker_id,
            machine_id: host::machine_id().unwrap_or_else(|| file.drawn_machine_id.clone()),
            boot_id: host::boot_id(),
            process_nonce,
        };
        Ok(Self { path: path.to_owned(), identity, file: Mutex::new(file), children, _exclusive: lock.into() })
    }

    fn lock_for_children(path: &Path, nonce: &str) -> Result<ChildrenLock, FolderError> {
        let folder = path.join(PROCESSES);
        std::fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        let path = folder.join(nonce);
        open_lock(&path)?;
        let whole = hold(&path)?;
        Ok(ChildrenLock::new(Locks { path, whole, of_paths: Mutex::default() }))
    }

    fn earlier(&self) -> Result<Remains, FolderError> {
        let folder = self.path.join(PROCESSES);
        let own = &self.identity.process_nonce;
        let mut remains = Remains::default();
        for entry in std::fs::read_dir(&folder).map_err(failed("read", &folder))? {
            let entry = entry.map_err(failed("read", &folder))?;
            if entry.file_name().to_string_lossy().starts_with(own) {
                continue;
            }
            let path = entry.path();
            let file = open_lock(&path)?;
            if try_lock(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
                std::fs::remove_file(&path).map_err(failed("remove", &path))?;
                continue;
            }
            remains.groups += 1;
            match std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<BTreeSet<PathBuf>>(&bytes).ok()) {
                Some(paths) => remains.paths.extend(paths),
                None => remains.anywhere = true,
            }
        }
        Ok(remains)
    }
}

/// Opens a file and takes its lock as one of many. Children get this description as their standard output: read-only, so
/// that a stray line printed by a library goes nowhere.
fn hold(path: &Path) -> Result<OwnedFd, FolderError> {
    let file = File::open(path).map_err(failed("open", path))?;
    try_lock(&file, FlockOperation::NonBlockingLockShared, path)?;
    Ok(file.into())
}

/// The locks of one process's children.
#[derive(Debug)]
pub struct Locks {
    path: PathBuf,
    /// Held by the process itself and by children that may touch anything.
    whole: OwnedFd,
    of_paths: Mutex<BTreeMap<Vec<PathBuf>, OwnedFd>>,
}

impl Locks {
    /// One more holder of the lock for children that serve these paths; none: anything.
    pub(super) fn share(&self, paths: &[PathBuf]) -> io::Result<OwnedFd> {
        let mut of_paths = self.of_paths.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = of_paths.get(paths) {
            return file.try_clone();
        }
        if paths.is_empty() || of_paths.len() >= LOCKS_MAX {
            return self.whole.try_clone();
        }
        match self.of_paths(of_paths.len(), paths) {
            Ok(file) => {
                let shared = file.try_clone();
                of_paths.insert(paths.to_vec(), file);
                shared
            }
            Err(error) => {
                tracing::warn!(%error, "a child is taken for one that may touch anything");
                self.whole.try_clone()
            }
        }
    }

    fn of_paths(&self, number: usize, paths: &[PathBuf]) -> Result<OwnedFd, FolderError> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        let path = PathBuf::from(name);
        let bytes = serde_json::to_vec(paths).map_err(|error| failed("encode", &path)(io::Error::other(error)))?;
        // Whoever reads it does so after this process ended, on the same boot: nothing needs to be durable.
        std::fs::write(&path, bytes).map_err(failed("write", &path))?;
        hold(&path)
    }
}

impl WorkerFolder for DiskFolder {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn membership(&self) -> Option<Membership> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).cluster.clone()
    }

    fn join(&self, membership: &Membership) -> Result<(), FolderError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.cluster.as_ref() == Some(membership) {
            return Ok(());
        }
        let joined = IdentityFile { cluster: Some(membership.clone()), ..file.clone() };
        write_identity(&self.path, &joined)?;
        *file = joined;
        Ok(())
    }

    fn children_lock(&self) -> ChildrenLock {
        self.children.clone()
    }

    fn earlier_processes(&self) -> Remains {
        self.earlier().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot see whether earlier I/O processes are gone");
            // What is changed in place waits until that is known.
            Remains { groups: 1, paths: BTreeSet::new(), anywhere: true }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_identity_and_its_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/when/missing");
        let membership = Membership { cluster_id: "c1".into(), epoch: 3 };
        let first = {
            let worker = DiskFolder::open(&path).unwrap();
            assert_eq!(worker.membership(), None);
            worker.join(&membership).unwrap();
            worker.identity().clone()
        };
        let again = DiskFolder::open(&path).unwrap();
        assert_eq!(again.membership(), Some(membership));
        assert_eq!((again.identity().worker, &again.identity().boot_id), (first.worker, &first.boot_id));
        assert_ne!(again.identity().process_nonce, first.process_nonce);
    }

    #[test]
    fn a_second_process_in_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DiskFolder::open(folder.path()).unwrap();
        assert!(matches!(DiskFolder::open(folder.path()), Err(FolderError::InUse { .. })));
    }

    #[test]
    fn a_folder_that_holds_something_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
        assert!(matches!(DiskFolder::open(folder.path()), Err(FolderError::Foreign { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn lost_and_found_does_not_count_as_something_else() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(LOST_AND_FOUND)).unwrap();
        assert!(DiskFolder::open(folder.path()).is_ok());
    }

    #[test]
    fn a_damaged_identity_is_reported_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        drop(DiskFolder::open(folder.path()).unwrap());
        std::fs::write(folder.path().join(IDENTITY), "{").unwrap();
        assert!(matches!(DiskFolder::open(folder.path()), Err(FolderError::Corrupt { .. })));
        assert_eq!(std::fs::read(folder.path().join(IDENTITY)).unwrap(), b"{");
    }

    #[test]
    fn earlier_processes_count_until_their_last_child_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let first = DiskFolder::open(folder.path()).unwrap();
        let child = first.children_lock().share().unwrap();
        drop(first);
        let second = DiskFolder::open(folder.path()).unwrap();
        assert!(second.earlier_processes().may_touch(Path::new("/anything")), "nothing is known of it");
        drop(child);
        assert!(second.earlier_processes().is_nothing());
        assert_eq!(std::fs::read_dir(folder.path().join(PROCESSES)).unwrap().count(), 1);
    }

    #[test]
    fn a_child_of_an_earlier_process_is_waited_for_only_on_the_paths_that_it_serves() {
        let folder = tempfile::tempdir().unwrap();
        let first = DiskFolder::open(folder.path()).unwrap();
        let paths = ["/mnt/nfs1", "/mnt/nfs3"].map(PathBuf::from);
        let children = first.children_lock();
        let child = children.serving(&paths).share().unwrap();
        let sibling = children.serving(&paths).share().unwrap();
        let other = children.serving(&[PathBuf::from("/mnt/nfs2")]).share().unwrap();
        drop((first, children, other));
        let second = DiskFolder::open(folder.path()).unwrap();
        let remains = second.earlier_processes();
        assert_eq!(remains.groups, 1);
        assert!(remains.may_touch(&paths[0]) && remains.may_touch(&paths[1].join("within")));
        assert!(!remains.may_touch(Path::new("/mnt/nfs2")) && !remains.may_touch(Path::new("/mnt/nfs11")));
        drop(child);
        assert!(!second.earlier_processes().is_nothing(), "its sibling lives");
        drop(sibling);
        assert!(second.earlier_processes().is_nothing());
    }
}
