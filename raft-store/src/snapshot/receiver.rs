//! Taking a snapshot from a peer into a temporary file. Nothing of it counts before it has arrived
//! whole, is synced and is what was announced; dropped earlier, the file goes.

use super::file::SnapshotFile;
use super::folder::Loaded;
use super::folder::SnapshotFolder;
use super::folder::Temporary;
use super::format::SnapshotError;
use crate::disk::FileWriter;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// A snapshot that is arriving.
#[derive(Debug)]
pub struct SnapshotReceiver {
    folder: SnapshotFolder,
    /// Away only while a piece is written.
    file: Option<Box<dyn FileWriter>>,
    temporary: Arc<Temporary>,
    announced: u64,
    received: u64,
}

impl SnapshotReceiver {
    /// Makes the temporary file for a snapshot of `length` bytes.
    ///
    /// # Errors
    /// The file system's.
    pub async fn begin(folder: &SnapshotFolder, length: u64) -> io::Result<Self> {
        let maker = folder.clone();
        let (temporary, file) = folder.disk().blocking(move || maker.create_temporary()).await?;
        Ok(SnapshotReceiver { folder: folder.clone(), file: Some(file), temporary, announced: length, received: 0 })
    }

    /// Writes the next piece.
    ///
    /// # Errors
    /// When more arrives than was announced, or the file system's. The transfer is then over.
    pub async fn append(&mut self, piece: Bytes) -> Result<(), SnapshotError> {
        self.received += piece.len() as u64;
        let Some(mut file) = self.file.take().filter(|_| self.received <= self.announced) else {
            return Err(SnapshotError::Other);
        };
        let written = self
            .folder
            .disk()
            .blocking(move || {
                file.append(&piece)?;
                Ok(file)
            })
            .await?;
        self.file = Some(written);
        Ok(())
    }

    /// Syncs the file, checks all of it and loads the state in it: what cannot be installed is
    /// refused here, before Raft gives up any of its log for it.
    ///
    /// # Errors
    /// When it is not the snapshot of this length and hash, when it is damaged or of a newer version,
    /// or the file system's.
    pub async fn finish(mut self, hash: [u8; 32]) -> Result<SnapshotFile, SnapshotError> {
        let Some(mut file) = self.file.take().filter(|_| self.received == self.announced) else {
            return Err(SnapshotError::Other);
        };
        let (folder, temporary) = (self.folder.clone(), self.temporary.clone());
        let received = self
            .folder
            .disk()
            .blocking(move || {
                file.sync()?;
                let (disk, transfers) = (folder.disk(), folder.transfers());
                Ok(SnapshotFile::open(disk, temporary.name(), Some(temporary.clone()), transfers))
            })
            .await?;
        let Loaded { mut file, state } = received?;
        if file.hash != hash {
            return Err(SnapshotError::Other);
        }
        file.arrived = Some(Arc::new(state));
        Ok(file)
    }
}
