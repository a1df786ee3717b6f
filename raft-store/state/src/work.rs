//! Work that workers do for the state: attempts of steps, jobs and deletions, and the reports on
//! them. One attempt at a time; the entry that assigns a new one has closed the one before.

use crate::domain_change::DomainContents;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;

/// Whose work an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owner {
    /// The step of a transaction.
    Step(TxnId),
    /// A job.
    Job(u64),
    /// The deletion of garbage.
    Deletion(Token),
    /// The writing of what a placement says to others.
    Projection(PlacementId),
    /// The writing of a domain's name into its metadata.
    Describe(DomainId),
}

/// The attempts of one piece of work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The current one.
    pub attempt: Option<Attempt>,
    /// How many there were.
    pub attempts: u32,
    /// Not before this, on the cluster's clock.
    pub retry_at_ms: u64,
    /// Since when it has no worker; 0 while it has one.
    pub unassigned_since_ms: u64,
    /// Of the last attempt that failed.
    pub last_error: Option<String>,
    /// Workers that said they cannot.
    pub excluded: Vec<WorkerId>,
    /// Workers at which attempts failed, the last few: others come first.
    #[serde(default)]
    pub failed_at: Vec<WorkerId>,
    /// It writes into published files: an attempt of it is over only when its worker says so, or is fenced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_place: bool,
    /// What an attempt wrote in place before it broke off may still stand in the page cache of its host: the next one
    /// sees it there only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pin>,
    /// Hosts at which an attempt was given up that may still write what others read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<Pin>,
    /// Only an attempt that was assigned in this entry or later ends it: until then a host that was given up may have
    /// written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub again_from: u64,
}

fn is_zero(index: &u64) -> bool {
    *index == 0
}

/// The host, as of one boot, that alone may go on with work in place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// Named by its worker.
    pub worker: WorkerId,
    /// The session in which that reported the attempt's end.
    pub session: u64,
    /// Of that host: another boot has lost what was not written out.
    pub boot_id: String,
}

/// One try by one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Names on storage derive from it.
    pub token: Token,
    /// From 1.
    pub number: u32,
    /// Who does it.
    pub worker: WorkerId,
    /// Who serves the source of a pull.
    pub source_worker: Option<WorkerId>,
    /// When, on the cluster's clock.
    pub assigned_ms: u64,
    /// Secret of its byte streams.
    pub ticket: Vec<u8>,
    /// How much is durable.
    pub checkpoint_bytes: u64,
    /// When the missing other end of its byte stream ends it; 0 while connected or not needed.
    pub peer_deadline_ms: u64,
    /// Since when a worker reports storage that the attempt needs unreachable; 0 while none does.
    #[serde(default)]
    pub unreachable_since_ms: u64,
    /// Of a merge in place that is to be aborted: it only makes durable what was written before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settles: bool,
}

/// What happened to an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// So much is durable.
    Checkpoint {
        /// Bytes.
        durable_bytes: u64,
    },
    /// The command at the other end of the byte stream came or went.
    Peer {
        /// Whether it is there.
        connected: bool,
    },
    /// All is done, durable and published.
    Done {
        /// The volumes as they lie there; empty for a deletion or a domain.
        volumes: Vec<VolumeResult>,
        /// Bytes moved or freed.
        bytes: u64,
    },
    /// A piece of a domain's catalog was read.
    Catalog {
        /// The detach that wrote it, as it says.
        detached_at: u64,
        /// Which, as it says.
        piece: u32,
        /// What it holds.
        contents: Box<DomainContents>,
    },
    /// It cannot be done, and repeating it would not help.
    Refused(Refusal),
    /// It failed; another attempt may succeed.
    Failed {
        /// Stable code.
        reason: String,
        /// In words.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Its process was reaped before it was done.
    Stopped,
}

/// A volume as an attempt left it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeResult {
    /// Which.
    pub volume: VolumeId,
    /// What a guest sees, in bytes.
    pub virtual_size: u64,
    /// Length of the file.
    pub file_size: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// BLAKE3 of the file's bytes, where it was read whole.
    pub blake3: Option<[u8; 32]>,
}
