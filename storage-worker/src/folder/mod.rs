//! The worker's local folder: who this worker is, which cluster it belongs to, that no second
//! process works in the same folder, and whether children of an earlier process are still there.
//! Nothing of a storage domain is in it.

mod disk;
mod error;
mod host;
mod simulated;

pub use disk::DiskFolder;
pub use error::FolderError;
pub use simulated::SimulatedFolder;

use sdm_proto::ids::WorkerId;
use serde::Deserialize;
use serde::Serialize;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Who this worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Drawn when the folder was made.
    pub worker: WorkerId,
    /// The host, as it calls itself, or drawn and kept in the folder where it has no name.
    pub machine_id: String,
    /// New with every boot of the host.
    pub boot_id: String,
    /// New with every start of the process.
    pub process_nonce: String,
}

/// The cluster that a worker belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Its id.
    pub cluster_id: String,
    /// Its epoch when the worker was last admitted.
    pub epoch: u64,
}

/// A shared lock that a worker's children inherit: while one of them lives, so does the lock.
#[derive(Debug, Clone, Default)]
pub struct ChildrenLock(Option<Arc<OwnedFd>>);

impl ChildrenLock {
    /// A lock on this open file.
    #[must_use]
    pub fn new(file: OwnedFd) -> Self {
        Self(Some(Arc::new(file)))
    }

    /// One more holder; none where nothing is locked (a simulation).
    ///
    /// # Errors
    /// No file descriptors are left.
    pub fn share(&self) -> io::Result<Option<OwnedFd>> {
        self.0.as_ref().map(|file| file.try_clone()).transpose()
    }
}

/// An open folder. It stays locked until it is dropped.
pub trait WorkerFolder: Send + Sync + std::fmt::Debug + 'static {
    /// Who this worker is.
    fn identity(&self) -> &Identity;
    /// The cluster that it belongs to, if it ever was welcomed by one.
    fn membership(&self) -> Option<Membership>;
    /// Remembers the cluster, durably. Blocks.
    ///
    /// # Errors
    /// The folder cannot be written.
    fn join(&self, membership: &Membership) -> Result<(), FolderError>;
    /// What children inherit.
    fn children_lock(&self) -> ChildrenLock;
    /// How many earlier processes of this folder still have living children. Blocks shortly.
    fn earlier_processes(&self) -> usize;
}
