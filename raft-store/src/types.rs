//! The one choice of openraft's types, and plain names for them. The rest of the workspace uses
//! these names, so that a new alpha of openraft touches few files.
//!
//! Leader ids are `leader_id_adv`: several candidates of one term are ordered by node id, so two
//! members that stand at once settle it in that term instead of waiting for another timeout, and a
//! log id names the leader that wrote it, which status and logs show. It is openraft's default and
//! the variant that its own tests exercise most.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// A member's number in the cluster. Never used twice, not even after a member was removed.
pub type NodeId = u64;

/// What the cluster's membership says about a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNode {
    /// The name that the operator gave it; shown, never compared.
    pub name: String,
    /// Where the other members and the clients reach it: `host:port`.
    pub address: String,
}

impl fmt::Display for MemberNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

openraft::declare_raft_types!(
    /// The types that this cluster's Raft works with.
    pub TypeConfig:
        D = sdm_state::Entry,
        R = sdm_state::Reply,
        NodeId = NodeId,
        Node = MemberNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_adv::LeaderId<Self::Term, Self::NodeId>,
);

/// The Raft of this cluster.
pub type Raft = openraft::Raft<TypeConfig, crate::raft::StateMachine>;
/// Term and node of a leader.
pub type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, NodeId>;
/// Leader and index of a log entry.
pub type LogId = openraft::LogId<LeaderId>;
/// A vote, given or won.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// A log entry: a log id with nothing, a membership or one of our entries.
pub type LogEntry = openraft::alias::EntryOf<TypeConfig>;
/// What a log entry carries.
pub type Payload = openraft::alias::PayloadOf<TypeConfig>;
/// Who the members are.
pub type Membership = openraft::Membership<NodeId, MemberNode>;
/// Who the members are, and which log entry said so.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What openraft knows about a snapshot.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot as openraft passes it around.
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, crate::snapshot::SnapshotFile>;
/// Called by the log once a write is durable.
pub type IoFlushed = openraft::storage::IOFlushed<TypeConfig>;
