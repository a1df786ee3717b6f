//! Ids: one type each, so that a disk's id is never taken for a volume's. What they name, and who
//! draws them, is the state's affair.

use serde::Deserialize;
use serde::Serialize;
use std::cmp::Ordering;
use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::marker::PhantomData;
use std::str::FromStr;
use uuid::Uuid;

/// A UUID that names a `K`.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Id<K> {
    uuid: Uuid,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

/// Marks the id of a cluster: new at every bootstrap and every restore.
pub enum Cluster {}
/// Marks the id of a pool: it outlives a restore.
pub enum Pool {}
/// Marks the id of a storage domain.
pub enum Domain {}
/// Marks the id of a disk.
pub enum Disk {}
/// Marks the id of a volume.
pub enum Volume {}
/// Marks the id of a placement: used once, derived from its attempt's token.
pub enum Placement {}
/// Marks the id of a transaction: the id of the request that began it.
pub enum Txn {}
/// Marks the identity of a worker.
pub enum Worker {}

/// Id of a cluster.
pub type ClusterId = Id<Cluster>;
/// Id of a pool.
pub type PoolId = Id<Pool>;
/// Id of a storage domain.
pub type DomainId = Id<Domain>;
/// Id of a disk.
pub type DiskId = Id<Disk>;
/// Id of a volume.
pub type VolumeId = Id<Volume>;
/// Id of a placement.
pub type PlacementId = Id<Placement>;
/// Id of a transaction.
pub type TxnId = Id<Txn>;
/// Identity of a worker.
pub type WorkerId = Id<Worker>;

impl<K> Id<K> {
    /// Takes a UUID as it is.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self { uuid, kind: PhantomData }
    }

    /// The UUID itself.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.uuid
    }

    /// Its sixteen bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8] {
        self.uuid.as_bytes()
    }

    /// The id that belongs to these bytes: the same for the same purpose and parts, for ever. The
    /// result is marked as a UUID of version 4, which is what oVirt's tools expect to read.
    #[must_use]
    pub fn derive(purpose: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("sdm 2026 derived ids");
        hasher.update(&(purpose.len() as u64).to_le_bytes());
        hasher.update(purpose.as_bytes());
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Self::from_uuid(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.uuid.cmp(&other.uuid)
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}
impl<K> Default for Id<K> {
    fn default() -> Self {
        Self::from_uuid(Uuid::nil())
    }
}
impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.hyphenated().fmt(f)
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a UUID")]
pub struct NotAnId {
    text: String,
}

impl<K> FromStr for Id<K> {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        Uuid::try_parse(text).map(Self::from_uuid).map_err(|_| NotAnId { text: text.chars().take(64).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_depend_on_purpose_and_on_where_parts_end() {
        let id = |purpose, parts: &[&[u8]]| PlacementId::derive(purpose, parts);
        assert_eq!(id("a", &[b"xy"]), id("a", &[b"xy"]));
        assert_ne!(id("a", &[b"xy"]), id("b", &[b"xy"]));
        assert_ne!(id("a", &[b"xy"]), id("a", &[b"x", b"y"]));
    }

    #[test]
    fn derived_ids_read_as_uuids_of_version_4() {
        assert_eq!(DiskId::derive("disk", &[b"1"]).uuid().get_version_num(), 4);
    }
}
