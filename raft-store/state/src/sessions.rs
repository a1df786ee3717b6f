//! Sessions: leases of clients and workers. Keepalives stay in the leader's memory; only opening,
//! closing and expiry are entries.

use crate::command::SessionRef;
use crate::reply::Reply;
use sdm_proto::ids::WorkerId;
use serde::Deserialize;
use serde::Serialize;

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Index of the entry that first opened it.
    pub id: u64,
    /// Index of the entry that opened or resumed it last.
    pub epoch: u64,
    /// Whose.
    pub holder: Holder,
    /// Its lease, in milliseconds.
    pub ttl_ms: u64,
    /// When it was opened, on the cluster's clock.
    pub opened_ms: u64,
    /// Drawn by the opener.
    pub nonce: String,
    /// Number of the last request that was done under it ...
    pub last_sequence: u64,
    /// ... and its answer, for a repetition.
    pub last_reply: Option<Reply>,
    /// Locks that operators took away from it, the last few: its holder learns of them when it renews its lease.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<BrokenLock>,
}

/// Broken locks that a session's row names: a holder of many learns that some are gone, and stops.
pub const BROKEN_KEPT: usize = 8;

/// A lock that was taken away from a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BrokenLock {
    /// Which.
    pub lock: u64,
    /// When, on the cluster's clock.
    pub at_ms: u64,
    /// By whom, for people.
    pub by: String,
    /// Why, in words.
    pub reason: String,
}

/// Whose session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Holder {
    /// A client, with a label for people.
    Client(String),
    /// A worker.
    Worker(WorkerId),
}

impl Session {
    /// Names this opening of it.
    #[must_use]
    pub fn reference(&self) -> SessionRef {
        SessionRef { id: self.id, epoch: self.epoch }
    }
}
