//! Jobs: the data-moving part of a transaction. One job builds, or reads, one placement.

use crate::work::Work;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use serde::Deserialize;
use serde::Serialize;

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Index of the entry that made it.
    pub id: u64,
    /// Of which transaction.
    pub txn: TxnId,
    /// The domain that is written; None for an export.
    pub target: Option<DomainId>,
    /// The domain that is read; None for an import.
    pub source: Option<DomainId>,
    /// What it is to move, as far as known.
    pub total_bytes: u64,
    /// Promised on the target's file system.
    pub reserved_bytes: u64,
    /// Its attempts.
    pub work: Work,
}
