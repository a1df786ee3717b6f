//! Writing a backup of a view, in one pass with one block in memory, to whoever takes the bytes. A
//! view is immutable, so nobody is held up meanwhile.

use super::END;
use super::FORMAT;
use super::header;
use super::header::BackupHeader;
use crate::disk::FileWriter;
use crate::raft::StateView;
use crate::snapshot::SnapshotHeader;
use crate::snapshot::SnapshotWriter;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// What a view does not know.
#[derive(Clone, Debug)]
pub struct BackupFacts {
    /// The member that writes it.
    pub member: String,
    /// Its version.
    pub sdm_version: String,
    /// Its wall clock, milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// A backup that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenBackup {
    /// What stands in front of it.
    pub header: BackupHeader,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of all its bytes before its last 32, which hold this.
    pub blake3: [u8; 32],
}

#[derive(Debug)]
struct Hashed {
    out: Box<dyn FileWriter>,
    hash: blake3::Hasher,
    bytes: u64,
}

/// Takes bytes for the file from several writers, one after another, and hashes all of them.
#[derive(Clone, Debug)]
struct Sink(Arc<Mutex<Hashed>>);

impl Sink {
    fn inner(&self) -> MutexGuard<'_, Hashed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileWriter for Sink {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        inner.hash.update(bytes);
        inner.bytes += bytes.len() as u64;
        inner.out.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.inner().out.sync()
    }
}

/// Writes a backup of the view. Blocks.
///
/// # Errors
/// Whatever `out` meets; a view without a cluster.
pub fn write_backup(view: &StateView, facts: BackupFacts, out: Box<dyn FileWriter>) -> io::Result<WrittenBackup> {
    let meta = &view.state.meta;
    let (Some(cluster_id), Some(last)) = (meta.cluster_id, view.applied) else {
        return Err(io::Error::other("there is no cluster yet"));
    };
    let state_hash = view.state.hash();
    let header = BackupHeader {
        format: FORMAT,
        cluster_id,
        pool_id: meta.pool_id,
        epoch: meta.epoch,
        index: last.index,
        feature_level: meta.feature_level,
        state_hash: blake3::Hash::from_bytes(state_hash).to_hex().to_string(),
        created_unix_ms: facts.created_unix_ms,
        member: facts.member,
        sdm_version: facts.sdm_version,
    };
    let mut sink = Sink(Arc::new(Mutex::new(Hashed { out, hash: blake3::Hasher::new(), bytes: 0 })));
    sink.append(&header::encode(&header)?)?;
    let mut writer = SnapshotWriter::begin(Box::new(sink.clone()), &SnapshotHeader::of(view))?;
    for row in view.state.to_rows() {
        writer.row(&row)?;
    }
    let (snapshot_bytes, _) = writer.finish()?;
    sink.append(END)?;
    sink.append(&snapshot_bytes.to_le_bytes())?;
    let blake3 = *sink.inner().hash.finalize().as_bytes();
    sink.append(&blake3)?;
    sink.sync()?;
    let bytes = sink.inner().bytes;
    Ok(WrittenBackup { header, bytes, blake3 })
}
