//! How often this member's folder was started: counted up and fsynced before each start takes part in
//! anything. The cluster keeps the highest count that it was told. A folder that counts fewer is an old
//! copy: it lacks what was acknowledged since, and a vote from it could undo that.

use crate::error::MemberError;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::disk::Files;
use sdm_raft_store::disk::read_exact_at;
use serde::Deserialize;
use serde::Serialize;
use std::io;
use std::sync::Arc;

/// Beside the identity; the name tells the folder's check that it belongs to it.
const STARTS_FILE: &str = "identity.json.starts";
const TEMPORARY: &str = "identity.json.starts.tmp";

/// A larger file is not ours.
const FILE_BYTES_MAX: u64 = 4 << 10;

#[derive(Serialize, Deserialize)]
struct Stored {
    starts: u64,
    /// CRC-32C of the number in little-endian.
    crc32c: u32,
}

/// Where the count is kept: in the member's folder.
#[derive(Clone, Debug)]
pub(crate) struct StartsFile {
    disk: MemberDisk,
}

impl StartsFile {
    /// That of this disk's member.
    pub fn of(disk: &MemberDisk) -> Self {
        Self { disk: disk.clone() }
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&dyn Files) -> io::Result<T> + Send + 'static,
    ) -> Result<T, MemberError> {
        let files: Arc<dyn Files> = self.disk.root();
        let done = self.disk.blocking(move || work(files.as_ref())).await;
        done.map_err(|source| MemberError::Pending { operation, file: STARTS_FILE, source })
    }

    /// How often it was started; 0: never, or by a build that did not count.
    pub async fn read(&self) -> Result<u64, MemberError> {
        self.on_disk("read", read).await
    }

    /// Keeps it: durable when this returns.
    pub async fn write(&self, starts: u64) -> Result<(), MemberError> {
        self.on_disk("write", move |files| {
            let stored = Stored { starts, crc32c: crc32c::crc32c(&starts.to_le_bytes()) };
            let mut file = files.create(TEMPORARY)?;
            file.append(&serde_json::to_vec_pretty(&stored)?)?;
            file.sync()?;
            files.publish(TEMPORARY, STARTS_FILE)
        })
        .await
    }
}

fn read(files: &dyn Files) -> io::Result<u64> {
    let file = match files.open(STARTS_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; usize::try_from(file.len()?.min(FILE_BYTES_MAX)).map_err(io::Error::other)?];
    read_exact_at(file.as_ref(), &mut bytes, 0)?;
    let stored: Stored = serde_json::from_slice(&bytes)?;
    if crc32c::crc32c(&stored.starts.to_le_bytes()) != stored.crc32c {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong"));
    }
    Ok(stored.starts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_raft_store::SimulatedDisk;
    use sdm_raft_store::disk::Crash;

    #[tokio::test]
    async fn a_count_that_was_written_is_there_after_a_crash() {
        let machine = SimulatedDisk::new();
        for starts in 0..3 {
            let file = StartsFile::of(&machine.start());
            assert_eq!(file.read().await.unwrap(), starts);
            file.write(starts + 1).await.unwrap();
            machine.crash(Crash::LoseUnsynced);
        }
    }
}
