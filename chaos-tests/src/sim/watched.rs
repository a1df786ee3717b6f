//! The storage that the workers share: the simulated file system of the domain driver, with calls that take their time,
//! a gate for each worker at which its calls can be held (a hung mount, a paused process), and a journal of every change
//! with the attempt that made it. What the journal shows of fencing is judged in `fencing`.

use super::fencing::Change;
use super::fencing::Journal;
use super::fencing::OrderLabel;
use super::operator::DOMAINS;
use super::plan::Plan;
use super::plan::Planted;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::io::Errno;
use sdm_storage_worker::driver;
use sdm_storage_worker::driver::DomainDriver;
use sdm_storage_worker::driver::DomainFile;
use sdm_storage_worker::driver::Entry;
use sdm_storage_worker::driver::EntryPath;
use sdm_storage_worker::driver::EntryStat;
use sdm_storage_worker::driver::OpenHow;
use sdm_storage_worker::driver::SimulatedDriver;
use sdm_storage_worker::driver::SimulatedFile;
use sdm_storage_worker::driver::SimulatedStorage;
use sdm_storage_worker::driver::Space;
use sdm_storage_worker::driver::StorageError;
use sdm_storage_worker::process::OrderRunner;
use sdm_storage_worker::work;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::watch;

/// How rarely the planted defect strikes.
const RENAMES_PER_LOST: u32 = 40;

/// The shared storage, with its gates and its journal.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The file system itself, for whoever only looks.
    pub files: SimulatedStorage,
    /// What was changed, by whom.
    pub journal: Journal,
    call_time: Duration,
    loses_renames: bool,
    random: Arc<Mutex<StdRng>>,
    gates: Arc<BTreeMap<String, watch::Sender<bool>>>,
    /// By what their paths begin with: domains whose calls hang for everybody.
    domains: Arc<BTreeMap<&'static str, watch::Sender<bool>>>,
    /// By worker: one call of so many fails with this error.
    failing: Arc<Mutex<BTreeMap<String, (u32, Errno)>>>,
}

impl Storage {
    /// An empty one, with a gate for each worker.
    pub fn new(plan: &Plan, now_ns: Arc<AtomicU64>) -> Self {
        let gates = plan.worker_names().into_iter().map(|name| (name, watch::Sender::new(false))).collect();
        let random = StdRng::seed_from_u64(plan.seed ^ 0x5707_a6e5);
        Self {
            files: SimulatedStorage::new(),
            journal: Journal::new(now_ns),
            call_time: plan.call_time,
            loses_renames: plan.planted == Some(Planted::LostRename),
            random: Arc::new(Mutex::new(random)),
            gates: Arc::new(gates),
            domains: Arc::new(DOMAINS.into_iter().map(|(_, path)| (path, watch::Sender::new(false))).collect()),
            failing: Arc::default(),
        }
    }

    /// Holds this worker's calls from now on, or lets them go.
    pub fn hold(&self, worker: &str, held: bool) {
        if let Some(gate) = self.gates.get(worker) {
            gate.send_replace(held);
        }
    }

    /// Holds all calls in the domain beneath this path, or lets them go.
    pub fn hold_domain(&self, path: &str, held: bool) {
        if let Some(gate) = self.domains.get(path) {
            gate.send_replace(held);
        }
    }

    /// From now on one call of so many of this worker fails with this error; None: no more.
    pub fn fail(&self, worker: &str, how: Option<(u32, Errno)>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match how {
            Some(how) => failing.insert(worker.to_owned(), how),
            None => failing.remove(worker),
        };
    }

    /// Whether this call of this worker fails.
    fn failure(&self, worker: &str) -> Option<Errno> {
        let how = self.failing.lock().unwrap_or_else(PoisonError::into_inner).get(worker).copied();
        let (of, errno) = how?;
        let strikes = self.random.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..of) == 0;
        strikes.then_some(errno)
    }

    /// What runs this worker's orders.
    pub fn runner(&self, worker: &str) -> Runner {
        Runner { storage: self.clone(), worker: worker.to_owned() }
    }

    /// Whether the planted defect strikes.
    fn loses_this_rename(&self) -> bool {
        self.loses_renames
            && self.random.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..RENAMES_PER_LOST) == 0
    }

    fn draw(&self) -> Duration {
        let longest = u64::try_from(self.call_time.as_millis()).unwrap_or(0);
        if longest == 0 {
            return Duration::ZERO;
        }
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        // Most calls are answered from a cache.
        let share = if random.random_range(0..8) == 0 { longest } else { longest.div_ceil(8) };
        Duration::from_millis(random.random_range(0..=share))
    }
}

/// Runs the orders of one worker on the shared storage.
#[derive(Clone, Debug)]
pub struct Runner {
    storage: Storage,
    worker: String,
}

impl OrderRunner for Runner {
    fn run(&self, order: Order, ports: Ports) -> BoxFuture<'static, Outcome> {
        let label = Arc::new(OrderLabel::of(&self.worker, &order));
        let storage = WatchedStorage { storage: self.storage.clone(), label };
        async move { work::run_on(&storage, order, ports).await }.boxed()
    }
}

/// The storage as one order sees it.
#[derive(Clone, Debug)]
struct WatchedStorage {
    storage: Storage,
    label: Arc<OrderLabel>,
}

impl WatchedStorage {
    /// A call's way to the storage, beneath this path.
    async fn pass(&self, operation: &'static str, path: &str) -> Result<(), StorageError> {
        let time = self.storage.draw();
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        if let Some(gate) = self.storage.gates.get(&self.label.worker) {
            // The sender lives as long as the storage.
            let _ = gate.subscribe().wait_for(|held| !held).await;
        }
        let domain = self.storage.domains.iter().find(|(root, _)| path.starts_with(*root));
        if let Some((_, gate)) = domain {
            let _ = gate.subscribe().wait_for(|held| !held).await;
        }
        self.may_fail(operation, path)
    }

    /// Fails where that is planned.
    fn may_fail(&self, operation: &'static str, path: &str) -> Result<(), StorageError> {
        match self.storage.failure(&self.label.worker) {
            Some(errno) => Err(StorageError::new(operation, path, errno.into())),
            None => Ok(()),
        }
    }

    fn note(&self, change: Change) {
        self.storage.journal.note(&self.label, change);
    }
}

impl driver::Storage for WatchedStorage {
    type Driver = WatchedDriver;

    async fn open_root(&self, path: &Path) -> Result<WatchedDriver, StorageError> {
        self.pass("open", &path.to_string_lossy()).await?;
        let inner = driver::Storage::open_root(&self.storage.files, path).await?;
        let root = path.to_string_lossy().trim_end_matches('/').to_owned();
        Ok(WatchedDriver { inner, storage: self.clone(), root })
    }
}

/// A folder of the shared storage.
#[derive(Debug)]
struct WatchedDriver {
    inner: SimulatedDriver,
    storage: WatchedStorage,
    root: String,
}

impl WatchedDriver {
    fn name(&self, path: &EntryPath) -> String {
        if path.as_str().is_empty() { self.root.clone() } else { format!("{}/{path}", self.root) }
    }
}

impl DomainDriver for WatchedDriver {
    type File = WatchedFile;

    async fn open(&self, path: &EntryPath, how: OpenHow) -> Result<WatchedFile, StorageError> {
        self.storage.pass("open", &self.name(path)).await?;
        let inner = self.inner.open(path, how).await?;
        let name = self.name(path);
        if let driver::Access::Create { .. } = how.access {
            self.storage.note(Change::Create(name.clone()));
        }
        Ok(WatchedFile { inner, storage: self.storage.clone(), name })
    }

    async fn beneath(&self, path: &EntryPath) -> Result<Self, StorageError> {
        self.storage.pass("open", &self.name(path)).await?;
        let inner = self.inner.beneath(path).await?;
        Ok(Self { inner, storage: self.storage.clone(), root: self.name(path) })
    }

    async fn make_folder(&self, path: &EntryPath, mode: u32) -> Result<(), StorageError> {
        self.storage.pass("mkdir", &self.name(path)).await?;
        self.inner.make_folder(path, mode).await?;
        self.storage.note(Change::Create(self.name(path)));
        Ok(())
    }

    async fn rename(&self, from: &EntryPath, to: &EntryPath) -> Result<(), StorageError> {
        self.storage.pass("rename", &self.name(from)).await?;
        if self.storage.storage.loses_this_rename() {
            return Ok(());
        }
        self.inner.rename(from, to).await?;
        self.storage.note(Change::Rename(self.name(from), self.name(to)));
        Ok(())
    }

    async fn link(&self, from: &EntryPath, to: &EntryPath) -> Result<(), StorageError> {
        self.storage.pass("link", &self.name(from)).await?;
        self.inner.link(from, to).await?;
        self.storage.note(Change::Link(self.name(to)));
        Ok(())
    }

    async fn unlink(&self, path: &EntryPath) -> Result<(), StorageError> {
        self.storage.pass("unlink", &self.name(path)).await?;
        self.inner.unlink(path).await?;
        self.storage.note(Change::Remove(self.name(path)));
        Ok(())
    }

    async fn remove_folder(&self, path: &EntryPath) -> Result<(), StorageError> {
        self.storage.pass("rmdir", &self.name(path)).await?;
        self.inner.remove_folder(path).await?;
        self.storage.note(Change::Remove(self.name(path)));
        Ok(())
    }

    async fn list(&self, path: &EntryPath) -> Result<Vec<Entry>, StorageError> {
        self.storage.pass("list", &self.name(path)).await?;
        self.inner.list(path).await
    }

    async fn stat(&self, path: &EntryPath) -> Result<Option<EntryStat>, StorageError> {
        self.storage.pass("stat", &self.name(path)).await?;
        self.inner.stat(path).await
    }

    async fn sync_folder(&self, path: &EntryPath) -> Result<(), StorageError> {
        self.storage.pass("fsync", &self.name(path)).await?;
        self.inner.sync_folder(path).await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        self.storage.pass("statvfs", &self.root).await?;
        self.inner.space().await
    }

    async fn is_mount_point(&self) -> Result<bool, StorageError> {
        self.inner.is_mount_point().await
    }

    fn io_threads(&self) -> usize {
        1
    }
}

/// An open file of the shared storage. Its calls cannot wait: they are done at once.
#[derive(Debug)]
struct WatchedFile {
    inner: SimulatedFile,
    storage: WatchedStorage,
    name: String,
}

impl WatchedFile {
    fn wrote(&self) {
        self.storage.note(Change::Write(self.name.clone()));
    }
}

impl DomainFile for WatchedFile {
    fn entry(&self) -> &str {
        self.inner.entry()
    }

    fn stat(&self) -> Result<EntryStat, StorageError> {
        self.inner.stat()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
        self.storage.may_fail("read", &self.name)?;
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        self.storage.may_fail("write", &self.name)?;
        self.inner.write_at(bytes, offset)?;
        self.wrote();
        Ok(())
    }

    fn extend_to(&self, bytes: u64) -> Result<(), StorageError> {
        self.storage.may_fail("truncate", &self.name)?;
        self.inner.extend_to(bytes)?;
        self.wrote();
        Ok(())
    }

    fn allocate(&self, range: Range<u64>) -> Result<(), StorageError> {
        self.storage.may_fail("fallocate", &self.name)?;
        self.inner.allocate(range)
    }

    fn grow(&self, range: Range<u64>) -> Result<bool, StorageError> {
        self.storage.may_fail("fallocate", &self.name)?;
        let grown = self.inner.grow(range)?;
        self.wrote();
        Ok(grown)
    }

    fn clone_from(&self, source: &Self, from: u64, length: u64, to: u64) -> Result<bool, StorageError> {
        let cloned = self.inner.clone_from(&source.inner, from, length, to)?;
        self.wrote();
        Ok(cloned)
    }

    fn begin_sync(&self) {
        self.inner.begin_sync();
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.storage.may_fail("fsync", &self.name)?;
        self.inner.sync()
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StorageError> {
        self.inner.next_data(offset)
    }

    fn probe_block_bytes(&self) -> Result<Option<u32>, StorageError> {
        self.inner.probe_block_bytes()
    }

    fn lock_against_writers(&self) -> Result<(), StorageError> {
        self.inner.lock_against_writers()
    }

    fn lock_as_writer(&self) -> Result<(), StorageError> {
        self.inner.lock_as_writer()
    }
}
