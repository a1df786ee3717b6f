//! Proposals: a command goes to the leader (here, or one hop), gets its stamp there, and comes back
//! with what `apply` said.
//!
//! The same command is tried again when nobody knows whether an earlier try was appended (a call
//! that broke, an entry that a new leader may or may not have kept). That is safe because every
//! command is idempotent in the state: transactions by their id, sessions by nonce and epoch,
//! session requests by their sequence, attempts and garbage by their token, members by their
//! incarnation, and the rest say how something is, not what to add. All tries carry the same
//! entropy.

use crate::comparing;
use crate::core::Core;
use crate::core::Proposed;
use crate::forward::Forwarded;
use crate::peers::within;
use crate::route::Attempt;
use crate::route::Leader;
use crate::route::at_leader;
use crate::route::not_leader;
use crate::route::stopping;
use bytes::Bytes;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use sdm_proto::failpoint;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1::ForwardRequest;
use sdm_proto::wire::internal::v1::ForwardResponse;
use sdm_raft_store::LeaderId;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::envelope;
use std::time::Duration;
use tokio::time::Instant;

/// How long a planted bug waits for a majority.
const EARLY: Duration = Duration::from_millis(200);

/// A write at this member that did not succeed.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The entry was not appended anywhere.
    NotAppended(Refusal),
    /// The same, and trying again would not help.
    Refused(Refusal),
    /// It may be in the log, now or later.
    Unknown(Refusal),
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotAppended(refusal) | WriteError::Refused(refusal) | WriteError::Unknown(refusal) => refusal,
        }
    }
}

/// See `Core::propose`.
pub(crate) async fn propose(core: &Core, command: Command, deadline: Instant) -> Result<Proposed, Refusal> {
    let proposed = propose_answer(core, command, deadline).await?;
    // The leader applied it; whoever asked here shall find it here.
    applied_here(core, proposed.index, deadline).await?;
    Ok(proposed)
}

/// See `Core::applied_here`.
pub(crate) async fn applied_here(core: &Core, index: u64, deadline: Instant) -> Result<(), Refusal> {
    let applied = tokio::time::timeout_at(deadline, core.inner.view.wait_applied(index)).await;
    applied.map(|_| ()).map_err(|_| behind(core, index))
}

/// See `Core::propose_answer`.
pub(crate) async fn propose_answer(core: &Core, command: Command, deadline: Instant) -> Result<Proposed, Refusal> {
    let bytes = encode(&command)?;
    let entropy: [u8; 16] = rand::random();
    at_leader(core, deadline, |leader| {
        let (command, bytes) = (&command, &bytes);
        async move {
            match leader {
                Leader::Here(own) => match write_here(core, own, command.clone(), entropy).await {
                    Ok(proposed) => Attempt::Done(proposed),
                    Err(WriteError::Refused(refusal)) => Attempt::Refused(refusal),
                    Err(error) => Attempt::Again(error.into()),
                },
                Leader::There(id, node) => {
                    let attempt = forward(core, id, &node, bytes.clone(), entropy, deadline).await;
                    understood(attempt, &node)
                }
            }
        }
    })
    .await
}

fn encode(command: &Command) -> Result<Bytes, Refusal> {
    let bytes = Bytes::from(envelope::encode_command(command));
    if bytes.len() <= limits::COMMAND_BYTES_MAX {
        return Ok(bytes);
    }
    let message = format!("the request takes {} bytes, at most {} are allowed", bytes.len(), limits::COMMAND_BYTES_MAX);
    Err(Refusal::new(Class::Exhausted, "COMMAND_TOO_LARGE", message).hint("split it, or shorten its texts"))
}

fn behind(core: &Core, index: u64) -> Refusal {
    let at = core.view().applied_index().unwrap_or_default();
    let message = format!("it is done as entry {index}, but member {} has applied only up to {at}", core.member_name());
    Refusal::new(Class::Timeout, "MEMBER_BEHIND", message)
        .hint("repeat the request under the same id, here or at another endpoint: it answers with the result")
}

/// Writes one entry as the leader of exactly this leadership.
pub(crate) async fn write_here(
    core: &Core,
    leader: LeaderId,
    command: Command,
    entropy: [u8; 16],
) -> Result<Proposed, WriteError> {
    let inner = &core.inner;
    // Nothing is proposed before this leadership's own first entry is applied.
    inner.stopwatch.started(leader).await;
    comparing::check(core, &command).await?;
    let view = core.view();
    // Some member could not read an entry of a newer level: it must not even be appended.
    if let Err(refusal) = view.state.check_feature_level(&command) {
        return Ok(Proposed { index: view.applied_index().unwrap_or_default(), reply: Reply::Refused(refusal) });
    }
    let meta = &view.state.meta;
    let stamp_ms = match comparing::agrees(&view) {
        true => inner.stopwatch.stamp(leader, meta.clock_ms, meta.settings.clock_step_max_ms),
        // Entries that may end the split; nothing falls due by them.
        false => inner.stopwatch.standing_stamp(leader, meta.clock_ms),
    };
    let Some(stamp_ms) = stamp_ms else {
        return Err(WriteError::NotAppended(not_leader(core)));
    };
    let (responder, outcome) = ProgressResponder::complete_only();
    let entry = Entry { stamp_ms, entropy, command };
    let early = failpoint::skips("plant.acknowledge-early").then(|| entry.clone());
    if inner.raft.write(entry).with_leader(leader).responder(responder).await.is_err() {
        return Err(WriteError::NotAppended(stopping(core)));
    }
    let outcome = match early {
        None => outcome.await,
        // A bug that tests plant: what the leader alone has is acknowledged.
        Some(early) => match tokio::time::timeout(EARLY, outcome).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let index = view.applied_index().unwrap_or_default();
                return Ok(Proposed { index, reply: view.state.clone().apply(index + 1, &early) });
            }
        },
    };
    match outcome {
        Ok(Ok(written)) => Ok(Proposed { index: written.log_id.index, reply: written.data }),
        Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => {
            let message = format!("member {} lost the leadership meanwhile", core.member_name());
            Err(WriteError::Unknown(Refusal::new(Class::Unavailable, "OUTCOME_UNKNOWN", message)))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "an entry was not appended");
            Err(WriteError::NotAppended(not_leader(core)))
        }
        Err(_) => Err(WriteError::Unknown(stopping(core))),
    }
}

/// One hop: over the line to the leader, or by a call to one that knows no lines.
async fn forward(
    core: &Core,
    id: NodeId,
    node: &MemberNode,
    command: Bytes,
    entropy: [u8; 16],
    deadline: Instant,
) -> Attempt<ForwardResponse> {
    let line = match core.inner.lines.to(&core.inner.peers, id, &node.address) {
        Ok(line) => line,
        Err(refusal) => return Attempt::Again(refusal),
    };
    if let Forwarded::Tried(attempt) = line.forward(command.clone(), entropy).await {
        return attempt;
    }
    let mut client = match core.inner.peers.member(id, &node.address) {
        Ok(client) => client,
        Err(refusal) => return Attempt::Again(refusal),
    };
    let request = ForwardRequest { command, entropy: Bytes::copy_from_slice(&entropy) };
    let left = deadline.saturating_duration_since(Instant::now());
    Attempt::of_call(client.forward(within(request, left)).await)
}

/// The leader's answer with its reply decoded.
fn understood(attempt: Attempt<ForwardResponse>, node: &MemberNode) -> Attempt<Proposed> {
    let answer = match attempt {
        Attempt::Done(answer) => answer,
        Attempt::Refused(refusal) => return Attempt::Refused(refusal),
        Attempt::Again(refusal) => return Attempt::Again(refusal),
    };
    match envelope::decode_reply(&answer.reply) {
        Ok(reply) => Attempt::Done(Proposed { index: answer.index, reply }),
        Err(error) => Attempt::Refused(
            Refusal::new(
                Class::Unsupported,
                "REPLY_UNREADABLE",
                format!("the answer of {} to entry {} cannot be read: {error}", node.name, answer.index),
            )
            .hint("this member runs an older sdm than the leader: upgrade it, or ask another endpoint"),
        ),
    }
}

/// The leader's side of `forward`: one try within this leadership, never forwarded again.
pub(crate) async fn propose_forwarded(
    core: &Core,
    own: LeaderId,
    command: &[u8],
    entropy: &[u8],
) -> Result<Proposed, Refusal> {
    let invalid = |message: String| Refusal::new(Class::Invalid, "BAD_FORWARD", message);
    if command.len() > limits::COMMAND_BYTES_MAX {
        return Err(invalid(format!("a forwarded command of {} bytes", command.len())));
    }
    let command = envelope::decode_command(command).map_err(|error| match error.is_newer() {
        true => Refusal::new(Class::Unsupported, "NEWER_VERSION", format!("the leader cannot take it: {error}"))
            .hint("upgrade all members"),
        false => invalid(error.to_string()),
    })?;
    let entropy: [u8; 16] = entropy.try_into().map_err(|_| invalid("entropy has 16 bytes".to_owned()))?;
    Ok(write_here(core, own, command, entropy).await?)
}

/// The same for a call of its own.
pub(crate) async fn propose_called(core: &Core, request: &ForwardRequest) -> Result<Proposed, Refusal> {
    let Some(own) = core.inner.leadership.borrow().own else { return Err(not_leader(core)) };
    let mut leadership = core.inner.leadership.clone();
    tokio::select! {
        written = propose_forwarded(core, own, &request.command, &request.entropy) => written,
        _ = leadership.wait_for(|now| now.own != Some(own)) => Err(not_leader(core)),
    }
}
