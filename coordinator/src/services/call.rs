//! One unary call on its way through the member: its deadline, linearizable reads, and proposals
//! whose answer is shown from a view that holds them.

use crate::core::Core;
use crate::core::Proposed;
use sdm_proto::limits;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_raft_store::StateView;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::command::SessionRef;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Response;
use tonic::Status;

/// What a service answers, in the form of the transport.
pub(crate) fn answer<T>(outcome: Result<T, Refusal>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|refusal| to_status(&refusal))
}

/// How long a call may take here. Less than a caller waits who sets no deadline of its own, so that
/// a refusal which says why reaches it instead of a bare timeout.
const ANSWER_WITHIN: Duration = limits::LEADER_WAIT;

/// A call.
pub(crate) struct Call<'a> {
    core: &'a Core,
    deadline: Instant,
}

/// What a proposal led to.
pub(crate) struct Answered {
    /// Of `apply`, never a refusal.
    pub reply: Reply,
    /// Log index of the entry that was answered.
    pub index: u64,
    /// A view that holds the entry.
    pub view: Arc<StateView>,
}

impl<'a> Call<'a> {
    /// A call that begins now.
    pub(crate) fn begin(core: &'a Core) -> Self {
        Self { core, deadline: Instant::now() + ANSWER_WITHIN }
    }

    /// A view that holds everything that was answered to anybody before the call began.
    ///
    /// # Errors
    /// No quorum, or no leader in time.
    pub(crate) async fn read(&self) -> Result<Arc<StateView>, Refusal> {
        self.core.read(self.deadline).await
    }

    /// Proposes a command.
    ///
    /// # Errors
    /// It could not be proposed in time, or `apply` refused it.
    pub(crate) async fn propose(&self, command: Command) -> Result<Answered, Refusal> {
        let Proposed { index, reply } = self.core.propose(command, self.deadline).await?;
        match reply {
            Reply::Refused(refusal) => Err(refusal),
            reply => Ok(Answered { reply, index, view: self.core.view() }),
        }
    }

    /// Proposes a command whose answer says all: no view holds its entry for sure.
    ///
    /// # Errors
    /// It could not be proposed in time, or `apply` refused it.
    pub(crate) async fn propose_answer(&self, command: Command) -> Result<Proposed, Refusal> {
        let proposed = self.core.propose_answer(command, self.deadline).await?;
        match proposed.reply {
            Reply::Refused(refusal) => Err(refusal),
            _ => Ok(proposed),
        }
    }

    /// Waits until this member's view holds an entry.
    ///
    /// # Errors
    /// It did not in time.
    pub(crate) async fn applied_here(&self, index: u64) -> Result<(), Refusal> {
        self.core.applied_here(index, self.deadline).await
    }

    /// Has the leader renew a session; whether it did.
    ///
    /// # Errors
    /// No quorum, or no leader in time.
    pub(crate) async fn keep_alive(&self, session: SessionRef) -> Result<bool, Refusal> {
        Ok(self.keep_all_alive(vec![session]).await?.contains(&session))
    }

    /// Has the leader renew sessions; those that it did.
    ///
    /// # Errors
    /// No quorum, or no leader in time.
    pub(crate) async fn keep_all_alive(&self, sessions: Vec<SessionRef>) -> Result<Vec<SessionRef>, Refusal> {
        self.core.keep_alive(sessions, self.deadline).await
    }
}
