//! The log as openraft reads it, for replication and for `apply`: the newest entries from memory,
//! older ones from the database. What is read from the database is durable and does not change,
//! unless a purge or a truncation runs beside the read; both are noticed.

use super::keys;
use super::record::Assembly;
use super::record::Frame;
use super::record::RecordError;
use super::tail::Tail;
use crate::disk::LogDatabase;
use crate::disk::MemberDisk;
use crate::fatal::Fatal;
use crate::types::LogEntry;
use crate::types::TypeConfig;
use crate::types::Vote;
use futures_util::Stream;
use futures_util::stream;
use openraft::OptionalSend;
use openraft::storage::RaftLogReader;
use sdm_proto::limits::REPLICATION_BYTES_MAX;
use std::fmt::Debug;
use std::io;
use std::ops::Bound;
use std::ops::ControlFlow;
use std::ops::Range;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Bytes of entries that `apply` gets at once, and that one replication request carries.
const READ_BYTES: usize = REPLICATION_BYTES_MAX as usize;

/// A handle for reading the log. Clones share the log.
#[derive(Clone, Debug)]
pub struct LogReader {
    disk: MemberDisk,
    tail: Arc<Mutex<Tail>>,
    fatal: Fatal,
}

/// How the entries in front of the cached ones were read.
struct OlderEntries {
    entries: Vec<LogEntry>,
    bytes: usize,
    /// False when the byte limit ended it.
    complete: bool,
}

impl LogReader {
    pub(crate) fn new(disk: &MemberDisk, tail: Arc<Mutex<Tail>>, fatal: Fatal) -> Self {
        LogReader { disk: disk.clone(), tail, fatal }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part of a range that the log has, from its start and up to `bytes_max`, at least one.
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        loop {
            let (wanted, older, truncations, newer) = {
                let tail = self.tail();
                let bounds = tail.bounds();
                let wanted = range.start.max(bounds.start)..range.end.min(bounds.end);
                let older = wanted.start..wanted.end.min(tail.cached_from());
                (wanted.clone(), older, tail.truncations(), tail.cached(wanted, bytes_max))
            };
            if wanted.is_empty() {
                return Ok(Vec::new());
            }
            if older.is_empty() {
                return Ok(newer.iter().map(|(entry, _)| LogEntry::clone(entry)).collect());
            }
            let read = self.read_older(older.clone(), bytes_max).await;
            let (same, first) = {
                let tail = self.tail();
                (tail.truncations() == truncations, tail.bounds().start)
            };
            // What was truncated may have been written anew meanwhile, and what was purged may have
            // been deleted in the middle of the read: look again.
            if !same || first > older.start {
                continue;
            }
            let OlderEntries { mut entries, mut bytes, complete } = match read {
                Ok(read) => read,
                Err(error) => return Err(self.fatal.fail("reading the log", error)),
            };
            if complete {
                for (entry, size) in newer {
                    bytes += size;
                    if bytes > bytes_max {
                        break;
                    }
                    entries.push(LogEntry::clone(&entry));
                }
            }
            return Ok(entries);
        }
    }

    async fn read_older(&self, range: Range<u64>, bytes_max: usize) -> io::Result<OlderEntries> {
        let database = self.disk.log.clone();
        self.disk.blocking(move || read_older(database.as_ref(), range, bytes_max)).await
    }
}

fn read_older(database: &dyn LogDatabase, range: Range<u64>, bytes_max: usize) -> io::Result<OlderEntries> {
    let mut older = OlderEntries { entries: Vec::new(), bytes: 0, complete: true };
    let mut assembly = Assembly::default();
    let mut next = range.start;
    let mut refused: Result<(), RecordError> = Ok(());
    database.scan(&keys::entry(range.start), &keys::entry(range.end), &mut |key, value| {
        let taken = assembly.take(key, value).and_then(|frame| {
            let Some((index, frame)) = frame else { return Ok(true) };
            if index != next {
                return Err(RecordError::Missing(next));
            }
            next += 1;
            older.bytes += frame.len();
            if older.bytes > bytes_max && !older.entries.is_empty() {
                older.complete = false;
                return Ok(false);
            }
            let frame = Frame::read(index, &frame)?;
            if let Some(before) = older.entries.last() {
                frame.follows(Some(&before.log_id))?;
            }
            older.entries.push(frame.entry()?);
            Ok(true)
        });
        match taken {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                refused = Err(error);
                ControlFlow::Break(())
            }
        }
    })?;
    refused?;
    if older.complete {
        assembly.finish()?;
        if next != range.end {
            return Err(RecordError::Missing(next).into());
        }
    }
    Ok(older)
}

/// The range of indexes that a bound pair means.
fn indexes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(indexes(&range), usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        self.read(start..end, READ_BYTES).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<LogEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // The end is fixed now; the entries up to it are read piece by piece.
        let range = indexes(&range);
        let bounds = self.tail().bounds();
        let range = range.start.max(bounds.start)..range.end.min(bounds.end);
        let pieces = stream::try_unfold((self.clone(), range), |(reader, rest)| async move {
            if rest.is_empty() {
                return Ok(None);
            }
            let piece = reader.read(rest.clone(), READ_BYTES).await?;
            let first = piece.first().map(|entry| entry.log_id.index);
            let Some(last) = piece.last().filter(|_| first == Some(rest.start)) else {
                return Err(io::Error::from(RecordError::Missing(rest.start)));
            };
            let rest = last.log_id.index + 1..rest.end;
            Ok(Some((stream::iter(piece.into_iter().map(Ok)), (reader, rest))))
        });
        Box::pin(futures_util::TryStreamExt::try_flatten(pieces))
    }
}
