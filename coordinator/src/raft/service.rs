//! Other members' Raft calls to this one. The guard in front has checked the cluster, the epoch and
//! that the call is meant for this member; here they are handed to openraft.

use super::convert;
use super::convert::WireError;
use super::snapshot;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use openraft::raft::TransferLeaderRequest;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::raft_service_server::RaftService;
use sdm_raft_store::Raft;
use sdm_raft_store::SnapshotFolder;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

/// Snapshots taken at once: a second one would only be thrown away.
const SNAPSHOTS_AT_ONCE: usize = 1;

/// The server side of Raft.
#[derive(Clone, Debug)]
pub(crate) struct RaftServer {
    raft: Raft,
    snapshots: SnapshotFolder,
    receiving: Arc<Semaphore>,
    closing: CancellationToken,
}

impl RaftServer {
    pub fn new(raft: Raft, snapshots: SnapshotFolder, closing: CancellationToken) -> Self {
        Self { raft, snapshots, receiving: Arc::new(Semaphore::new(SNAPSHOTS_AT_ONCE)), closing }
    }
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
        let request = convert::read_append(request.get_ref())?;
        let response = self.raft.append_entries(request).await.map_err(stopped)?;
        Ok(Response::new(convert::append_response(&response)))
    }

    type StreamAppendStream = BoxStream<'static, Result<wire::AppendResponse, Status>>;

    async fn stream_append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        // The first request that is broken or cannot be read ends the input: what follows it would
        // leave a gap.
        let input = request.into_inner().scan((), |(), message| {
            let read = message.ok().and_then(|message| match convert::read_append(&message) {
                Ok(request) => Some(request),
                Err(error) => {
                    tracing::error!(%error, "entries of the leader cannot be read");
                    None
                }
            });
            std::future::ready(read)
        });
        // A leader keeps its stream open for good: without this no member could close in order.
        let input = input.take_until(self.closing.clone().cancelled_owned());
        let output = self.raft.stream_append(input).map(|answer| match answer {
            Ok(result) => Ok(convert::stream_response(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        Ok(Response::new(output.boxed()))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let request = convert::read_vote_request(request.get_ref())?;
        let response = self.raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(convert::vote_response(&response)))
    }

    async fn pre_vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let request = convert::read_vote_request(request.get_ref())?;
        let response = self.raft.pre_vote(request).await.map_err(stopped)?;
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
        let received = snapshot::receive(&self.snapshots, request.into_inner()).await;
        let (vote, file) = received.map_err(|refusal| {
            tracing::warn!(%refusal, "a snapshot was not received");
            to_status(&refusal)
        })?;
        tracing::info!(bytes = file.length(), "a snapshot was received");
        let response = self.raft.install_full_snapshot(vote, file.into_snapshot()).await.map_err(stopped)?;
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
        match self.raft.handle_transfer_leader(request).await.map_err(stopped)? {
            Ok(()) => Ok(Response::new(wire::TransferLeaderResponse {})),
            Err(error) => Err(to_status(&Refusal::new(Class::Precondition, "NOT_TRANSFERRED", error.to_string()))),
        }
    }
}
