//! The simulated folders: names and bytes, each with what a crash would leave of it.

use super::FileReader;
use super::FileWriter;
use super::Files;
use super::FixedFile;
use super::simulated::Contents;
use super::simulated::Crash;
use super::simulated::SimulatedDisk;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::sync::watch;

/// The bytes of one file, with or without a name.
#[derive(Debug, Default)]
struct Bytes {
    current: Vec<u8>,
    synced: Vec<u8>,
}

type File = Arc<Mutex<Bytes>>;

fn bytes(file: &File) -> MutexGuard<'_, Bytes> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One folder: its names now, and after a crash.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    current: BTreeMap<String, File>,
    synced: BTreeMap<String, File>,
}

impl Folder {
    pub(crate) fn crash(&mut self, crash: Crash) {
        if crash == Crash::KeepUnsynced {
            return;
        }
        self.current.clone_from(&self.synced);
        for file in self.current.values() {
            let mut bytes = bytes(file);
            bytes.current = bytes.synced.clone();
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.current.keys().cloned().collect()
    }

    pub(crate) fn durable(&self, name: &str) -> Option<Vec<u8>> {
        self.synced.get(name).map(|file| bytes(file).synced.clone())
    }

    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) {
        let file = Arc::new(Mutex::new(Bytes { current: bytes.to_vec(), synced: bytes.to_vec() }));
        self.current.insert(name.to_owned(), file.clone());
        self.synced.insert(name.to_owned(), file);
    }

    pub(crate) fn lose(&mut self, name: &str) -> bool {
        self.synced.remove(name);
        self.current.remove(name).is_some()
    }

    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(file) = self.current.get(name) else { return false };
        let mut bytes = bytes(file);
        change(&mut bytes.current);
        bytes.synced = bytes.current.clone();
        true
    }
}

/// Which folder of the disk this is.
pub(crate) type Which = fn(&mut Contents) -> &mut Folder;

/// A folder of a member that started at `boot`.
#[derive(Debug)]
pub(crate) struct SimulatedFiles {
    disk: SimulatedDisk,
    boot: u64,
    which: Which,
    guard: Arc<watch::Sender<()>>,
}

impl SimulatedFiles {
    pub(crate) fn new(disk: SimulatedDisk, boot: u64, which: Which, guard: Arc<watch::Sender<()>>) -> Self {
        SimulatedFiles { disk, boot, which, guard }
    }

    fn folder<T>(&self, act: impl FnOnce(&mut Folder) -> io::Result<T>) -> io::Result<T> {
        let mut contents = self.disk.lock();
        contents.alive(self.boot)?;
        act((self.which)(&mut contents))
    }
}

#[derive(Debug)]
struct SimulatedWriter {
    disk: SimulatedDisk,
    boot: u64,
    file: File,
}

impl FileWriter for SimulatedWriter {
    fn append(&mut self, more: &[u8]) -> io::Result<()> {
        let mut contents = self.disk.lock();
        contents.alive(self.boot)?;
        contents.faults.write(more.len() as u64)?;
        bytes(&self.file).current.extend_from_slice(more);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let contents = self.disk.lock();
        contents.alive(self.boot)?;
        contents.faults.sync_file()?;
        let mut bytes = bytes(&self.file);
        bytes.synced = bytes.current.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedReader {
    file: File,
    _guard: Arc<watch::Sender<()>>,
}

impl FileReader for SimulatedReader {
    fn len(&self) -> io::Result<u64> {
        Ok(bytes(&self.file).current.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = bytes(&self.file);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.current.len());
        let rest = bytes.current.get(start..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(read)
    }
}

#[derive(Debug)]
struct SimulatedFixed {
    disk: SimulatedDisk,
    boot: u64,
    file: File,
    _guard: Arc<watch::Sender<()>>,
}

impl FixedFile for SimulatedFixed {
    fn read(&self) -> io::Result<Vec<u8>> {
        self.disk.lock().alive(self.boot)?;
        Ok(bytes(&self.file).current.clone())
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut contents = self.disk.lock();
        contents.alive(self.boot)?;
        // In place: it takes no space.
        contents.faults.write(0)?;
        let mut bytes = bytes(&self.file);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let old = bytes.current.get_mut(start..).and_then(|rest| rest.get_mut(..new.len()));
        old.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(new);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let contents = self.disk.lock();
        contents.alive(self.boot)?;
        contents.faults.sync()?;
        let mut bytes = bytes(&self.file);
        bytes.synced = bytes.current.clone();
        Ok(())
    }
}

impl Files for SimulatedFiles {
    fn create(&self, name: &str) -> io::Result<Box<dyn FileWriter>> {
        let file = File::default();
        self.folder(|folder| {
            folder.current.insert(name.to_owned(), file.clone());
            Ok(())
        })?;
        Ok(Box::new(SimulatedWriter { disk: self.disk.clone(), boot: self.boot, file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn FileReader>> {
        let file =
            self.folder(|folder| folder.current.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into()))?;
        Ok(Box::new(SimulatedReader { file, _guard: self.guard.clone() }))
    }

    fn open_fixed(&self, name: &str) -> io::Result<Box<dyn FixedFile>> {
        let file =
            self.folder(|folder| folder.current.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into()))?;
        let (disk, boot) = (self.disk.clone(), self.boot);
        Ok(Box::new(SimulatedFixed { disk, boot, file, _guard: self.guard.clone() }))
    }

    fn publish(&self, temporary: &str, name: &str) -> io::Result<()> {
        let failed = self.disk.lock().faults.sync();
        self.folder(|folder| {
            let file = folder.current.remove(temporary).ok_or(io::ErrorKind::NotFound)?;
            folder.current.insert(name.to_owned(), file);
            failed?;
            // Syncing a folder makes all its names durable, also removals.
            folder.synced.clone_from(&folder.current);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder(|folder| folder.current.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.folder(|folder| Ok(folder.names()))
    }
}
