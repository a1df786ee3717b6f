//! The versioned envelope of everything that is stored or sent for others to apply: log entries,
//! commands on their way to the leader, replies, snapshot rows. One byte of kind, two of version,
//! then MessagePack with field names, so that a later build can add fields with defaults.
//!
//! The version is the feature level that the reader must support. Every log and every snapshot of a
//! cluster at a higher level holds at least one envelope that says so (the entry that founded or
//! raised it, or the snapshot's first row), in front of all that depends on it: an older build
//! stops there, and cannot misread what follows.

use crate::command::Command;
use crate::command::Entry;
use crate::feature_level::FEATURE_LEVEL_FIRST;
use crate::members::FEATURE_LEVEL_MAX;
use crate::reply::Reply;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The highest version that this build reads: the highest feature level that it supports.
pub const VERSION: u16 = FEATURE_LEVEL_MAX as u16;

const ENTRY: u8 = b'E';
const COMMAND: u8 = b'C';
const REPLY: u8 = b'R';
const ROW: u8 = b'S';

/// Bytes that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Too short to be one.
    #[error("{bytes} bytes are too short for an envelope")]
    TooShort {
        /// How many there are.
        bytes: usize,
    },
    /// An envelope of something else.
    #[error("an envelope of kind {found:?} where {expected:?} was expected")]
    WrongKind {
        /// What it says.
        found: char,
        /// What should be here.
        expected: char,
    },
    /// Written by a newer build.
    #[error("a newer sdm wrote it (version {found}, this one reads up to {VERSION}): run that one on this member")]
    Newer {
        /// Its version.
        found: u16,
    },
    /// Of a version that this build reads, and with something in it that it does not know.
    #[error("a newer sdm wrote it: this one does not know {what} (in version {version}); run that one on this member")]
    Unknown {
        /// The command, row or part of one.
        what: String,
        /// The version that it says.
        version: u16,
    },
    /// Damaged.
    #[error("cannot be read: {cause}")]
    Unreadable {
        /// The decoder's words.
        cause: String,
    },
}

impl EnvelopeError {
    /// Whether a newer build wrote it, and nothing is damaged: that build can read it.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::Unknown { .. })
    }
}

fn seal<T: Serialize>(kind: u8, level: u32, value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.push(kind);
    bytes.extend_from_slice(&u16::try_from(level).unwrap_or(VERSION).to_be_bytes());
    // Encoding into memory fails only for types that cannot be encoded at all; none of ours is
    // such, and the reader would refuse the rest.
    if let Ok(body) = rmp_serde::to_vec_named(value) {
        bytes.extend_from_slice(&body);
    }
    bytes
}

fn open<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<T, EnvelopeError> {
    let [found, high, low, body @ ..] = bytes else {
        return Err(EnvelopeError::TooShort { bytes: bytes.len() });
    };
    if *found != kind {
        return Err(EnvelopeError::WrongKind { found: char::from(*found), expected: char::from(kind) });
    }
    let version = readable(u16::from_be_bytes([*high, *low]))?;
    rmp_serde::from_slice(body).map_err(|error| not_decoded(version, &error.to_string()))
}

fn readable(version: u16) -> Result<u16, EnvelopeError> {
    if version > VERSION { Err(EnvelopeError::Newer { found: version }) } else { Ok(version) }
}

/// serde says no other way than in words that it met a variant that the type does not have.
fn not_decoded(version: u16, cause: &str) -> EnvelopeError {
    match cause.split_once("unknown variant `").and_then(|(_, rest)| rest.split_once('`')) {
        Some((what, _)) => EnvelopeError::Unknown { what: what.to_owned(), version },
        None => EnvelopeError::Unreadable { cause: cause.to_owned() },
    }
}

/// Whether this build reads a log entry of this version: looks at its first bytes alone.
///
/// # Errors
/// The bytes are of something else or of a newer version.
pub fn check_entry_version(bytes: &[u8]) -> Result<(), EnvelopeError> {
    match bytes {
        [ENTRY, high, low, ..] => readable(u16::from_be_bytes([*high, *low])).map(|_| ()),
        [found, _, _, ..] => Err(EnvelopeError::WrongKind { found: char::from(*found), expected: char::from(ENTRY) }),
        _ => Err(EnvelopeError::TooShort { bytes: bytes.len() }),
    }
}

/// A log entry as bytes.
#[must_use]
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    seal(ENTRY, entry.command.reader_level(), entry)
}

/// A log entry from bytes.
///
/// # Errors
/// The bytes are damaged, of something else, or of a newer version.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, EnvelopeError> {
    open(ENTRY, bytes)
}

/// A command as bytes, on its way to the leader.
#[must_use]
pub fn encode_command(command: &Command) -> Vec<u8> {
    seal(COMMAND, command.reader_level(), command)
}

/// A command from bytes.
///
/// # Errors
/// The bytes are damaged, of something else, or of a newer version.
pub fn decode_command(bytes: &[u8]) -> Result<Command, EnvelopeError> {
    open(COMMAND, bytes)
}

/// A reply as bytes, on its way back from the leader.
#[must_use]
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    // Who asked for it knows the level of its own command, and answers are of that level.
    seal(REPLY, FEATURE_LEVEL_FIRST, reply)
}

/// A reply from bytes.
///
/// # Errors
/// The bytes are damaged, of something else, or of a newer version.
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, EnvelopeError> {
    open(REPLY, bytes)
}

pub(crate) fn encode_row<T: Serialize>(level: u32, row: &T) -> Vec<u8> {
    seal(ROW, level, row)
}

pub(crate) fn decode_row<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    open(ROW, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_another_kind_and_damage_are_told_apart() {
        let entry = Entry { stamp_ms: 5, entropy: [1; 16], command: Command::Tick };
        let good = encode_entry(&entry);
        assert_eq!(decode_entry(&good), Ok(entry));
        let mut newer = good.clone();
        newer[2] = 3;
        assert_eq!(decode_entry(&newer), Err(EnvelopeError::Newer { found: VERSION + 1 }));
        assert!(matches!(decode_command(&good), Err(EnvelopeError::WrongKind { .. })));
        assert!(matches!(decode_entry(&good[..good.len() - 1]), Err(EnvelopeError::Unreadable { .. })));
        assert!(matches!(decode_entry(&good[..2]), Err(EnvelopeError::TooShort { .. })));
        assert_eq!(check_entry_version(&good), Ok(()));
        assert_eq!(check_entry_version(&newer), Err(EnvelopeError::Newer { found: VERSION + 1 }));
    }

    /// The bytes of a good entry with one name in them exchanged for another one of the same length.
    fn patched(entry: &Entry, from: &str, to: &str) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let bytes = encode_entry(entry);
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).expect("it is there");
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    }

    #[test]
    fn a_command_or_a_part_of_one_that_this_build_does_not_know_is_named() {
        let entry = |command| Entry { stamp_ms: 5, entropy: [1; 16], command };
        let newer = patched(&entry(Command::Tick), "Tick", "Tock");
        let unknown = |what: &str| Err(EnvelopeError::Unknown { what: what.to_owned(), version: 1 });
        assert_eq!(decode_entry(&newer), unknown("Tock"));
        let begin = crate::command::Begin {
            id: sdm_proto::ids::TxnId::default(),
            request_hash: [0; 32],
            not_after_ms: 0,
            looked_up_ms: 0,
            unix_ms: 0,
            initiator: String::new(),
            reason: String::new(),
            lock_wait_ms: 0,
            spec: crate::txns::Spec::DeleteDisk { disk: sdm_proto::ids::DiskId::default() },
            under: None,
        };
        let newer = patched(&entry(Command::Begin(begin)), "DeleteDisk", "PolishDisk");
        assert_eq!(decode_entry(&newer), unknown("PolishDisk"));
        assert!(decode_entry(&newer).is_err_and(|error| error.is_newer()));
    }

    #[test]
    fn what_sets_the_level_or_needs_it_is_of_that_version_and_the_rest_of_the_first() {
        let version = |command| encode_entry(&Entry { stamp_ms: 0, entropy: [0; 16], command })[2];
        assert_eq!(version(Command::Tick), 1);
        assert_eq!(version(Command::RaiseFeatureLevel { level: 2 }), 2);
        assert_eq!(version(Command::RaiseFeatureLevel { level: 900 }), 2, "what nobody supports stays readable");
        assert_eq!(version(Command::ReportStateHash { member: 1, index: 1, hash: [0; 32] }), 2);
    }
}
