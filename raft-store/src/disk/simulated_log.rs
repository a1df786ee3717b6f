//! The simulated log database: a synced image, the batches written since, and their sum.

use super::Batch;
use super::Change;
use super::LogDatabase;
use super::Visit;
use super::simulated::Crash;
use super::simulated::SimulatedDisk;
use futures_util::future::BoxFuture;
use sdm_proto::failpoint;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::sync::watch;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the log database holds.
#[derive(Debug, Default)]
pub(crate) struct LogImage {
    synced: Pairs,
    unsynced: Vec<Change>,
    current: Pairs,
    /// What each of the last batches changed, as it was before, so that they can be lost again.
    before: VecDeque<Before>,
}

/// Keys, and what stood under each before a change.
type Before = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Batches that can be lost after they were synced.
const REMEMBERED: usize = 4;

/// Keys that a change concerns, as far as they are there or will be.
fn concerned(pairs: &Pairs, change: &Change) -> Vec<Vec<u8>> {
    match change {
        Change::Put { key, .. } => vec![key.clone()],
        Change::DeleteRange { from, to } if from < to => {
            pairs.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect()
        }
        Change::DeleteRange { .. } => Vec::new(),
    }
}

/// Makes the change; answers with what was there before.
fn apply(pairs: &mut Pairs, change: &Change) -> Before {
    let keys = concerned(pairs, change);
    let replaced = keys.into_iter().map(|key| {
        let before = match change {
            Change::Put { value, .. } => pairs.insert(key.clone(), value.clone()),
            Change::DeleteRange { .. } => pairs.remove(&key),
        };
        (key, before)
    });
    replaced.collect()
}

impl LogImage {
    fn write(&mut self, batch: &Batch) {
        for change in batch.changes() {
            apply(&mut self.current, change);
            self.unsynced.push(change.clone());
        }
    }

    fn sync(&mut self) {
        let mut before = Vec::new();
        for change in self.unsynced.drain(..) {
            before.extend(apply(&mut self.synced, &change));
        }
        self.before.push_back(before);
        if self.before.len() > REMEMBERED {
            self.before.pop_front();
        }
    }

    pub(crate) fn lose_end(&mut self, batches: usize) -> usize {
        for lost in 0..batches {
            let Some(before) = self.before.pop_back() else { return lost };
            for (key, value) in before.into_iter().rev() {
                match value {
                    Some(value) => self.synced.insert(key, value),
                    None => self.synced.remove(&key),
                };
            }
            self.current = self.synced.clone();
        }
        batches
    }

    pub(crate) fn crash(&mut self, crash: Crash) {
        let kept = match crash {
            Crash::LoseUnsynced => 0,
            Crash::KeepUnsynced => self.unsynced.len(),
            Crash::Tear(changes) => changes.min(self.unsynced.len()),
        };
        for change in self.unsynced.iter().take(kept) {
            apply(&mut self.synced, change);
        }
        self.unsynced.clear();
        self.current.clone_from(&self.synced);
    }

    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        self.current.keys().cloned().collect()
    }

    pub(crate) fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.current.get(key).cloned()
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        for pairs in [&mut self.synced, &mut self.current] {
            pairs.insert(key.to_vec(), value.to_vec());
        }
    }

    pub(crate) fn change(&mut self, key: &[u8], mut change: impl FnMut(&mut Vec<u8>)) -> bool {
        if let Some(value) = self.synced.get_mut(key) {
            change(value);
        }
        self.current.get_mut(key).map(change).is_some()
    }

    pub(crate) fn lose(&mut self, key: &[u8]) -> bool {
        self.synced.remove(key);
        self.current.remove(key).is_some()
    }
}

/// The log of a member that started at `boot`.
#[derive(Debug)]
pub(crate) struct SimulatedLog {
    disk: SimulatedDisk,
    boot: u64,
    _guard: Arc<watch::Sender<()>>,
}

impl SimulatedLog {
    pub(crate) fn new(disk: SimulatedDisk, boot: u64, guard: Arc<watch::Sender<()>>) -> Self {
        SimulatedLog { disk, boot, _guard: guard }
    }

    async fn write_and_sync(&self, batch: Batch) -> io::Result<()> {
        let time = {
            let mut contents = self.disk.lock();
            contents.alive(self.boot)?;
            contents.faults.write(batch.bytes() as u64)?;
            contents.log.write(&batch);
            contents.faults.sync_time
        };
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        let mut held = self.disk.held.subscribe();
        // The sender lives in the disk, so this ends only with a release or a crash.
        let _ = held.wait_for(|held| !held).await;
        let mut contents = self.disk.lock();
        contents.alive(self.boot)?;
        contents.faults.sync()?;
        if !failpoint::skips("log.fdatasync") {
            contents.log.sync();
        }
        contents.commits += 1;
        if std::mem::take(&mut contents.hold_again) {
            self.disk.held.send_replace(true);
        }
        Ok(())
    }
}

impl LogDatabase for SimulatedLog {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.write_and_sync(batch))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = {
            let contents = self.disk.lock();
            contents.alive(self.boot)?;
            let range = contents.log.current.range(from.to_vec()..to.to_vec());
            range.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        for (key, value) in &pairs {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
