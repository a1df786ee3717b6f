//! The Raft log: vote and entries through one queue, one writer, one durable batch at a time.
//!
//! ```text
//!  RaftCore ─ append/save_vote/truncate/purge ─> LogStore ─┬─> Tail      readable at once
//!                                                          └─> queue ─> Writer ─> LogDatabase
//!  replication, apply ─ LogReader ─> Tail, older entries from LogDatabase     │
//!                                    callbacks, in order, once durable <──────┘
//! ```
//!
//! It is safe because: writes reach the disk in the order in which they were queued, vote and log
//! alike; a callback is called after the sync that covers its write and all before it; an append
//! that would leave a gap is refused; every record carries a checksum over its key and its value,
//! and every entry names the one before it; each batch also writes the log's marks, so that on
//! opening a torn tail is told from a lost one, and a file apart witnesses how far they had come; and
//! the first error of the disk ends the log for good.

mod forge;
mod fresh;
mod keys;
mod marks;
mod queue;
mod reader;
mod record;
mod recovery;
mod store;
mod tail;
mod witness;
mod writer;

pub use reader::LogReader;
pub use record::ENTRY_BYTES_MAX;
pub use record::RecordError;
pub use recovery::RecoveryError;
pub use store::LogStore;

pub(crate) use fresh::empty_log_after;
pub(crate) use record::decode_membership;
pub(crate) use record::encode_membership;
pub(crate) use record::get_log_id;
pub(crate) use record::put_log_id;
pub(crate) use recovery::Recovered;
pub(crate) use recovery::recover;
pub(crate) use store::FirstEntry;
pub(crate) use witness::WITNESS_FILE;
pub(crate) use witness::Witness;
