//! The bytes of the log's records. Every value begins with a CRC-32C over its key and the rest, so
//! damaged and misplaced records are both found. Numbers are little-endian; the layout does not
//! depend on openraft's serialization.
//!
//! ```text
//! value  := crc32c(key, body) u32 · body
//! piece  := pieces u16 · bytes           an entry's frame, cut into pieces of PIECE_BYTES
//! frame  := version u8 · kind u8 · term u64 · node u64 · payload
//! log id := term u64 · node u64 · index u64
//! vote   := term u64 · node u64 · committed u8
//! ```

use super::keys;
use crate::types::LeaderId;
use crate::types::LogEntry;
use crate::types::LogId;
use crate::types::MemberNode;
use crate::types::Membership;
use crate::types::NodeId;
use crate::types::Payload;
use crate::types::Vote;
use sdm_state::envelope;
use sdm_state::envelope::EnvelopeError;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;

/// Largest encoded entry. Commands are refused at 256 KiB before they are proposed; the rest is
/// room for a membership of many members and for what a later version adds.
pub const ENTRY_BYTES_MAX: usize = 512 << 10;

/// Bytes of a frame in one record. A leaf of the database holds 16 records and must stay far below
/// 128 KiB (see the sled side), and most entries fit one piece.
const PIECE_BYTES: usize = 3 << 10;

const VERSION: u8 = 1;
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
    /// A piece of an entry is not there.
    #[error("log entry {0} is missing or incomplete")]
    Missing(u64),
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> Self {
        let newer = matches!(
            error,
            RecordError::Version { .. } | RecordError::Command { source: EnvelopeError::Newer { .. }, .. }
        );
        let kind = if newer { io::ErrorKind::Unsupported } else { io::ErrorKind::InvalidData };
        io::Error::new(kind, error)
    }
}

fn named(key: &[u8]) -> String {
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

fn get_u64(from: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = from.split_first_chunk::<8>()?;
    *from = rest;
    Some(u64::from_le_bytes(*bytes))
}

/// The value of a key that holds a log id.
pub(crate) fn log_id_value(key: &[u8], id: &LogId) -> Vec<u8> {
    let mut body = Vec::with_capacity(24);
    put_log_id(&mut body, id);
    seal(key, &body)
}

/// The value of the last log id's key; a log without entries says so.
pub(crate) fn last_value(last: Option<&LogId>) -> Vec<u8> {
    match last {
        Some(last) => log_id_value(keys::LAST, last),
        None => seal(keys::LAST, &[]),
    }
}

/// The last log id that its key holds.
pub(crate) fn read_last(value: &[u8]) -> Result<Option<LogId>, RecordError> {
    if unseal(keys::LAST, value)?.is_empty() {
        return Ok(None);
    }
    read_log_id(keys::LAST, value).map(Some)
}

/// The log id that a key holds.
pub(crate) fn read_log_id(key: &[u8], value: &[u8]) -> Result<LogId, RecordError> {
    let mut body = unseal(key, value)?;
    match get_log_id(&mut body) {
        Some(id) if body.is_empty() => Ok(id),
        _ => Err(RecordError::Malformed(named(key))),
    }
}

/// The value of the vote's key.
pub(crate) fn vote_value(vote: &Vote) -> Vec<u8> {
    let mut body = Vec::with_capacity(17);
    body.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    body.extend_from_slice(&vote.leader_id.node_id.to_le_bytes());
    body.push(u8::from(vote.committed));
    seal(keys::VOTE, &body)
}

/// The vote that its key holds.
pub(crate) fn read_vote(value: &[u8]) -> Result<Vote, RecordError> {
    let mut body = unseal(keys::VOTE, value)?;
    let malformed = || RecordError::Malformed(named(keys::VOTE));
    let term = get_u64(&mut body).ok_or_else(malformed)?;
    let node_id = get_u64(&mut body).ok_or_else(malformed)?;
    let committed = match body {
        [0] => false,
        [1] => true,
        _ => return Err(malformed()),
    };
    Ok(Vote { leader_id: LeaderId { term, node_id }, committed })
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

/// The frame of an entry.
///
/// # Errors
/// `InvalidInput` if it is larger than `ENTRY_BYTES_MAX`.
pub(crate) fn encode_entry(entry: &LogEntry) -> io::Result<Vec<u8>> {
    let mut frame = vec![VERSION, BLANK];
    frame.extend_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
    frame.extend_from_slice(&entry.log_id.leader_id.node_id.to_le_bytes());
    let (kind, payload) = match &entry.payload {
        Payload::Blank => (BLANK, Vec::new()),
        Payload::Normal(command) => (NORMAL, envelope::encode_entry(command)),
        Payload::Membership(membership) => (MEMBERSHIP, encode_membership(membership)?),
    };
    if let Some(byte) = frame.get_mut(1) {
        *byte = kind;
    }
    frame.extend_from_slice(&payload);
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

/// The log id of the frame at an index.
pub(crate) fn frame_log_id(index: u64, frame: &[u8]) -> Result<LogId, RecordError> {
    split_frame(index, frame).map(|(_, id, _)| id)
}

fn split_frame(index: u64, frame: &[u8]) -> Result<(u8, LogId, &[u8]), RecordError> {
    let malformed = || RecordError::Malformed(index.to_string());
    let ([version, kind], mut rest) = frame.split_first_chunk::<2>().ok_or_else(malformed)?;
    if *version != VERSION {
        return Err(RecordError::Version { record: index.to_string(), version: *version });
    }
    let term = get_u64(&mut rest).ok_or_else(malformed)?;
    let node_id = get_u64(&mut rest).ok_or_else(malformed)?;
    Ok((*kind, LogId { leader_id: LeaderId { term, node_id }, index }, rest))
}

/// The entry of a frame at an index.
pub(crate) fn decode_entry(index: u64, frame: &[u8]) -> Result<LogEntry, RecordError> {
    let malformed = || RecordError::Malformed(index.to_string());
    let (kind, log_id, rest) = split_frame(index, frame)?;
    let payload = match kind {
        BLANK if rest.is_empty() => Payload::Blank,
        NORMAL => {
            Payload::Normal(envelope::decode_entry(rest).map_err(|source| RecordError::Command { index, source })?)
        }
        MEMBERSHIP => Payload::Membership(decode_membership(rest).ok_or_else(malformed)?),
        _ => return Err(malformed()),
    };
    Ok(LogEntry { log_id, payload })
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
    fn log_ids_and_votes_come_back_as_they_were() {
        let value = log_id_value(keys::LAST, &id(3, 2, 1));
        assert_eq!(read_log_id(keys::LAST, &value), Ok(id(3, 2, 1)));
        let vote = Vote { leader_id: LeaderId { term: 9, node_id: 4 }, committed: true };
        assert_eq!(read_vote(&vote_value(&vote)), Ok(vote));
    }

    #[test]
    fn a_record_under_another_key_is_refused() {
        let value = log_id_value(keys::LAST, &id(3, 2, 1));
        assert_eq!(read_log_id(keys::PURGED, &value), Err(RecordError::Checksum("mp".to_owned())));
    }

    #[test]
    fn a_membership_entry_comes_back_as_it_was() {
        let nodes = BTreeMap::from([
            (1, MemberNode { name: "a".to_owned(), address: "a:1".to_owned() }),
            (2, MemberNode::default()),
        ]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).expect("valid");
        let entry = LogEntry { log_id: id(2, 1, 7), payload: Payload::Membership(membership) };
        let frame = encode_entry(&entry).expect("small");
        assert_eq!(decode_entry(7, &frame), Ok(entry));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        let entry = LogEntry { log_id: id(2, 1, 7), payload: Payload::Blank };
        let frame = encode_entry(&entry).expect("small");
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
