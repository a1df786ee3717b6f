//! The bytes of a snapshot file. It can be written and read in one pass with one block in memory.
//!
//! ```text
//! file   := MAGIC · header block · rows block* · footer block
//! block  := length u32 · crc32c(body) u32 · body        body := kind u8 · payload
//! header := MessagePack: format, log ids, membership, hash of the state
//! rows   := (length u32 · row)*
//! footer := rows u64 · BLAKE3 of all bytes before this block
//! ```

use crate::disk::FileReader;
use crate::disk::FileWriter;
use crate::disk::read_exact_at;
use crate::log::decode_membership;
use crate::log::encode_membership;
use crate::log::get_log_id;
use crate::log::put_log_id;
use crate::raft::StateView;
use crate::types::LogId;
use crate::types::SnapshotMeta;
use crate::types::StoredMembership;
use sdm_state::envelope::EnvelopeError;
use sdm_state::members::FEATURE_LEVEL_MAX;
use serde::Deserialize;
use serde::Serialize;
use std::io;

const MAGIC: &[u8; 8] = b"sdmsnap\x01";
/// Highest format that this build reads. The format of a file is the feature level of the cluster in
/// it, so that an older build refuses it by its header.
const FORMAT: u16 = FEATURE_LEVEL_MAX as u16;

const HEADER: u8 = 1;
const ROWS: u8 = 2;
const FOOTER: u8 = 3;

/// Rows are gathered up to this before they are written: few calls, little memory.
const BLOCK_BYTES: usize = 64 << 10;

/// Bytes after which the file is synced while it is written: all of a large snapshot at once would hold up
/// the syncs of the log, which share the disk and its journal, for as long as it takes to write it.
const SYNC_BYTES: u64 = 8 << 20;

/// Largest block that is believed. A row is a few KiB; this only keeps a damaged length from
/// swallowing memory.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Its bytes are not what was written.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// A newer version of sdm wrote it.
    #[error("a newer sdm wrote the snapshot (format {0}): start this member with that one")]
    Newer(u16),
    /// Its rows do not make a state.
    #[error("the snapshot's rows: {0}")]
    Rows(#[from] EnvelopeError),
    /// It is not the snapshot that was announced.
    #[error("the snapshot that arrived is not the one that was announced")]
    Other,
    /// It could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SnapshotError {
    /// Whether a newer version of sdm wrote it, and nothing is damaged.
    pub fn is_newer(&self) -> bool {
        match self {
            SnapshotError::Newer(_) => true,
            SnapshotError::Rows(error) => error.is_newer(),
            SnapshotError::Damaged(_) | SnapshotError::Other | SnapshotError::Io(_) => false,
        }
    }
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Io(error) => error,
            error if error.is_newer() => io::Error::new(io::ErrorKind::Unsupported, error),
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// What stands in front of the rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state_hash: [u8; 32],
    format: u16,
}

impl Header {
    /// In front of this view's rows.
    pub(crate) fn of(view: &StateView) -> Self {
        Header {
            meta: SnapshotMeta { last_log_id: view.applied, last_membership: view.membership.clone() },
            state_hash: view.state.hash(),
            format: u16::try_from(view.state.meta.feature_level.max(1)).unwrap_or(u16::MAX),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredHeader {
    format: u16,
    last_log_id: Vec<u8>,
    membership_log_id: Vec<u8>,
    membership: Vec<u8>,
    state_hash: [u8; 32],
}

fn log_id_bytes(id: Option<&LogId>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(id) = id {
        put_log_id(&mut bytes, id);
    }
    bytes
}

fn log_id(mut bytes: &[u8]) -> Result<Option<LogId>, SnapshotError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match get_log_id(&mut bytes) {
        Some(id) if bytes.is_empty() => Ok(Some(id)),
        _ => Err(SnapshotError::Damaged("a log id in the header is malformed")),
    }
}

fn encode_header(header: &Header) -> io::Result<Vec<u8>> {
    let membership = &header.meta.last_membership;
    let stored = StoredHeader {
        format: header.format,
        last_log_id: log_id_bytes(header.meta.last_log_id.as_ref()),
        membership_log_id: log_id_bytes(membership.log_id().as_ref()),
        membership: encode_membership(membership.membership())?,
        state_hash: header.state_hash,
    };
    rmp_serde::to_vec_named(&stored).map_err(io::Error::other)
}

fn decode_header(bytes: &[u8]) -> Result<Header, SnapshotError> {
    let stored: StoredHeader =
        rmp_serde::from_slice(bytes).map_err(|_| SnapshotError::Damaged("the header is malformed"))?;
    if stored.format > FORMAT {
        return Err(SnapshotError::Newer(stored.format));
    }
    let membership =
        decode_membership(&stored.membership).ok_or(SnapshotError::Damaged("the membership is malformed"))?;
    Ok(Header {
        meta: SnapshotMeta {
            last_log_id: log_id(&stored.last_log_id)?,
            last_membership: StoredMembership::new(log_id(&stored.membership_log_id)?, membership),
        },
        state_hash: stored.state_hash,
        format: stored.format,
    })
}

/// Writes a snapshot file from its start to its end.
#[derive(Debug)]
pub(crate) struct SnapshotWriter {
    file: Box<dyn FileWriter>,
    hash: blake3::Hasher,
    block: Vec<u8>,
    rows: u64,
    bytes: u64,
    /// How many of them are durable.
    synced: u64,
}

impl SnapshotWriter {
    pub(crate) fn begin(file: Box<dyn FileWriter>, header: &Header) -> io::Result<Self> {
        let hash = blake3::Hasher::new();
        let mut writer = SnapshotWriter { file, hash, block: Vec::new(), rows: 0, bytes: 0, synced: 0 };
        writer.append(MAGIC)?;
        let header = encode_header(header)?;
        writer.append_block(HEADER, &header)?;
        Ok(writer)
    }

    pub(crate) fn row(&mut self, row: &[u8]) -> io::Result<()> {
        let length = u32::try_from(row.len())
            .ok()
            .filter(|length| (*length as usize) < BLOCK_BYTES_MAX - 16)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a row is too large"))?;
        if !self.block.is_empty() && self.block.len() + row.len() > BLOCK_BYTES {
            self.flush()?;
        }
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(row);
        self.rows += 1;
        Ok(())
    }

    /// Syncs the file. Its length and the hash in its footer.
    pub(crate) fn finish(mut self) -> io::Result<(u64, [u8; 32])> {
        self.flush()?;
        let hash = *self.hash.finalize().as_bytes();
        let footer = [self.rows.to_le_bytes().as_slice(), &hash].concat();
        self.append_block(FOOTER, &footer)?;
        self.file.sync()?;
        Ok((self.bytes, hash))
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut block = std::mem::take(&mut self.block);
        if !block.is_empty() {
            self.append_block(ROWS, &block)?;
        }
        block.clear();
        self.block = block;
        Ok(())
    }

    fn append_block(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(1 + payload.len()).map_err(io::Error::other)?;
        let sum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload);
        let front = [length.to_le_bytes().as_slice(), &sum.to_le_bytes(), &[kind]].concat();
        self.append(&front)?;
        self.append(payload)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.append(bytes)?;
        if self.bytes - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.bytes;
        }
        Ok(())
    }
}

/// Reads a snapshot file from its start to its end and checks all of it.
pub(crate) struct SnapshotReader<'a> {
    file: &'a dyn FileReader,
    length: u64,
    offset: u64,
    hash: blake3::Hasher,
    header: Header,
    block: Vec<u8>,
    at: usize,
    rows: u64,
    footer: Option<[u8; 32]>,
    failure: Option<SnapshotError>,
}

impl<'a> SnapshotReader<'a> {
    pub(crate) fn begin(file: &'a dyn FileReader) -> Result<Self, SnapshotError> {
        let placeholder = Header { meta: SnapshotMeta::default(), state_hash: [0; 32], format: 0 };
        let mut reader = SnapshotReader {
            file,
            length: file.len()?,
            offset: 0,
            hash: blake3::Hasher::new(),
            header: placeholder,
            block: Vec::new(),
            at: 0,
            rows: 0,
            footer: None,
            failure: None,
        };
        let mut magic = [0; MAGIC.len()];
        reader.read(&mut magic)?;
        if magic != *MAGIC {
            return Err(SnapshotError::Damaged("it does not begin as a snapshot does"));
        }
        reader.hash.update(&magic);
        let (kind, payload) = reader.next_block()?;
        if kind != HEADER {
            return Err(SnapshotError::Damaged("the header is missing"));
        }
        reader.header = decode_header(&payload)?;
        Ok(reader)
    }

    /// The hash in the footer, after all rows were read and everything was right.
    pub(crate) fn finish(mut self) -> Result<(Header, [u8; 32]), SnapshotError> {
        while self.next().is_some() {}
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let hash = self.footer.ok_or(SnapshotError::Damaged("the footer is missing"))?;
        Ok((self.header, hash))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), SnapshotError> {
        match read_exact_at(self.file, buffer, self.offset) {
            Ok(()) => self.offset += buffer.len() as u64,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(SnapshotError::Damaged("it ends early"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn next_block(&mut self) -> Result<(u8, Vec<u8>), SnapshotError> {
        let before = self.hash.clone();
        let mut front = [0; 8];
        self.read(&mut front)?;
        let [a, b, c, d, e, f, g, h] = front;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length == 0 || length > BLOCK_BYTES_MAX {
            return Err(SnapshotError::Damaged("the length of a block is impossible"));
        }
        let mut body = vec![0; length];
        self.read(&mut body)?;
        if crc32c::crc32c(&body) != u32::from_le_bytes([e, f, g, h]) {
            return Err(SnapshotError::Damaged("the checksum of a block is wrong"));
        }
        self.hash.update(&front).update(&body);
        let kind = body.remove(0);
        if kind == FOOTER {
            self.check_footer(&before, &body)?;
        }
        Ok((kind, body))
    }

    fn check_footer(&mut self, before: &blake3::Hasher, footer: &[u8]) -> Result<(), SnapshotError> {
        let malformed = SnapshotError::Damaged("the footer is malformed");
        let Some((rows, hash)) = footer.split_first_chunk::<8>() else { return Err(malformed) };
        let Ok(hash) = <[u8; 32]>::try_from(hash) else { return Err(malformed) };
        if u64::from_le_bytes(*rows) != self.rows {
            return Err(SnapshotError::Damaged("the number of rows is wrong"));
        }
        if *before.finalize().as_bytes() != hash {
            return Err(SnapshotError::Damaged("the hash over the file is wrong"));
        }
        if self.offset != self.length {
            return Err(SnapshotError::Damaged("it goes on after its footer"));
        }
        self.footer = Some(hash);
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        while self.at >= self.block.len() {
            if self.footer.is_some() {
                return Ok(None);
            }
            match self.next_block()? {
                (ROWS, rows) => {
                    self.block = rows;
                    self.at = 0;
                }
                (FOOTER, _) => return Ok(None),
                _ => return Err(SnapshotError::Damaged("a block of an unknown kind")),
            }
        }
        let malformed = SnapshotError::Damaged("a row is malformed");
        let rest = self.block.get(self.at..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Err(malformed) };
        let length = u32::from_le_bytes(*length) as usize;
        let Some(row) = rest.get(..length) else { return Err(malformed) };
        let row = row.to_vec();
        self.at += 4 + length;
        self.rows += 1;
        Ok(Some(row))
    }
}

/// The rows; it ends at the first failure, which `finish` tells.
impl Iterator for SnapshotReader<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.failure.is_some() {
            return None;
        }
        match self.next_row() {
            Ok(row) => row,
            Err(failure) => {
                self.failure = Some(failure);
                None
            }
        }
    }
}
