//! A snapshot file that was checked once: what openraft and the transport pass around. It stays
//! readable for as long as somebody holds it, also after newer ones took its place. A file that
//! was received and never installed is removed with its last handle.

use super::folder::Loaded;
use super::folder::Temporary;
use super::format::Header;
use super::format::SnapshotError;
use super::format::SnapshotReader;
use super::transfers::Transfers;
use crate::disk::FileReader;
use crate::disk::Files;
use crate::disk::MemberDisk;
use crate::types::Snapshot;
use crate::types::SnapshotMeta;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use sdm_state::State;
use std::io;
use std::sync::Arc;

/// A snapshot in its file. Clones share it.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    pub(super) disk: MemberDisk,
    pub(super) name: String,
    pub(super) meta: SnapshotMeta,
    pub(super) length: u64,
    pub(super) hash: [u8; 32],
    pub(super) reader: Arc<dyn FileReader>,
    /// Set until it is published under its final name.
    pub(super) temporary: Option<Arc<Temporary>>,
    pub(super) transfers: Transfers,
    /// The state in it, from when it arrived until it is installed.
    pub(super) arrived: Option<Arc<State>>,
}

impl SnapshotFile {
    /// Opens a file, checks all of it and loads the state in it, in one pass. Blocks.
    pub(super) fn open(
        disk: &MemberDisk,
        name: &str,
        temporary: Option<Arc<Temporary>>,
        transfers: &Transfers,
    ) -> Result<Loaded, SnapshotError> {
        let reader: Arc<dyn FileReader> = disk.snapshots.open(name)?.into();
        let (header, hash, state) = read(reader.as_ref())?;
        let file = SnapshotFile {
            disk: disk.clone(),
            name: name.to_owned(),
            meta: header.meta,
            length: reader.len()?,
            hash,
            reader,
            temporary,
            transfers: transfers.clone(),
            arrived: None,
        };
        Ok(Loaded { file, state })
    }

    /// Up to which entry it goes, and who the members were.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The hash that its footer holds over all before it. Tells one snapshot from another.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// As openraft passes it around.
    pub fn into_snapshot(self) -> Snapshot {
        Snapshot { meta: self.meta.clone(), snapshot: self }
    }

    /// Its bytes in pieces of `size`, for sending. Ends after the first error. Until it is dropped,
    /// and for a while longer, no newer snapshot is taken and the log behind this one stays.
    pub fn chunks(&self, size: usize) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let size = size.max(1);
        let transfer = self.transfers.begin();
        stream::try_unfold((self.clone(), 0, transfer), move |(file, offset, transfer)| async move {
            if offset >= file.length {
                return Ok(None);
            }
            let piece = file.chunk(offset, size).await?;
            let next = offset + piece.len() as u64;
            Ok(Some((piece, (file, next, transfer))))
        })
    }

    async fn chunk(&self, offset: u64, size: usize) -> io::Result<Bytes> {
        let reader = self.reader.clone();
        let rest = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
        let mut piece = vec![0; size.min(rest)];
        self.disk
            .blocking(move || {
                crate::disk::read_exact_at(reader.as_ref(), &mut piece, offset)?;
                Ok(Bytes::from(piece))
            })
            .await
    }

    /// The state in it. Checks the whole file again, unless it just arrived. Blocks.
    pub(super) fn load(&mut self) -> Result<State, SnapshotError> {
        if let Some(arrived) = self.arrived.take() {
            return Ok(State::clone(&arrived));
        }
        let (_, hash, state) = read(self.reader.as_ref())?;
        if hash != self.hash {
            return Err(SnapshotError::Damaged("it is not the file that it was"));
        }
        Ok(state)
    }

    pub(super) fn is_in(&self, files: &Arc<dyn Files>) -> bool {
        Arc::ptr_eq(&self.disk.snapshots, files)
    }
}

/// Reads and checks a whole file.
fn read(file: &dyn FileReader) -> Result<(Header, [u8; 32], State), SnapshotError> {
    let mut reader = SnapshotReader::begin(file)?;
    let state = State::from_rows(&mut reader);
    // What the file says counts first: rows that end early are its fault, not the state's.
    let (header, hash) = reader.finish()?;
    let state = state?;
    if state.hash() != header.state_hash {
        return Err(SnapshotError::Damaged("its rows do not make the state that was saved"));
    }
    Ok((header, hash, state))
}
