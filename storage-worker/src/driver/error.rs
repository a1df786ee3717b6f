//! What a call to the storage can answer besides success.

use std::error::Error;
use std::fmt::Write;
use std::io;

use rustix::io::Errno;

use super::EntryKind;

/// A call to the storage failed: which, on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of `{entry}` failed: {kind}")]
pub struct StorageError {
    /// The call: `open`, `write`, `fsync`, ...
    pub operation: &'static str,
    /// The file or folder.
    pub entry: String,
    /// The reason, sorted into what callers tell apart.
    pub kind: StorageErrorKind,
    /// The reason as the system gave it.
    #[source]
    pub source: io::Error,
}

/// The reasons that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StorageErrorKind {
    /// ENOSPC.
    #[error("no space is left on the file system")]
    NoSpace,
    /// EDQUOT.
    #[error("the disk quota is used up")]
    Quota,
    /// EFBIG.
    #[error("the file system does not allow files of that size")]
    TooLarge,
    /// EROFS.
    #[error("the file system is mounted read-only")]
    ReadOnly,
    /// EACCES or EPERM.
    #[error("permission was denied")]
    AccessDenied,
    /// ESTALE: an NFS server no longer knows the file.
    #[error("the file handle is stale")]
    Stale,
    /// EIO and other signs of sick storage.
    #[error("the storage reported an input/output error")]
    Io,
    /// ENOENT.
    #[error("it does not exist")]
    NotFound,
    /// EEXIST.
    #[error("it exists already")]
    AlreadyExists,
    /// ENOTDIR.
    #[error("it is not a folder")]
    NotAFolder,
    /// ENOTEMPTY.
    #[error("the folder is not empty")]
    NotEmpty,
    /// EXDEV for a rename or link.
    #[error("the two names lie on different file systems")]
    OtherFileSystem,
    /// EMLINK: the file has as many names as the file system allows.
    #[error("the file has too many names already")]
    TooManyLinks,
    /// Something that must not lie there.
    #[error("it is {0}, which must not be there")]
    UnexpectedEntry(EntryKind),
    /// A lock of another process.
    #[error("another process uses it")]
    InUse,
    /// More names in a folder than anyone of ours makes.
    #[error("the folder holds too many names")]
    TooManyEntries,
    /// Whatever else.
    #[error("the system refused it")]
    Other,
}

impl StorageError {
    /// Sorts a system error.
    pub fn new(operation: &'static str, entry: impl Into<String>, source: io::Error) -> Self {
        let kind = kind_of(&source);
        Self { operation, entry: entry.into(), kind, source }
    }

    /// An error that is ours rather than the system's.
    pub fn of_kind(operation: &'static str, entry: impl Into<String>, kind: StorageErrorKind) -> Self {
        Self { operation, entry: entry.into(), kind, source: io::Error::other(kind.to_string()) }
    }

    /// Is it this kind?
    pub fn is(&self, kind: StorageErrorKind) -> bool {
        self.kind == kind
    }
}

fn kind_of(error: &io::Error) -> StorageErrorKind {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw_os_error) else {
        return StorageErrorKind::Other;
    };
    match errno {
        Errno::NOSPC => StorageErrorKind::NoSpace,
        Errno::DQUOT => StorageErrorKind::Quota,
        Errno::FBIG => StorageErrorKind::TooLarge,
        Errno::ROFS => StorageErrorKind::ReadOnly,
        Errno::ACCESS | Errno::PERM => StorageErrorKind::AccessDenied,
        Errno::STALE => StorageErrorKind::Stale,
        Errno::IO | Errno::TIMEDOUT | Errno::NXIO | Errno::NODEV | Errno::NOTCONN | Errno::HOSTDOWN => {
            StorageErrorKind::Io
        }
        Errno::NOENT => StorageErrorKind::NotFound,
        Errno::EXIST => StorageErrorKind::AlreadyExists,
        Errno::NOTDIR => StorageErrorKind::NotAFolder,
        Errno::NOTEMPTY => StorageErrorKind::NotEmpty,
        Errno::XDEV => StorageErrorKind::OtherFileSystem,
        Errno::MLINK => StorageErrorKind::TooManyLinks,
        Errno::LOOP => StorageErrorKind::UnexpectedEntry(EntryKind::SymbolicLink),
        _ => StorageErrorKind::Other,
    }
}

/// An error with all its causes in one line, each said once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_is_sorted_and_told_with_its_cause() {
        let error = StorageError::new("write", "images/a", io::Error::from_raw_os_error(28));
        assert!(error.is(StorageErrorKind::NoSpace));
        let text = chain(&error);
        assert!(text.contains("write of `images/a`") && text.contains("os error 28"), "{text}");
    }
}
