//! Reading a backup, whole: every checksum, every row, the hash of the state and its invariants.

use super::END;
use super::TRAILER_BYTES;
use super::header;
use super::header::BackupHeader;
use super::header::FRONT_BYTES;
use crate::disk::FileReader;
use crate::disk::read_exact_at;
use crate::snapshot::SnapshotError;
use crate::snapshot::SnapshotReader;
use sdm_state::State;
use sdm_state::envelope::EnvelopeError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are hashed at once.
const HASH_BYTES: usize = 1 << 20;

/// Broken invariants that are named.
const NAMED_MAX: usize = 8;

/// Why a file is no backup to restore from.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It never was one.
    #[error("the file is not a backup of sdm")]
    Foreign,
    /// It is shorter than it was.
    #[error("the backup is cut off: {0}")]
    Truncated(String),
    /// Its bytes are not what was written.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// A newer version of sdm wrote it.
    #[error("a newer version of sdm wrote the backup ({0})")]
    Newer(String),
    /// It could not be read.
    #[error("the backup cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl From<SnapshotError> for BackupError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Io(error) => BackupError::Io(error),
            SnapshotError::Newer(format) => BackupError::Newer(format!("snapshot format {format}")),
            SnapshotError::Rows(error) => error.into(),
            error => BackupError::Damaged(error.to_string()),
        }
    }
}

impl From<EnvelopeError> for BackupError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Newer { .. } => BackupError::Newer(error.to_string()),
            error => BackupError::Damaged(error.to_string()),
        }
    }
}

/// A backup that was checked from end to end.
#[derive(Debug)]
pub struct Backup {
    /// What stands in front of it.
    pub header: BackupHeader,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of all its bytes before its last 32, which hold this.
    pub blake3: [u8; 32],
    /// The state in it.
    pub state: State,
    /// Voters and learners at that time, by name.
    pub members: Vec<String>,
}

/// A part of a file, read as a file.
#[derive(Debug)]
struct Section {
    file: File,
    from: u64,
    length: u64,
}

impl FileReader for Section {
    fn len(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let Some(buffer) = buffer.get_mut(..wanted) else { return Ok(0) };
        loop {
            match self.file.read_at(buffer, self.from.saturating_add(offset)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Reads a backup and checks all of it. Blocks; holds its whole state in memory afterwards.
///
/// # Errors
/// See `BackupError`.
pub fn check_backup(path: &Path) -> Result<Backup, BackupError> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let whole = Section { file: file.try_clone()?, from: 0, length: bytes };
    let (header, from) = read_header(&whole)?;
    let (snapshot_bytes, blake3) = read_trailer(&whole)?;
    let expected = bytes.saturating_sub(from).saturating_sub(TRAILER_BYTES);
    if snapshot_bytes != expected {
        return Err(BackupError::Damaged(format!("it holds {expected} bytes of state and says {snapshot_bytes}")));
    }
    if hash_of(&whole, bytes.saturating_sub(32))? != blake3 {
        return Err(BackupError::Damaged("the hash over the file is wrong".to_owned()));
    }
    let section = Section { file, from, length: snapshot_bytes };
    let (state, members) = read_state(&section, &header)?;
    Ok(Backup { header, bytes, blake3, state, members })
}

fn read(file: &Section, buffer: &mut [u8], offset: u64) -> Result<(), BackupError> {
    match read_exact_at(file, buffer, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(BackupError::Truncated(format!("it ends after {} bytes", file.length)))
        }
        result => Ok(result?),
    }
}

/// The header and where the snapshot begins.
fn read_header(file: &Section) -> Result<(BackupHeader, u64), BackupError> {
    let mut front = [0; FRONT_BYTES];
    match read(file, &mut front, 0) {
        // Nothing that short tells whether it ever was one.
        Err(BackupError::Truncated(_)) => return Err(BackupError::Foreign),
        result => result?,
    }
    let (length, sum) = header::decode_front(&front)?;
    let mut json = vec![0; length];
    read(file, &mut json, FRONT_BYTES as u64)?;
    Ok((header::decode(&json, sum)?, (FRONT_BYTES + length) as u64))
}

/// The length of the snapshot and the hash of the file.
fn read_trailer(file: &Section) -> Result<(u64, [u8; 32]), BackupError> {
    let cut = || BackupError::Truncated("its end is missing: was it copied whole?".to_owned());
    let at = file.length.checked_sub(TRAILER_BYTES).ok_or_else(cut)?;
    let (mut end, mut length, mut hash) = ([0; 8], [0; 8], [0; 32]);
    read(file, &mut end, at)?;
    read(file, &mut length, at + 8)?;
    read(file, &mut hash, at + 16)?;
    if end != *END {
        return Err(cut());
    }
    Ok((u64::from_le_bytes(length), hash))
}

fn hash_of(file: &Section, bytes: u64) -> Result<[u8; 32], BackupError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASH_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let piece = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(HASH_BYTES);
        let Some(piece) = buffer.get_mut(..piece) else { break };
        read(file, piece, offset)?;
        hasher.update(piece);
        offset += piece.len() as u64;
    }
    Ok(*hasher.finalize().as_bytes())
}

fn read_state(file: &Section, header: &BackupHeader) -> Result<(State, Vec<String>), BackupError> {
    let mut reader = SnapshotReader::begin(file)?;
    let state = State::from_rows(&mut reader);
    // What the file says counts first: rows that end early are its fault, not the state's.
    let (snapshot, _) = reader.finish()?;
    let state = state?;
    let hash = state.hash();
    let hex = blake3::Hash::from_bytes(hash).to_hex().to_string();
    let meta = &state.meta;
    let fits = hash == snapshot.state_hash
        && hex == header.state_hash
        && meta.cluster_id == Some(header.cluster_id)
        && (meta.pool_id, meta.epoch) == (header.pool_id, header.epoch)
        && snapshot.meta.last_log_id.map(|id| id.index) == Some(header.index);
    if !fits {
        return Err(BackupError::Damaged("its rows do not make the state that was saved".to_owned()));
    }
    if let Err(mut broken) = sdm_state::invariants::check(&state) {
        broken.truncate(NAMED_MAX);
        return Err(BackupError::Damaged(format!("its state contradicts itself: {}", broken.join("; "))));
    }
    let members = snapshot.meta.last_membership.membership().nodes().map(|(_, node)| node.name.clone()).collect();
    Ok((state, members))
}
