//! What a member still has to do before it is one: finish its founding, or its admission. Written
//! before the first step is taken and removed after the last, so that a process that died between
//! two of them goes on where it was, whatever it is told at its next start.

use crate::error::MemberError;
use sdm_proto::seams::BlockingPool;
use serde::Deserialize;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use uuid::Uuid;

/// Beside the identity; the name tells the folder's check that it belongs to it.
const PENDING_FILE: &str = "identity.json.pending";
const TEMPORARY: &str = "identity.json.pending.tmp";

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

/// Where that is kept.
#[derive(Clone, Debug)]
pub(crate) enum PendingFile {
    /// In the member's folder.
    Folder(PathBuf, BlockingPool),
    /// In memory, under a simulated disk.
    Memory(Arc<Mutex<Option<Pending>>>),
}

impl PendingFile {
    fn failed(&self, operation: &'static str, source: io::Error) -> MemberError {
        let path = match self {
            Self::Folder(folder, _) => folder.join(PENDING_FILE),
            Self::Memory(_) => PENDING_FILE.into(),
        };
        MemberError::Pending { operation, path, source }
    }

    /// What is still to be done.
    pub async fn read(&self) -> Result<Option<Pending>, MemberError> {
        match self {
            Self::Memory(kept) => Ok(kept.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            Self::Folder(folder, pool) => {
                let path = folder.join(PENDING_FILE);
                let read = pool.run(move || read(&path)).await.and_then(|read| read);
                read.map_err(|source| self.failed("read", source))
            }
        }
    }

    /// Keeps it: durable when this returns.
    pub async fn write(&self, pending: Pending) -> Result<(), MemberError> {
        match self {
            Self::Memory(kept) => {
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
                Ok(())
            }
            Self::Folder(folder, pool) => {
                let folder = folder.clone();
                let written = pool.run(move || write(&folder, &pending)).await.and_then(|written| written);
                written.map_err(|source| self.failed("write", source))
            }
        }
    }

    /// Nothing is left to do. If a crash undoes it, the last step is done once more.
    pub async fn clear(&self) -> Result<(), MemberError> {
        match self {
            Self::Memory(kept) => {
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(())
            }
            Self::Folder(folder, pool) => {
                let path = folder.join(PENDING_FILE);
                let removed = pool.run(move || match std::fs::remove_file(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    removed => removed,
                });
                removed.await.and_then(|removed| removed).map_err(|source| self.failed("remove", source))
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Option<Pending>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(folder: &Path, pending: &Pending) -> io::Result<()> {
    let temporary = folder.join(TEMPORARY);
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(pending)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join(PENDING_FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_pending_is_there_after_a_restart_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let file = || PendingFile::Folder(folder.path().to_owned(), BlockingPool::Threads);
        assert_eq!(file().read().await.unwrap(), None);
        let pending = Pending::Joining { via: "a:1".to_owned(), stay_learner: true, incarnation: Uuid::from_u128(7) };
        file().write(pending.clone()).await.unwrap();
        assert_eq!(file().read().await.unwrap(), Some(pending));
        file().clear().await.unwrap();
        file().clear().await.unwrap();
        assert_eq!(file().read().await.unwrap(), None);
    }
}
