//! What the log holds in memory: its bounds, the vote, and the newest entries. Entries are readable
//! from here as soon as they are appended, and stay at least until they are durable.

use crate::types::LogEntry;
use crate::types::LogId;
use crate::types::Vote;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of encoded entries that stay in memory once durable. Followers that keep up and `apply`
/// are served from here; a member has 60 MiB in all.
const TAIL_BYTES: usize = 2 << 20;

/// Entries that stay at most, however small.
const TAIL_ENTRIES: usize = 2048;

#[derive(Debug)]
struct Cached {
    entry: Arc<LogEntry>,
    bytes: usize,
    /// The write that brings it to the disk.
    write: u64,
}

/// An entry with its size, as readers get it.
pub(crate) type Counted = (Arc<LogEntry>, usize);

/// The log's bounds and its newest entries.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// First index that may be there.
    first: u64,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The newest entries without a gap; the newest is `last`.
    entries: VecDeque<Cached>,
    bytes: usize,
    /// Every write up to this one is durable.
    durable: u64,
    /// Counts truncations, so that a reader notices one that ran beside it.
    truncations: u64,
    pub(crate) vote: Option<Vote>,
    /// The newest committed log id that was told, and the write that was the last one queued then.
    committed: Option<(LogId, u64)>,
}

impl Tail {
    /// A log as it was found on the disk.
    pub(crate) fn recovered(first: u64, purged: Option<LogId>, last: Option<LogId>) -> Self {
        Tail { first, purged, last, ..Tail::default() }
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.committed.map(|(id, _)| id)
    }

    /// The same, if all that was queued before it is among the writes up to this one: before, the entry
    /// may stand where another one is about to be removed.
    pub(crate) fn committed_within(&self, write: u64) -> Option<LogId> {
        self.committed.filter(|(_, after)| *after <= write).map(|(id, _)| id)
    }

    /// This log id is committed.
    pub(crate) fn hint(&mut self, id: LogId, after: u64) {
        self.committed = Some((id, after));
    }

    pub(crate) fn truncations(&self) -> u64 {
        self.truncations
    }

    /// The index that the next entry must have; none when the log never held one.
    pub(crate) fn next(&self) -> Option<u64> {
        self.last.map(|last| last.index + 1)
    }

    /// The indexes that are in the log, on disk or here.
    pub(crate) fn bounds(&self) -> Range<u64> {
        self.first..self.next().unwrap_or(self.first).max(self.first)
    }

    /// The first index that is here.
    pub(crate) fn cached_from(&self) -> u64 {
        self.bounds().end - self.entries.len() as u64
    }

    /// Adds an entry after the last; the caller checked its index.
    pub(crate) fn push(&mut self, entry: Arc<LogEntry>, bytes: usize, write: u64) {
        if self.last.is_none() {
            self.first = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.bytes += bytes;
        self.entries.push_back(Cached { entry, bytes, write });
        self.evict();
    }

    /// Entries from `from` that are here, as many as fit into `bytes_max` but at least one.
    pub(crate) fn cached(&self, range: Range<u64>, bytes_max: usize) -> Vec<Counted> {
        let base = self.cached_from();
        let skip = usize::try_from(range.start.saturating_sub(base)).unwrap_or(usize::MAX);
        let count = usize::try_from(range.end.saturating_sub(range.start.max(base))).unwrap_or(usize::MAX);
        let mut found: Vec<Counted> = Vec::new();
        let mut bytes = 0;
        for cached in self.entries.iter().skip(skip).take(count) {
            bytes += cached.bytes;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push((cached.entry.clone(), cached.bytes));
        }
        found
    }

    /// The entries after this one are gone.
    pub(crate) fn truncate(&mut self, after: Option<LogId>) {
        let keep = after.map_or(0, |after| after.index + 1);
        if keep >= self.bounds().end {
            return;
        }
        self.truncations += 1;
        while let Some(newest) = self.entries.back().filter(|newest| newest.entry.log_id.index >= keep) {
            self.bytes -= newest.bytes;
            self.entries.pop_back();
        }
        self.last = after.filter(|after| after.index >= self.first).or(self.purged);
    }

    /// The entries up to this one are gone; the log may end before it.
    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.purged = Some(upto);
        let base = self.cached_from();
        let gone = usize::try_from((upto.index + 1).saturating_sub(base)).unwrap_or(usize::MAX);
        for cached in self.entries.drain(..gone.min(self.entries.len())) {
            self.bytes -= cached.bytes;
        }
        self.first = self.first.max(upto.index + 1);
        if self.last.is_none_or(|last| last.index < upto.index) {
            self.last = Some(upto);
        }
    }

    /// Every write up to this one is durable.
    pub(crate) fn durable(&mut self, write: u64) {
        self.durable = self.durable.max(write);
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > TAIL_BYTES || self.entries.len() > TAIL_ENTRIES {
            // What is not durable exists nowhere else.
            match self.entries.front() {
                Some(oldest) if oldest.write <= self.durable => {
                    self.bytes -= oldest.bytes;
                    self.entries.pop_front();
                }
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaderId;
    use crate::types::Payload;

    fn id(index: u64) -> LogId {
        LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index }
    }

    fn with(indexes: Range<u64>) -> Tail {
        let mut tail = Tail::default();
        for index in indexes {
            let entry = LogEntry { log_id: id(index), payload: Payload::Blank };
            tail.push(Arc::new(entry), 10, index + 1);
        }
        tail
    }

    fn indexes(tail: &Tail, range: Range<u64>, bytes: usize) -> Vec<u64> {
        tail.cached(range, bytes).iter().map(|(entry, _)| entry.log_id.index).collect()
    }

    #[test]
    fn reads_stop_at_the_byte_limit_but_give_at_least_one() {
        let tail = with(0..10);
        assert_eq!(indexes(&tail, 3..9, 25), [3, 4]);
        assert_eq!(indexes(&tail, 3..9, 1), [3]);
        assert_eq!(indexes(&tail, 8..20, usize::MAX), [8, 9]);
    }

    #[test]
    fn entries_that_are_not_durable_are_never_dropped() {
        let mut tail = with(0..TAIL_ENTRIES as u64 + 100);
        assert_eq!(tail.cached_from(), 0);
        tail.durable(40);
        assert_eq!(tail.cached_from(), 40);
        tail.durable(u64::MAX);
        assert_eq!(tail.cached_from(), 100);
    }

    #[test]
    fn truncation_and_purge_move_the_bounds() {
        let mut tail = with(0..10);
        tail.truncate(Some(id(20)));
        assert_eq!((tail.bounds(), tail.truncations()), (0..10, 0));
        tail.truncate(Some(id(6)));
        assert_eq!((tail.bounds(), tail.last()), (0..7, Some(id(6))));
        tail.purge(id(2));
        assert_eq!((tail.bounds(), indexes(&tail, 0..9, 1000)), (3..7, vec![3, 4, 5, 6]));
        tail.purge(id(50));
        assert_eq!((tail.bounds(), tail.last(), tail.next()), (51..51, Some(id(50)), Some(51)));
        let mut emptied = with(0..3);
        emptied.truncate(None);
        assert_eq!((emptied.last(), emptied.next()), (None, None));
    }
}
