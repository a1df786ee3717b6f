//! Sending a snapshot file to a peer, piece by piece, and taking one from a peer. A transfer may be
//! long; only one that stands still is ended.

use super::convert;
use super::network::unreachable;
use super::service::newer;
use crate::peers::PeerChannel;
use futures_util::StreamExt;
use openraft::errors::StreamingError;
use openraft::raft::SnapshotResponse;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::install_snapshot_request::Message;
use sdm_proto::wire::internal::v1::raft_service_client::RaftServiceClient;
use sdm_raft_store::SnapshotFile;
use sdm_raft_store::SnapshotFolder;
use sdm_raft_store::SnapshotReceiver;
use sdm_raft_store::TypeConfig;
use sdm_raft_store::Vote;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// How long one piece may be under way.
const STALL_TIME: Duration = Duration::from_secs(10);

/// Pieces that wait to be sent.
const PIECES_WAITING: usize = 4;

fn piece(message: Message) -> wire::InstallSnapshotRequest {
    wire::InstallSnapshotRequest { message: Some(message) }
}

/// Reads the file and hands it on; ends early when the other end is gone or stands still.
async fn feed(
    file: &SnapshotFile,
    header: wire::SnapshotHeader,
    pieces: mpsc::Sender<wire::InstallSnapshotRequest>,
) -> Result<(), String> {
    let hand_on = async |message| match tokio::time::timeout(STALL_TIME, pieces.send(piece(message))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("the connection is closed".to_owned()),
        Err(_) => Err(format!("nothing was taken for {STALL_TIME:?}")),
    };
    hand_on(Message::Header(header)).await?;
    let mut chunks = std::pin::pin!(file.chunks(limits::PIECE_BYTES));
    while let Some(chunk) = chunks.next().await {
        hand_on(Message::Chunk(chunk.map_err(|error| format!("reading the snapshot: {error}"))?)).await?;
    }
    hand_on(Message::End(wire::SnapshotEnd { blake3: file.hash().to_vec().into() })).await
}

/// Sends a snapshot and waits until the peer has installed it.
pub(crate) async fn send(
    mut client: RaftServiceClient<PeerChannel>,
    peer: &str,
    vote: Vote,
    file: &SnapshotFile,
    time: Duration,
) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
    let failed = |reason: String| StreamingError::Unreachable(unreachable(format!("{peer}: {reason}")));
    let meta = file.meta();
    let header = wire::SnapshotHeader {
        vote: Some(convert::vote(&vote)),
        last_log_id: meta.last_log_id.as_ref().map(convert::log_id),
        last_membership: convert::stored_membership(&meta.last_membership).map_err(|e| failed(e.to_string()))?.into(),
        file_bytes: file.length(),
    };
    tracing::info!(peer, bytes = file.length(), "sending a snapshot");
    let (pieces, receiver) = mpsc::channel(PIECES_WAITING);
    let call = client.install_snapshot(ReceiverStream::new(receiver));
    let transfer = async {
        // The call ends only when the peer has everything: both must run at once. A feeder that
        // failed has dropped its end, and the call would then answer about a stream cut short.
        let (fed, answer) = tokio::join!(feed(file, header, pieces), call);
        match (fed, answer) {
            (_, Ok(response)) => Ok(response.into_inner()),
            (Err(reason), Err(status)) => Err(format!("{reason} ({})", status.message())),
            (Ok(()), Err(status)) => Err(status.message().to_owned()),
        }
    };
    let response = match tokio::time::timeout(time, transfer).await {
        Ok(Ok(response)) => response,
        Ok(Err(reason)) => return Err(failed(reason)),
        Err(_) => return Err(failed(format!("not installed within {time:?}"))),
    };
    let vote = convert::read_vote(response.vote.as_ref()).map_err(|error| failed(error.to_string()))?;
    Ok(SnapshotResponse::new(vote))
}

fn broken(reason: impl Into<String>) -> Refusal {
    Refusal::new(Class::Aborted, "SNAPSHOT_BROKEN", reason).hint("the sender begins again by itself")
}

async fn next(stream: &mut Streaming<wire::InstallSnapshotRequest>) -> Result<Message, Refusal> {
    let message = match tokio::time::timeout(STALL_TIME, stream.message()).await {
        Ok(Ok(Some(request))) => request.message,
        Ok(Ok(None)) => return Err(broken("the snapshot ended early")),
        Ok(Err(status)) => return Err(broken(format!("the snapshot broke off: {}", status.message()))),
        Err(_) => return Err(broken(format!("nothing of the snapshot came for {STALL_TIME:?}"))),
    };
    message.ok_or_else(|| broken("an empty piece of a snapshot"))
}

/// Takes a snapshot from a peer into a temporary file, checked from end to end.
pub(crate) async fn receive(
    folder: &SnapshotFolder,
    mut stream: Streaming<wire::InstallSnapshotRequest>,
) -> Result<(Vote, SnapshotFile), Refusal> {
    let Message::Header(header) = next(&mut stream).await? else {
        return Err(broken("a snapshot begins with its header"));
    };
    let vote = convert::read_vote(header.vote.as_ref()).map_err(|error| broken(error.to_string()))?;
    let disk = |error: &dyn std::fmt::Display| {
        Refusal::new(Class::Internal, "SNAPSHOT_NOT_STORED", format!("the snapshot cannot be stored: {error}"))
            .hint("look at the log of the member that received it")
    };
    let mut receiver = SnapshotReceiver::begin(folder, header.file_bytes).await.map_err(|error| disk(&error))?;
    loop {
        match next(&mut stream).await? {
            Message::Chunk(bytes) => receiver.append(bytes).await.map_err(|error| disk(&error))?,
            Message::Header(_) => return Err(broken("a second header in a snapshot")),
            Message::End(end) => {
                let hash: [u8; 32] =
                    end.blake3.as_ref().try_into().map_err(|_| broken("the hash of a snapshot has 32 bytes"))?;
                let file = receiver.finish(hash).await.map_err(|error| match error.is_newer() {
                    true => newer(error.to_string()),
                    false => disk(&error),
                })?;
                let announced = header.last_log_id.as_ref().map(convert::read_log_id);
                if file.meta().last_log_id != announced {
                    return Err(broken("the snapshot is not the one that was announced"));
                }
                return Ok((vote, file));
            }
        }
    }
}
