//! A raw volume: the guest's bytes, sparse or with all its blocks reserved.

use crate::driver::DomainFile;
use crate::driver::StorageError;
use crate::work::CancelFlag;

use super::RAW_ALIGNMENT;

/// Zeros are written in pieces of this size where blocks cannot be reserved; a stop is looked for between two.
const PIECE_BYTES: usize = 1 << 20;

/// Makes a new file an empty raw volume. Returns its size: `virtual_bytes` rounded up to 4 KiB. It is durable when the
/// caller has synced it.
///
/// # Errors
/// What the storage answers.
pub fn create_raw<F: DomainFile>(file: &F, virtual_bytes: u64) -> Result<u64, StorageError> {
    let bytes = virtual_bytes.next_multiple_of(RAW_ALIGNMENT);
    file.extend_to(bytes)?;
    Ok(bytes)
}

/// The same with all blocks reserved: a file system that is too full says so at once. Where blocks cannot be reserved
/// (NFS before 4.2) zeros are written, and `None` means that this was stopped.
///
/// # Errors
/// What the storage answers.
pub fn create_raw_preallocated<F: DomainFile>(
    file: &F,
    virtual_bytes: u64,
    cancel: &CancelFlag,
    progress: impl Fn(u64),
) -> Result<Option<u64>, StorageError> {
    let bytes = virtual_bytes.next_multiple_of(RAW_ALIGNMENT);
    if file.grow(0..bytes)? {
        return Ok(Some(bytes));
    }
    let zeros = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < bytes {
        if cancel.is_set() {
            return Ok(None);
        }
        let length = usize::try_from(bytes - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        file.write_at(zeros.get(..length).unwrap_or_default(), at)?;
        at += length as u64;
        progress(at);
    }
    Ok(Some(bytes))
}
