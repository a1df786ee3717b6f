//! Other members' Raft calls to this one. The guard in front has checked the cluster, the epoch and
//! that the call is meant for this member; here they are handed to openraft.

use super::convert;
use super::convert::WireError;
use super::snapshot;
use crate::core::Core;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use openraft::raft::TransferLeaderRequest;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::raft_service_server::RaftService;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

/// Snapshots taken at once: a second one would only be thrown away.
const SNAPSHOTS_AT_ONCE: usize = 1;

/// Reason of a refusal, and of this member's end.
const NEWER_VERSION: &str = "NEWER_VERSION";

/// The server side of Raft.
#[derive(Clone, Debug)]
pub(crate) struct RaftServer {
    core: Core,
    receiving: Arc<Semaphore>,
}

impl RaftServer {
    pub fn new(core: Core) -> Self {
        Self { core, receiving: Arc::new(Semaphore::new(SNAPSHOTS_AT_ONCE)) }
    }
}

/// What the leader sends was written by a newer sdm: this member can never take it, and would hold
/// up the cluster as a voter that lags for ever.
fn end_for_newer(core: &Core, error: &WireError) {
    if error.is_newer() {
        core.inner.ending.end(newer(error.to_string()));
    }
}

/// The refusal of what only a newer sdm can read.
pub(super) fn newer(message: String) -> Refusal {
    Refusal::new(Class::Unsupported, NEWER_VERSION, message)
        .hint("start this member on its folder with the sdm of the other members")
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        tracing::error!(%error, "a call of another member cannot be read");
        to_status(&Refusal::new(Class::Invalid, "BAD_MESSAGE", error.to_string()))
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    let message = format!("Raft has stopped on this member: {error}");
    to_status(&Refusal::new(Class::Unavailable, "MEMBER_STOPPING", message))
}

#[tonic::async_trait]
impl RaftService for RaftServer {
    async fn append(&self, request: Request<wire::AppendRequest>) -> Result<Response<wire::AppendResponse>, Status> {
        let request = convert::read_append(request.get_ref()).inspect_err(|error| end_for_newer(&self.core, error))?;
        let response = self.core.inner.raft.append_entries(request).await.map_err(stopped)?;
        Ok(Response::new(convert::append_response(&response)))
    }

    type StreamAppendStream = BoxStream<'static, Result<wire::AppendResponse, Status>>;

    async fn stream_append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        // The first request that is broken or cannot be read ends the input: what follows it would
        // leave a gap.
        let core = self.core.clone();
        let input = request.into_inner().scan((), move |(), message| {
            let read = message.ok().and_then(|message| match convert::read_append(&message) {
                Ok(request) => Some(request),
                Err(error) => {
                    tracing::error!(%error, "entries of the leader cannot be read");
                    end_for_newer(&core, &error);
                    None
                }
            });
            std::future::ready(read)
        });
        // A leader keeps its stream open for good: without this no member could close in order.
        let input = input.take_until(self.core.closing().clone().cancelled_owned());
        let output = self.core.inner.raft.stream_append(input).map(|answer| match answer {
            Ok(result) => Ok(convert::stream_response(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        Ok(Response::new(output.boxed()))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let request = convert::read_vote_request(request.get_ref())?;
        let response = self.core.inner.raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(convert::vote_response(&response)))
    }

    async fn pre_vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let request = convert::read_vote_request(request.get_ref())?;
        let response = self.core.inner.raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(convert::vote_response(&response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::InstallSnapshotRequest>>,
    ) -> Result<Response<wire::InstallSnapshotResponse>, Status> {
        let Ok(_receiving) = self.receiving.try_acquire() else {
            let refusal = Refusal::new(Class::Unavailable, "SNAPSHOT_UNDER_WAY", "this member receives one already");
            return Err(to_status(&refusal));
        };
        let received = snapshot::receive(&self.core.inner.snapshots, request.into_inner()).await;
        let (vote, file) = received.map_err(|refusal| {
            tracing::warn!(%refusal, "a snapshot was not received");
            if refusal.reason == NEWER_VERSION {
                self.core.inner.ending.end(refusal.clone());
            }
            to_status(&refusal)
        })?;
        tracing::info!(bytes = file.length(), "a snapshot was received");
        let response = self.core.inner.raft.install_full_snapshot(vote, file.into_snapshot()).await.map_err(stopped)?;
        Ok(Response::new(wire::InstallSnapshotResponse { vote: Some(convert::vote(&response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let from = convert::read_vote(request.from.as_ref())?;
        let last_log_id = request.last_log_id.as_ref().map(convert::read_log_id);
        let request = TransferLeaderRequest::new(from, request.to_node_id, last_log_id);
        match self.core.inner.raft.handle_transfer_leader(request).await.map_err(stopped)? {
            Ok(()) => Ok(Response::new(wire::TransferLeaderResponse {})),
            Err(error) => Err(to_status(&Refusal::new(Class::Precondition, "NOT_TRANSFERRED", error.to_string()))),
        }
    }
}
