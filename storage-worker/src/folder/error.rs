//! What can be wrong with a worker's folder.

use std::io;
use std::path::PathBuf;

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A system call failed.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried ("create", "lock", ...).
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process holds the folder.
    #[error("another worker process uses {path}; stop it, or give this one another --data-dir", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder belongs to something else.
    #[error(
        "{path} is not empty and holds no worker (it holds {found:?}); give an empty or a new folder as --data-dir",
        path = path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// A name found in it.
        found: String,
    },
    /// The identity file is damaged.
    #[error("{path} cannot be understood ({problem}); restore it, or start over with an empty --data-dir", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}
