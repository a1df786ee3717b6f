//! Small files of a domain: written whole and synced, read whole and bounded.

use crate::driver::DomainDriver;
use crate::driver::DomainFile;
use crate::driver::EntryPath;
use crate::driver::OpenHow;
use crate::driver::StorageError;
use crate::driver::StorageErrorKind;

use super::DomainError;
use super::FILE_MODE;

/// Longest small file that is read: `metadata` and marks are a few hundred bytes, a mark's volumes a few KiB.
const SMALL_FILE_BYTES_MAX: u64 = 256 * 1024;

/// Writes a new file and syncs it. Its name is durable only once its folder is synced.
pub(super) async fn write_new<D: DomainDriver>(driver: &D, path: &EntryPath, bytes: &[u8]) -> Result<(), StorageError> {
    let file = driver.open(path, OpenHow::create(FILE_MODE)).await?;
    file.write_at(bytes, 0)?;
    file.sync()
}

/// Writes a new file; the caller syncs it, and its folder.
pub(super) async fn write_unsynced<D: DomainDriver>(
    driver: &D,
    path: &EntryPath,
    bytes: &[u8],
) -> Result<D::File, StorageError> {
    let file = driver.open(path, OpenHow::create(FILE_MODE)).await?;
    file.write_at(bytes, 0)?;
    file.begin_sync();
    Ok(file)
}

/// Puts a new content in a file's place: whoever reads it finds the old or the new one, whole. `aside` is a name beside
/// it that only this uses; what an interrupted call left there gives way. Its folder is the caller's to sync.
pub(super) async fn replace<D: DomainDriver>(
    driver: &D,
    path: &EntryPath,
    aside: &EntryPath,
    bytes: &[u8],
) -> Result<(), StorageError> {
    let written = match write_new(driver, aside, bytes).await {
        Err(error) if error.is(StorageErrorKind::AlreadyExists) => {
            driver.unlink(aside).await?;
            write_new(driver, aside, bytes).await
        }
        written => written,
    };
    written?;
    driver.rename(aside, path).await
}

/// Reads a small file as text.
pub(super) async fn read_text<D: DomainDriver>(driver: &D, path: &EntryPath) -> Result<String, DomainError> {
    read_text_up_to(driver, path, SMALL_FILE_BYTES_MAX).await
}

/// Reads a file of at most so many bytes as text.
pub(super) async fn read_text_up_to<D: DomainDriver>(
    driver: &D,
    path: &EntryPath,
    bytes_max: u64,
) -> Result<String, DomainError> {
    let file = driver.open(path, OpenHow::READ).await?;
    let corrupt = |reason: &str| DomainError::Corrupt { entry: file.entry().to_owned(), reason: reason.to_owned() };
    let bytes = file.stat()?.bytes;
    if bytes > bytes_max {
        return Err(corrupt("it is far larger than such a file can be"));
    }
    let length = usize::try_from(bytes).map_err(|_| corrupt("its size is not possible"))?;
    let mut buffer = vec![0; length];
    let read = file.read_at(&mut buffer, 0)?;
    buffer.truncate(read);
    String::from_utf8(buffer).map_err(|_| corrupt("it is not UTF-8 text"))
}
