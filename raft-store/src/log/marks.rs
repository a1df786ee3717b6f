//! What the log knows besides its entries: vote, bounds, the committed hint and how many batches
//! were written. One record, written with every batch, so that whatever a damaged database brings
//! back of an older time is older in all of it, the vote included. The same bytes, kept apart from
//! the database, are its witness.
//!
//! ```text
//! marks  := version u8 · batch u64 · present u8 · vote? · committed? · purged? · last?
//! vote   := term u64 · node u64 · committed u8
//! log id := term u64 · node u64 · index u64
//! ```

use super::record::RecordError;
use super::record::get_log_id;
use super::record::get_u64;
use super::record::named;
use super::record::put_log_id;
use super::record::seal;
use super::record::unseal;
use crate::types::LeaderId;
use crate::types::LogId;
use crate::types::Vote;

const VERSION: u8 = 1;

const HAS_VOTE: u8 = 1;
const HAS_COMMITTED: u8 = 1 << 1;
const HAS_PURGED: u8 = 1 << 2;
const HAS_LAST: u8 = 1 << 3;

/// The log besides its entries, as of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Counts the batches of this log, from 1. A batch is begun only once all before are durable.
    pub(crate) batch: u64,
    /// The last vote.
    pub(crate) vote: Option<Vote>,
    /// The newest committed log id that was told; a hint that may lag.
    pub(crate) committed: Option<LogId>,
    /// Entries up to it are deleted, or about to be.
    pub(crate) purged: Option<LogId>,
    /// The last entry. What lies beyond it was never acknowledged.
    pub(crate) last: Option<LogId>,
}

impl Marks {
    /// The bytes of the record's body.
    fn body(&self) -> Vec<u8> {
        let ids = [(HAS_COMMITTED, &self.committed), (HAS_PURGED, &self.purged), (HAS_LAST, &self.last)];
        let mut present = if self.vote.is_some() { HAS_VOTE } else { 0 };
        for (bit, id) in ids {
            present |= if id.is_some() { bit } else { 0 };
        }
        let mut body = vec![VERSION];
        body.extend_from_slice(&self.batch.to_le_bytes());
        body.push(present);
        if let Some(vote) = &self.vote {
            put_vote(&mut body, vote);
        }
        for (_, id) in ids {
            if let Some(id) = id {
                put_log_id(&mut body, id);
            }
        }
        body
    }

    /// The value under a key: in the database, or in a slot of the witness.
    pub(crate) fn value(&self, key: &[u8]) -> Vec<u8> {
        seal(key, &self.body())
    }

    /// The marks that a key's value holds.
    pub(crate) fn read(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let malformed = || RecordError::Malformed(named(key));
        let (version, mut body) = unseal(key, value)?.split_first().ok_or_else(malformed)?;
        if *version != VERSION {
            return Err(RecordError::Version { record: named(key), version: *version });
        }
        let batch = get_u64(&mut body).ok_or_else(malformed)?;
        let (present, mut body) = body.split_first().ok_or_else(malformed)?;
        let vote = match present & HAS_VOTE {
            0 => None,
            _ => Some(get_vote(&mut body).ok_or_else(malformed)?),
        };
        let mut id = |bit| match present & bit {
            0 => Ok(None),
            _ => get_log_id(&mut body).map(Some).ok_or_else(malformed),
        };
        let marks = Marks { batch, vote, committed: id(HAS_COMMITTED)?, purged: id(HAS_PURGED)?, last: id(HAS_LAST)? };
        if body.is_empty() { Ok(marks) } else { Err(malformed()) }
    }
}

fn put_vote(to: &mut Vec<u8>, vote: &Vote) {
    to.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    to.extend_from_slice(&vote.leader_id.node_id.to_le_bytes());
    to.push(u8::from(vote.committed));
}

fn get_vote(from: &mut &[u8]) -> Option<Vote> {
    let (term, node_id) = (get_u64(from)?, get_u64(from)?);
    let (committed, rest) = from.split_first()?;
    *from = rest;
    let committed = match committed {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Vote { leader_id: LeaderId { term, node_id }, committed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::keys;

    fn id(index: u64) -> LogId {
        LogId { leader_id: LeaderId { term: 3, node_id: 2 }, index }
    }

    fn vote() -> Vote {
        Vote { leader_id: LeaderId { term: 9, node_id: 4 }, committed: true }
    }

    #[test]
    fn marks_come_back_as_they_were_whatever_is_missing() {
        for present in 0..16u8 {
            let some = |bit: u8, index| (present & bit != 0).then(|| id(index));
            let marks = Marks {
                batch: 77,
                vote: (present & HAS_VOTE != 0).then(vote),
                committed: some(HAS_COMMITTED, 1),
                purged: some(HAS_PURGED, 2),
                last: some(HAS_LAST, 3),
            };
            assert_eq!(Marks::read(keys::MARKS, &marks.value(keys::MARKS)), Ok(marks));
        }
    }

    #[test]
    fn the_bytes_of_marks_stay_as_they_are() {
        let marks = Marks { batch: 258, vote: Some(vote()), last: Some(id(7)), ..Marks::default() };
        let bytes = [
            [1, 2, 1, 0, 0, 0, 0, 0, 0, 0b1001].as_slice(),
            &[9, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1],
            &[3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(marks.body(), bytes.concat());
    }

    #[test]
    fn marks_under_another_key_of_a_newer_version_or_cut_short_are_refused() {
        let marks = Marks { batch: 5, vote: Some(vote()), ..Marks::default() };
        let value = marks.value(keys::MARKS);
        assert_eq!(Marks::read(b"mx", &value), Err(RecordError::Checksum("mx".to_owned())));
        let mut newer = marks.body();
        newer[0] = VERSION + 1;
        let newer = Marks::read(keys::MARKS, &seal(keys::MARKS, &newer));
        assert_eq!(newer, Err(RecordError::Version { record: "mm".to_owned(), version: VERSION + 1 }));
        for length in 0..marks.body().len() {
            let short = seal(keys::MARKS, &marks.body()[..length]);
            assert!(Marks::read(keys::MARKS, &short).is_err(), "{length}");
        }
    }
}
