//! Raft's membership as it is at one moment, and the changes that are proposed only while it is still
//! so: whoever judged that a change is safe judged this very membership.

use crate::core::Core;
use crate::route::not_leader;
use crate::route::stopping;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::ChangeMembershipError;
use openraft::errors::ClientWriteError;
use openraft::errors::RaftError;
use openraft::raft::Precondition;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_raft_store::LogId;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use sdm_raft_store::StoredMembership;
use sdm_raft_store::TypeConfig;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Who is in Raft's membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    /// The entry that said so.
    log_id: Option<LogId>,
    /// The voters. Of a joint configuration: those that it leads to.
    pub voters: BTreeSet<NodeId>,
    /// It is on its way from one set of voters to another.
    pub joint: bool,
    /// Everybody, learners too.
    pub nodes: BTreeMap<NodeId, MemberNode>,
}

impl From<&StoredMembership> for Picture {
    fn from(stored: &StoredMembership) -> Self {
        let membership = stored.membership();
        let configs = membership.get_joint_config();
        Self {
            log_id: *stored.log_id(),
            voters: configs.last().cloned().unwrap_or_default(),
            joint: configs.len() > 1,
            nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
        }
    }
}

impl Picture {
    /// As this member sees it now.
    pub fn now(core: &Core) -> Self {
        let metrics = core.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        Self::from(metrics.membership_config.as_ref())
    }

    /// The name of a member.
    pub fn name(&self, id: NodeId) -> String {
        self.nodes.get(&id).map_or_else(|| format!("member {id}"), |node| node.name.clone())
    }

    /// The names of these members.
    pub fn names<'a>(&self, ids: impl IntoIterator<Item = &'a NodeId>) -> String {
        let names: Vec<String> = ids.into_iter().map(|id| self.name(*id)).collect();
        names.join(", ")
    }

    /// Has Raft change it, through a joint configuration where the voters change. Who is no voter
    /// afterwards, and was one, is out of it altogether.
    ///
    /// # Errors
    /// MEMBERSHIP_CHANGING when it is not this any more, NOT_LEADER: to be tried again.
    pub async fn change(&self, core: &Core, change: ChangeMembers<NodeId, MemberNode>) -> Result<(), Refusal> {
        let unchanged = Precondition::LastMembershipLogId { last_membership_log_id: self.log_id };
        let changed = core.inner.raft.change_membership_if(change, false, [unchanged]).await;
        changed.map(|_| ()).map_err(|error| refusal_of(core, error))
    }

    /// Ends a joint configuration that somebody left. True: there was one, and it is another
    /// membership now.
    ///
    /// # Errors
    /// As `change`.
    pub async fn settle(&self, core: &Core) -> Result<bool, Refusal> {
        if self.joint {
            tracing::info!(voters = self.names(&self.voters), "a change of the membership is finished");
            self.change(core, ChangeMembers::AddVoterIds(BTreeSet::new())).await?;
        }
        Ok(self.joint)
    }
}

/// What openraft's refusal means here.
pub(crate) fn refusal_of(core: &Core, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Refusal {
    let changing = |error: String| {
        Refusal::new(Class::Unavailable, "MEMBERSHIP_CHANGING", error)
            .hint("another change of the membership is under way; this one is tried again")
    };
    match error {
        RaftError::Fatal(_) => stopping(core),
        RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => changing(error.to_string()),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            error @ (ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_)),
        )) => changing(error.to_string()),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            Refusal::new(Class::Internal, "MEMBERSHIP_REFUSED", error.to_string())
        }
        RaftError::APIError(_) => not_leader(core),
    }
}
