//! Why a copy did not come to its end.

use crate::driver::StorageError;
use crate::driver::StorageErrorKind;
use crate::work::FileHash;

/// Why a copy did not come to its end. The target is then worth nothing, unless its checkpoints are.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Reading failed.
    #[error("the source cannot be read")]
    Source(#[source] StorageError),
    /// Writing failed.
    #[error("the target cannot be written")]
    Target(#[source] StorageError),
    /// The target's file system is full.
    #[error("the target has no space left: {missing_bytes} bytes were still to be written")]
    NoSpace {
        /// Bytes of data that were still to be written; for a stream, whatever of the volume was still to come.
        missing_bytes: u64,
        /// What the system answered.
        #[source]
        source: StorageError,
    },
    /// The source ended before its size said so.
    #[error("the source `{entry}` ended at byte {at}: somebody cut it during the copy")]
    SourceCut {
        /// The file.
        entry: String,
        /// Where it ended.
        at: u64,
    },
    /// The bytes are not the expected ones.
    #[error("the bytes read have the hash {found}, but {expected} was recorded")]
    HashMismatch {
        /// The hash that was recorded.
        expected: FileHash,
        /// The hash of what was read.
        found: FileHash,
    },
    /// The stream of pieces breaks its rules.
    #[error("the stream of pieces is not valid: {0}")]
    Stream(String),
    /// The stream announces nothing.
    #[error("the image is empty")]
    Empty,
    /// The size is past the limit.
    #[error("a volume of {bytes} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The size announced.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The stream announces another size than was agreed.
    #[error("the stream announces {found} bytes, but the transaction was begun for {expected} bytes")]
    OtherSize {
        /// The size agreed.
        expected: u64,
        /// The size announced.
        found: u64,
    },
    /// Whoever judges a stream's first bytes does not want the rest.
    #[error("the first bytes of the stream were refused")]
    HeadRefused,
    /// The incoming stream closed before its end.
    #[error("the sender went away before the volume was complete, after {at} of {bytes} bytes")]
    SenderGone {
        /// How far it came.
        at: u64,
        /// How many bytes the volume has.
        bytes: u64,
    },
    /// Nobody receives the outgoing stream any more.
    #[error("the receiver went away before the volume was complete")]
    ReceiverGone,
    /// A thread of the engine died; a bug.
    #[error("a copying thread ended unexpectedly")]
    ThreadLost,
    /// The cancel flag was seen.
    #[error("the copy was stopped")]
    Cancelled,
}

impl CopyError {
    /// Sorts a failed write: a full file system is told apart, with what was missing.
    pub(crate) fn target(source: StorageError, missing_bytes: u64) -> Self {
        match source.kind {
            StorageErrorKind::NoSpace | StorageErrorKind::Quota => Self::NoSpace { missing_bytes, source },
            _ => Self::Target(source),
        }
    }
}
