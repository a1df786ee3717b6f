//! What the log store hands to its writer, and the bound on how much may wait.

use crate::types::IoFlushed;
use crate::types::LogId;
use crate::types::Vote;
use std::io;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot;

/// Writes that may wait. Each append of openraft is one; it merges them itself before.
pub(crate) const QUEUE_WRITES_MAX: usize = 1024;

/// KiB of entries that may wait for the disk. A disk that stalls must not fill the memory; past
/// this an append waits, and with it the leader.
pub(crate) const QUEUE_KIB_MAX: usize = 32 << 10;

/// Told once a write is durable, or failed.
pub(crate) type Done = oneshot::Sender<io::Result<()>>;

/// An entry that is to be written.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) id: LogId,
    pub(crate) bytes: Vec<u8>,
}

/// One write.
pub(crate) enum Write {
    /// Entries after the last one.
    Append { frames: Vec<Frame>, done: IoFlushed },
    /// A vote.
    Vote { vote: Vote, done: Done },
    /// Removal of all entries after a log id.
    Truncate { after: Option<LogId>, done: Done },
    /// Removal of all entries up to a log id. Nobody waits for it.
    Purge { upto: LogId },
}

impl Write {
    /// Tells whoever waits.
    pub(crate) fn done(self, result: io::Result<()>) {
        match self {
            Write::Append { done, .. } => done.io_completed(result),
            Write::Vote { done, .. } | Write::Truncate { done, .. } => {
                // The caller may have stopped waiting.
                let _ = done.send(result);
            }
            Write::Purge { .. } => {}
        }
    }
}

/// A write in the queue.
pub(crate) struct Queued {
    /// Counts writes; entries of the tail know which write brings them to the disk.
    pub(crate) number: u64,
    pub(crate) write: Write,
    /// Gives its share of the queue's bytes back once written.
    pub(crate) _bytes: Option<OwnedSemaphorePermit>,
}
