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
