//! This member's calls to one other member on behalf of Raft. Three channels for each peer, a
//! deadline on every call, and one answer to every failure of the way: `Unreachable`, on which
//! openraft waits before it tries again.

use super::convert;
use super::convert::WireError;
use super::snapshot;
use super::stream;
use crate::peers::PeerChannel;
use crate::peers::Peers;
use crate::peers::Purpose;
use crate::peers::within;
use futures_util::Stream;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use openraft::OptionalSend;
use openraft::errors::RPCError;
use openraft::errors::ReplicationClosed;
use openraft::errors::StreamingError;
use openraft::errors::Unreachable;
use openraft::network::Backoff;
use openraft::network::RPCOption;
use openraft::network::RaftNetworkFactory;
use openraft::network::RaftNetworkV2;
use openraft::network::stream_append_sequential;
use openraft::raft::AppendEntriesRequest;
use openraft::raft::AppendEntriesResponse;
use openraft::raft::SnapshotResponse;
use openraft::raft::StreamAppendResult;
use openraft::raft::TransferLeaderRequest;
use openraft::raft::TransferLeaderResponse;
use openraft::raft::VoteRequest;
use openraft::raft::VoteResponse;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::raft_service_client::RaftServiceClient;
use sdm_raft_store::MemberNode;
use sdm_raft_store::NodeId;
use sdm_raft_store::Snapshot;
use sdm_raft_store::SnapshotFile;
use sdm_raft_store::TypeConfig;
use sdm_raft_store::Vote;
use std::future::Future;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;
use tonic::Response;
use tonic::Status;

/// Longest pause before a peer that was not reached is tried again: one that comes back follows
/// within this time.
const RETRY_MAX: Duration = Duration::from_millis(800);

/// Makes this member's connections for openraft.
#[derive(Clone, Debug)]
pub(crate) struct PeerNetwork {
    peers: Peers,
}

impl PeerNetwork {
    pub fn new(peers: Peers) -> Self {
        Self { peers }
    }

    fn client(&self, target: NodeId, node: &MemberNode, purpose: Purpose) -> PeerClient {
        let client = self.peers.raft(target, &node.address, purpose).map_err(|error| error.to_string());
        PeerClient { peers: self.peers.clone(), target, address: node.address.clone(), purpose, client }
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: NodeId, node: &MemberNode) -> PeerClient {
        self.client(target, node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &MemberNode) -> PeerClient {
        self.client(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &MemberNode) -> PeerClient {
        self.client(target, node, Purpose::Snapshot)
    }
}

/// One peer for one purpose.
#[derive(Clone, Debug)]
pub(crate) struct PeerClient {
    peers: Peers,
    target: NodeId,
    address: String,
    purpose: Purpose,
    /// Or why its address cannot be used.
    client: Result<RaftServiceClient<PeerChannel>, String>,
}

/// The peer cannot be reached, or does not make sense: openraft waits and tries again.
pub(crate) fn unreachable(reason: impl ToString) -> Unreachable<TypeConfig> {
    Unreachable::from_string(reason)
}

impl From<WireError> for RPCError<TypeConfig> {
    fn from(error: WireError) -> Self {
        Self::Unreachable(unreachable(error))
    }
}

impl PeerClient {
    fn client(&self) -> Result<RaftServiceClient<PeerChannel>, Unreachable<TypeConfig>> {
        // openraft keeps its connections when a member's address changes.
        match self.peers.moved_to(self.target).filter(|address| *address != self.address) {
            Some(address) => self.peers.raft(self.target, &address, self.purpose).map_err(unreachable),
            None => self.client.clone().map_err(unreachable),
        }
    }

    /// Waits for an answer until the deadline. Connecting counts.
    async fn answer<T>(
        &self,
        time: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let reason = match tokio::time::timeout(time, call).await {
            Ok(Ok(response)) => {
                self.peers.reached(self.target, &self.address);
                return Ok(response.into_inner());
            }
            Ok(Err(status)) => format!("member {} at {}: {}", self.target, self.address, status.message()),
            Err(_) => format!("member {} at {} did not answer within {time:?}", self.target, self.address),
        };
        self.peers.missed(self.target, &reason);
        Err(RPCError::Unreachable(unreachable(reason)))
    }
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let request = within(convert::append(&rpc)?, option.hard_ttl());
        let response = self.answer(option.hard_ttl(), client.append(request)).await?;
        let response = convert::read_append_response(&response)?;
        self.peers.acknowledgements().on_answer(self.target, rpc.vote, convert::range(&rpc), response)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        // A heartbeat is one request; a stream for each would double its cost.
        if self.purpose == Purpose::Heartbeat {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let client = self.client()?;
            let peer = format!("member {} at {}", self.target, self.address);
            let (known, target) = (self.peers.acknowledgements().clone(), self.target);
            // All requests of one stream are of one leadership.
            let vote = Arc::new(OnceLock::new());
            let of_requests = Arc::clone(&vote);
            let input = input.inspect(move |request| _ = of_requests.set(request.vote));
            let output = stream::session(client, peer, input);
            Ok(output.map(move |answer| known.on_stream(target, vote.get().copied(), answer)).boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let request = within(convert::vote_request(&rpc), option.hard_ttl());
        let response = self.answer(option.hard_ttl(), client.vote(request)).await?;
        Ok(convert::read_vote_response(&response)?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let request = within(convert::vote_request(&rpc), option.hard_ttl());
        let response = self.answer(option.hard_ttl(), client.pre_vote(request)).await?;
        Ok(convert::read_vote_response(&response)?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let client = self.client()?;
        let peer = format!("member {} at {}", self.target, self.address);
        tokio::select! {
            sent = snapshot::send(client, &peer, vote, &snapshot.snapshot, option.hard_ttl()) => sent,
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let first = [100, 200, 400].into_iter().map(Duration::from_millis);
        Some(Backoff::new(first.chain(std::iter::repeat(RETRY_MAX))))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let request = wire::TransferLeaderRequest {
            from: Some(convert::vote(req.from_leader())),
            to_node_id: *req.to_node_id(),
            last_log_id: req.last_log_id().map(convert::log_id),
        };
        self.answer(option.hard_ttl(), client.transfer_leader(within(request, option.hard_ttl()))).await?;
        Ok(Ok(()))
    }
}
