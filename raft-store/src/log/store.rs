//! The log as openraft writes it. Each call takes effect in memory at once, goes to the writer's
//! queue, and returns as early as the rules of Raft allow: appends return before they are durable
//! (their callback tells), votes and truncations only after.

use super::queue::Frame;
use super::queue::QUEUE_KIB_MAX;
use super::queue::QUEUE_WRITES_MAX;
use super::queue::Queued;
use super::queue::Write;
use super::reader::LogReader;
use super::record;
use super::recovery::Recovered;
use super::tail::Tail;
use super::witness::Witness;
use super::witness::WitnessHandle;
use super::writer::Writer;
use crate::disk::MemberDisk;
use crate::fatal::Fatal;
use crate::snapshot::SnapshotTrigger;
use crate::types::IoFlushed;
use crate::types::LogEntry;
use crate::types::LogId;
use crate::types::TypeConfig;
use crate::types::Vote;
use openraft::storage::LogState;
use openraft::storage::RaftLogStorage;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

/// Which index the first entry of an empty log may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstEntry {
    /// 0, as every log of openraft begins. Anything else is a gap.
    Zero,
    /// Any: openraft's test suite begins where it likes.
    #[cfg(test)]
    Anywhere,
}

/// The member's log. One openraft owns it; its readers are clones of a handle.
#[derive(Debug)]
pub struct LogStore {
    tail: Arc<Mutex<Tail>>,
    queue: mpsc::Sender<Queued>,
    queue_bytes: Arc<Semaphore>,
    writes: u64,
    reader: LogReader,
    fatal: Fatal,
    growth: SnapshotTrigger,
    first_entry: FirstEntry,
}

impl LogStore {
    /// Starts the writer of a recovered log.
    pub(crate) fn start(
        disk: &MemberDisk,
        recovered: &Recovered,
        witness: Witness,
        fatal: Fatal,
        growth: SnapshotTrigger,
        first_entry: FirstEntry,
    ) -> io::Result<Self> {
        let tail = Arc::new(Mutex::new(recovered.tail()));
        let (queue, waiting) = mpsc::channel(QUEUE_WRITES_MAX);
        let start = recovered.start();
        let (witness, following) = WitnessHandle::start(witness, fatal.clone());
        disk.execution.start("sdm-log-witness", following)?;
        let writer = Writer::new(disk.log.clone(), waiting, tail.clone(), fatal.clone(), witness, &start);
        disk.execution.start("sdm-log-writer", writer.run(start))?;
        Ok(LogStore {
            reader: LogReader::new(disk, tail.clone(), fatal.clone()),
            tail,
            queue,
            queue_bytes: Arc::new(Semaphore::new(QUEUE_KIB_MAX)),
            writes: 0,
            fatal,
            growth,
            first_entry,
        })
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the tail and queues the write in one step that cannot be interrupted half-way.
    async fn queue(
        &mut self,
        bytes: Option<OwnedSemaphorePermit>,
        change: impl FnOnce(&mut Tail, u64) -> Write,
    ) -> io::Result<()> {
        let Ok(place) = self.queue.reserve().await else {
            self.fatal.check()?;
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the log writer has ended"));
        };
        self.writes += 1;
        let number = self.writes;
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let write = change(&mut tail, number);
        place.send(Queued { number, write, _bytes: bytes });
        Ok(())
    }

    /// Refuses entries that would leave a gap, or that an older leader wrote after a newer one:
    /// no sound Raft appends such, and a log that holds them does not open again.
    fn refuse_disorder(&self, entries: &[LogEntry]) -> io::Result<()> {
        let refused = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        let mut last = self.tail().last();
        for entry in entries {
            let id = entry.log_id;
            let next = match (last, self.first_entry) {
                (Some(last), _) => last.index + 1,
                (None, FirstEntry::Zero) => 0,
                #[cfg(test)]
                (None, FirstEntry::Anywhere) => id.index,
            };
            if id.index != next {
                return refused(format!("log entry {id} would leave a gap: the next one is {next}"));
            }
            if let Some(last) = last.filter(|last| last.leader_id > id.leader_id) {
                return refused(format!("log entry {id} is of an older leader than the last one, {last}"));
            }
            last = Some(id);
        }
        Ok(())
    }

    async fn finished(&self, done: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
        match done.await {
            Ok(result) => result,
            Err(_) => {
                self.fatal.check()?;
                Err(io::Error::new(io::ErrorKind::BrokenPipe, "the log writer has ended"))
            }
        }
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.tail();
        Ok(LogState { last_purged_log_id: tail.purged(), last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.fatal.check()?;
        let vote = *vote;
        let (done, finished) = oneshot::channel();
        self.queue(None, |_, _| Write::Vote { vote, done }).await?;
        self.finished(finished).await?;
        self.tail().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(id) = committed else { return Ok(()) };
        // A hint: it wakes nobody, and goes with the next batch that has all that was queued before it.
        self.tail().hint(id, self.writes);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.tail().committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + openraft::OptionalSend,
        I::IntoIter: openraft::OptionalSend,
    {
        self.fatal.check()?;
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        self.refuse_disorder(&entries)?;
        let mut frames = Vec::with_capacity(entries.len());
        let mut before = self.tail().last();
        for entry in &entries {
            frames.push(Frame { id: entry.log_id, bytes: record::encode_entry(entry, before.as_ref())? });
            before = Some(entry.log_id);
        }
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
        let share = u32::try_from(bytes.div_ceil(1024).clamp(1, QUEUE_KIB_MAX)).unwrap_or(1);
        let share = self.queue_bytes.clone().acquire_many_owned(share).await;
        self.queue(share.ok(), |tail, number| {
            for (entry, frame) in entries.into_iter().zip(&frames) {
                tail.push(Arc::new(entry), frame.bytes.len(), number);
            }
            Write::Append { frames, done: callback }
        })
        .await?;
        self.growth.appended(bytes as u64);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.fatal.check()?;
        // Waits until it is durable: a snapshot that replaces the removed entries may be published
        // next, and the two must not be found together after a crash. It is rare enough.
        let (done, finished) = oneshot::channel();
        self.queue(None, |tail, _| {
            tail.truncate(last_log_id);
            Write::Truncate { after: last_log_id, done }
        })
        .await?;
        self.finished(finished).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.fatal.check()?;
        if self.tail().purged().is_some_and(|purged| purged.index >= log_id.index) {
            return Ok(());
        }
        self.queue(None, |tail, _| {
            tail.purge(log_id);
            Write::Purge { upto: log_id }
        })
        .await
    }
}
