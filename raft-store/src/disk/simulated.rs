//! A disk in memory, for tests and simulations. It keeps apart what was written and what was
//! synced, and a crash leaves only the latter. It can be told to hold, fail or slow its syncs, to
//! run out of space, and to flip bits.
//!
//! A crash ends every handle given out before it: a task of the dead member that still runs gets
//! errors and can change nothing. The next start is another call of [`SimulatedDisk::start`].

use super::member_disk::Closed;
use super::member_disk::Execution;
use super::member_disk::MemberDisk;
use super::simulated_files::Folder;
use super::simulated_files::SimulatedFiles;
use super::simulated_log::LogImage;
use super::simulated_log::SimulatedLog;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::watch;

/// What a crash leaves of the writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing.
    LoseUnsynced,
    /// All of them: the process died, the machine did not.
    KeepUnsynced,
    /// The first N changes of the unsynced batches, which tears the batch that holds the Nth. No
    /// honest database does this; the store still must not believe a torn batch.
    Tear(usize),
}

/// Faults that are armed, and what was seen of syncs.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) fail_syncs: Option<io::ErrorKind>,
    pub(crate) fail_writes: Option<io::ErrorKind>,
    pub(crate) fail_files: Option<io::ErrorKind>,
    pub(crate) space_left: Option<u64>,
    pub(crate) sync_time: Duration,
}

impl Faults {
    /// Takes space for a write, or fails as armed.
    pub(crate) fn write(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(kind) = self.fail_writes {
            return Err(kind.into());
        }
        if let Some(left) = &mut self.space_left {
            *left = left.checked_sub(bytes).ok_or(io::ErrorKind::StorageFull)?;
        }
        Ok(())
    }

    /// Fails as armed.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.fail_syncs.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Fails the sync of a new file as armed.
    pub(crate) fn sync_file(&self) -> io::Result<()> {
        self.sync()?;
        self.fail_files.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

/// Everything on the platters and in the caches.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Raised by each crash; handles of an earlier one are dead.
    pub(crate) boot: u64,
    pub(crate) faults: Faults,
    pub(crate) log: LogImage,
    pub(crate) root: Folder,
    pub(crate) snapshots: Folder,
    pub(crate) commits: u64,
    /// Whether syncs are held again after the next one.
    pub(crate) hold_again: bool,
}

impl Contents {
    /// Refuses a handle of before the last crash.
    pub(crate) fn alive(&self, boot: u64) -> io::Result<()> {
        if self.boot == boot {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::BrokenPipe, "the simulated machine crashed"))
        }
    }
}

/// The handle of the test on a disk. Clones share it.
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    pub(crate) contents: Arc<Mutex<Contents>>,
    /// Syncs of the log wait while this says so.
    pub(crate) held: Arc<watch::Sender<bool>>,
}

impl Default for SimulatedDisk {
    fn default() -> Self {
        SimulatedDisk { contents: Arc::new(Mutex::new(Contents::default())), held: Arc::new(watch::Sender::new(false)) }
    }
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as a member that starts now sees it. Whoever had it before must be gone or crashed.
    pub fn start(&self) -> MemberDisk {
        let boot = self.lock().boot;
        let (guard, closed) = Closed::pair();
        let guard = Arc::new(guard);
        let files = |which| SimulatedFiles::new(self.clone(), boot, which, guard.clone());
        MemberDisk {
            log: Arc::new(SimulatedLog::new(self.clone(), boot, guard.clone())),
            root: Arc::new(files(|contents: &mut Contents| &mut contents.root)),
            snapshots: Arc::new(files(|contents: &mut Contents| &mut contents.snapshots)),
            execution: Execution::Tasks,
            closed,
        }
    }

    /// Cuts the power: every handle is dead, and what was not synced is treated as asked.
    pub fn crash(&self, crash: Crash) {
        let mut contents = self.lock();
        contents.boot += 1;
        contents.log.crash(crash);
        contents.root.crash(crash);
        contents.snapshots.crash(crash);
        drop(contents);
        // Whoever waited in a sync wakes up and finds itself dead.
        self.held.send_replace(false);
    }

    /// An empty disk in its place; whoever had the old one is dead.
    pub fn replace(&self) {
        let mut contents = self.lock();
        *contents =
            Contents { boot: contents.boot + 1, faults: std::mem::take(&mut contents.faults), ..Contents::default() };
        drop(contents);
        self.held.send_replace(false);
    }

    /// Holds every sync of the log that has not ended, until [`Self::release_syncs`].
    pub fn hold_syncs(&self) {
        self.held.send_replace(true);
    }

    /// Lets one held sync go on; the next one is held again.
    pub fn release_one_sync(&self) {
        self.lock().hold_again = true;
        self.held.send_replace(false);
    }

    /// Lets held syncs go on.
    pub fn release_syncs(&self) {
        self.held.send_replace(false);
    }

    /// Makes every sync from now on fail with this kind of error; what was to be synced is lost.
    pub fn fail_syncs(&self, kind: io::ErrorKind) {
        self.lock().faults.fail_syncs = Some(kind);
    }

    /// Makes every write from now on fail with this kind of error.
    pub fn fail_writes(&self, kind: io::ErrorKind) {
        self.lock().faults.fail_writes = Some(kind);
    }

    /// Makes every new file from now on fail with this kind of error when it is synced: snapshots and
    /// the identity, not the log.
    pub fn fail_files(&self, kind: io::ErrorKind) {
        self.lock().faults.fail_files = Some(kind);
    }

    /// Leaves this many bytes of space; writes beyond fail with `StorageFull`.
    pub fn limit_space(&self, bytes: u64) {
        self.lock().faults.space_left = Some(bytes);
    }

    /// How long a sync of the log takes, in tokio's time.
    pub fn slow_syncs(&self, time: Duration) {
        self.lock().faults.sync_time = time;
    }

    /// Takes all armed faults back; syncs take no time.
    pub fn heal(&self) {
        self.lock().faults = Faults::default();
    }

    /// How many batches of the log were made durable.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// Keys of the log database in order, as the running member sees them.
    pub fn log_keys(&self) -> Vec<Vec<u8>> {
        self.lock().log.keys()
    }

    /// Flips the lowest bit of the last byte of a log value. False if there is no such key.
    pub fn flip_log_bit(&self, key: &[u8]) -> bool {
        self.lock().log.change(key, |value| {
            if let Some(byte) = value.last_mut() {
                *byte ^= 1;
            }
        })
    }

    /// Removes a key from the log, as damage would. False if there is no such key.
    pub fn lose_log_key(&self, key: &[u8]) -> bool {
        self.lock().log.lose(key)
    }

    /// A value of the log, as the running member sees it.
    pub fn log_value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.lock().log.value(key)
    }

    /// Sets a value of the log, durably, behind the member's back.
    pub fn put_log_value(&self, key: &[u8], value: &[u8]) {
        self.lock().log.put(key, value);
    }

    /// Takes the newest batches of the log back that were durable, as the database does when it takes a damaged
    /// end for a torn one. How many were taken back: few are remembered.
    pub fn lose_log_end(&self, batches: usize) -> usize {
        self.lock().log.lose_end(batches)
    }

    /// Changes the bytes of a file in the member's own folder, as damage would. False if there is no
    /// such name.
    pub fn damage_file(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.lock().root.change(name, change)
    }

    /// The bytes of a file in the member's own folder that a crash would leave.
    pub fn durable_file(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().root.durable(name)
    }

    /// Puts a file into the member's own folder, durably, behind its back.
    pub fn put_file(&self, name: &str, bytes: &[u8]) {
        self.lock().root.put(name, bytes);
    }

    /// Puts a snapshot file there, durably, behind the member's back.
    pub fn put_snapshot(&self, name: &str, bytes: &[u8]) {
        self.lock().snapshots.put(name, bytes);
    }

    /// The bytes of a snapshot file that a crash would leave.
    pub fn durable_snapshot(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().snapshots.durable(name)
    }

    /// Removes a file of the member's own folder, as damage would. False if there is no such name.
    pub fn lose_file(&self, name: &str) -> bool {
        self.lock().root.lose(name)
    }

    /// Names of the snapshots' folder in order.
    pub fn snapshot_names(&self) -> Vec<String> {
        self.lock().snapshots.names()
    }

    /// Changes the bytes of a snapshot file, as damage would. False if there is no such name.
    pub fn damage_snapshot(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.lock().snapshots.change(name, change)
    }
}
