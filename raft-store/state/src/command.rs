//! Log entries and their commands: what members may ask the state to do. A command says what is
//! wanted; whether it happens is decided in `apply`.

use crate::locks::Mode;
use crate::locks::Resource;
use crate::members::AnnouncedMember;
use crate::settings::Settings;
use crate::suspension::Reconcile;
use crate::txns::Spec;
use crate::work::Report;
use crate::workers::DomainReport;
use crate::workers::WorkerIdentity;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::PoolId;
use sdm_proto::ids::TxnId;
use sdm_proto::names::Name;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// One log entry's payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's stopwatch when it proposed this, in milliseconds of the cluster's clock.
    pub stamp_ms: u64,
    /// Random bytes of the proposer: the only source of secrets.
    pub entropy: [u8; 16],
    /// What is wanted.
    pub command: Command,
}

/// What is wanted. Stored in logs and snapshots: variants and fields are only ever added, with a
/// default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry of a cluster.
    Found(Found),
    /// Nothing but the passing of time.
    Tick,
    /// Gives a joining process its member id, or the one it has.
    AddMember(AddMember),
    /// A member reports which feature levels it supports.
    ReportMember {
        /// Its id.
        id: u64,
        /// Its program version, for people.
        version: String,
        /// Highest feature level it supports.
        feature_level_max: u32,
    },
    /// A member reports how often its folder was started, and where it is reached now.
    ReportStart {
        /// Its id.
        id: u64,
        /// This start's number.
        starts: u64,
        /// Where the others reach it.
        address: String,
    },
    /// The operator expects somebody to join under this name.
    AnnounceMember(AnnouncedMember),
    /// A member is in Raft's membership no more, and shall be none. Its id is not given again; its name is free.
    RemoveMember {
        /// Its id.
        id: u64,
    },
    /// Nobody is expected under this name any more.
    WithdrawMember {
        /// The name.
        name: Name,
    },
    /// A member enters the hash that its state had after an entry.
    ReportStateHash {
        /// Its id.
        member: u64,
        /// The entry.
        index: u64,
        /// The hash.
        hash: [u8; 32],
    },
    /// Raises the feature level, when every member supports it.
    RaiseFeatureLevel {
        /// The new level.
        level: u32,
    },
    /// Opens a session of a client or a worker.
    OpenSession(OpenSession),
    /// Ends a session of its own will.
    CloseSession(SessionRef),
    /// Ends sessions that the leader heard nothing from. Valid only for the epochs it saw.
    ExpireSessions {
        /// Which.
        sessions: Vec<SessionRef>,
    },
    /// A client session asks for a lock set of `user/…` resources.
    AcquireLocks(AcquireLocks),
    /// A client session gives a lock set back, or stops waiting for it.
    ReleaseLocks {
        /// Who.
        session: SessionRef,
        /// Its request number, rising.
        sequence: u64,
        /// Index of the entry that asked for it.
        lock: u64,
    },
    /// A worker's domains changed.
    ReportDomains {
        /// The worker's session.
        session: SessionRef,
        /// What changed.
        items: Vec<DomainReport>,
    },
    /// A worker reports on an attempt.
    ReportAttempt {
        /// The worker's session.
        session: SessionRef,
        /// The attempt.
        token: Token,
        /// What happened.
        report: Report,
    },
    /// An operator gives a session's lock set back, outside the session's numbering.
    ReleaseLockOf {
        /// Whose it is.
        session: SessionRef,
        /// Index of the entry that asked for it.
        lock: u64,
    },
    /// An operator takes a lock set away from its owner.
    BreakLock(BreakLock),
    /// Opens a transaction.
    Begin(Begin),
    /// Aborts a transaction.
    Abort {
        /// Which.
        txn: TxnId,
        /// Why, in words.
        reason: String,
    },
    /// Has a transaction that waits for its next attempt try at once.
    RetryTxn {
        /// Which.
        txn: TxnId,
        /// Who asks, for people.
        by: String,
    },
    /// Has garbage deleted that is due.
    Collect {
        /// Which.
        garbage: Vec<Token>,
    },
    /// A restored cluster takes its storage over.
    Reconcile(Reconcile),
}

/// What a cluster is founded with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// New at every bootstrap and restore.
    pub cluster_id: ClusterId,
    /// Outlives a restore.
    pub pool_id: PoolId,
    /// 1 at a bootstrap.
    pub epoch: u64,
    /// The first member.
    pub member: AddMember,
    /// Limits and policies: in the entry, so that a member of a later build with other defaults replays to the
    /// same state.
    pub settings: Settings,
}

/// A process that wants to be a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddMember {
    /// Its name, unique.
    pub name: Name,
    /// Where the others reach it.
    pub address: String,
    /// Drawn once, kept in its folder.
    pub incarnation: String,
    /// Its program version, for people.
    pub version: String,
    /// Highest feature level it supports.
    pub feature_level_max: u32,
}

/// Names a session and the opening of it that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionRef {
    /// Id: index of the entry that first opened it.
    pub id: u64,
    /// Index of the entry that opened or resumed it last.
    pub epoch: u64,
}

/// Opens a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Whose.
    pub owner: SessionOwner,
    /// Its lease in milliseconds; cut to the limits of the state.
    pub ttl_ms: u64,
    /// Drawn by the opener: the same nonce opens the same session once.
    pub nonce: String,
}

/// Whose session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SessionOwner {
    /// A client, with a label for people.
    Client(String),
    /// A worker.
    Worker(WorkerIdentity),
}

/// Asks for a lock set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcquireLocks {
    /// Who.
    pub session: SessionRef,
    /// Its request number, rising.
    pub sequence: u64,
    /// The whole set.
    pub resources: Vec<(Resource, Mode)>,
    /// How long to wait; 0 tries once.
    pub wait_ms: u64,
    /// What for, in words.
    pub why: String,
}

/// Takes a lock set away from its owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakLock {
    /// Index of the entry that asked for it.
    pub lock: u64,
    /// Why, in words; never empty.
    pub reason: String,
    /// Who, for people.
    pub by: String,
}

/// A client's lock under which a transaction is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Under {
    /// The session that holds it.
    pub session: SessionRef,
    /// Its fencing token.
    pub token: Token,
}

/// Opens a transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// The request's id, which is the transaction's.
    pub id: TxnId,
    /// Hash of the request as the user gave it.
    pub request_hash: [u8; 32],
    /// The proposing member's last moment for this copy of the request, on the cluster's clock.
    pub not_after_ms: u64,
    /// The cluster's clock at the member's linearizable read that did not know the id.
    #[serde(default)]
    pub looked_up_ms: u64,
    /// Wall clock of the member that took the request, milliseconds since 1970; shown, never compared.
    #[serde(default)]
    pub unix_ms: u64,
    /// Who asks, for people.
    pub initiator: String,
    /// Why, for the audit log.
    pub reason: String,
    /// How long to wait for locks; 0 tries once.
    pub lock_wait_ms: u64,
    /// What to do, with names resolved to ids.
    pub spec: Spec,
    /// The client's lock under which it is to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<Under>,
}

impl Command {
    /// A word for it, for logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Found(_) => "found",
            Self::Tick => "tick",
            Self::AddMember(_) => "add-member",
            Self::ReportMember { .. } => "report-member",
            Self::ReportStart { .. } => "report-start",
            Self::AnnounceMember(_) => "announce-member",
            Self::RemoveMember { .. } => "remove-member",
            Self::WithdrawMember { .. } => "withdraw-member",
            Self::ReportStateHash { .. } => "report-state-hash",
            Self::RaiseFeatureLevel { .. } => "raise-feature-level",
            Self::OpenSession(_) => "open-session",
            Self::CloseSession(_) => "close-session",
            Self::ExpireSessions { .. } => "expire-sessions",
            Self::AcquireLocks(_) => "acquire-locks",
            Self::ReleaseLocks { .. } => "release-locks",
            Self::ReportDomains { .. } => "report-domains",
            Self::ReportAttempt { .. } => "report-attempt",
            Self::ReleaseLockOf { .. } => "release-lock-of",
            Self::BreakLock(_) => "break-lock",
            Self::Begin(_) => "begin",
            Self::Abort { .. } => "abort",
            Self::RetryTxn { .. } => "retry-txn",
            Self::Collect { .. } => "collect",
            Self::Reconcile(_) => "reconcile",
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms", self.command.kind(), self.stamp_ms)
    }
}
