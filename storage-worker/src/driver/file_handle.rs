//! An open regular file of a real domain: positional reads and writes, past the page cache where that is possible.
//!
//! It has two descriptors of one file. Aligned parts go through the O_DIRECT one, the unaligned rest (a file's tail)
//! through the other; `sync` syncs both, because only the descriptor that wrote is told of a failed write-back.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use rustix::fs::Advice;
use rustix::fs::FallocateFlags;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::Caching;
use super::DIRECT_ALIGNMENT;
use super::DomainFile;
use super::EntryStat;
use super::StorageError;
use super::StorageErrorKind;
use super::clone_range;
use super::file::call;
use super::file::entry_stat;
use super::image_lock;

/// An open regular file.
#[derive(Debug)]
pub struct FileHandle {
    name: String,
    buffered: OwnedFd,
    direct: Option<OwnedFd>,
    caching: Caching,
}

/// Most that is read at once past the cache into memory of our own.
const PAST_CACHE_BYTES: usize = 256 << 10;

impl FileHandle {
    pub(super) fn new(name: String, buffered: OwnedFd, direct: Option<OwnedFd>, caching: Caching) -> Self {
        Self { name, buffered, direct, caching }
    }

    /// How many leading bytes of a request can go through the O_DIRECT descriptor.
    fn direct_part(&self, memory: *const u8, length: usize, offset: u64) -> usize {
        let aligned = self.direct.is_some()
            && self.caching == Caching::DirectIfPossible
            && offset.is_multiple_of(DIRECT_ALIGNMENT as u64)
            && memory.addr().is_multiple_of(DIRECT_ALIGNMENT);
        if aligned { length - length % DIRECT_ALIGNMENT } else { 0 }
    }

    fn read_through(&self, file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            let read = call("storage.read", &self.name, || rustix::io::pread(file, &mut *rest, at))?;
            if read == 0 {
                break;
            }
            done += read;
            // A short direct read has met the end of the file; the rest is no longer aligned for another one.
            if read % DIRECT_ALIGNMENT != 0 && self.direct.is_some() {
                break;
            }
        }
        Ok(done)
    }

    /// Reads from the storage whatever the page cache holds; the kernel writes that out first. Of any alignment.
    fn read_past_cache(&self, direct: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        let bytes = buffer.len().saturating_add(2 * DIRECT_ALIGNMENT).min(PAST_CACHE_BYTES);
        let bytes = bytes.next_multiple_of(DIRECT_ALIGNMENT);
        let mut memory = vec![0; bytes + DIRECT_ALIGNMENT];
        let skew = memory.as_ptr().align_offset(DIRECT_ALIGNMENT);
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            let lead = (at % DIRECT_ALIGNMENT as u64) as usize;
            let wanted = (lead + rest.len()).next_multiple_of(DIRECT_ALIGNMENT).min(bytes);
            let block = memory.get_mut(skew..skew.saturating_add(wanted)).unwrap_or_default();
            let read = self.read_through(direct, block, at - lead as u64)?;
            let found = block.get(lead..read).unwrap_or_default();
            let length = found.len().min(rest.len());
            for (to, from) in rest.iter_mut().zip(found) {
                *to = *from;
            }
            done += length;
            if read < wanted {
                break;
            }
        }
        Ok(done)
    }

    fn write_through(&self, file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<usize, StorageError> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            let written = call("storage.write", &self.name, || rustix::io::pwrite(file, rest, at))?;
            if written == 0 {
                return Err(StorageError::new("write", &self.name, io::ErrorKind::WriteZero.into()));
            }
            done += written;
        }
        Ok(done)
    }
}

/// Some file systems take the flag at open and refuse the call, or want a larger alignment than 4 KiB.
fn wants_page_cache(error: &StorageError) -> bool {
    error.source.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

impl DomainFile for FileHandle {
    fn entry(&self) -> &str {
        &self.name
    }

    fn stat(&self) -> Result<EntryStat, StorageError> {
        call("storage.stat", &self.name, || rustix::fs::fstat(&self.buffered)).map(|stat| entry_stat(&stat))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        if let (Some(direct), Caching::ReadPastCache) = (&self.direct, self.caching) {
            match self.read_past_cache(direct, buffer, offset) {
                Err(error) if wants_page_cache(&error) => {}
                answer => return answer,
            }
        }
        let direct_part = self.direct_part(buffer.as_ptr(), buffer.len(), offset);
        let mut done = 0;
        if let (Some(direct), true) = (&self.direct, direct_part > 0) {
            let part = buffer.get_mut(..direct_part).unwrap_or_default();
            match self.read_through(direct, part, offset) {
                Ok(read) if read < direct_part => return Ok(read),
                Ok(read) => done = read,
                Err(error) if wants_page_cache(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let rest = buffer.get_mut(done..).unwrap_or_default();
        let read = self.read_buffered(rest, offset.saturating_add(done as u64))?;
        Ok(done + read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        let direct_part = self.direct_part(bytes.as_ptr(), bytes.len(), offset);
        let mut done = 0;
        if let (Some(direct), true) = (&self.direct, direct_part > 0) {
            match self.write_through(direct, bytes.get(..direct_part).unwrap_or_default(), offset) {
                Ok(written) => done = written,
                Err(error) if wants_page_cache(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let rest = bytes.get(done..).unwrap_or_default();
        self.write_through(&self.buffered, rest, offset.saturating_add(done as u64))?;
        Ok(())
    }

    fn extend_to(&self, bytes: u64) -> Result<(), StorageError> {
        if self.stat()?.bytes >= bytes {
            return Ok(());
        }
        call("storage.truncate", &self.name, || rustix::fs::ftruncate(&self.buffered, bytes))
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), StorageError> {
        if range.is_empty() {
            return Ok(());
        }
        let length = range.end - range.start;
        let allocated = call("storage.fallocate", &self.name, || {
            rustix::fs::fallocate(&self.buffered, FallocateFlags::KEEP_SIZE, range.start, length)
        });
        match allocated {
            Err(error) if cannot_allocate(&error) => Ok(()),
            answer => answer,
        }
    }

    fn grow(&self, range: Range<u64>) -> Result<bool, StorageError> {
        if range.is_empty() {
            return Ok(true);
        }
        // Mode 0 makes the file as long as the range's end where it is shorter, and does nothing to its size where it
        // is longer. `ftruncate` would cut it if somebody made it longer since it was looked at.
        let length = range.end - range.start;
        let grown = call("storage.fallocate", &self.name, || {
            rustix::fs::fallocate(&self.buffered, FallocateFlags::empty(), range.start, length)
        });
        match grown {
            Err(error) if cannot_allocate(&error) => Ok(false),
            answer => answer.map(|()| true),
        }
    }

    fn clone_from(&self, source: &Self, from: u64, length: u64, to: u64) -> Result<bool, StorageError> {
        let cloned = call("storage.clone", &self.name, || {
            clone_range::clone_range(self.buffered.as_fd(), source.buffered.as_fd(), from, length, to)
        });
        match cloned {
            Err(error) if cannot_clone(&error) => Ok(false),
            answer => answer.map(|()| true),
        }
    }

    fn begin_sync(&self) {
        // Whoever syncs afterwards learns of every error.
        clone_range::begin_writing_out(self.buffered.as_fd());
    }

    fn sync(&self) -> Result<(), StorageError> {
        if let Some(direct) = &self.direct {
            call("storage.fsync", &self.name, || rustix::fs::fdatasync(direct))?;
        }
        call("storage.fsync", &self.name, || rustix::fs::fdatasync(&self.buffered))?;
        if self.caching == Caching::ReadPastCache {
            // What an earlier sync failed to write looks clean: parts of a page must not be written over it. No promise,
            // so no error; reads do not rely on it where there is direct I/O.
            let _ = rustix::fs::fadvise(&self.buffered, 0, None, Advice::DontNeed);
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StorageError> {
        let bytes = self.stat()?.bytes;
        if offset >= bytes {
            return Ok(None);
        }
        let seek = |to| call("storage.seek", &self.name, || rustix::fs::seek(&self.buffered, to));
        let start = match seek(SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(error) => match error.source.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NXIO) => return Ok(None),
                // Without a hole map everything is data.
                Some(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(offset..bytes)),
                _ => return Err(error),
            },
        };
        let end = seek(SeekFrom::Hole(start))?;
        Ok(Some(start..end.min(bytes).max(start)).filter(|range| !range.is_empty()))
    }

    fn probe_block_bytes(&self) -> Result<Option<u32>, StorageError> {
        let Some(direct) = &self.direct else { return Ok(None) };
        // Twice the alignment holds one aligned block wherever it begins.
        let memory = vec![0; 2 * DIRECT_ALIGNMENT];
        let skew = memory.as_ptr().align_offset(DIRECT_ALIGNMENT);
        for length in [512_u32, 4096] {
            let block = memory.get(skew..).and_then(|rest| rest.get(..length as usize)).unwrap_or_default();
            match call("storage.write", &self.name, || rustix::io::pwrite(direct, block, 0)) {
                Err(error) if wants_page_cache(&error) => {}
                answer => return answer.map(|_| Some(length)),
            }
        }
        Ok(None)
    }

    fn lock_against_writers(&self) -> Result<(), StorageError> {
        image_lock::lock_against_writers(self.buffered.as_fd()).map_err(|error| self.not_locked(error))
    }

    fn lock_as_writer(&self) -> Result<(), StorageError> {
        image_lock::lock_as_writer(self.buffered.as_fd()).map_err(|error| self.not_locked(error))
    }
}

impl FileHandle {
    fn not_locked(&self, error: io::Error) -> StorageError {
        let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::AGAIN | Errno::ACCESS) => StorageErrorKind::InUse,
            _ => StorageErrorKind::Other,
        };
        StorageError { operation: "lock", entry: self.name.clone(), kind, source: error }
    }

    fn read_buffered(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            match call("storage.read", &self.name, || rustix::io::pread(&self.buffered, &mut *rest, at))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }
}

/// Another file system, one without shared blocks, or a range that does not begin and end at a block.
fn cannot_clone(error: &StorageError) -> bool {
    matches!(
        error.source.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::XDEV | Errno::NOTTY | Errno::TXTBSY)
    )
}

fn cannot_allocate(error: &StorageError) -> bool {
    matches!(
        error.source.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
    )
}
