//! The handle that every service and every loop of a member works with: propose, read, keep
//! sessions alive, look at what was applied. It hides who leads and where. It knows nothing of
//! what the commands mean.

use crate::check_in::Standing;
use crate::ending::Ending;
use crate::forward::Lines;
use crate::keepalive::Leases;
use crate::keepalive::Renewal;
use crate::leadership::Leadership;
use crate::peers::Peers;
use crate::reachability::Reachability;
use crate::rounds::Rounds;
use crate::shown_clock::ShownClock;
use crate::stopwatch::Stopwatch;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::names::Name;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::Clock;
use sdm_proto::seams::Transport;
use sdm_raft_store::LogId;
use sdm_raft_store::NodeId;
use sdm_raft_store::Raft;
use sdm_raft_store::RowWatch;
use sdm_raft_store::SnapshotFolder;
use sdm_raft_store::StateView;
use sdm_raft_store::ViewHandle;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::Touched;
use sdm_state::command::SessionRef;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposed {
    /// Log index of its entry.
    pub index: u64,
    /// What `apply` answered.
    pub reply: Reply,
}

/// A member's handle on its cluster. Clones share it.
#[derive(Clone)]
pub struct Core {
    pub(crate) inner: Arc<Inner>,
}

/// What the handle is made of.
pub(crate) struct Inner {
    pub name: Name,
    pub node_id: NodeId,
    pub raft: Raft,
    pub view: ViewHandle,
    pub snapshots: SnapshotFolder,
    pub leadership: watch::Receiver<Leadership>,
    pub clock: Arc<dyn Clock>,
    pub peers: Peers,
    pub lines: Lines,
    pub stopwatch: Stopwatch,
    pub shown_clock: ShownClock,
    pub leases: Leases,
    pub reads: Rounds<(), LogId>,
    pub renewals: Rounds<Vec<SessionRef>, Renewal>,
    pub reachability: Reachability,
    pub standing: Standing,
    /// Held by whoever changes the membership.
    pub membership: tokio::sync::Mutex<()>,
    pub ending: Ending,
    pub closing: CancellationToken,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("name", &self.inner.name)
            .field("node", &self.inner.node_id)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Proposes through the leader (this member or one hop) and waits for the answer of `apply`.
    /// While no leader is known the request is held. Afterwards [`Core::view`] on this member
    /// contains the entry.
    ///
    /// # Errors
    /// COMMAND_TOO_LARGE; NO_QUORUM when the deadline passed (the command may still be applied:
    /// repeat it under the same id); MEMBER_BEHIND when it was applied, but not yet here. What
    /// `apply` refuses is a reply, not an error.
    pub async fn propose(&self, command: Command, deadline: Instant) -> Result<Proposed, Refusal> {
        crate::propose::propose(self, command, deadline).await
    }

    /// The same for whom the answer says all: this member may not have applied the entry yet, which at a
    /// follower takes until the leader's next message.
    ///
    /// # Errors
    /// As [`Core::propose`], MEMBER_BEHIND excepted.
    pub async fn propose_answer(&self, command: Command, deadline: Instant) -> Result<Proposed, Refusal> {
        crate::propose::propose_answer(self, command, deadline).await
    }

    /// Waits until this member has applied an entry.
    ///
    /// # Errors
    /// MEMBER_BEHIND when the deadline passed.
    pub async fn applied_here(&self, index: u64, deadline: Instant) -> Result<(), Refusal> {
        crate::propose::applied_here(self, index, deadline).await
    }

    /// A view that contains everything that was committed before this call, on any member.
    /// Concurrent readers share rounds.
    ///
    /// # Errors
    /// NO_QUORUM when the deadline passed.
    pub async fn read(&self, deadline: Instant) -> Result<Arc<StateView>, Refusal> {
        crate::read::read(self, deadline).await
    }

    /// Renews sessions at the leader; answers with those that it renewed. Their lease counts from
    /// the moment this was called. The others are unknown, expired, or about to be.
    ///
    /// # Errors
    /// NO_QUORUM when the deadline passed.
    pub async fn keep_alive(&self, sessions: Vec<SessionRef>, deadline: Instant) -> Result<Vec<SessionRef>, Refusal> {
        crate::keepalive::keep_alive(self, sessions, deadline).await
    }

    /// What this member has applied: perhaps old, never wrong.
    #[must_use]
    pub fn view(&self) -> Arc<StateView> {
        self.inner.view.load()
    }

    /// Changes whenever something was applied: the index of the last entry.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<u64>> {
        self.inner.view.changes()
    }

    /// Watches one row of the applied state: a lock set, or a transaction with its step or job. It is not woken by what
    /// happens to others, so any number of requests may wait.
    #[must_use]
    pub fn watch_row(&self, row: Touched) -> RowWatch {
        self.inner.view.watch_row(row)
    }

    /// This member's name.
    #[must_use]
    pub fn member_name(&self) -> &Name {
        &self.inner.name
    }

    /// How often connections to the leader were refused here while a majority still had it.
    #[must_use]
    pub fn refused_alone(&self) -> u64 {
        self.inner.reachability.refused_alone()
    }

    /// This member's id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.inner.node_id
    }

    /// The clock that leases and deadlines are counted on.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// How connections are made.
    #[must_use]
    pub fn transport(&self) -> &Arc<dyn Transport> {
        self.inner.peers.transport()
    }

    /// The cluster's secret.
    #[must_use]
    pub fn secret(&self) -> &ClusterSecret {
        self.inner.peers.secret()
    }

    /// Who this member is to others.
    #[must_use]
    pub fn identity(&self) -> &OwnIdentity {
        self.inner.peers.identity()
    }

    /// Credentials for an internal call to this peer (`member/3`, `worker/UUID`; empty when its
    /// name is not known).
    #[must_use]
    pub fn credentials_internal(&self, to: impl Into<String>) -> CallCredentials {
        CallCredentials::internal(self.secret().clone(), self.identity().clone(), to)
    }

    /// Cancelled when the member shuts down. Long streams and loops end then.
    #[must_use]
    pub fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }
}
