//! A folder of real files. Names are flat and chosen by this crate, never by a user.

use super::FileReader;
use super::FileWriter;
use super::Files;
use super::FixedFile;
use super::durable::sync_all;
use super::durable::sync_data;
use super::real::FolderLock;
use rustix::fs::Advice;
use rustix::fs::fadvise;
use sdm_proto::failpoint;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// A folder, which its lock outlives.
#[derive(Debug)]
pub(crate) struct RealFiles {
    folder: PathBuf,
    lock: Arc<FolderLock>,
}

impl RealFiles {
    pub(crate) fn new(folder: PathBuf, lock: Arc<FolderLock>) -> Self {
        RealFiles { folder, lock }
    }
}

/// Makes names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes what will be read from a file what its disk holds; nothing if there is none. After a failed
/// write-back the kernel keeps the pages, marked as written: the next process reads them and syncs
/// them with success, and a power cut takes them. So what can still be written is written, and then
/// the kernel's copy goes.
pub(crate) fn drop_cached(path: &Path) -> io::Result<()> {
    failpoint::hit("folder.drop_cached.before")?;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // Only clean pages can go. An error that nobody was told of yet is told here.
    file.sync_all()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(())
}

#[derive(Debug)]
struct RealWriter(File);

impl FileWriter for RealWriter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        sync_all(&self.0)
    }
}

#[derive(Debug)]
struct RealReader {
    file: File,
    // A reader may outlive the store: the folder stays ours as long as its files are read.
    _lock: Arc<FolderLock>,
}

impl FileReader for RealReader {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// More than this is no file that is written in place.
const FIXED_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug)]
struct RealFixed {
    file: File,
    // It is written until the last moment: until then the folder is not let go.
    _lock: Arc<FolderLock>,
}

impl FixedFile for RealFixed {
    fn read(&self) -> io::Result<Vec<u8>> {
        let length = self.file.metadata()?.len().min(FIXED_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        sync_data(&self.file)
    }
}

impl Files for RealFiles {
    fn create(&self, name: &str) -> io::Result<Box<dyn FileWriter>> {
        let path = self.folder.join(name);
        // Never written in place: another name may be a link to the same bytes.
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(RealWriter(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn FileReader>> {
        let file = File::open(self.folder.join(name))?;
        Ok(Box::new(RealReader { file, _lock: self.lock.clone() }))
    }

    fn open_fixed(&self, name: &str) -> io::Result<Box<dyn FixedFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.folder.join(name))?;
        Ok(Box::new(RealFixed { file, _lock: self.lock.clone() }))
    }

    fn publish(&self, temporary: &str, name: &str) -> io::Result<()> {
        std::fs::rename(self.folder.join(temporary), self.folder.join(name))?;
        sync_folder(&self.folder)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::ReadWriteFlags;
    use rustix::io::preadv2;
    use std::io::IoSliceMut;

    /// Whether a file's first page can be read without its disk; None where the file system does not say.
    fn is_cached(path: &Path) -> Option<bool> {
        let file = File::open(path).expect("opens");
        let mut byte = [0];
        match preadv2(&file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT) {
            Ok(_) => Some(true),
            Err(rustix::io::Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    #[test]
    fn what_the_kernel_keeps_of_a_file_is_dropped_and_its_content_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        // Dirty: it must be written before it can go.
        std::fs::write(&path, vec![7; 10_000]).expect("written");
        let in_memory = rustix::fs::statfs(folder.path()).expect("known").f_type == TMPFS_MAGIC;
        let tells = is_cached(&path) == Some(true) && !in_memory;
        drop_cached(&path).expect("dropped");
        if tells {
            assert_eq!(is_cached(&path), Some(false), "a copy stays in the kernel");
        } else {
            println!("SKIPPED: this file system does not tell what is cached");
        }
        assert_eq!(std::fs::read(&path).expect("readable"), vec![7; 10_000]);
    }

    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

    #[test]
    fn a_file_that_is_not_there_has_nothing_to_drop() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        drop_cached(&folder.path().join("file")).expect("nothing to do");
    }
}
