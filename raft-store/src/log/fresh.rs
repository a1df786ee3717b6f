//! A log without entries that goes on after a given one: what stands beside a snapshot in a folder
//! that is made, not grown. Only the marks are written, so nothing is left to purge.

use super::keys;
use super::record;
use crate::disk::Batch;
use crate::types::LogId;
use crate::types::Vote;

/// The marks of `owner`'s empty log after `last`.
pub(crate) fn empty_log_after(owner: &str, last: &LogId, vote: &Vote) -> Batch {
    let mut batch = Batch::default();
    batch.put(keys::OWNER, record::seal(keys::OWNER, owner.as_bytes()));
    batch.put(keys::VOTE, record::vote_value(vote));
    batch.put(keys::PURGED, record::log_id_value(keys::PURGED, last));
    batch.put(keys::LAST, record::last_value(Some(last)));
    batch
}
