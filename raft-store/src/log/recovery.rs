//! Reading the log when a member starts: every record is checked, and what is there must be exactly
//! what the marks say: entries after the purge mark, without a gap, up to the last mark. Entries
//! beyond it were never acknowledged and go; entries that are missing before it were acknowledged,
//! so the member must not start as if they had never been.

use super::keys;
use super::record;
use super::record::Assembly;
use super::record::RecordError;
use super::tail::Tail;
use super::writer::Start;
use crate::disk::LogDatabase;
use crate::types::LogId;
use crate::types::Vote;
use std::io;
use std::ops::ControlFlow;

/// Why a member's log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A record is damaged.
    #[error("the log is damaged: {0}; {HINT}")]
    Record(#[from] RecordError),
    /// Acknowledged entries are not there.
    #[error("the log is damaged: it must hold entries {from} to {to}, and ends at {found}; {HINT}")]
    Lost {
        /// The first index that must be there.
        from: u64,
        /// The last.
        to: u64,
        /// What was found last.
        found: String,
    },
    /// The log belongs to another member.
    #[error(
        "the log is of another member ({found}), not of this folder's ({expected}): \
         was it copied? Give each member the folder that it made itself"
    )]
    Owner {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// It could not be read.
    #[error("cannot read the log: {0}; check the disk of the data folder (dmesg, smartctl)")]
    Io(#[from] io::Error),
}

/// Where the keys of marks have ended.
const MARKS_TO: &[u8] = b"n";

const HINT: &str = "keep the data folder for analysis, and start a new member under another name with \
                    an empty folder and --join (removing the old one from the cluster is not \
                    possible yet)";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    /// The first entry.
    first: Option<u64>,
    /// The first index found in the database, purged or not.
    lowest: Option<u64>,
    torn_from: Option<u64>,
    /// Whose the log becomes, if it is new.
    owner: Option<String>,
    /// (index, bytes) of every entry, to know how far the log grew since a snapshot.
    pub(crate) sizes: Vec<(u64, usize)>,
}

impl Recovered {
    /// Whether there was no log: not even marks.
    pub(crate) fn is_new(&self) -> bool {
        self.owner.is_some() && self.lowest.is_none() && self.vote.is_none() && self.purged.is_none()
    }

    /// The tail of the log as found.
    pub(crate) fn tail(&self) -> Tail {
        let after_purged = self.purged.map_or(0, |purged| purged.index + 1);
        let mut tail = Tail::recovered(self.first.unwrap_or(after_purged), self.purged, self.last);
        tail.vote = self.vote;
        tail.committed = self.committed;
        tail
    }

    /// What the writer starts from.
    pub(crate) fn start(&self) -> Start {
        let purge_to = self.purged.map_or(0, |purged| purged.index + 1);
        let purge_from = self.lowest.unwrap_or(purge_to).min(purge_to);
        Start { last: self.last, purge: purge_from..purge_to, torn_from: self.torn_from, owner: self.owner.clone() }
    }
}

/// Reads and checks the whole log. Blocks.
///
/// # Errors
/// When the log is damaged, not `owner`'s, or cannot be read.
pub(crate) fn recover(database: &dyn LogDatabase, owner: &str) -> Result<Recovered, RecoveryError> {
    let mut found = Recovered::default();
    let mut mark = None;
    let mut recorded_owner = None;
    each(database, keys::ENTRIES_TO, MARKS_TO, |key, value| {
        match key {
            keys::VOTE => found.vote = Some(record::read_vote(value)?),
            keys::COMMITTED => found.committed = Some(record::read_log_id(key, value)?),
            keys::PURGED => found.purged = Some(record::read_log_id(key, value)?),
            keys::LAST => mark = Some(record::read_last(value)?),
            keys::OWNER => {
                let owner = record::unseal(key, value)?;
                recorded_owner = Some(String::from_utf8_lossy(owner).into_owned());
            }
            _ => {}
        }
        Ok(())
    })?;
    match recorded_owner {
        Some(found) if found != owner => {
            return Err(RecoveryError::Owner { found, expected: owner.to_owned() });
        }
        Some(_) => {}
        None => found.owner = Some(owner.to_owned()),
    }
    let newest = read_entries(database, mark.flatten(), &mut found)?;
    match mark {
        Some(mark) => check_end(&found, mark, newest)?,
        // Written with the first batch of all, and with each one since.
        None if found.owner.is_some() && found.lowest.is_none() && found.vote.is_none() => {}
        None => return Err(RecordError::Malformed("mt (it is missing)".to_owned()).into()),
    }
    found.last = mark.flatten();
    Ok(found)
}

/// The last entry up to `mark`; all before it are whole and in order.
fn read_entries(
    database: &dyn LogDatabase,
    mark: Option<LogId>,
    found: &mut Recovered,
) -> Result<Option<LogId>, RecoveryError> {
    let purged = found.purged.map_or(0, |purged| purged.index + 1);
    let end = mark.map_or(0, |mark| mark.index + 1);
    let mut assembly = Assembly::default();
    let mut newest: Option<LogId> = None;
    each(database, keys::ENTRIES_FROM, keys::ENTRIES_TO, |key, value| {
        let Some((index, _)) = keys::parse(key) else {
            return Err(RecordError::Malformed(String::from_utf8_lossy(key).into_owned()));
        };
        found.lowest.get_or_insert(index);
        if index < purged {
            return Ok(());
        }
        if index >= end {
            found.torn_from.get_or_insert(index);
            return Ok(());
        }
        let Some((index, frame)) = assembly.take(key, value)? else { return Ok(()) };
        let id = record::frame_log_id(index, &frame)?;
        match newest {
            None => found.first = Some(index),
            Some(newest) if newest.index + 1 != index => {
                return Err(RecordError::Missing(newest.index + 1));
            }
            Some(newest) if newest.leader_id > id.leader_id => {
                return Err(RecordError::Malformed(index.to_string()));
            }
            Some(_) => {}
        }
        found.sizes.push((index, frame.len()));
        newest = Some(id);
        Ok(())
    })?;
    assembly.finish()?;
    Ok(newest)
}

/// The entries must begin after the purge mark and end at the last mark.
fn check_end(found: &Recovered, mark: Option<LogId>, newest: Option<LogId>) -> Result<(), RecoveryError> {
    let Some(mark) = mark else { return Ok(()) };
    let from = found.purged.map_or(0, |purged| purged.index + 1);
    if mark.index < from {
        return Ok(());
    }
    let begins = match (found.purged, found.first) {
        (Some(_), first) => first == Some(from),
        // openraft begins at 0; its own test suite does not.
        (None, first) => first.is_some(),
    };
    if begins && newest == Some(mark) {
        return Ok(());
    }
    let found = newest.map_or("nothing".to_owned(), |newest| newest.to_string());
    Err(RecoveryError::Lost { from, to: mark.index, found })
}

/// Shows every pair of a range to a check that may refuse.
fn each(
    database: &dyn LogDatabase,
    from: &[u8],
    to: &[u8],
    mut check: impl FnMut(&[u8], &[u8]) -> Result<(), RecordError>,
) -> Result<(), RecoveryError> {
    let mut refused = Ok(());
    database.scan(from, to, &mut |key, value| match check(key, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            refused = Err(error);
            ControlFlow::Break(())
        }
    })?;
    Ok(refused?)
}
