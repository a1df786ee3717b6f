//! A log without entries that goes on after a given one: what stands beside a snapshot in a folder
//! that is made, not grown. Only the marks are written, so nothing is left to purge.

use super::keys;
use super::marks::Marks;
use super::record;
use crate::disk::Batch;
use crate::types::LogId;
use crate::types::Vote;

/// The marks of `owner`'s empty log after `last`.
pub(crate) fn empty_log_after(owner: &str, last: &LogId, vote: &Vote) -> Batch {
    let mut batch = Batch::default();
    batch.put(keys::OWNER, record::seal(keys::OWNER, owner.as_bytes()));
    // Batch 0: the log's witness is made when a member starts on it.
    let marks = Marks { vote: Some(*vote), purged: Some(*last), last: Some(*last), ..Marks::default() };
    batch.put(keys::MARKS, marks.value(keys::MARKS));
    batch
}
