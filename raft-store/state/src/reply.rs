//! What `apply` answers to the proposer of an entry.

use crate::command::SessionRef;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Done; there is nothing to say.
    Done,
    /// The transaction under the request's id, new or known: read its row for its phase.
    Txn(TxnId),
    /// The session.
    Session {
        /// Which.
        session: SessionRef,
        /// Its lease, in milliseconds.
        ttl_ms: u64,
    },
    /// The member's id.
    Member(u64),
    /// A lock set.
    Lock {
        /// Index of the entry that asked.
        id: u64,
        /// Fencing token; None while it waits.
        token: Option<Token>,
    },
    /// Garbage whose deletion is assigned now.
    Collected(Vec<Token>),
    /// Refused; nothing changed but what the refusal says.
    Refused(Refusal),
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Txn(id) => write!(f, "transaction {id}"),
            Self::Session { session, .. } => write!(f, "session {}", session.id),
            Self::Member(id) => write!(f, "member {id}"),
            Self::Lock { id, token: Some(token) } => write!(f, "lock {id} granted as {token}"),
            Self::Lock { id, token: None } => write!(f, "lock {id} waits"),
            Self::Collected(tokens) => write!(f, "{} deletions assigned", tokens.len()),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}
