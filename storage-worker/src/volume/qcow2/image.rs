//! Where the check reads an image from.

use crate::driver::DomainFile;
use crate::driver::StorageError;

use super::Qcow2Error;
use super::be::u64_at;

/// Entries of a table are read in blocks of this many bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// A file's bytes, by position.
pub trait Image {
    /// Size of the file.
    fn bytes(&self) -> u64;

    /// Fills the buffer; what lies past the file's end reads as zeros (callers check ranges first).
    ///
    /// # Errors
    /// What the storage answers.
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError>;
}

/// A domain's file as an image.
#[derive(Debug)]
pub struct FileImage<'f, F> {
    file: &'f F,
    bytes: u64,
}

impl<'f, F: DomainFile> FileImage<'f, F> {
    /// Asks for the file's size once.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn new(file: &'f F) -> Result<Self, StorageError> {
        Ok(Self { file, bytes: file.stat()?.bytes })
    }

    /// Of a file whose size is known.
    pub fn of_size(file: &'f F, bytes: u64) -> Self {
        Self { file, bytes }
    }
}

impl<F: DomainFile> Image for FileImage<'_, F> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
        let read = self.file.read_at(buffer, offset)?;
        buffer.get_mut(read..).unwrap_or_default().fill(0);
        Ok(())
    }
}

/// The first bytes of an image whose rest has not come yet; the rest reads as zeros.
#[derive(Debug)]
pub struct HeadImage<'h> {
    head: &'h [u8],
    bytes: u64,
}

impl<'h> HeadImage<'h> {
    /// The head of a file that will have this size.
    #[must_use]
    pub fn new(head: &'h [u8], bytes: u64) -> Self {
        Self { head, bytes }
    }
}

impl Image for HeadImage<'_> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
        self.head.read(buffer, offset)
    }
}

impl Image for [u8] {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), StorageError> {
        let from = usize::try_from(offset).ok().and_then(|start| self.get(start..)).unwrap_or_default();
        let length = from.len().min(buffer.len());
        let (filled, rest) = buffer.split_at_mut(length);
        filled.copy_from_slice(from.get(..length).unwrap_or_default());
        rest.fill(0);
        Ok(())
    }
}

/// Reads `length` bytes. Callers bound the length.
pub(super) fn read_bytes<I: Image + ?Sized>(image: &I, offset: u64, length: usize) -> Result<Vec<u8>, Qcow2Error> {
    let mut bytes = vec![0; length];
    image.read(&mut bytes, offset)?;
    Ok(bytes)
}

/// Walks a table of 64-bit entries, skipping runs of zeros quickly. `each` gets index and value of non-zero ones.
pub(super) fn each_entry<I: Image + ?Sized>(
    image: &I,
    offset: u64,
    entries: u64,
    mut each: impl FnMut(u64, u64) -> Result<(), Qcow2Error>,
) -> Result<(), Qcow2Error> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut index = 0;
    while index < entries {
        let count = (entries - index).min((BLOCK_BYTES / 8) as u64);
        let part = usize::try_from(count * 8).ok().and_then(|length| block.get_mut(..length)).unwrap_or_default();
        image.read(part, offset.saturating_add(index * 8))?;
        for (within, entry) in part.chunks_exact(8).enumerate() {
            match u64_at(entry, 0) {
                Some(0) | None => {}
                Some(value) => each(index + within as u64, value)?,
            }
        }
        index += count;
    }
    Ok(())
}
