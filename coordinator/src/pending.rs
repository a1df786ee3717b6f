//! What a member still has to do before it is one: finish its founding, or its admission. Written
//! before the first step is taken and removed after the last, so that a process that died between
//! two of them goes on where it was, whatever it is told at its next start.

use crate::error::MemberError;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::disk::Files;
use sdm_raft_store::disk::read_exact_at;
use serde::Deserialize;
use serde::Serialize;
use std::io;
use std::sync::Arc;
use uuid::Uuid;

/// Beside the identity; the name tells the folder's check that it belongs to it.
const PENDING_FILE: &str = "identity.json.pending";
const TEMPORARY: &str = "identity.json.pending.tmp";

/// A larger file is not ours.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What is still to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pending {
    /// This member founds its cluster.
    Founding,
    /// It joins one.
    Joining {
        /// A member of it.
        via: String,
        /// It shall never vote.
        stay_learner: bool,
        /// Tells the repetition of a join from somebody else under the same name.
        incarnation: Uuid,
    },
}

/// Where that is kept: in the member's folder.
#[derive(Clone, Debug)]
pub(crate) struct PendingFile {
    disk: MemberDisk,
}

impl PendingFile {
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
        done.map_err(|source| MemberError::Pending { operation, file: PENDING_FILE, source })
    }

    /// What is still to be done.
    pub async fn read(&self) -> Result<Option<Pending>, MemberError> {
        self.on_disk("read", read).await
    }

    /// Keeps it: durable when this returns.
    pub async fn write(&self, pending: Pending) -> Result<(), MemberError> {
        self.on_disk("write", move |files| {
            let mut file = files.create(TEMPORARY)?;
            file.append(&serde_json::to_vec_pretty(&pending)?)?;
            file.sync()?;
            files.publish(TEMPORARY, PENDING_FILE)
        })
        .await
    }

    /// Nothing is left to do. If a crash undoes it, the last step is done once more.
    pub async fn clear(&self) -> Result<(), MemberError> {
        self.on_disk("remove", |files| match files.remove(PENDING_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
        .await
    }
}

fn read(files: &dyn Files) -> io::Result<Option<Pending>> {
    let file = match files.open(PENDING_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; usize::try_from(file.len()?.min(FILE_BYTES_MAX)).map_err(io::Error::other)?];
    read_exact_at(file.as_ref(), &mut bytes, 0)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_raft_store::SimulatedDisk;
    use sdm_raft_store::disk::Crash;

    #[tokio::test]
    async fn what_is_pending_is_there_after_a_crash_until_it_is_cleared() {
        let machine = SimulatedDisk::new();
        let restarted = || {
            machine.crash(Crash::LoseUnsynced);
            PendingFile::of(&machine.start())
        };
        assert_eq!(restarted().read().await.unwrap(), None);
        let pending = Pending::Joining { via: "a:1".to_owned(), stay_learner: true, incarnation: Uuid::from_u128(7) };
        restarted().write(pending.clone()).await.unwrap();
        let file = restarted();
        assert_eq!(file.read().await.unwrap(), Some(pending));
        file.clear().await.unwrap();
        file.clear().await.unwrap();
        assert_eq!(file.read().await.unwrap(), None);
    }
}
