//! Why a qcow2 file is not taken.

use crate::driver::StorageError;
use crate::work::RefusalCode;

/// Why a qcow2 file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The file could not be read. The only reason that may pass.
    #[error("the image cannot be read")]
    Storage(#[from] StorageError),
    /// The check was stopped.
    #[error("the check was stopped")]
    Cancelled,
    /// No bytes.
    #[error("the image is empty")]
    Empty,
    /// Another format, or none.
    #[error("the file does not begin as a qcow2 image does")]
    NotQcow2,
    /// A version that is neither 2 nor 3.
    #[error("qcow2 version {0} is not supported")]
    Version(u32),
    /// The header or a table breaks the format's rules.
    #[error("{0}")]
    Invalid(String),
    /// A virtual size past the limit.
    #[error("the image's virtual size of {bytes} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The virtual size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A feature that cannot be verified.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// Encrypted.
    #[error("the image is encrypted ({0})")]
    Encrypted(&'static str),
    /// Data in another file.
    #[error("the image keeps its data in another file{0}")]
    DataFile(String),
    /// A backing file.
    #[error("the image names a backing file: `{0}`")]
    BackingFile(String),
    /// Marked corrupt by whoever wrote it.
    #[error("the image is marked as corrupt")]
    MarkedCorrupt,
    /// Not closed.
    #[error("the image was not closed properly: its refcounts are not up to date")]
    Dirty,
    /// The file ends before something that it refers to.
    #[error("{what} at byte {offset} with {length} bytes lies outside the file, which ends at byte {file_bytes}")]
    OutsideFile {
        /// What.
        what: &'static str,
        /// Where it should begin.
        offset: u64,
        /// How long it should be.
        length: u64,
        /// Where the file ends.
        file_bytes: u64,
    },
    /// An offset that is not a cluster's beginning.
    #[error("{what} at byte {offset} does not begin at a cluster")]
    Misaligned {
        /// What.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// Two things in one cluster.
    #[error("{what} lies at byte {offset}, where the image keeps other tables")]
    Overlap {
        /// What came second.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// A write would destroy what another reference needs.
    #[error("the cluster at byte {offset} has {needed} references, but a refcount of {stored}")]
    RefcountTooLow {
        /// The cluster.
        offset: u64,
        /// Its refcount.
        stored: u64,
        /// How often it is referred to.
        needed: u64,
    },
    /// A compressed cluster that does not decompress.
    #[error("the compressed cluster at byte {offset} does not decompress")]
    Compressed {
        /// Where its bytes begin.
        offset: u64,
    },
    /// A feature that stays in a copy of the file's bytes, and would be lost here.
    #[error("the image holds {what}, which would be lost")]
    WouldBeLost {
        /// What, with its number or names.
        what: String,
        /// What helps.
        hint: &'static str,
    },
    /// A write would go into a shared cluster.
    #[error("the cluster at byte {offset} is marked as unshared, but has {needed} references")]
    SharedButCopied {
        /// The cluster.
        offset: u64,
        /// How often it is referred to.
        needed: u64,
    },
}

impl Qcow2Error {
    /// The reason for programs; `None` when it is the storage's failure or a stop, not the image's fault.
    pub fn code(&self) -> Option<RefusalCode> {
        Some(match self {
            Self::Storage(_) | Self::Cancelled => return None,
            Self::Empty => RefusalCode::ImageEmpty,
            Self::NotQcow2 | Self::Invalid(_) | Self::Misaligned { .. } => RefusalCode::Qcow2Invalid,
            Self::TooLarge { .. } => RefusalCode::SizeInvalid,
            Self::Version(_) | Self::Unsupported(_) | Self::WouldBeLost { .. } => RefusalCode::Qcow2Unsupported,
            Self::Encrypted(_) => RefusalCode::Qcow2Encrypted,
            Self::DataFile(_) => RefusalCode::Qcow2DataFile,
            Self::BackingFile(_) => RefusalCode::Qcow2BackingFile,
            Self::OutsideFile { .. } => RefusalCode::Qcow2Truncated,
            Self::Dirty => RefusalCode::Qcow2Dirty,
            Self::MarkedCorrupt
            | Self::Overlap { .. }
            | Self::RefcountTooLow { .. }
            | Self::Compressed { .. }
            | Self::SharedButCopied { .. } => RefusalCode::Qcow2Corrupt,
        })
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Storage(_) | Self::Cancelled => "",
            Self::Empty => "give a file that holds an image",
            Self::NotQcow2 => "if the file is a raw image, import it with `--format raw`",
            Self::TooLarge { .. } => "shrink a copy of it first: `qemu-img resize --shrink`",
            Self::Version(_) | Self::Unsupported(_) => "convert it first: `qemu-img convert -O qcow2 OLD NEW`",
            Self::Encrypted(_) => "decrypt it first: `qemu-img convert` with the secret writes a plain copy",
            Self::DataFile(_) => "make it one file first: `qemu-img convert -O qcow2 OLD NEW`",
            Self::BackingFile(_) => "collapse the chain first: `qemu-img convert -O qcow2 OLD NEW`",
            Self::OutsideFile { .. } => "the file was cut or not copied completely: copy it again from its origin",
            Self::MarkedCorrupt | Self::Dirty | Self::RefcountTooLow { .. } | Self::SharedButCopied { .. } => {
                "repair a copy of it with `qemu-img check -r all` and look at its content before it is used"
            }
            Self::WouldBeLost { hint, .. } => hint,
            Self::Invalid(_) | Self::Misaligned { .. } | Self::Overlap { .. } | Self::Compressed { .. } => {
                "see what `qemu-img check` says about it, and take a good copy of the image"
            }
        }
    }
}
