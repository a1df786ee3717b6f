//! openraft's values on the wire and back. What cannot be read is an error of the sender's; it is
//! never guessed.

use openraft::StoredMembership;
use openraft::raft::AppendEntriesRequest;
use openraft::raft::AppendEntriesResponse;
use openraft::raft::StreamAppendError;
use openraft::raft::StreamAppendResult;
use openraft::raft::VoteRequest;
use openraft::raft::VoteResponse;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::append_response::Result as AppendResult;
use sdm_raft_store::LeaderId;
use sdm_raft_store::LogEntry;
use sdm_raft_store::LogId;
use sdm_raft_store::MemberNode;
use sdm_raft_store::Membership;
use sdm_raft_store::NodeId;
use sdm_raft_store::Payload;
use sdm_raft_store::TypeConfig;
use sdm_raft_store::Vote;
use sdm_state::envelope;
use sdm_state::envelope::EnvelopeError;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Why a message between members cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// A part that is always there is missing.
    #[error("a message of another member lacks its {0}")]
    Missing(&'static str),
    /// The command in an entry cannot be read.
    #[error("the command in entry {index} cannot be read: {source}")]
    Command { index: u64, source: EnvelopeError },
    /// A membership cannot be read.
    #[error("a membership cannot be read: {0}")]
    Membership(String),
    /// A kind of entry that this version does not know.
    #[error("entry {index} is of kind {kind}, which this version of sdm does not know: run a newer one on this member")]
    Kind { index: u64, kind: u8 },
}

impl WireError {
    /// Whether a newer sdm wrote it, and it is no defect.
    pub fn is_newer(&self) -> bool {
        match self {
            Self::Command { source, .. } => source.is_newer(),
            Self::Kind { .. } => true,
            Self::Missing(_) | Self::Membership(_) => false,
        }
    }
}

/// First byte of an entry's payload.
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// A membership in our own form, independent of openraft's serialization.
#[derive(Serialize, Deserialize)]
struct Members {
    configs: Vec<BTreeSet<NodeId>>,
    nodes: BTreeMap<NodeId, MemberNode>,
}

pub(crate) fn log_id(id: &LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
}

pub(crate) fn read_log_id(id: &wire::LogId) -> LogId {
    LogId { leader_id: LeaderId { term: id.term, node_id: id.node_id }, index: id.index }
}

pub(crate) fn vote(vote: &Vote) -> wire::RaftVote {
    wire::RaftVote { term: vote.leader_id.term, node_id: vote.leader_id.node_id, committed: vote.committed }
}

pub(crate) fn read_vote(vote: Option<&wire::RaftVote>) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError::Missing("vote"))?;
    Ok(Vote { leader_id: LeaderId { term: vote.term, node_id: vote.node_id }, committed: vote.committed })
}

fn encode_membership(membership: &Membership) -> Result<Vec<u8>, WireError> {
    let members = Members {
        configs: membership.get_joint_config().clone(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
    };
    rmp_serde::to_vec_named(&members).map_err(|error| WireError::Membership(error.to_string()))
}

fn decode_membership(bytes: &[u8]) -> Result<Membership, WireError> {
    let members: Members = rmp_serde::from_slice(bytes).map_err(|error| WireError::Membership(error.to_string()))?;
    if members.configs.is_empty() && members.nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(members.configs, members.nodes).map_err(|error| WireError::Membership(error.to_string()))
}

/// The membership of a snapshot.
pub(crate) fn stored_membership(stored: &StoredMembership<LeaderId, NodeId, MemberNode>) -> Result<Vec<u8>, WireError> {
    encode_membership(stored.membership())
}

fn payload(payload: &Payload) -> Result<Vec<u8>, WireError> {
    let (kind, body) = match payload {
        Payload::Blank => (BLANK, Vec::new()),
        Payload::Normal(command) => (COMMAND, envelope::encode_entry(command)),
        Payload::Membership(membership) => (MEMBERSHIP, encode_membership(membership)?),
    };
    let mut bytes = Vec::with_capacity(1 + body.len());
    bytes.push(kind);
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn read_payload(index: u64, bytes: &[u8]) -> Result<Payload, WireError> {
    let (kind, body) = bytes.split_first().ok_or(WireError::Missing("payload"))?;
    match *kind {
        BLANK => Ok(Payload::Blank),
        COMMAND => {
            envelope::decode_entry(body).map(Payload::Normal).map_err(|source| WireError::Command { index, source })
        }
        MEMBERSHIP => decode_membership(body).map(Payload::Membership),
        kind => Err(WireError::Kind { index, kind }),
    }
}

fn entry(entry: &LogEntry) -> Result<wire::LogEntry, WireError> {
    Ok(wire::LogEntry { log_id: Some(log_id(&entry.log_id)), payload: payload(&entry.payload)?.into() })
}

fn read_entry(entry: &wire::LogEntry) -> Result<LogEntry, WireError> {
    let log_id = read_log_id(entry.log_id.as_ref().ok_or(WireError::Missing("log id"))?);
    Ok(LogEntry { log_id, payload: read_payload(log_id.index, &entry.payload)? })
}

pub(crate) fn append(request: &AppendEntriesRequest<TypeConfig>) -> Result<wire::AppendRequest, WireError> {
    Ok(wire::AppendRequest {
        vote: Some(vote(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id),
        entries: request.entries.iter().map(entry).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.as_ref().map(log_id),
    })
}

pub(crate) fn read_append(request: &wire::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: read_vote(request.vote.as_ref())?,
        prev_log_id: request.prev_log_id.as_ref().map(read_log_id),
        entries: request.entries.iter().map(read_entry).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.as_ref().map(read_log_id),
    })
}

fn appended(result: AppendResult) -> wire::AppendResponse {
    wire::AppendResponse { result: Some(result) }
}

pub(crate) fn append_response(response: &AppendEntriesResponse<TypeConfig>) -> wire::AppendResponse {
    appended(match response {
        AppendEntriesResponse::Success => AppendResult::Success(wire::Empty {}),
        AppendEntriesResponse::PartialSuccess(matching) => {
            AppendResult::PartialSuccess(wire::PartialSuccess { matching: matching.as_ref().map(log_id) })
        }
        AppendEntriesResponse::Conflict => AppendResult::Conflict(wire::Empty {}),
        AppendEntriesResponse::HigherVote(higher) => AppendResult::HigherVote(vote(higher)),
    })
}

pub(crate) fn read_append_response(
    response: &wire::AppendResponse,
) -> Result<AppendEntriesResponse<TypeConfig>, WireError> {
    Ok(match response.result.as_ref().ok_or(WireError::Missing("result"))? {
        AppendResult::Success(_) => AppendEntriesResponse::Success,
        AppendResult::PartialSuccess(partial) => {
            AppendEntriesResponse::PartialSuccess(partial.matching.as_ref().map(read_log_id))
        }
        AppendResult::Conflict(_) => AppendEntriesResponse::Conflict,
        AppendResult::HigherVote(higher) => AppendEntriesResponse::HigherVote(read_vote(Some(higher))?),
    })
}

/// What a stream answers to one request: exactly how far the follower's log is durable.
pub(crate) fn stream_response(result: &StreamAppendResult<TypeConfig>) -> wire::AppendResponse {
    appended(match result {
        Ok(matching) => AppendResult::PartialSuccess(wire::PartialSuccess { matching: matching.as_ref().map(log_id) }),
        Err(StreamAppendError::Conflict(_)) => AppendResult::Conflict(wire::Empty {}),
        Err(StreamAppendError::HigherVote(higher)) => AppendResult::HigherVote(vote(higher)),
    })
}

/// The entries that a request in flight covers: (the one before them, the last one).
pub(crate) type Range = (Option<LogId>, Option<LogId>);

pub(crate) fn range(request: &AppendEntriesRequest<TypeConfig>) -> Range {
    let last = request.entries.last().map(|entry| entry.log_id);
    (request.prev_log_id, last.or(request.prev_log_id))
}

pub(crate) fn read_stream_response(
    (previous, last): Range,
    response: &wire::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    Ok(match read_append_response(response)? {
        AppendEntriesResponse::Success => Ok(last),
        AppendEntriesResponse::PartialSuccess(matching) => Ok(matching),
        AppendEntriesResponse::Conflict => {
            // Nothing can conflict with the start of the log.
            Err(StreamAppendError::Conflict(previous.ok_or(WireError::Missing("log id to conflict with"))?))
        }
        AppendEntriesResponse::HigherVote(higher) => Err(StreamAppendError::HigherVote(higher)),
    })
}

pub(crate) fn vote_request(request: &VoteRequest<TypeConfig>) -> wire::VoteRequest {
    wire::VoteRequest {
        vote: Some(vote(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn read_vote_request(request: &wire::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    Ok(VoteRequest {
        vote: read_vote(request.vote.as_ref())?,
        last_log_id: request.last_log_id.as_ref().map(read_log_id),
        leadership_transfer: request.leadership_transfer,
    })
}

pub(crate) fn vote_response(response: &VoteResponse<TypeConfig>) -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(vote(&response.vote)),
        vote_granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id),
    }
}

pub(crate) fn read_vote_response(response: &wire::VoteResponse) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse {
        vote: read_vote(response.vote.as_ref())?,
        vote_granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(read_log_id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_state::Command;
    use sdm_state::Entry;

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: 2 }, index }
    }

    fn request() -> AppendEntriesRequest<TypeConfig> {
        let nodes = BTreeMap::from([(2, MemberNode { name: "b".to_owned(), address: "b:1".to_owned() })]);
        let membership = Membership::new(vec![BTreeSet::from([2])], nodes).unwrap();
        let command = Entry { stamp_ms: 7, entropy: [3; 16], command: Command::Tick };
        AppendEntriesRequest {
            vote: Vote { leader_id: LeaderId { term: 4, node_id: 2 }, committed: true },
            prev_log_id: Some(id(3, 8)),
            entries: vec![
                LogEntry { log_id: id(4, 9), payload: Payload::Blank },
                LogEntry { log_id: id(4, 10), payload: Payload::Normal(command) },
                LogEntry { log_id: id(4, 11), payload: Payload::Membership(membership) },
            ],
            leader_commit: Some(id(3, 7)),
        }
    }

    #[test]
    fn a_request_comes_back_as_it_was() {
        let request = request();
        let back = read_append(&append(&request).unwrap()).unwrap();
        assert_eq!(back.vote, request.vote);
        assert_eq!(back.prev_log_id, request.prev_log_id);
        assert_eq!(back.entries, request.entries);
        assert_eq!(back.leader_commit, request.leader_commit);
        assert_eq!(range(&request), (Some(id(3, 8)), Some(id(4, 11))));
    }

    #[test]
    fn every_answer_of_a_stream_comes_back_as_it_was() {
        let higher = Vote { leader_id: LeaderId { term: 9, node_id: 1 }, committed: false };
        let previous = Some(id(3, 8));
        for answer in [
            Ok(Some(id(4, 11))),
            Ok(None),
            Err(StreamAppendError::Conflict(id(3, 8))),
            Err(StreamAppendError::HigherVote(higher)),
        ] {
            let back = read_stream_response((previous, None), &stream_response(&answer)).unwrap();
            assert_eq!(back, answer);
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_an_error() {
        assert!(matches!(read_append(&wire::AppendRequest::default()), Err(WireError::Missing("vote"))));
        assert!(matches!(read_payload(5, &[9, 1]), Err(WireError::Kind { index: 5, kind: 9 })));
        assert!(matches!(read_payload(5, &[COMMAND, 1]), Err(WireError::Command { index: 5, .. })));
        assert!(matches!(read_payload(5, &[MEMBERSHIP, 1]), Err(WireError::Membership(_))));
        assert!(matches!(read_payload(5, &[]), Err(WireError::Missing(_))));
    }
}
