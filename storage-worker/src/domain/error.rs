//! What can be wrong with a domain or a placement.

use std::path::PathBuf;

use uuid::Uuid;

use crate::driver::EntryKind;
use crate::driver::InvalidEntryPath;
use crate::driver::StorageError;
use crate::driver::StorageErrorKind;

use super::InvalidDotName;

/// Why an operation on a domain or a placement did not happen.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// The storage failed, or holds something that must not be there.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A dot name in the order is none.
    #[error(transparent)]
    DotName(#[from] InvalidDotName),
    /// A name in the order is none.
    #[error(transparent)]
    Path(#[from] InvalidEntryPath),
    /// The path does not exist.
    #[error("the path `{}` does not exist", .0.display())]
    PathMissing(PathBuf),
    /// The path is no folder.
    #[error("the path `{}` is not a folder", .0.display())]
    NotADirectory(PathBuf),
    /// The path cannot be written.
    #[error("the path `{}` cannot be written by the storage worker", path.display())]
    NotWritable {
        /// The path.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: StorageError,
    },
    /// The path cannot stand in one line of `metadata`.
    #[error("the path `{}` holds characters that a domain's metadata cannot hold", .0.display())]
    PathUnprintable(PathBuf),
    /// The path is no mount point.
    #[error("the path `{}` is not a mount point", .0.display())]
    NotAMountPoint(PathBuf),
    /// Another domain of our pool is there.
    #[error("the path `{}` already holds the domain {domain} of this pool", path.display())]
    PathInUse {
        /// The path.
        path: PathBuf,
        /// The domain found.
        domain: String,
    },
    /// A domain of another sdm pool is there.
    #[error("the path `{}` holds the domain {domain} of another pool ({pool})", path.display())]
    OtherPool {
        /// The path.
        path: PathBuf,
        /// The domain found.
        domain: String,
        /// Its pool.
        pool: Uuid,
    },
    /// A domain that sdm did not make is there.
    #[error("the path `{}` holds the domain {domain}, which sdm did not make", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// The domain found.
        domain: String,
    },
    /// The domain belongs to another cluster, or to another epoch of this one.
    #[error("the domain {domain} belongs to cluster {cluster} in epoch {epoch}, not to this one")]
    OtherCluster {
        /// The domain.
        domain: Uuid,
        /// The cluster that it says it belongs to.
        cluster: Uuid,
        /// The epoch that it says.
        epoch: u64,
    },
    /// Another cluster is taking the domain, or ended while it did.
    #[error("`{entry}` is there: {taker} is taking the domain, or ended while it did; nothing was changed")]
    BeingAdopted {
        /// The file.
        entry: String,
        /// Who, as far as that can be read.
        taker: String,
    },
    /// The path is there, the domain is not.
    #[error("domain {domain} is not at {}: nothing there says that it is this one", path.display())]
    DomainMissing {
        /// The path.
        path: PathBuf,
        /// The domain looked for.
        domain: Uuid,
    },
    /// A small file of ours cannot be understood.
    #[error("`{entry}` cannot be understood: {reason}")]
    Corrupt {
        /// The file.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that must not be there. Nothing was touched.
    #[error("`{entry}` is {kind} that must not be there; nothing was changed")]
    UnexpectedEntry {
        /// The entry.
        entry: String,
        /// What it is.
        kind: EntryKind,
    },
    /// A placement that somebody else made lies under the name. Nothing was touched.
    #[error("the placement `{entry}` was made under the token `{found}`, not `{expected}`; nothing was changed")]
    EvidenceMismatch {
        /// The folder.
        entry: String,
        /// The token in the order.
        expected: String,
        /// The token in the folder's mark, or what is there instead.
        found: String,
    },
    /// A deleted file is still open on an NFS client.
    #[error("`{entry}` is still open on some host")]
    StillOpen {
        /// The `.nfs` entry.
        entry: String,
    },
    /// The domain was given up by a detach.
    #[error("the domain {domain} was detached: no pool has it")]
    Released {
        /// The domain.
        domain: Uuid,
    },
    /// The domain is somebody's, and is to be taken.
    #[error("the domain {domain} belongs to the pool {pool}")]
    Taken {
        /// The domain.
        domain: Uuid,
        /// Its pool, as it says.
        pool: String,
    },
    /// The domain's mark names another catalog than the one that was read before.
    #[error("the domain {domain} was attached or detached by somebody since its catalog was read")]
    CatalogChanged {
        /// The domain.
        domain: Uuid,
    },
    /// Names lie in the domain of which the cluster knows nothing: to it the domain is empty.
    #[error(
        "{count} names lie beneath images/ of which the catalog knows nothing, such as `{examples}`; nothing was changed"
    )]
    UnknownNames {
        /// How many.
        count: u64,
        /// The first few of them.
        examples: String,
    },
    /// The placement is not there.
    #[error("there is no placement `{0}`")]
    PlacementMissing(String),
}

impl DomainError {
    /// Is it the storage's answer of this kind?
    pub fn is_storage(&self, kind: StorageErrorKind) -> bool {
        matches!(self, Self::Storage(error) if error.is(kind))
    }
}
