//! The simulated folder: what it remembers outlives the worker that opened it, as on a disk.

use super::ChildrenLock;
use super::FolderError;
use super::Identity;
use super::Membership;
use super::Remains;
use super::WorkerFolder;
use super::host;
use sdm_proto::ids::WorkerId;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

#[derive(Debug, Default)]
struct Disk {
    membership: Mutex<Option<Membership>>,
    open: AtomicBool,
}

/// A folder in memory. Clones are the same folder; `open` gives it to one worker at a time.
#[derive(Debug, Clone)]
pub struct SimulatedFolder {
    worker: WorkerId,
    machine_id: String,
    disk: Arc<Disk>,
}

/// A simulated folder in use.
#[derive(Debug)]
struct OpenFolder {
    identity: Identity,
    disk: Arc<Disk>,
}

impl SimulatedFolder {
    /// An empty folder on this host.
    #[must_use]
    pub fn new(machine_id: &str) -> Self {
        let worker = WorkerId::from_uuid(host::random_uuid());
        Self { worker, machine_id: machine_id.to_owned(), disk: Arc::default() }
    }

    /// Opens it.
    ///
    /// # Errors
    /// Somebody has it open.
    pub fn open(&self) -> Result<Arc<dyn WorkerFolder>, FolderError> {
        if self.disk.open.swap(true, Ordering::AcqRel) {
            return Err(FolderError::InUse { path: PathBuf::from(&self.machine_id) });
        }
        let identity = Identity {
            worker: self.worker,
            machine_id: self.machine_id.clone(),
            boot_id: self.machine_id.clone(),
            process_nonce: host::random_uuid().to_string(),
        };
        Ok(Arc::new(OpenFolder { identity, disk: Arc::clone(&self.disk) }))
    }
}

impl Drop for OpenFolder {
    fn drop(&mut self) {
        self.disk.open.store(false, Ordering::Release);
    }
}

impl WorkerFolder for OpenFolder {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn membership(&self) -> Option<Membership> {
        self.disk.membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn join(&self, membership: &Membership) -> Result<(), FolderError> {
        *self.disk.membership.lock().unwrap_or_else(PoisonError::into_inner) = Some(membership.clone());
        Ok(())
    }

    fn children_lock(&self) -> ChildrenLock {
        ChildrenLock::default()
    }

    fn earlier_processes(&self) -> Remains {
        Remains::default()
    }
}
