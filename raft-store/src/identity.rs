//! Who a member is: one small file in its folder, written before its Raft starts and believed only
//! if its checksum is right. Without it a folder is nobody's; with it a folder is one member's for
//! good, since a node id is never given twice.

use crate::disk::Files;
use crate::disk::MemberDisk;
use crate::disk::read_exact_at;
use crate::fatal::REPLACE_MEMBER;
use crate::log::WITNESS_FILE;
use crate::types::NodeId;
use sdm_proto::failpoint;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::PoolId;
use serde::Deserialize;
use serde::Serialize;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use uuid::Uuid;

/// The file's name in the member's folder.
pub(crate) const IDENTITY_FILE: &str = "identity.json";
const TEMPORARY: &str = "identity.json.tmp";
/// 2: the folder's log may be in a form that builds which know format 1 only take for damage, or for none at
/// all. They read the identity first, and say what they need.
const FORMAT: u32 = 2;

/// Behind every key of a log, and no longer than one may be.
const LAST_KEY: [u8; 8] = [u8::MAX; 8];

/// A larger file is not ours.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster; a restore makes a new one.
    pub cluster_id: ClusterId,
    /// The pool that the cluster manages; it outlives a restore.
    pub pool_id: PoolId,
    /// How often the pool was restored.
    pub epoch: u64,
    /// The member's number in the cluster.
    pub node_id: NodeId,
    /// The name that the operator gave it.
    pub name: String,
    /// Drawn when this folder became a member: tells it from an earlier one of the same name.
    pub incarnation: Uuid,
}

impl Identity {
    /// Whose log this is, in words that stay the same for the folder's life.
    pub(crate) fn owner(&self) -> String {
        format!("member {} ({}) of cluster {}", self.node_id, self.incarnation, self.cluster_id)
    }
}

/// Why an identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Its bytes are not what was written.
    #[error("{IDENTITY_FILE} is damaged: {0}; restore the file from a copy, or: {REPLACE_MEMBER}")]
    Damaged(String),
    /// A newer version of sdm wrote it.
    #[error("{IDENTITY_FILE} has format {0}; start this member with the newer version of sdm")]
    Newer(u32),
    /// Something of a member is there, and nothing says whose it is.
    #[error("the data folder holds {0} and no {IDENTITY_FILE}: it is damaged, and nobody can say whose it is")]
    Gone(&'static str),
    /// It could not be read or written.
    #[error("cannot {operation} {IDENTITY_FILE}: {source}; check the data folder and its disk")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl IdentityError {
    /// Whether what is there is not what was written.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Gone(_))
    }

    /// Whether a newer version of sdm wrote it.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Newer(_))
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// CRC-32C of the identity as compact JSON.
    crc32c: u32,
    identity: serde_json::Value,
}

/// The identity in a member's folder.
#[derive(Clone, Debug)]
pub struct IdentityFile {
    disk: MemberDisk,
}

impl IdentityFile {
    /// The identity of this disk's member.
    pub fn of(disk: &MemberDisk) -> Self {
        IdentityFile { disk: disk.clone() }
    }

    /// Reads it. None: this folder was never a member's.
    ///
    /// # Errors
    /// When it is damaged, of a newer version, or cannot be read.
    pub async fn read(&self) -> Result<Option<Identity>, IdentityError> {
        let files = self.disk.root.clone();
        let bytes = self.disk.blocking(move || read_all(&files)).await;
        match bytes {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => decode(&bytes).map(Some),
            Err(source) => Err(IdentityError::Io { operation: "read", source }),
        }
    }

    /// Has builds refuse the folder that could not read what this one writes into it: to be called before
    /// anything else in the folder is touched. Nothing is done where it is so already.
    ///
    /// # Errors
    /// The file system's, or it cannot be read.
    pub async fn claim(&self) -> Result<(), IdentityError> {
        let files = self.disk.root.clone();
        let bytes = self.disk.blocking(move || read_all(&files)).await;
        let bytes = bytes.map_err(|source| IdentityError::Io { operation: "read", source })?;
        match bytes.as_deref().map(decode_with_format).transpose()? {
            Some((identity, format)) if format < FORMAT => self.write(&identity).await,
            _ => Ok(()),
        }
    }

    /// Refuses a folder that has no identity and is not empty either. An identity is written before
    /// anything else of a member, so what is there is left of one, and must not be founded or joined over.
    ///
    /// # Errors
    /// `Gone`; it cannot be looked at.
    pub async fn refuse_remains(&self) -> Result<(), IdentityError> {
        let disk = self.disk.clone();
        let look = move || {
            if disk.root.names()?.iter().any(|name| name == WITNESS_FILE) {
                return Ok(Some("the witness of a log"));
            }
            if !disk.snapshots.names()?.is_empty() {
                return Ok(Some("snapshots"));
            }
            let mut entries = false;
            disk.log.scan(&[], &LAST_KEY, &mut |_, _| {
                entries = true;
                ControlFlow::Break(())
            })?;
            Ok(entries.then_some("a log"))
        };
        match self.disk.blocking(look).await {
            Ok(None) => Ok(()),
            Ok(Some(found)) => Err(IdentityError::Gone(found)),
            Err(source) => Err(IdentityError::Io { operation: "look for what is left without", source }),
        }
    }

    /// Writes it: afterwards it is durable, and it is never half there.
    ///
    /// # Errors
    /// The file system's.
    pub async fn write(&self, identity: &Identity) -> Result<(), IdentityError> {
        let failed = |source| IdentityError::Io { operation: "write", source };
        let bytes = encode(identity).map_err(failed)?;
        let files = self.disk.root.clone();
        let write = move || {
            failpoint::hit("identity.write.before")?;
            let mut file = files.create(TEMPORARY)?;
            file.append(&bytes)?;
            file.sync()?;
            files.publish(TEMPORARY, IDENTITY_FILE)?;
            failpoint::hit("identity.write.after")
        };
        self.disk.blocking(write).await.map_err(failed)
    }
}

fn read_all(files: &Arc<dyn Files>) -> io::Result<Option<Vec<u8>>> {
    let file = match files.open(IDENTITY_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.len()?.min(FILE_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    read_exact_at(file.as_ref(), &mut bytes, 0)?;
    Ok(Some(bytes))
}

fn encode(identity: &Identity) -> io::Result<Vec<u8>> {
    let identity = serde_json::to_value(identity)?;
    let crc32c = crc32c::crc32c(identity.to_string().as_bytes());
    let mut bytes = serde_json::to_vec_pretty(&Stored { format: FORMAT, crc32c, identity })?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Identity, IdentityError> {
    decode_with_format(bytes).map(|(identity, _)| identity)
}

fn decode_with_format(bytes: &[u8]) -> Result<(Identity, u32), IdentityError> {
    let damaged = |error: serde_json::Error| IdentityError::Damaged(error.to_string());
    let stored: Stored = serde_json::from_slice(bytes).map_err(damaged)?;
    if stored.format > FORMAT {
        return Err(IdentityError::Newer(stored.format));
    }
    if crc32c::crc32c(stored.identity.to_string().as_bytes()) != stored.crc32c {
        return Err(IdentityError::Damaged("its checksum is wrong".to_owned()));
    }
    Ok((serde_json::from_value(stored.identity).map_err(damaged)?, stored.format))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Crash;
    use crate::disk::SimulatedDisk;

    fn identity() -> Identity {
        Identity {
            cluster_id: ClusterId::from_uuid(Uuid::from_u128(1)),
            pool_id: PoolId::from_uuid(Uuid::from_u128(2)),
            epoch: 3,
            node_id: 4,
            name: "alpha".to_owned(),
            incarnation: Uuid::from_u128(5),
        }
    }

    #[tokio::test]
    async fn a_written_identity_survives_a_crash() {
        let machine = SimulatedDisk::new();
        let file = IdentityFile::of(&machine.start());
        assert_eq!(file.read().await.expect("readable"), None);
        file.write(&identity()).await.expect("written");
        machine.crash(Crash::LoseUnsynced);
        let file = IdentityFile::of(&machine.start());
        assert_eq!(file.read().await.expect("readable"), Some(identity()));
    }

    #[tokio::test]
    async fn an_identity_that_could_not_be_synced_leaves_the_old_one() {
        let machine = SimulatedDisk::new();
        let file = IdentityFile::of(&machine.start());
        file.write(&identity()).await.expect("written");
        machine.fail_syncs(io::ErrorKind::Other);
        let changed = Identity { epoch: 9, ..identity() };
        assert!(file.write(&changed).await.is_err());
        machine.crash(Crash::LoseUnsynced);
        let file = IdentityFile::of(&machine.start());
        assert_eq!(file.read().await.expect("readable"), Some(identity()));
    }

    #[tokio::test]
    async fn a_folder_of_an_earlier_build_is_claimed_once_and_of_a_newer_one_never() {
        let disk = SimulatedDisk::new().start();
        let file = IdentityFile::of(&disk);
        file.claim().await.expect("there is none");
        file.write(&identity()).await.expect("written");
        let stored = read_all(&disk.root).expect("readable").expect("there");
        let of_format = |format: u32| {
            let mut stored: Stored = serde_json::from_slice(&stored).expect("ours");
            stored.format = format;
            serde_json::to_vec(&stored).expect("encodable")
        };
        let put = |bytes: Vec<u8>| {
            let mut new = disk.root.create(TEMPORARY).expect("made");
            new.append(&bytes).expect("written");
            new.sync().expect("synced");
            disk.root.publish(TEMPORARY, IDENTITY_FILE).expect("named");
        };
        put(of_format(1));
        assert_eq!(file.read().await.expect("readable"), Some(identity()));
        file.claim().await.expect("claimed");
        assert_eq!(read_all(&disk.root).expect("readable"), Some(stored.clone()));
        put(of_format(FORMAT + 1));
        assert!(matches!(file.claim().await, Err(IdentityError::Newer(newer)) if newer == FORMAT + 1));
    }

    #[test]
    fn a_changed_identity_is_refused() {
        let bytes = encode(&identity()).expect("encodable");
        assert_eq!(decode(&bytes).expect("good"), identity());
        let text = String::from_utf8(bytes).expect("text").replace("alpha", "omega");
        assert!(matches!(decode(text.as_bytes()), Err(IdentityError::Damaged(_))));
        assert!(matches!(decode(b"{"), Err(IdentityError::Damaged(_))));
    }
}
