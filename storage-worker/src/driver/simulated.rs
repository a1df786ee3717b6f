//! The simulated driver: file systems in memory that forget, at `crash`, whatever was not synced.
//!
//! For tests of this and other crates. Several drivers (processes) may share one storage. Deterministic: no threads,
//! no clock, sorted names. Faults are planted by operation name: `open`, `read`, `write`, `fsync`, `mkdir`, `rename`,
//! `link`, `unlink`, `rmdir`, `truncate`, `fallocate`, `clone`, `list`, `stat`. The power can be cut at a chosen call.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use rustix::io::Errno;

use super::Access;
use super::Caching;
use super::DomainDriver;
use super::DomainFile;
use super::Entry;
use super::EntryKind;
use super::EntryPath;
use super::EntryStat;
use super::OpenHow;
use super::Space;
use super::Storage;
use super::StorageError;
use super::StorageErrorKind;
use super::simulated_tree::Content;
use super::simulated_tree::Node;
use super::simulated_tree::NodeId;
use super::simulated_tree::PAGE_BYTES;
use super::simulated_tree::ROOT;
use super::simulated_tree::Tree;
use super::simulated_tree::errno;

/// Room of a new storage, unless a test says otherwise.
const DEFAULT_CAPACITY_BYTES: u64 = 1 << 40;

#[derive(Debug)]
struct State {
    tree: Tree,
    mounts: BTreeSet<NodeId>,
    in_use: BTreeSet<NodeId>,
    capacity_bytes: u64,
    /// By operation: how many calls still pass, and the error after them.
    faults: BTreeMap<String, (u64, i32)>,
    /// Rises with each crash; handles of before are stale.
    boot: u64,
    /// Calls so far.
    calls: u64,
    /// The call at which the power goes, and what decides which of the unsynced pages were written all the same.
    cut_at: Option<(u64, Option<u64>)>,
    /// How many syncs of files still pass before one loses what it was to write.
    loses_after: Option<u64>,
    /// Whether files can share blocks, and files grow by reservation.
    shares_blocks: bool,
    reserves_blocks: bool,
}

/// A simulated host storage: one tree with mount points in it. A clone is the same storage.
#[derive(Debug, Clone)]
pub struct SimulatedStorage(Arc<Mutex<State>>);

impl Default for SimulatedStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulatedStorage {
    /// An empty one.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            tree: Tree::new(),
            mounts: BTreeSet::new(),
            in_use: BTreeSet::new(),
            capacity_bytes: DEFAULT_CAPACITY_BYTES,
            faults: BTreeMap::new(),
            boot: 0,
            calls: 0,
            cut_at: None,
            loses_after: None,
            shares_blocks: false,
            reserves_blocks: true,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock has failed already.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a durable mount point, with the folders above it.
    ///
    /// # Errors
    /// When something else than a folder lies there.
    pub fn mount(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let mut at = ROOT;
        for name in path.to_string_lossy().split('/').filter(|name| !name.is_empty()) {
            let found = state.tree.folder(at)?.get(name).copied();
            let next = match found {
                Some(id) => id,
                None => state.tree.add(at, name, Node::Folder(BTreeMap::new()))?,
            };
            state.tree.sync(at)?;
            at = next;
        }
        state.tree.sync(at)?;
        state.mounts.insert(at);
        Ok(())
    }

    /// Cuts the power: what was not synced is gone, and every open handle is stale.
    pub fn crash(&self) {
        let mut state = self.state();
        state.tree.crash();
        state.boot += 1;
        state.cut_at = None;
    }

    /// The power is cut just before the call with this number from now on, counted from 1. Whoever called gets an error,
    /// as does every later call of this boot. With a seed, some of the pages that were not synced are there all the
    /// same afterwards: a system writes out when and what it likes.
    pub fn cut_power_at(&self, call: u64, seed: Option<u64>) {
        let mut state = self.state();
        state.cut_at = Some((state.calls.saturating_add(call), seed));
    }

    /// How many calls there were; whether a cut that was asked for has happened shows in [`Self::boots`].
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// How often the power was cut.
    pub fn boots(&self) -> u64 {
        self.state().boot
    }

    /// From now on files can share blocks.
    pub fn share_blocks(&self) {
        self.state().shares_blocks = true;
    }

    /// From now on no blocks can be reserved, as over NFS before 4.2.
    pub fn reserve_no_blocks(&self) {
        self.state().reserves_blocks = false;
    }

    /// Bounds the room for all files together.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// From the `after + 1`-th call of an operation on, it answers `errno`, until [`Self::heal`].
    pub fn fail(&self, operation: &str, after: u64, errno: i32) {
        self.state().faults.insert(operation.to_owned(), (after, errno));
    }

    /// The sync of a file with this number from now on, counted from 1, fails: what it was to write is lost, looks clean,
    /// and later syncs say Ok. The storage's other syncs pass.
    pub fn lose_at_sync(&self, number: u64) {
        self.state().loses_after = Some(number.saturating_sub(1));
    }

    /// Whether that has happened, or was not asked for.
    pub fn has_lost(&self) -> bool {
        self.state().loses_after.is_none()
    }

    /// Takes all planted faults away.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Plants something that is neither file nor folder.
    ///
    /// # Errors
    /// When the folder is missing or the name taken.
    pub fn plant(&self, path: &Path, kind: EntryKind) -> io::Result<()> {
        let text = path.to_string_lossy();
        let (folder, name) = text.rsplit_once('/').ok_or_else(|| errno(Errno::NOENT))?;
        let mut state = self.state();
        let folder = state.tree.walk(ROOT, folder)?;
        state.tree.add(folder, name, Node::Special(kind)).map(|_| ())
    }

    /// Marks a file as used by a writer, as a running QEMU would.
    ///
    /// # Errors
    /// When it is missing.
    pub fn use_image(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.tree.walk(ROOT, &path.to_string_lossy())?;
        state.in_use.insert(id);
        Ok(())
    }
}

impl State {
    fn sync_file(&mut self, id: NodeId, caching: Caching) -> io::Result<()> {
        match &mut self.loses_after {
            Some(0) => {
                self.loses_after = None;
                self.tree.lose(id)?;
                return Err(errno(Errno::IO));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.tree.sync(id)?;
        if caching == Caching::ReadPastCache { self.tree.drop_cache(id) } else { Ok(()) }
    }

    /// Takes an operation's fault into account.
    fn pass(&mut self, operation: &str) -> io::Result<()> {
        self.calls += 1;
        if let Some((at, seed)) = self.cut_at
            && self.calls >= at
        {
            self.cut_at = None;
            if let Some(seed) = seed {
                self.tree.write_out_some(seed);
            }
            self.tree.crash();
            self.boot += 1;
            return Err(errno(Errno::IO));
        }
        match self.faults.get_mut(operation) {
            Some((0, code)) => Err(io::Error::from_raw_os_error(*code)),
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Storage for SimulatedStorage {
    type Driver = SimulatedDriver;

    async fn open_root(&self, path: &Path) -> Result<SimulatedDriver, StorageError> {
        let display = path.display().to_string();
        let mut state = self.state();
        let found = state.pass("open").and_then(|()| {
            let id = state.tree.walk(ROOT, &display)?;
            state.tree.folder(id)?;
            Ok(id)
        });
        let root = found.map_err(|error| StorageError::new("open", &display, error))?;
        Ok(SimulatedDriver { storage: self.clone(), root, boot: state.boot, display })
    }
}

/// A folder of a simulated storage, held open.
#[derive(Debug, Clone)]
pub struct SimulatedDriver {
    storage: SimulatedStorage,
    root: NodeId,
    boot: u64,
    display: String,
}

impl SimulatedDriver {
    fn name(&self, path: &EntryPath) -> String {
        if path.as_str().is_empty() { self.display.clone() } else { format!("{}/{path}", self.display) }
    }

    fn call<T>(
        &self,
        operation: &'static str,
        path: &EntryPath,
        run: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, StorageError> {
        let mut state = self.storage.state();
        let answer = if state.boot == self.boot {
            state.pass(operation).and_then(|()| run(&mut state))
        } else {
            Err(errno(Errno::STALE))
        };
        answer.map_err(|error| StorageError::new(operation, self.name(path), error))
    }

    fn find(&self, state: &State, path: &EntryPath) -> io::Result<NodeId> {
        state.tree.walk(self.root, path.as_str())
    }

    fn parent<'p>(&self, state: &State, path: &'p EntryPath) -> io::Result<(NodeId, &'p str)> {
        let (folder, name) = path.split_last().ok_or_else(|| errno(Errno::INVAL))?;
        Ok((self.find(state, &folder)?, name))
    }
}

impl DomainDriver for SimulatedDriver {
    type File = SimulatedFile;

    async fn open(&self, path: &EntryPath, how: OpenHow) -> Result<SimulatedFile, StorageError> {
        let node = self.call("open", path, |state| match how.access {
            Access::Read | Access::Change => self.find(state, path),
            Access::Create { .. } => {
                let (folder, name) = self.parent(state, path)?;
                state.tree.add(folder, name, Node::File(Content::default()))
            }
        })?;
        let kind = self.call("stat", path, |state| state.tree.stat(node))?.kind;
        if kind != EntryKind::File {
            let kind = StorageErrorKind::UnexpectedEntry(kind);
            return Err(StorageError::of_kind("open", self.name(path), kind));
        }
        let (name, caching) = (self.name(path), how.caching);
        Ok(SimulatedFile { storage: self.storage.clone(), node, boot: self.boot, name, caching })
    }

    async fn beneath(&self, path: &EntryPath) -> Result<Self, StorageError> {
        let root = self.call("open", path, |state| {
            let id = self.find(state, path)?;
            state.tree.folder(id)?;
            Ok(id)
        })?;
        Ok(Self { storage: self.storage.clone(), root, boot: self.boot, display: self.name(path) })
    }

    async fn make_folder(&self, path: &EntryPath, _mode: u32) -> Result<(), StorageError> {
        self.call("mkdir", path, |state| {
            let (folder, name) = self.parent(state, path)?;
            state.tree.add(folder, name, Node::Folder(BTreeMap::new())).map(|_| ())
        })
    }

    async fn rename(&self, from: &EntryPath, to: &EntryPath) -> Result<(), StorageError> {
        self.call("rename", from, |state| {
            let (from, to) = (self.parent(state, from)?, self.parent(state, to)?);
            state.tree.rename(from, to)
        })
    }

    async fn link(&self, from: &EntryPath, to: &EntryPath) -> Result<(), StorageError> {
        self.call("link", from, |state| {
            let node = self.find(state, from)?;
            state.tree.content(node)?;
            let (folder, name) = self.parent(state, to)?;
            state.tree.link(node, folder, name)
        })
    }

    async fn unlink(&self, path: &EntryPath) -> Result<(), StorageError> {
        self.call("unlink", path, |state| {
            let (folder, name) = self.parent(state, path)?;
            state.tree.remove(folder, name, EntryKind::File)
        })
    }

    async fn remove_folder(&self, path: &EntryPath) -> Result<(), StorageError> {
        self.call("rmdir", path, |state| {
            let (folder, name) = self.parent(state, path)?;
            state.tree.remove(folder, name, EntryKind::Folder)
        })
    }

    async fn list(&self, path: &EntryPath) -> Result<Vec<Entry>, StorageError> {
        self.call("list", path, |state| {
            let names = state.tree.folder(self.find(state, path)?)?;
            names.iter().map(|(name, id)| Ok(Entry { name: name.clone(), kind: state.tree.stat(*id)?.kind })).collect()
        })
    }

    async fn stat(&self, path: &EntryPath) -> Result<Option<EntryStat>, StorageError> {
        self.call("stat", path, |state| match self.find(state, path) {
            Ok(id) => state.tree.stat(id).map(Some),
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        })
    }

    async fn sync_folder(&self, path: &EntryPath) -> Result<(), StorageError> {
        self.call("fsync", path, |state| {
            let id = self.find(state, path)?;
            state.tree.folder(id)?;
            state.tree.sync(id)
        })
    }

    async fn space(&self) -> Result<Space, StorageError> {
        self.call("statvfs", &EntryPath::root(), |state| {
            Ok(Space {
                total_bytes: state.capacity_bytes,
                free_bytes: state.capacity_bytes.saturating_sub(state.tree.used_bytes()),
                file_system: "simulated".to_owned(),
                block_bytes: PAGE_BYTES as u32,
            })
        })
    }

    async fn is_mount_point(&self) -> Result<bool, StorageError> {
        self.call("stat", &EntryPath::root(), |state| Ok(state.mounts.contains(&self.root)))
    }

    fn io_threads(&self) -> usize {
        1
    }
}

/// An open file of a simulated storage.
#[derive(Debug)]
pub struct SimulatedFile {
    storage: SimulatedStorage,
    node: NodeId,
    boot: u64,
    name: String,
    caching: Caching,
}

impl SimulatedFile {
    fn call<T>(
        &self,
        operation: &'static str,
        run: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, StorageError> {
        let mut state = self.storage.state();
        let answer = if state.boot == self.boot {
            state.pass(operation).and_then(|()| run(&mut state))
        } else {
            Err(errno(Errno::STALE))
        };
        answer.map_err(|error| StorageError::new(operation, &self.name, error))
    }
}

impl DomainFile for SimulatedFile {
    fn entry(&self) -> &str {
        &self.name
    }

    fn stat(&self) -> Result<EntryStat, StorageError> {
        self.call("stat", |state| state.tree.stat(self.node))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        self.call("read", |state| match self.caching {
            Caching::ReadPastCache => Ok(state.tree.beneath_cache(self.node)?.read(buffer, offset)),
            _ => Ok(state.tree.content(self.node)?.read(buffer, offset)),
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        self.call("write", |state| {
            let more = state.tree.content(self.node)?.new_pages(bytes.len(), offset) * PAGE_BYTES as u64;
            if state.tree.used_bytes() + more > state.capacity_bytes {
                return Err(errno(Errno::NOSPC));
            }
            state.tree.write(self.node, bytes, offset)
        })
    }

    fn extend_to(&self, bytes: u64) -> Result<(), StorageError> {
        self.call("truncate", |state| {
            let content = state.tree.content_mut(self.node)?;
            content.bytes = content.bytes.max(bytes);
            Ok(())
        })
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), StorageError> {
        self.call("fallocate", |state| {
            let room = state.capacity_bytes.saturating_sub(state.tree.used_bytes());
            let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let wanted = state.tree.content(self.node)?.new_pages(length, range.start) * PAGE_BYTES as u64;
            if wanted > room { Err(errno(Errno::NOSPC)) } else { Ok(()) }
        })
    }

    fn grow(&self, range: Range<u64>) -> Result<bool, StorageError> {
        self.call("fallocate", |state| {
            if !state.reserves_blocks {
                return Ok(false);
            }
            let room = state.capacity_bytes.saturating_sub(state.tree.used_bytes());
            let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let content = state.tree.content_mut(self.node)?;
            if content.new_pages(length, range.start) * PAGE_BYTES as u64 > room {
                return Err(errno(Errno::NOSPC));
            }
            content.bytes = content.bytes.max(range.end);
            Ok(true)
        })
    }

    fn clone_from(&self, source: &Self, from: u64, length: u64, to: u64) -> Result<bool, StorageError> {
        self.call("clone", |state| {
            let page = PAGE_BYTES as u64;
            if !state.shares_blocks || [from, length, to].iter().any(|value| !value.is_multiple_of(page)) {
                return Ok(false);
            }
            let shared: Vec<_> = {
                let pages = &state.tree.content(source.node)?.pages;
                (0..length / page).map(|n| pages.get(&(from / page + n)).cloned()).collect()
            };
            let content = state.tree.content_mut(self.node)?;
            for (n, shared) in (to / page..).zip(shared) {
                match shared {
                    Some(shared) => content.pages.insert(n, shared),
                    None => content.pages.remove(&n),
                };
            }
            content.bytes = content.bytes.max(to + length);
            Ok(true)
        })
    }

    fn begin_sync(&self) {}

    fn sync(&self) -> Result<(), StorageError> {
        self.call("fsync", |state| state.sync_file(self.node, self.caching))
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StorageError> {
        self.call("seek", |state| {
            let content = state.tree.content(self.node)?;
            let page = PAGE_BYTES as u64;
            let mut pages = content.pages.range(offset / page..).map(|(index, _)| *index);
            let Some(first) = pages.next() else { return Ok(None) };
            let after = pages.zip(first + 1..).take_while(|(index, next)| index == next).last();
            let end = after.map_or(first, |(index, _)| index) + 1;
            let found = (first * page).max(offset)..(end * page).min(content.bytes);
            Ok(Some(found).filter(|range| !range.is_empty()))
        })
    }

    fn probe_block_bytes(&self) -> Result<Option<u32>, StorageError> {
        Ok(Some(512))
    }

    fn lock_against_writers(&self) -> Result<(), StorageError> {
        let in_use = self.call("lock", |state| Ok(state.in_use.contains(&self.node)))?;
        if in_use { Err(StorageError::of_kind("lock", &self.name, StorageErrorKind::InUse)) } else { Ok(()) }
    }

    fn lock_as_writer(&self) -> Result<(), StorageError> {
        self.lock_against_writers()
    }
}
