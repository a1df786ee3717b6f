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
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
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

/// Shared locks that a worker's children inherit: while one of them lives, so does its lock.
#[derive(Debug, Clone, Default)]
pub struct ChildrenLock {
    locks: Option<Arc<disk::Locks>>,
    paths: Vec<PathBuf>,
}

impl ChildrenLock {
    fn new(locks: disk::Locks) -> Self {
        Self { locks: Some(Arc::new(locks)), paths: Vec::new() }
    }

    /// For a child that touches nothing outside of these paths, so that nobody else has to wait for its end.
    #[must_use]
    pub fn serving(&self, paths: &[PathBuf]) -> Self {
        let mut paths = paths.to_vec();
        paths.sort();
        paths.dedup();
        Self { locks: self.locks.clone(), paths }
    }

    /// One more holder; none where nothing is locked (a simulation). Blocks shortly.
    ///
    /// # Errors
    /// No file descriptors are left.
    pub fn share(&self) -> io::Result<Option<OwnedFd>> {
        self.locks.as_ref().map(|locks| locks.share(&self.paths)).transpose()
    }
}

/// What is left of earlier processes of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Groups of children that serve the same paths.
    pub groups: usize,
    /// What they serve.
    pub paths: BTreeSet<PathBuf>,
    /// Of some it is not known.
    pub anywhere: bool,
}

impl Remains {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.groups == 0
    }

    /// Whether one of them may still write beneath this path.
    #[must_use]
    pub fn may_touch(&self, path: &Path) -> bool {
        self.anywhere || self.paths.iter().any(|served| served.starts_with(path) || path.starts_with(served))
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
    /// What is left of the children of earlier processes of this folder. Blocks shortly.
    fn earlier_processes(&self) -> Remains;
}
