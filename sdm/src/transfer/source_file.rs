//! The file that an import reads: regular, read only, in pieces with its holes. Its bytes are taken
//! as they are; what they mean is checked by the worker.

use super::ContentHash;
use super::LogicalHash;
use super::known_image::HEAD_BYTES;
use super::known_image::known_image;
use crate::output::Failure;
use bytes::Bytes;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// An open source.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    path: PathBuf,
    size: u64,
    allocated_bytes: u64,
    modified: (i64, i64),
}

/// One part of the file, in rising order.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes.
    Data(u64, Bytes),
    /// A hole of that many bytes.
    Hole(u64, u64),
    /// Everything was read: the hashes of it all.
    End(ContentHash),
}

impl SourceFile {
    /// Opens it for reading.
    ///
    /// # Errors
    /// It is not there, not readable, no regular file, or empty. A FIFO or a device is not opened; standard input
    /// (`-`) is not read.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        refuse_stdin(path)?;
        let trouble = |error: io::Error| cannot_read(path, &error);
        // Looked at before it is opened: opening a FIFO waits, and opening a device can act on it.
        regular(path, &std::fs::metadata(path).map_err(trouble)?)?;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let file = File::options().read(true).custom_flags(flags).open(path).map_err(trouble)?;
        let metadata = file.metadata().map_err(trouble)?;
        regular(path, &metadata)?;
        if metadata.len() == 0 {
            let message = format!("{} is empty: there is no disk in it", path.display());
            return Err(Failure::new(Class::Invalid, "EMPTY_FILE", message));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            size: metadata.len(),
            allocated_bytes: allocated_bytes(&metadata),
            modified: modified(&metadata),
        })
    }

    /// The image format that its first bytes look like, if that is not a raw disk. A file that cannot
    /// be read will say so when it is.
    #[must_use]
    pub fn looks_like(&self) -> Option<&'static str> {
        let mut head = [0; HEAD_BYTES];
        let read = self.file.read_at(&mut head, 0).unwrap_or(0);
        known_image(head.get(..read).unwrap_or_default())
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of it that are not holes.
    #[must_use]
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes
    }

    /// Reads it from its beginning to its end and hands on each part. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or somebody writes to it. Ends early, without an error and without an end,
    /// when `take` refuses a part.
    pub fn read(&self, mut take: impl FnMut(Part) -> bool) -> Result<(), Failure> {
        let mut hash = LogicalHash::default();
        let mut position = 0;
        while position < self.size {
            let (data, hole) = self.next_extent(position)?;
            if data > position && !take(Part::Hole(position, data - position)) {
                return Ok(());
            }
            position = data;
            while position < hole {
                let bytes = self.read_piece(position, hole)?;
                hash.data(position, &bytes).map_err(defect)?;
                let offset = position;
                position += bytes.len() as u64;
                if !take(Part::Data(offset, bytes)) {
                    return Ok(());
                }
            }
        }
        hash.hole_until(self.size).map_err(defect)?;
        self.check_unchanged()?;
        take(Part::End(hash.finish_content().map_err(defect)?));
        Ok(())
    }

    /// Reads it all for its hashes. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or somebody writes to it.
    pub fn content_hash(&self) -> Result<ContentHash, Failure> {
        let mut whole = None;
        self.read(|part| {
            if let Part::End(hash) = part {
                whole = Some(hash);
            }
            true
        })?;
        whole.ok_or_else(|| Failure::new(Class::Internal, "BAD_ORDER", "the file was read without an end"))
    }

    fn read_piece(&self, position: u64, end: u64) -> Result<Bytes, Failure> {
        let length = usize::try_from(end - position).unwrap_or(usize::MAX).min(limits::PIECE_BYTES);
        let mut piece = vec![0; length];
        match self.file.read_exact_at(&mut piece, position) {
            Ok(()) => Ok(piece.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.changed("it became shorter")),
            Err(error) => Err(cannot_read(&self.path, &error)),
        }
    }

    /// Begin and end of the data at or after this position; both the file's size when there is none.
    fn next_extent(&self, position: u64) -> Result<(u64, u64), Failure> {
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(position)) {
            Ok(data) => data.min(self.size),
            Err(Errno::NXIO) => return Ok((self.size, self.size)),
            // A file system without a map of holes: everything is data.
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok((position, self.size)),
            Err(error) => return Err(cannot_read(&self.path, &error.into())),
        };
        match rustix::fs::seek(&self.file, SeekFrom::Hole(data)) {
            // Never behind where we are, whatever the file system says: this loop must end.
            Ok(hole) if hole > data => Ok((data, hole.min(self.size))),
            Ok(_) | Err(Errno::NXIO) => Ok((data, self.size)),
            Err(error) => Err(cannot_read(&self.path, &error.into())),
        }
    }

    fn check_unchanged(&self) -> Result<(), Failure> {
        let now = self.file.metadata().map_err(|error| cannot_read(&self.path, &error))?;
        if now.len() != self.size {
            return Err(self.changed(&format!("it had {} bytes, now it has {}", self.size, now.len())));
        }
        if modified(&now) != self.modified {
            return Err(self.changed("somebody wrote to it"));
        }
        Ok(())
    }

    fn changed(&self, how: &str) -> Failure {
        let message = format!("{} changed while it was read: {how}", self.path.display());
        Refusal::new(Class::Precondition, "FILE_CHANGED", message)
            .hint("stop whatever writes to it (a running virtual machine?) and import it again")
            .into()
    }
}

/// Standard input cannot be asked for its length, nor be read again.
fn refuse_stdin(path: &Path) -> Result<(), Failure> {
    if path != Path::new("-") {
        return Ok(());
    }
    let message = "standard input cannot be imported: its length must be known before, and a transfer that is interrupted \
                   begins again at its first byte";
    Err(Refusal::new(Class::Invalid, "NOT_A_FILE", message)
        .hint("write it to a file first (cat > web.img), then: sdm disk import web.img --name NAME --domain DOMAIN --format raw")
        .into())
}

fn defect(error: super::logical_hash::NotRising) -> Failure {
    Failure::new(Class::Internal, "BAD_ORDER", format!("the file was not read in order: {error}"))
}

fn regular(path: &Path, metadata: &Metadata) -> Result<(), Failure> {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    let message = format!("{} is {what}, not a regular file", path.display());
    Err(Refusal::new(Class::Invalid, "NOT_A_FILE", message).hint("copy its content into a file first").into())
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    let (class, reason) = match error.kind() {
        io::ErrorKind::NotFound => (Class::NotFound, "FILE_NOT_FOUND"),
        io::ErrorKind::PermissionDenied => (Class::Denied, "FILE_NOT_READABLE"),
        _ => (Class::Precondition, "FILE_NOT_READABLE"),
    };
    Failure::new(class, reason, format!("{} cannot be read: {error}", path.display()))
}

/// Bytes in a block of st_blocks, whatever the file system's own block is.
const STAT_BLOCK_BYTES: u64 = 512;

fn allocated_bytes(metadata: &Metadata) -> u64 {
    // Preallocation and indirect blocks can make it larger than the file.
    metadata.blocks().saturating_mul(STAT_BLOCK_BYTES).min(metadata.len())
}

fn modified(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts_of(source: &SourceFile) -> Result<Vec<Part>, Failure> {
        let mut parts = Vec::new();
        source.read(|part| {
            parts.push(part);
            true
        })?;
        Ok(parts)
    }

    fn reason(result: Result<impl std::fmt::Debug, Failure>) -> String {
        result.map_err(|failure| failure.refusal.reason.clone()).unwrap_err()
    }

    #[test]
    fn a_sparse_file_comes_as_data_and_holes_with_the_hash_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let file = File::create(&path).unwrap();
        file.set_len(10 << 20).unwrap();
        file.write_all_at(&[7; 100], 4 << 20).unwrap();
        let source = SourceFile::open(&path).unwrap();
        let parts = parts_of(&source).unwrap();
        let mut content = vec![0; 10 << 20];
        let mut at = 0;
        for part in &parts {
            match part {
                Part::Hole(offset, length) => {
                    assert_eq!(*offset, at);
                    at += length;
                }
                Part::Data(offset, bytes) => {
                    assert_eq!(*offset, at);
                    content[usize::try_from(at).unwrap()..][..bytes.len()].copy_from_slice(bytes);
                    at += bytes.len() as u64;
                }
                Part::End(hash) => assert_eq!(hash.file, blake3::hash(&std::fs::read(&path).unwrap())),
            }
        }
        assert_eq!(at, 10 << 20);
        assert_eq!(content, std::fs::read(&path).unwrap());
        assert!(matches!(parts.last(), Some(Part::End(_))));
    }

    #[test]
    fn a_file_that_grows_or_is_written_while_it_is_read_is_refused() {
        for grow in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("disk");
            std::fs::write(&path, vec![1; 4096]).unwrap();
            let source = SourceFile::open(&path).unwrap();
            let writer = File::options().write(true).open(&path).unwrap();
            let mut written = false;
            let result = source.read(|_| {
                if !written {
                    writer.write_all_at(&[2], if grow { 5000 } else { 0 }).unwrap();
                    // The kernel's clock for mtime ticks in milliseconds; a set time is exact.
                    writer.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
                    written = true;
                }
                true
            });
            assert_eq!(reason(result), "FILE_CHANGED");
        }
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![1; 2 * limits::PIECE_BYTES]).unwrap();
        let source = SourceFile::open(&path).unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        let result = source.read(|_| writer.set_len(100).is_ok());
        assert_eq!(reason(result), "FILE_CHANGED");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_being_opened() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        for path in [fifo.as_path(), folder.path(), Path::new("/dev/null")] {
            assert_eq!(reason(SourceFile::open(path)), "NOT_A_FILE", "{}", path.display());
        }
        assert_eq!(reason(SourceFile::open(&folder.path().join("none"))), "FILE_NOT_FOUND");
        let empty = folder.path().join("empty");
        File::create(&empty).unwrap();
        assert_eq!(reason(SourceFile::open(&empty)), "EMPTY_FILE");
    }
}
