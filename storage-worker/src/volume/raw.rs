//! A raw volume: the guest's bytes, sparse.

use crate::driver::DomainFile;
use crate::driver::StorageError;

use super::RAW_ALIGNMENT;

/// Makes a new file an empty raw volume, durable. Returns its size: `virtual_bytes` rounded up to 4 KiB.
///
/// # Errors
/// What the storage answers.
pub fn create_raw<F: DomainFile>(file: &F, virtual_bytes: u64) -> Result<u64, StorageError> {
    let bytes = virtual_bytes.next_multiple_of(RAW_ALIGNMENT);
    file.extend_to(bytes)?;
    file.sync()?;
    Ok(bytes)
}
