//! A folder of real files. Names are flat and chosen by this crate, never by a user.

use super::FileReader;
use super::FileWriter;
use super::Files;
use super::FixedFile;
use super::real::FolderLock;
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

#[derive(Debug)]
struct RealWriter(File);

impl FileWriter for RealWriter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
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
        self.file.sync_data()
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
