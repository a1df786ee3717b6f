//! The log database on files of our own: a log is only ever written at its end and purged at its
//! front, so appending to a file is all the writing there is.
//!
//! ```text
//! DATA_DIR/log/segment-0000000007    the oldest segment that is needed
//! DATA_DIR/log/segment-0000000008    the newest: every commit appends one record and syncs
//! ```
//!
//! A commit is one record with a checksum and a number; numbers have no gap, over all segments.
//! A segment that is full is followed by a new one, which is made under a temporary name with what
//! little still lives in the oldest segments (`carried`), synced, and then named. Its head says which
//! segments are needed from then on; those before are removed. Where each pair lies is kept in memory
//! (`index.rs`), and made anew from the segments on opening.
//!
//! What a crash can leave is one record that is not whole, at the end of the newest segment: no record
//! is begun before the one in front of it is durable. So a record that is wrong with a good one behind
//! it is damage, and so is any in another segment: refused. One that is wrong at the very end is taken
//! for torn, as it must be; whether it had been acknowledged the log's witness knows.

mod database;
mod index;
mod record;
mod segment;

pub(super) use database::SegmentDatabase;
