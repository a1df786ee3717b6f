//! How far each follower acknowledged this leader's log. A follower that says later that it lacks an
//! entry which it had acknowledged lost part of its disk, or goes on from an old copy of it. openraft
//! takes that for a defect of the leader and panics; here it is kept from openraft, and the follower is
//! told when it checks in.

use openraft::errors::RPCError;
use openraft::raft::AppendEntriesResponse;
use openraft::raft::StreamAppendError;
use openraft::raft::StreamAppendResult;
use sdm_raft_store::LogId;
use sdm_raft_store::NodeId;
use sdm_raft_store::TypeConfig;
use sdm_raft_store::Vote;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use super::network::unreachable;

#[derive(Debug)]
struct Follower {
    /// Under another leadership its log may have been cut.
    vote: Vote,
    acknowledged: Option<LogId>,
    /// The entry that it had and lacks now.
    lost: Option<LogId>,
}

/// All followers. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acknowledgements(Arc<Mutex<BTreeMap<NodeId, Follower>>>);

impl Acknowledgements {
    fn followers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Follower>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, id: NodeId, vote: Vote, look: impl FnOnce(&mut Follower) -> T) -> Option<T> {
        let mut followers = self.followers();
        let follower = followers.entry(id).or_insert(Follower { vote, acknowledged: None, lost: None });
        if vote > follower.vote {
            *follower = Follower { vote, acknowledged: None, lost: None };
        }
        // What is said to an earlier leadership is of no use to this one.
        (vote == follower.vote).then(|| look(follower))
    }

    fn acknowledge(&self, id: NodeId, vote: Vote, at: Option<LogId>) {
        self.with(id, vote, |follower| {
            if at > follower.acknowledged {
                follower.acknowledged = at;
            }
            if follower.lost.is_some() && at >= follower.lost {
                follower.lost = None;
            }
        });
    }

    /// A follower lacks this entry. The index that it should have, if it had acknowledged it.
    fn lacks(&self, id: NodeId, vote: Vote, at: LogId) -> Option<LogId> {
        self.with(id, vote, |follower| {
            let had = follower.acknowledged.filter(|acknowledged| at.index <= acknowledged.index)?;
            if follower.lost.is_none() {
                tracing::error!(
                    member = id,
                    lacks = at.index,
                    acknowledged = had.index,
                    "a member lacks an entry that it had acknowledged: its data folder is an old copy, or was damaged; it is told to stop"
                );
            }
            follower.lost = Some(at);
            Some(had)
        })
        .flatten()
    }

    /// The entry that this follower had and has no more.
    pub fn reverted(&self, id: NodeId) -> Option<u64> {
        self.followers().get(&id)?.lost.map(|lost| lost.index)
    }

    fn judge(&self, id: NodeId, vote: Vote, at: LogId) -> Result<(), RPCError<TypeConfig>> {
        match self.lacks(id, vote, at) {
            None => Ok(()),
            Some(had) => Err(RPCError::Unreachable(unreachable(format!(
                "member {id} lacks entry {}, and had acknowledged {}: its data folder is an old copy",
                at.index, had.index
            )))),
        }
    }

    /// Looks at what a stream answered.
    pub fn on_stream(
        &self,
        id: NodeId,
        vote: Option<Vote>,
        answer: Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let Some(vote) = vote else { return answer };
        match &answer {
            Ok(Ok(matching)) => self.acknowledge(id, vote, *matching),
            Ok(Err(StreamAppendError::Conflict(at))) => self.judge(id, vote, *at)?,
            _ => {}
        }
        answer
    }

    /// Looks at what one call answered that went up to this entry, or only asked for the one before.
    pub fn on_answer(
        &self,
        id: NodeId,
        vote: Vote,
        (previous, last): (Option<LogId>, Option<LogId>),
        answer: AppendEntriesResponse<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        match (&answer, previous) {
            (AppendEntriesResponse::Success, _) => self.acknowledge(id, vote, last),
            (AppendEntriesResponse::PartialSuccess(matching), _) => self.acknowledge(id, vote, *matching),
            (AppendEntriesResponse::Conflict, Some(at)) => self.judge(id, vote, at)?,
            _ => {}
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_raft_store::LeaderId;

    fn vote(term: u64) -> Vote {
        Vote { leader_id: LeaderId { term, node_id: 1 }, committed: true }
    }

    fn at(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: 1 }, index }
    }

    #[test]
    fn a_follower_that_lost_what_it_acknowledged_is_known_until_it_has_it_again() {
        let known = Acknowledgements::default();
        let conflict =
            |term, index| known.on_stream(2, Some(vote(term)), Ok(Err(StreamAppendError::Conflict(at(term, index)))));
        // A new leader looks for where the logs part: nothing is wrong with that.
        assert!(conflict(5, 90).is_ok());
        known.on_stream(2, Some(vote(5)), Ok(Ok(Some(at(5, 80))))).unwrap().unwrap();
        assert!(conflict(5, 81).is_ok(), "it never said that it has it");
        assert_eq!(known.reverted(2), None);
        assert!(conflict(5, 80).is_err());
        assert_eq!(known.reverted(2), Some(80));
        assert_eq!(known.reverted(3), None);
        // A heartbeat asks for the last entry that it is known to have.
        let beat = |answer| known.on_answer(2, vote(5), (Some(at(5, 80)), Some(at(5, 80))), answer);
        assert!(beat(AppendEntriesResponse::Conflict).is_err());
        beat(AppendEntriesResponse::Success).unwrap();
        assert_eq!(known.reverted(2), None);
    }

    #[test]
    fn another_leadership_may_have_cut_the_log() {
        let known = Acknowledgements::default();
        known.on_stream(2, Some(vote(5)), Ok(Ok(Some(at(5, 80))))).unwrap().unwrap();
        let conflict =
            |term, index| known.on_stream(2, Some(vote(term)), Ok(Err(StreamAppendError::Conflict(at(5, index)))));
        assert!(conflict(7, 80).is_ok());
        // What an earlier stream says late is not held against the later leadership.
        known.on_stream(2, Some(vote(5)), Ok(Ok(Some(at(5, 99))))).unwrap().unwrap();
        assert!(conflict(7, 99).is_ok());
        assert_eq!(known.reverted(2), None);
    }
}
