//! The one writer of the log. It takes what waits in the queue, makes one batch of it, commits the
//! batch, and only then tells those who wait, in the order in which they came. Its first failure
//! is its last act: it fails everything that waits and everything that comes later.
//!
//! Purged entries are deleted behind the mark that says so, a piece with each batch and the rest
//! when nothing waits, so that a large purge holds up no append for long.

use super::keys;
use super::marks::Marks;
use super::queue::Queued;
use super::queue::Write;
use super::record;
use super::tail::Tail;
use super::witness::WitnessHandle;
use crate::disk::Batch;
use crate::disk::LogDatabase;
use crate::fatal::Fatal;
use crate::types::LogId;
use sdm_proto::failpoint;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

/// Bytes of one batch. Past this a batch gains nothing by growing and only makes others wait.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Entries deleted with one batch, beside twice as many as it brings: each is a random write, and
/// whoever waits for the batch waits for them. A snapshot frees tens of thousands at once.
const PURGE_ENTRIES: u64 = 128;

/// The writer's end of the log.
pub(crate) struct Writer {
    database: Arc<dyn LogDatabase>,
    queue: mpsc::Receiver<Queued>,
    tail: Arc<Mutex<Tail>>,
    fatal: Fatal,
    witness: WitnessHandle,
    /// The marks as of the batch that is being made.
    marks: Marks,
    /// Purged entries that may still be in the database.
    purge: std::ops::Range<u64>,
    /// The newest write that was taken from the queue.
    taken: u64,
}

/// What the writer starts from.
pub(crate) struct Start {
    /// The marks as found.
    pub(crate) marks: Marks,
    /// Purged entries that may still be in the database.
    pub(crate) purge: std::ops::Range<u64>,
    /// Entries from here on were never acknowledged and are removed first.
    pub(crate) torn_from: Option<u64>,
    /// Whose log this becomes, if it is new.
    pub(crate) owner: Option<String>,
}

impl Writer {
    pub(crate) fn new(
        database: Arc<dyn LogDatabase>,
        queue: mpsc::Receiver<Queued>,
        tail: Arc<Mutex<Tail>>,
        fatal: Fatal,
        witness: WitnessHandle,
        start: &Start,
    ) -> Self {
        let purge = start.purge.clone();
        Writer { database, queue, tail, fatal, witness, marks: start.marks, purge, taken: 0 }
    }

    /// Works until the log store is gone and everything it queued is written.
    pub(crate) async fn run(mut self, start: Start) {
        // A panic of the database must not leave callers waiting: it fails the log as an error does.
        let guard = FailOnPanic(self.fatal.clone());
        if let Err(error) = self.prepare(start).await {
            self.fatal.fail("preparing the log", error);
        }
        while let Some(writes) = self.next().await {
            self.write(writes).await;
        }
        // The hint alone is never worth a sync, except when it is the last thing known.
        if self.hint() > self.marks.committed && self.fatal.check().is_ok() {
            self.write(Vec::new()).await;
        }
        drop(guard);
    }

    /// Removes what was never acknowledged, and marks a new log as ours. From then on the marks are always
    /// there, so their absence is damage.
    async fn prepare(&mut self, start: Start) -> io::Result<()> {
        let mut batch = Batch::default();
        if let Some(from) = start.torn_from {
            tracing::warn!(from, "removing log entries that were written but never acknowledged");
            batch.delete_range(keys::entry(from), keys::ENTRIES_TO);
        }
        if batch.is_empty() && start.owner.is_none() {
            return Ok(());
        }
        self.put_marks(&mut batch);
        // After the marks, so that a torn batch leaves nobody's log and not a damaged one.
        if let Some(owner) = &start.owner {
            batch.put(keys::OWNER, record::seal(keys::OWNER, owner.as_bytes()));
        }
        self.database.commit(batch).await?;
        self.witness.durable(&self.marks);
        Ok(())
    }

    /// Last in a batch, so that a torn one lacks it.
    fn put_marks(&mut self, batch: &mut Batch) {
        self.marks.batch += 1;
        batch.put(keys::MARKS, self.marks.value(keys::MARKS));
    }

    /// What waits, up to the size of a batch; empty when there is only purging to do.
    async fn next(&mut self) -> Option<Vec<Queued>> {
        let first = if self.purge.is_empty() || self.fatal.check().is_err() {
            Some(self.queue.recv().await?)
        } else {
            match self.queue.try_recv() {
                Ok(write) => Some(write),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return None,
            }
        };
        let mut writes = Vec::from_iter(first);
        let mut bytes: usize = writes.iter().map(Queued::bytes).sum();
        while !writes.is_empty() && bytes < BATCH_BYTES_MAX {
            let Ok(write) = self.queue.try_recv() else { break };
            bytes += write.bytes();
            writes.push(write);
        }
        Some(writes)
    }

    async fn write(&mut self, mut writes: Vec<Queued>) {
        let result = match self.fatal.check() {
            Err(error) => Err(error),
            Ok(()) => self.commit(&mut writes).await,
        };
        match result {
            Ok(()) => {
                if let Some(newest) = writes.last() {
                    let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
                    tail.durable(newest.number);
                }
                for queued in writes {
                    queued.write.done(Ok(()));
                }
            }
            Err(error) => {
                self.fatal.fail("writing the log", error);
                for queued in writes {
                    queued.write.done(self.fatal.check());
                }
            }
        }
    }

    async fn commit(&mut self, writes: &mut [Queued]) -> io::Result<()> {
        let is_vote = |queued: &Queued| matches!(queued.write, Write::Vote { .. });
        let votes = writes.iter().any(is_vote);
        let only_votes = votes && writes.iter().all(is_vote);
        let batch = self.batch(writes);
        if only_votes && failpoint::skips("plant.vote-in-memory") {
            return Ok(());
        }
        if votes {
            self.witness.vote_comes();
            failpoint::hit("log.vote.before")?;
        }
        failpoint::hit("log.append.before")?;
        self.database.commit(batch).await?;
        failpoint::hit("log.append.after")?;
        if votes {
            // A member that forgot its vote could give a second one in the same term: a vote is
            // never without its witness.
            self.witness.write_now(&self.marks)?;
            failpoint::hit("log.vote.after")?;
        }
        self.witness.durable(&self.marks);
        Ok(())
    }

    /// The newest committed log id that may be written now.
    fn hint(&self) -> Option<LogId> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).committed_within(self.taken)
    }

    fn batch(&mut self, writes: &mut [Queued]) -> Batch {
        self.taken = writes.last().map_or(self.taken, |newest| newest.number);
        self.marks.committed = self.marks.committed.max(self.hint());
        let mut batch = Batch::default();
        let mut brought = 0;
        for queued in writes.iter_mut() {
            match &mut queued.write {
                Write::Append { frames, .. } => {
                    brought += frames.len() as u64;
                    for frame in std::mem::take(frames) {
                        for (key, value) in record::pieces(frame.id.index, &frame.bytes) {
                            batch.put(key, value);
                        }
                        self.marks.last = Some(frame.id);
                    }
                }
                Write::Vote { vote, .. } => self.marks.vote = Some(*vote),
                Write::Truncate { after, .. } => {
                    let keep = after.map_or(0, |after| after.index + 1);
                    batch.delete_range(keys::entry(keep), keys::ENTRIES_TO);
                    if self.marks.last.is_some_and(|last| last.index >= keep) {
                        self.marks.last = *after;
                    }
                }
                Write::Purge { upto } => {
                    self.marks.purged = Some(*upto);
                    if self.marks.last.is_none_or(|last| last.index < upto.index) {
                        self.marks.last = Some(*upto);
                    }
                    self.purge.end = self.purge.end.max(upto.index + 1);
                }
            }
        }
        self.purge_some(brought, &mut batch);
        self.put_marks(&mut batch);
        batch
    }

    /// Faster than entries come, so that a purge comes to its end under any load.
    fn purge_some(&mut self, brought: u64, batch: &mut Batch) {
        if self.purge.is_empty() {
            return;
        }
        let entries = PURGE_ENTRIES.saturating_add(2 * brought);
        let to = self.purge.end.min(self.purge.start.saturating_add(entries));
        batch.delete_range(keys::entry(self.purge.start), keys::entry(to));
        self.purge.start = to;
    }
}

impl Queued {
    fn bytes(&self) -> usize {
        match &self.write {
            Write::Append { frames, .. } => frames.iter().map(|frame| frame.bytes.len()).sum(),
            _ => 0,
        }
    }
}

/// Fails the log when the writer ends by a panic: then nobody else would tell.
struct FailOnPanic(Fatal);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("writing the log", io::Error::other("the log writer panicked"));
        }
    }
}
