//! The bytes of the log's records. Every value begins with a CRC-32C over its key and the rest, so
//! damaged and misplaced records are both found. Numbers are little-endian; the layout does not
//! depend on openraft's serialization.
//!
//! ```text
//! value := crc32c(key, body) u32 · body
//! piece := pieces u16 · bytes           an entry's frame, cut into pieces of PIECE_BYTES
//! frame := version u8 · kind u8 · crc32c(index, kind, rest) u32 · rest
//! rest  := term u64 · node u64 · term u64 and node u64 of the entry before · payload
//! ```
//!
//! An entry names the leader of the one before it. Raft gives an index and a leader to one entry
//! only, so a record that a damaged database brings back from before a truncation breaks the chain.
//! The checksum over the frame does the same for a piece of an older entry between newer ones.

use super::keys;
use crate::types::LeaderId;
use crate::types::LogEntry;
use crate::types::LogId;
use crate::types::MemberNode;
use crate::types::Membership;
use crate::types::NodeId;
use crate::types::Payload;
use sdm_state::envelope;
use sdm_state::envelope::EnvelopeError;
use serde::Deserialize;
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;

/// Largest encoded entry. Commands are refused at 256 KiB before they are proposed; the rest is
/// room for a membership of many members and for what a later version adds.
pub const ENTRY_BYTES_MAX: usize = 512 << 10;

/// Bytes of a frame in one piece. Most entries are one.
const PIECE_BYTES: usize = 3 << 10;

const VERSION: u8 = 2;
/// Bytes of a frame before its payload.
const FRAME_FRONT: usize = 6 + 4 * 8;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Why a record of the log cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are not those that were written under this key.
    #[error("the checksum of log record {0} is wrong")]
    Checksum(String),
    /// The record ends early or goes on too long.
    #[error("log record {0} is malformed")]
    Malformed(String),
    /// A newer version of sdm wrote it.
    #[error("log record {record} has version {version}, which this version of sdm cannot read")]
    Version {
        /// Which record.
        record: String,
        /// Its version.
        version: u8,
    },
    /// The command in an entry cannot be read.
    #[error("the command in log entry {index} cannot be read: {source}")]
    Command {
        /// The entry.
        index: u64,
        /// Why not.
        source: EnvelopeError,
    },
    /// The entry before this one is not the one that it was written after.
    #[error("log entry {index} was written after an entry of {expected}, and the one before it is of {found}")]
    Chain {
        /// The entry.
        index: u64,
        /// The leader of the entry that was before it.
        expected: String,
        /// The leader of the one that is.
        found: String,
    },
    /// A piece of an entry is not there.
    #[error("log entry {0} is missing or incomplete")]
    Missing(u64),
}

impl RecordError {
    /// Whether a newer version of sdm wrote it, and nothing is damaged.
    pub(crate) fn is_newer(&self) -> bool {
        match self {
            RecordError::Version { .. } => true,
            RecordError::Command { source, .. } => source.is_newer(),
            _ => false,
        }
    }
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> Self {
        let kind = if error.is_newer() { io::ErrorKind::Unsupported } else { io::ErrorKind::InvalidData };
        io::Error::new(kind, error)
    }
}

pub(super) fn named(key: &[u8]) -> String {
    match keys::parse(key) {
        Some((index, piece)) => format!("{index}/{piece}"),
        None => String::from_utf8_lossy(key).into_owned(),
    }
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), body)
}

/// The value that holds a body under a key.
pub(crate) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(4 + body.len());
    value.extend_from_slice(&checksum(key, body).to_le_bytes());
    value.extend_from_slice(body);
    value
}

/// The body of a value, once its checksum is right.
pub(crate) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], RecordError> {
    let (sum, body) = value.split_first_chunk::<4>().ok_or_else(|| RecordError::Malformed(named(key)))?;
    if u32::from_le_bytes(*sum) != checksum(key, body) {
        return Err(RecordError::Checksum(named(key)));
    }
    Ok(body)
}

/// Appends a log id.
pub(crate) fn put_log_id(to: &mut Vec<u8>, id: &LogId) {
    to.extend_from_slice(&id.leader_id.term.to_le_bytes());
    to.extend_from_slice(&id.leader_id.node_id.to_le_bytes());
    to.extend_from_slice(&id.index.to_le_bytes());
}

/// Takes a log id off the front.
pub(crate) fn get_log_id(from: &mut &[u8]) -> Option<LogId> {
    let leader_id = LeaderId { term: get_u64(from)?, node_id: get_u64(from)? };
    Some(LogId { leader_id, index: get_u64(from)? })
}

pub(super) fn get_u64(from: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = from.split_first_chunk::<8>()?;
    *from = rest;
    Some(u64::from_le_bytes(*bytes))
}

/// A membership in our own form.
#[derive(Serialize, Deserialize)]
struct Members {
    configs: Vec<BTreeSet<NodeId>>,
    nodes: BTreeMap<NodeId, MemberNode>,
}

/// Bytes of a membership.
pub(crate) fn encode_membership(membership: &Membership) -> io::Result<Vec<u8>> {
    let members = Members {
        configs: membership.get_joint_config().clone(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
    };
    rmp_serde::to_vec_named(&members).map_err(io::Error::other)
}

/// The membership of these bytes.
pub(crate) fn decode_membership(bytes: &[u8]) -> Option<Membership> {
    let members: Members = rmp_serde::from_slice(bytes).ok()?;
    if members.configs.is_empty() && members.nodes.is_empty() {
        return Some(Membership::default());
    }
    Membership::new(members.configs, members.nodes).ok()
}

/// The frame of an entry that is written after `before`.
///
/// # Errors
/// `InvalidInput` if it is larger than `ENTRY_BYTES_MAX`.
pub(crate) fn encode_entry(entry: &LogEntry, before: Option<&LogId>) -> io::Result<Vec<u8>> {
    let (kind, payload) = match &entry.payload {
        Payload::Blank => (BLANK, Vec::new()),
        Payload::Normal(command) => (NORMAL, envelope::encode_entry(command)),
        Payload::Membership(membership) => (MEMBERSHIP, encode_membership(membership)?),
    };
    let mut frame = Vec::with_capacity(FRAME_FRONT + payload.len());
    frame.extend_from_slice(&[VERSION, kind, 0, 0, 0, 0]);
    for leader in [entry.log_id.leader_id, leader_of(before)] {
        frame.extend_from_slice(&leader.term.to_le_bytes());
        frame.extend_from_slice(&leader.node_id.to_le_bytes());
    }
    frame.extend_from_slice(&payload);
    if let Some((front, rest)) = frame.split_first_chunk_mut::<6>() {
        let [_, _, sum @ ..] = front;
        *sum = frame_checksum(entry.log_id.index, kind, rest).to_le_bytes();
    }
    if frame.len() > ENTRY_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "log entry {} has {} bytes, more than the log takes ({ENTRY_BYTES_MAX}); \
                 it had to be refused before it was proposed",
                entry.log_id.index,
                frame.len()
            ),
        ));
    }
    Ok(frame)
}

/// The leader that an entry names as that of the one before; the first entry of all names nobody.
fn leader_of(before: Option<&LogId>) -> LeaderId {
    before.map_or(LeaderId { term: 0, node_id: 0 }, |before| before.leader_id)
}

fn frame_checksum(index: u64, kind: u8, rest: &[u8]) -> u32 {
    let front = crc32c::crc32c_append(crc32c::crc32c(&index.to_le_bytes()), &[kind]);
    crc32c::crc32c_append(front, rest)
}

/// A frame taken apart.
pub(crate) struct Frame<'a> {
    kind: u8,
    /// The entry's log id.
    pub(crate) id: LogId,
    /// The leader of the entry before.
    before: LeaderId,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at an index, once its checksum is right.
    pub(crate) fn read(index: u64, frame: &'a [u8]) -> Result<Self, RecordError> {
        let malformed = || RecordError::Malformed(index.to_string());
        let ([version, kind], rest) = frame.split_first_chunk::<2>().ok_or_else(malformed)?;
        match version.cmp(&VERSION) {
            Ordering::Less => return Err(malformed()),
            Ordering::Greater => return Err(RecordError::Version { record: index.to_string(), version: *version }),
            Ordering::Equal => {}
        }
        let (sum, mut rest) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        if u32::from_le_bytes(*sum) != frame_checksum(index, *kind, rest) {
            return Err(RecordError::Checksum(index.to_string()));
        }
        let mut leader = || Some(LeaderId { term: get_u64(&mut rest)?, node_id: get_u64(&mut rest)? });
        let leader_id = leader().ok_or_else(malformed)?;
        let before = leader().ok_or_else(malformed)?;
        Ok(Frame { kind: *kind, id: LogId { leader_id, index }, before, payload: rest })
    }

    /// Refuses an entry that was not written after `before`.
    pub(crate) fn follows(&self, before: Option<&LogId>) -> Result<(), RecordError> {
        let found = leader_of(before);
        if self.before == found {
            return Ok(());
        }
        let (expected, found) = (self.before.to_string(), found.to_string());
        Err(RecordError::Chain { index: self.id.index, expected, found })
    }

    /// Refuses an entry that only a newer sdm can read, by the first bytes of its command.
    pub(crate) fn check_version(&self) -> Result<(), RecordError> {
        if self.kind != NORMAL {
            return Ok(());
        }
        let index = self.id.index;
        envelope::check_entry_version(self.payload).map_err(|source| RecordError::Command { index, source })
    }

    /// The entry in it.
    pub(crate) fn entry(&self) -> Result<LogEntry, RecordError> {
        let index = self.id.index;
        let malformed = || RecordError::Malformed(index.to_string());
        let payload = match self.kind {
            BLANK if self.payload.is_empty() => Payload::Blank,
            NORMAL => Payload::Normal(
                envelope::decode_entry(self.payload).map_err(|source| RecordError::Command { index, source })?,
            ),
            MEMBERSHIP => Payload::Membership(decode_membership(self.payload).ok_or_else(malformed)?),
            _ => return Err(malformed()),
        };
        Ok(LogEntry { log_id: self.id, payload })
    }
}

/// For tests: the frame with another command in it, and its checksum made right again. None if it
/// holds no command.
pub(super) fn forged(index: u64, frame: &[u8], change: impl FnOnce(&mut [u8])) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    if !frame.starts_with(&[VERSION, NORMAL]) {
        return None;
    }
    change(frame.get_mut(FRAME_FRONT..)?);
    let ([.., a, b, c, d], rest) = frame.split_first_chunk_mut::<6>()?;
    [*a, *b, *c, *d] = frame_checksum(index, NORMAL, rest).to_le_bytes();
    Some(frame)
}

/// The records of a frame at an index.
pub(crate) fn pieces(index: u64, frame: &[u8]) -> Vec<([u8; 11], Vec<u8>)> {
    let total = u16::try_from(frame.len().div_ceil(PIECE_BYTES)).unwrap_or(u16::MAX);
    let numbered = (0u16..).zip(frame.chunks(PIECE_BYTES));
    numbered
        .map(|(number, bytes)| {
            let mut body = Vec::with_capacity(2 + bytes.len());
            body.extend_from_slice(&total.to_le_bytes());
            body.extend_from_slice(bytes);
            let key = keys::piece(index, number);
            (key, seal(&key, &body))
        })
        .collect()
}

/// Puts pieces, shown in key order, together to frames.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    index: u64,
    next: u16,
    total: u16,
    frame: Vec<u8>,
}

impl Assembly {
    /// Takes the next record. A frame, with its index, once it is whole.
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<Option<(u64, Vec<u8>)>, RecordError> {
        let malformed = || RecordError::Malformed(named(key));
        let (index, number) = keys::parse(key).ok_or_else(malformed)?;
        let (total, bytes) = unseal(key, value)?.split_first_chunk::<2>().ok_or_else(malformed)?;
        let total = u16::from_le_bytes(*total);
        if number == 0 {
            self.finish()?;
            *self = Assembly { index, next: 0, total, frame: Vec::new() };
        }
        if index != self.index || number != self.next || total != self.total || number >= total {
            return Err(RecordError::Missing(if number == 0 { index } else { self.index }));
        }
        self.frame.extend_from_slice(bytes);
        self.next += 1;
        if self.next < self.total {
            return Ok(None);
        }
        Ok(Some((self.index, std::mem::take(&mut self.frame))))
    }

    /// Refuses to stop in the middle of an entry.
    pub(crate) fn finish(&self) -> Result<(), RecordError> {
        if self.next == self.total { Ok(()) } else { Err(RecordError::Missing(self.index)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, node_id: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id }, index }
    }

    #[test]
    fn a_record_under_another_key_is_refused() {
        let value = seal(keys::MARKS, b"body");
        assert_eq!(unseal(keys::MARKS, &value), Ok(b"body".as_slice()));
        assert_eq!(unseal(keys::OWNER, &value), Err(RecordError::Checksum("mo".to_owned())));
    }

    #[test]
    fn an_entry_that_was_written_after_another_one_is_refused() {
        let entry = LogEntry { log_id: id(5, 1, 7), payload: Payload::Blank };
        let bytes = encode_entry(&entry, Some(&id(3, 2, 6))).expect("small");
        let frame = Frame::read(7, &bytes).expect("good");
        assert_eq!(frame.follows(Some(&id(3, 2, 6))), Ok(()));
        for other in [Some(id(4, 2, 6)), Some(id(3, 1, 6)), None] {
            assert!(matches!(frame.follows(other.as_ref()), Err(RecordError::Chain { index: 7, .. })));
        }
    }

    #[test]
    fn a_frame_at_another_index_or_of_a_newer_version_is_refused() {
        let entry = LogEntry { log_id: id(5, 1, 7), payload: Payload::Blank };
        let mut bytes = encode_entry(&entry, None).expect("small");
        assert_eq!(Frame::read(8, &bytes).err(), Some(RecordError::Checksum("8".to_owned())));
        bytes[0] = VERSION + 1;
        let newer = RecordError::Version { record: "7".to_owned(), version: VERSION + 1 };
        assert_eq!(Frame::read(7, &bytes).err(), Some(newer));
    }

    #[test]
    fn a_membership_entry_comes_back_as_it_was() {
        let nodes = BTreeMap::from([
            (1, MemberNode { name: "a".to_owned(), address: "a:1".to_owned() }),
            (2, MemberNode::default()),
        ]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).expect("valid");
        let entry = LogEntry { log_id: id(2, 1, 7), payload: Payload::Membership(membership) };
        let frame = encode_entry(&entry, None).expect("small");
        assert_eq!(Frame::read(7, &frame).and_then(|frame| frame.entry()), Ok(entry));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        let entry = LogEntry { log_id: id(2, 1, 7), payload: Payload::Blank };
        let frame = encode_entry(&entry, None).expect("small");
        let (key, value) = pieces(7, &frame).pop().expect("one piece");
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&key, &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn large_frames_are_cut_and_put_together_again() {
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 10 * PIECE_BYTES + 5] {
            let frame: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let mut assembly = Assembly::default();
            let mut frames = Vec::new();
            for (key, value) in pieces(5, &frame) {
                assert!(value.len() <= 4 << 10);
                frames.extend(assembly.take(&key, &value).expect("a good piece"));
            }
            let expected = if length == 0 { vec![] } else { vec![(5, frame)] };
            assert_eq!(frames, expected);
        }
    }

    #[test]
    fn a_missing_piece_is_named() {
        let frame = vec![7; 3 * PIECE_BYTES];
        let mut assembly = Assembly::default();
        let mut found = Vec::new();
        for (key, value) in pieces(5, &frame).into_iter().take(2).chain(pieces(6, &[1])) {
            found.push(assembly.take(&key, &value));
        }
        assert_eq!(found.last(), Some(&Err(RecordError::Missing(5))));
    }
}
