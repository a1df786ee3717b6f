//! What the log needs from a database: ordered keys, atomic durable batches, range reads.

use super::Batch;
use futures_util::future::BoxFuture;
use std::io;
use std::ops::ControlFlow;

/// Looks at a key and its value, and says whether to go on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// The database under the log. It has one writer at a time; reads may run beside it.
pub trait LogDatabase: Send + Sync + std::fmt::Debug + 'static {
    /// Writes a batch and makes it durable. When it returns Ok, the batch and everything committed
    /// before it survive a power cut; until then a crash keeps all of the batch or nothing.
    ///
    /// The future may block its thread (the real side does): only the log's writer awaits it.
    ///
    /// # Errors
    /// Whatever the write or the sync met. What is on disk afterwards is unknown: the caller does
    /// not go on with this database.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, io::Result<()>>;

    /// Shows the pairs of `from..to` in order until `visit` breaks. Blocks. Not a snapshot: a batch
    /// that is committed meanwhile may be seen in part.
    ///
    /// # Errors
    /// Whatever the read met.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> io::Result<()>;
}
