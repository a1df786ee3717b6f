//! The copy engine: a file's bytes from one place to another, hashed on the way.
//!
//! ```text
//!              ┌► read, hash, write ─┐
//!  Units ──────┼► read, hash, write ─┼──► in order: hash tree, progress, checkpoints
//!  (1 MiB,     └► read, hash, write ─┘
//!   hole map)     Pipeline's threads
//! ```
//! [`copy_file`] has both ends on this host; [`send_file`] and [`receive_file`] are its halves, with a bounded stream of
//! pieces between them. All three keep the file's bytes exactly and hash them as plain BLAKE3 would. What the bytes
//! mean is `volume/`'s business, and where the files lie `domain/`'s.

mod buffer;
mod checkpoint;
mod error;
mod local;
mod pipeline;
mod receive;
mod send;
mod tree_hash;
mod units;

pub use error::CopyError;
pub use local::Copied;
pub use local::copy_file;
pub use receive::HeadGate;
pub use receive::Received;
pub use receive::Receiving;
pub use receive::receive_file;
pub use send::Sending;
pub use send::Sent;
pub use send::send_file;
pub use tree_hash::TreeHash;

pub(crate) use buffer::Buffer;
pub(crate) use buffer::BufferPool;
pub(crate) use pipeline::Pipeline;
pub(crate) use send::PieceStream;
pub(crate) use send::ReadUnit;
pub(crate) use tree_hash::UnitHash;
pub(crate) use tree_hash::hash_unit;
pub(crate) use tree_hash::unit_count;

use std::ops::Range;

use crate::work::CancelFlag;

/// Unit of reading, writing and hashing, aligned in the file: O_DIRECT runs at full speed with it, and it is a
/// power of two of BLAKE3's chunks, so that units are whole subtrees of the hash.
pub const UNIT_BYTES: usize = 1 << 20;

/// What a copy speaks through.
#[derive(Clone, Copy)]
pub struct CopyPorts<'p> {
    /// Bytes done and in total, after each unit.
    pub progress: &'p (dyn Fn(u64, u64) + Send + Sync),
    /// Everything below this offset is durable.
    pub checkpoint: &'p (dyn Fn(u64) + Send + Sync),
    /// Looked at before each unit.
    pub cancel: &'p CancelFlag,
    /// Milliseconds on a clock that never goes back; when a checkpoint is due depends on it.
    pub now_ms: &'p (dyn Fn() -> u64 + Send + Sync),
}

/// Units in flight for each thread: one at work, one waiting.
const UNITS_PER_THREAD: usize = 2;

/// Is every byte zero? `memcmp` against zeros is the fastest way there is without intrinsics of our own.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.get(..chunk.len()) == Some(chunk))
}

/// Zeros shorter than this are written with what surrounds them: smaller holes cost more than they save.
const HOLE_BYTES_MIN: usize = 64 * 1024;

/// The parts of `run` that are worth writing to a new file: without longer stretches of zeros.
fn nonzero_runs(bytes: &[u8], run: Range<usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut start = run.start;
    while start < run.end {
        let end = (start - start % HOLE_BYTES_MIN + HOLE_BYTES_MIN).min(run.end);
        if !is_zero(bytes.get(start..end).unwrap_or_default()) {
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        start = end;
    }
    runs
}
