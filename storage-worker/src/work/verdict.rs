//! From errors to outcomes: what is definite is refused with its code and a hint, what may pass has failed.

use std::error::Error;

use super::Failure;
use super::Outcome;
use super::Refusal;
use super::RefusalCode;
use crate::copy::CopyError;
use crate::domain::DomainError;
use crate::driver::StorageError;
use crate::driver::StorageErrorKind;
use crate::driver::chain;
use crate::flatten::FlattenError;
use crate::volume::VOLUME_BYTES_MAX;
use crate::volume::qcow2::Qcow2Error;

/// Why an order did not come to its end.
#[derive(Debug)]
pub(super) enum Unfinished {
    Refused(Refusal),
    Failed(Failure),
    Stopped,
}

impl From<Unfinished> for Outcome {
    fn from(unfinished: Unfinished) -> Self {
        match unfinished {
            Unfinished::Refused(refusal) => Self::Refused(refusal),
            Unfinished::Failed(failure) => Self::Failed(failure),
            Unfinished::Stopped => Self::Stopped,
        }
    }
}

/// A refusal that no error stands behind.
pub(super) fn refused(code: RefusalCode, message: impl Into<String>, hint: impl Into<String>) -> Unfinished {
    Unfinished::Refused(Refusal { code, message: message.into(), hint: hint.into(), missing_bytes: None })
}

fn failed(error: &dyn Error, hint: &str) -> Unfinished {
    Unfinished::Failed(Failure { message: chain(error), hint: hint.to_owned() })
}

impl From<StorageError> for Unfinished {
    fn from(error: StorageError) -> Self {
        match storage_refusal(&error) {
            Some((code, hint)) => refused(code, chain(&error), hint),
            None => failed(&error, storage_hint(error.kind)),
        }
    }
}

/// Storage errors that a repetition would meet again.
fn storage_refusal(error: &StorageError) -> Option<(RefusalCode, &'static str)> {
    Some(match error.kind {
        StorageErrorKind::NoSpace => (RefusalCode::NoSpace, "free some space on it, or choose another domain"),
        StorageErrorKind::Quota => (RefusalCode::NoSpace, "raise the quota, or choose another domain"),
        StorageErrorKind::TooLarge => (RefusalCode::SizeInvalid, "choose a smaller size or another file system"),
        StorageErrorKind::ReadOnly => (RefusalCode::NotWritable, "mount it writable on the worker's host"),
        StorageErrorKind::UnexpectedEntry(_) => {
            (RefusalCode::UnexpectedEntry, "find out who put it there and remove it by hand; sdm does not touch it")
        }
        StorageErrorKind::InUse => {
            (RefusalCode::VolumeInUse, "stop the virtual machine or program that has the image open")
        }
        _ => return None,
    })
}

fn storage_hint(kind: StorageErrorKind) -> &'static str {
    match kind {
        StorageErrorKind::Stale => "the NFS server no longer knows the file; it is opened anew with the next try",
        StorageErrorKind::Io => "look at the storage and at the kernel's log on the worker's host",
        StorageErrorKind::AccessDenied => "see that the storage worker's user may read and write the domain",
        _ => "",
    }
}

/// Who took a file away nobody here can know.
pub(super) const FILE_GONE: &str = "`sdm domain check` says what lies there instead; put the file back, then repeat";

impl From<DomainError> for Unfinished {
    fn from(error: DomainError) -> Self {
        let (code, hint) = match error {
            DomainError::Storage(error) => return error.into(),
            DomainError::StillOpen { .. } => return failed(&error, "it goes away when that host closes the file"),
            DomainError::DotName(_) | DomainError::Path(_) => (RefusalCode::InvalidOrder, ""),
            DomainError::PathMissing(_) => {
                (RefusalCode::PathMissing, "create or mount it on every host whose worker is to reach it")
            }
            DomainError::NotADirectory(_) => (RefusalCode::NotADirectory, "give the folder of a mounted file system"),
            DomainError::NotWritable { .. } => {
                (RefusalCode::NotWritable, "see that the storage worker's user may write there")
            }
            DomainError::PathUnprintable(_) => (RefusalCode::InvalidOrder, "choose a path of printable characters"),
            DomainError::NotAMountPoint(_) => {
                (RefusalCode::NotAMountPoint, "mount the storage there, or say `--local` if a plain folder is meant")
            }
            DomainError::PathInUse { .. } => (RefusalCode::DomainPathInUse, "give each domain a path of its own"),
            DomainError::OtherPool { .. } => {
                (RefusalCode::OtherPoolsDomain, "one path belongs to one pool: choose another path")
            }
            DomainError::Foreign { .. } => {
                (RefusalCode::ForeignDomain, "choose another path; a domain of oVirt cannot be taken over yet")
            }
            DomainError::OtherCluster { .. } => (
                RefusalCode::OtherClustersDomain,
                "nothing was changed: after a restore from a backup, `sdm backup reconcile` takes the domain over",
            ),
            DomainError::BeingAdopted { .. } => (
                RefusalCode::OtherClustersDomain,
                "make sure that no other cluster was restored from the same backup; then remove that file by hand and repeat",
            ),
            DomainError::DomainMissing { .. } => (
                RefusalCode::DomainMissing,
                "mount its storage there on that worker's host; where that is lost for good: `sdm domain forget`",
            ),
            DomainError::Corrupt { .. } => (RefusalCode::DomainCorrupt, "restore the file from a good copy"),
            DomainError::UnexpectedEntry { .. } => {
                (RefusalCode::UnexpectedEntry, "find out who put it there and remove it by hand; sdm does not touch it")
            }
            DomainError::EvidenceMismatch { .. } => {
                (RefusalCode::EvidenceMismatch, "somebody else wrote to the domain; nothing was changed")
            }
            DomainError::Released { .. } => (RefusalCode::DomainReleased, "attach it again: `sdm domain attach`"),
            DomainError::Taken { .. } => {
                (RefusalCode::DomainTaken, "detach it from its pool first; nothing was changed")
            }
            DomainError::CatalogChanged { .. } => (
                RefusalCode::CatalogChanged,
                "nothing was changed: repeat the attach under a new request id, then its catalog is read again",
            ),
            DomainError::UnknownNames { .. } => (
                RefusalCode::UnexpectedEntry,
                "find out whose they are (their .sdm marks and .meta files say) and move them away by hand; the deletion is tried again",
            ),
            DomainError::PlacementMissing(_) => {
                (RefusalCode::PlacementMissing, "somebody else deleted it, or another file system is mounted there")
            }
        };
        refused(code, chain(&error), hint)
    }
}

impl From<CopyError> for Unfinished {
    fn from(error: CopyError) -> Self {
        let message = chain(&error);
        match error {
            CopyError::Cancelled => Self::Stopped,
            CopyError::NoSpace { missing_bytes, .. } => Self::Refused(Refusal {
                code: RefusalCode::NoSpace,
                message,
                hint: "free some space on the target, or choose another domain".to_owned(),
                missing_bytes: Some(missing_bytes),
            }),
            CopyError::Source(ref source) | CopyError::Target(ref source) => match storage_refusal(source) {
                Some((code, hint)) => refused(code, message, hint),
                None => failed(&error, storage_hint(source.kind)),
            },
            CopyError::HashMismatch { .. } => refused(
                RefusalCode::HashMismatch,
                message,
                "the bytes changed since they were hashed: check the storage and its network",
            ),
            CopyError::Stream(_) => refused(RefusalCode::StreamInvalid, message, "sender and receiver must agree"),
            CopyError::Empty => refused(RefusalCode::ImageEmpty, message, "give a file that holds an image"),
            CopyError::TooLarge { .. } => refused(RefusalCode::SizeInvalid, message, ""),
            CopyError::OtherSize { .. } => refused(
                RefusalCode::SizeMismatch,
                message,
                "the file changed since the command looked at it: start the import again when nobody writes to it",
            ),
            CopyError::HeadRefused => refused(RefusalCode::StreamInvalid, message, ""),
            CopyError::SourceCut { .. } => failed(&error, "see who writes to the domain besides sdm"),
            CopyError::SenderGone { .. } => failed(&error, "start the command again with the same request id"),
            CopyError::ReceiverGone | CopyError::ThreadLost => failed(&error, ""),
        }
    }
}

impl From<FlattenError> for Unfinished {
    fn from(error: FlattenError) -> Self {
        let message = chain(&error);
        match error {
            FlattenError::Copy(error) => error.into(),
            FlattenError::Layer { source, .. } => match source.code() {
                Some(code) => refused(code, message, source.hint()),
                None => failed(&source, source.hint()),
            },
            FlattenError::NoRoom { needed, free } => Self::Refused(Refusal {
                code: RefusalCode::NoSpace,
                message,
                hint: "free some space there (`sdm gc run`); nothing was written".to_owned(),
                missing_bytes: Some(needed.saturating_sub(free)),
            }),
            FlattenError::Order(_) => refused(RefusalCode::InvalidOrder, message, ""),
        }
    }
}

impl From<Qcow2Error> for Unfinished {
    fn from(error: Qcow2Error) -> Self {
        match (error.code(), error) {
            (_, Qcow2Error::Cancelled) => Self::Stopped,
            (_, Qcow2Error::Storage(error)) => error.into(),
            (Some(code), error) => refused(code, chain(&error), error.hint()),
            (None, error) => failed(&error, error.hint()),
        }
    }
}

/// A size that a volume may have.
pub(super) fn require_size(bytes: u64) -> Result<(), Unfinished> {
    match bytes {
        0 => Err(refused(RefusalCode::SizeInvalid, "a volume of 0 bytes is not possible", "give a size above 0")),
        1..=VOLUME_BYTES_MAX => Ok(()),
        _ => {
            let message = format!("a volume of {bytes} bytes is larger than the limit of {VOLUME_BYTES_MAX} bytes");
            Err(refused(RefusalCode::SizeInvalid, message, ""))
        }
    }
}
