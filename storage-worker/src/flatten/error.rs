//! Why layers were not flattened.

use crate::copy::CopyError;
use crate::driver::StorageError;
use crate::volume::qcow2::Qcow2Error;

/// Why layers were not flattened. The target is then worth nothing.
#[derive(Debug, thiserror::Error)]
pub enum FlattenError {
    /// A layer is not what it must be.
    #[error("the layer `{entry}` cannot be used")]
    Layer {
        /// Its file.
        entry: String,
        /// What is wrong with it.
        #[source]
        source: Qcow2Error,
    },
    /// Reading, writing, hashing, or a stop.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// What it takes is not there.
    #[error("it takes up to {needed} bytes, and {free} are free")]
    NoRoom {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The layers do not fit together, or not to the target.
    #[error("{0}")]
    Order(String),
}

impl FlattenError {
    /// Sorts what a layer's tables answered.
    pub(crate) fn of_layer(entry: &str, source: Qcow2Error) -> Self {
        match source {
            Qcow2Error::Cancelled => Self::Copy(CopyError::Cancelled),
            Qcow2Error::Storage(error) => Self::Copy(CopyError::Source(error)),
            source => Self::Layer { entry: entry.to_owned(), source },
        }
    }

    /// Sorts a failed write.
    pub(super) fn target(source: StorageError, missing_bytes: u64) -> Self {
        Self::Copy(CopyError::target(source, missing_bytes))
    }
}
