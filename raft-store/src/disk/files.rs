//! What snapshots and the identity need from a folder of files. Blocking, as files are. A name is
//! durable only once published, a file's bytes only once synced.

use std::fmt::Debug;
use std::io;

/// One flat folder.
pub trait Files: Send + Sync + Debug + 'static {
    /// A new, empty file under a temporary name; an older file of that name is replaced.
    ///
    /// # Errors
    /// The file system's.
    fn create(&self, name: &str) -> io::Result<Box<dyn FileWriter>>;

    /// Opens a file for reading. It stays readable after its name was removed.
    ///
    /// # Errors
    /// The file system's; `NotFound` if there is no such name.
    fn open(&self, name: &str) -> io::Result<Box<dyn FileReader>>;

    /// Opens a file whose bytes are replaced in place, never their number.
    ///
    /// # Errors
    /// The file system's; `NotFound` if there is no such name.
    fn open_fixed(&self, name: &str) -> io::Result<Box<dyn FixedFile>>;

    /// Gives a synced file its final name, replacing an older one, and makes the name durable.
    ///
    /// # Errors
    /// The file system's; which of the two names holds after a crash is then unknown.
    fn publish(&self, temporary: &str, name: &str) -> io::Result<()>;

    /// Removes a name. Not durable by itself: after a crash the file may be back.
    ///
    /// # Errors
    /// The file system's; `NotFound` if there is no such name.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// All names, in no order.
    ///
    /// # Errors
    /// The file system's.
    fn names(&self) -> io::Result<Vec<String>>;
}

/// A file that is being written, from its start to its end.
pub trait FileWriter: Send + Sync + Debug {
    /// Appends all bytes.
    ///
    /// # Errors
    /// The file system's; how much was written is then unknown.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes written so far durable.
    ///
    /// # Errors
    /// The file system's; the file is then not to be trusted, and syncing again proves nothing.
    fn sync(&mut self) -> io::Result<()>;
}

/// A small file of a fixed length that is written in place. A write that was not synced may be there
/// after a crash, or not, or in part.
pub trait FixedFile: Send + Sync + Debug {
    /// All of its bytes.
    ///
    /// # Errors
    /// The file system's.
    fn read(&self) -> io::Result<Vec<u8>>;

    /// Replaces bytes at an offset, within the file's length.
    ///
    /// # Errors
    /// The file system's.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The file system's; the file is then not to be trusted, and syncing again proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// A file that can be read anywhere, from several threads.
pub trait FileReader: Send + Sync + Debug {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// The file system's.
    fn len(&self) -> io::Result<u64>;

    /// Whether it holds no byte.
    ///
    /// # Errors
    /// The file system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at most `buffer.len()` bytes at an offset; 0 only at the end.
    ///
    /// # Errors
    /// The file system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// Reads exactly `buffer.len()` bytes at an offset.
///
/// # Errors
/// `UnexpectedEof` if the file ends before, else the file system's.
pub fn read_exact_at(file: &dyn FileReader, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = file.read_at(buffer, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        offset += read as u64;
        buffer = buffer.get_mut(read..).ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(())
}
