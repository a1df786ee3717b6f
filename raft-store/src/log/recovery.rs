//! Reading the log when a member starts: every record is checked, and what is there must be exactly
//! what the marks say: entries after the purged one, each written after the one before it, up to the
//! last. Entries beyond it were never acknowledged and go; entries that are missing before it were
//! acknowledged, so the member must not start as if they had never been. And the marks must not be
//! older than the log's witness says.

use super::keys;
use super::marks::Marks;
use super::record;
use super::record::Assembly;
use super::record::Frame;
use super::record::RecordError;
use super::tail::Tail;
use super::witness::WITNESS_FILE;
use super::witness::Witness;
use super::writer::Start;
use crate::disk::Files;
use crate::disk::LogDatabase;
use crate::fatal::REPLACE_MEMBER;
use crate::types::LogId;
use std::io;
use std::ops::ControlFlow;

/// Why a member's log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A record is damaged, or of a newer version.
    #[error("{0}; {hint}", hint = record_hint(.0))]
    Record(#[from] RecordError),
    /// Acknowledged entries are not there.
    #[error("the log is damaged: it must hold entries {from} to {to}, and ends at {found}; {REPLACE_MEMBER}")]
    Lost {
        /// The first index that must be there.
        from: u64,
        /// The last.
        to: u64,
        /// What was found last.
        found: String,
    },
    /// The database opened without what was durable last.
    #[error(
        "the log is damaged: its database ends with batch {found} (entry {found_last}), but batch {durable} \
         (entry {durable_last}) was durable, as the file {WITNESS_FILE} says; what came after is lost, perhaps \
         also a vote; {REPLACE_MEMBER}"
    )]
    RolledBack {
        /// The batch that the database ends with.
        found: u64,
        /// The last entry in it.
        found_last: String,
        /// The batch that was durable.
        durable: u64,
        /// The last entry as of then.
        durable_last: String,
    },
    /// The log's witness is gone.
    #[error(
        "the file {WITNESS_FILE} is missing, without which nobody knows whether the log is whole; restore it with \
         the whole folder, never alone, or: {REPLACE_MEMBER}"
    )]
    WitnessMissing,
    /// The log's witness cannot be believed.
    #[error("the file {WITNESS_FILE} is damaged: {0}; {REPLACE_MEMBER}")]
    WitnessDamaged(String),
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
    /// The database gave it up.
    #[error("the log is damaged: {0}; {REPLACE_MEMBER}")]
    Database(io::Error),
    /// It could not be read.
    #[error("cannot read the log: {0}; check the disk of the data folder (dmesg, smartctl)")]
    Io(io::Error),
}

impl From<io::Error> for RecoveryError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => RecoveryError::Database(error),
            _ => RecoveryError::Io(error),
        }
    }
}

fn record_hint(error: &RecordError) -> &'static str {
    if error.is_newer() { "start this member with the newer version of sdm" } else { REPLACE_MEMBER }
}

/// Where the keys of marks have ended.
const MARKS_TO: &[u8] = b"n";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) marks: Marks,
    /// There are no marks: the log is new.
    new: bool,
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
        self.new
    }

    /// The tail of the log as found.
    pub(crate) fn tail(&self) -> Tail {
        let Marks { vote, committed, purged, last, .. } = self.marks;
        let after_purged = purged.map_or(0, |purged| purged.index + 1);
        let mut tail = Tail::recovered(self.first.unwrap_or(after_purged), purged, last);
        tail.vote = vote;
        if let Some(committed) = committed {
            tail.hint(committed, 0);
        }
        tail
    }

    /// What the writer starts from.
    pub(crate) fn start(&self) -> Start {
        let purge_to = self.marks.purged.map_or(0, |purged| purged.index + 1);
        let purge_from = self.lowest.unwrap_or(purge_to).min(purge_to);
        Start { marks: self.marks, purge: purge_from..purge_to, torn_from: self.torn_from, owner: self.owner.clone() }
    }

    /// The witness of this log, once it agrees. A new log gets one. Blocks.
    ///
    /// # Errors
    /// When the log is older than its witness, or the witness is missing or damaged.
    pub(crate) fn witness(&self, files: &dyn Files) -> Result<Witness, RecoveryError> {
        let Some(witness) = Witness::open(files)? else {
            // Made before the first batch is written.
            return match self.marks.batch {
                0 => Ok(Witness::create(files, &self.marks)?),
                _ => Err(RecoveryError::WitnessMissing),
            };
        };
        let durable = witness.marks();
        if durable.batch > self.marks.batch {
            let entry = |id: Option<LogId>| id.map_or("none".to_owned(), |id| id.index.to_string());
            return Err(RecoveryError::RolledBack {
                found: self.marks.batch,
                found_last: entry(self.marks.last),
                durable: durable.batch,
                durable_last: entry(durable.last),
            });
        }
        Ok(witness)
    }
}

/// Reads and checks the whole log. Blocks.
///
/// # Errors
/// When the log is damaged, not `owner`'s, or cannot be read.
pub(crate) fn recover(database: &dyn LogDatabase, owner: &str) -> Result<Recovered, RecoveryError> {
    let mut found = Recovered::default();
    let mut marks = None;
    let mut recorded_owner = None;
    each(database, keys::ENTRIES_TO, MARKS_TO, |key, value| {
        match key {
            keys::MARKS => marks = Some(Marks::read(key, value)?),
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
    found.new = marks.is_none();
    found.marks = marks.unwrap_or_default();
    let newest = read_entries(database, &mut found)?;
    if found.new {
        // The first batch of all writes owner and marks, and nothing is ever written without them.
        if found.lowest.is_some() || found.owner.is_none() {
            return Err(RecordError::Malformed("mm (it is missing)".to_owned()).into());
        }
    }
    check_end(&found, newest)?;
    Ok(found)
}

/// The last entry up to the last mark; all before it are whole and in order.
fn read_entries(database: &dyn LogDatabase, found: &mut Recovered) -> Result<Option<LogId>, RecoveryError> {
    let purged = found.marks.purged;
    let from = purged.map_or(0, |purged| purged.index + 1);
    let end = found.marks.last.map_or(0, |last| last.index + 1);
    let mut assembly = Assembly::default();
    let mut newest: Option<LogId> = None;
    each(database, keys::ENTRIES_FROM, keys::ENTRIES_TO, |key, value| {
        let Some((index, _)) = keys::parse(key) else {
            return Err(RecordError::Malformed(String::from_utf8_lossy(key).into_owned()));
        };
        found.lowest.get_or_insert(index);
        if index < from {
            return Ok(());
        }
        if index >= end {
            found.torn_from.get_or_insert(index);
            return Ok(());
        }
        let Some((index, bytes)) = assembly.take(key, value)? else { return Ok(()) };
        let frame = Frame::read(index, &bytes)?;
        // Now, while nothing has been changed.
        frame.check_version()?;
        match newest {
            None => {
                found.first = Some(index);
                // If it does not begin where it must, the end of the check says what is missing.
                if purged.is_some() && index == from {
                    frame.follows(purged.as_ref())?;
                }
            }
            Some(newest) if newest.index + 1 != index => {
                return Err(RecordError::Missing(newest.index + 1));
            }
            Some(newest) if newest.leader_id > frame.id.leader_id => {
                return Err(RecordError::Malformed(index.to_string()));
            }
            Some(newest) => frame.follows(Some(&newest))?,
        }
        found.sizes.push((index, bytes.len()));
        newest = Some(frame.id);
        Ok(())
    })?;
    assembly.finish()?;
    Ok(newest)
}

/// The entries must begin after the purged one and end at the last.
fn check_end(found: &Recovered, newest: Option<LogId>) -> Result<(), RecoveryError> {
    let Marks { purged, last, .. } = found.marks;
    let Some(last) = last else { return Ok(()) };
    let from = purged.map_or(0, |purged| purged.index + 1);
    if last.index < from {
        return Ok(());
    }
    let begins = match (purged, found.first) {
        (Some(_), first) => first == Some(from),
        // openraft begins at 0; its own test suite does not.
        (None, first) => first.is_some(),
    };
    if begins && newest == Some(last) {
        return Ok(());
    }
    let found = newest.map_or("nothing".to_owned(), |newest| newest.to_string());
    Err(RecoveryError::Lost { from, to: last.index, found })
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
