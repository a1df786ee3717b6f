//! Sending a snapshot file to a peer, piece by piece, and taking one from a peer. A transfer may be
//! long; only one that stands still is ended. Each piece carries a checksum, so that a broken one ends
//! the transfer at once; what counts is the hash over the whole file at its end.

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
    let chunk_crc32c = match &message {
        Message::Chunk(bytes) => Some(crc32c::crc32c(bytes)),
        Message::Header(_) | Message::End(_) => None,
    };
    wire::InstallSnapshotRequest { message: Some(message), chunk_crc32c }
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
    let transfer = async {
        let mut call = std::pin::pin!(client.install_snapshot(ReceiverStream::new(receiver)));
        // The call ends only when the peer has everything: both must run at once.
        let fed = tokio::select! {
            fed = feed(file, header, pieces) => fed,
            answer = &mut call => return answer.map_err(|status| status.message().to_owned()),
        };
        let answer = match &fed {
            Ok(()) => call.await,
            // The feeder has dropped its end: the peer answers about a stream cut short, or never.
            Err(reason) => match tokio::time::timeout(STALL_TIME, call).await {
                Ok(answer) => answer,
                Err(_) => return Err(reason.clone()),
            },
        };
        answer.map_err(|status| match fed {
            Ok(()) => status.message().to_owned(),
            Err(reason) => format!("{reason} ({})", status.message()),
        })
    };
    let response = match tokio::time::timeout(time, transfer).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(reason)) => return Err(failed(reason)),
        Err(_) => return Err(failed(format!("not installed within {time:?}"))),
    };
    let vote = convert::read_vote(response.vote.as_ref()).map_err(|error| failed(error.to_string()))?;
    Ok(SnapshotResponse::new(vote))
}

fn broken(reason: impl Into<String>) -> Refusal {
    Refusal::new(Class::Aborted, "SNAPSHOT_BROKEN", reason).hint("the sender begins again by itself")
}

/// The message of a request, its piece checked.
fn checked(request: wire::InstallSnapshotRequest) -> Result<Message, Refusal> {
    let message = request.message.ok_or_else(|| broken("an empty piece of a snapshot"))?;
    match (&message, request.chunk_crc32c) {
        (Message::Chunk(bytes), Some(sum)) if crc32c::crc32c(bytes) != sum => {
            Err(broken("a piece of the snapshot was changed on its way"))
        }
        _ => Ok(message),
    }
}

async fn next(stream: &mut Streaming<wire::InstallSnapshotRequest>) -> Result<Message, Refusal> {
    match tokio::time::timeout(STALL_TIME, stream.message()).await {
        Ok(Ok(Some(request))) => checked(request),
        Ok(Ok(None)) => Err(broken("the snapshot ended early")),
        Ok(Err(status)) => Err(broken(format!("the snapshot broke off: {}", status.message()))),
        Err(_) => Err(broken(format!("nothing of the snapshot came for {STALL_TIME:?}"))),
    }
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
            .hint("free space on its data folder's file system, or check its disk; the sender begins again by itself")
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_piece_that_was_changed_on_its_way_is_refused_and_one_without_a_checksum_is_not() {
        let chunk = || Message::Chunk(Bytes::from_static(b"rows"));
        assert_eq!(checked(piece(chunk())).ok(), Some(chunk()));
        let mut changed = piece(chunk());
        changed.message = Some(Message::Chunk(Bytes::from_static(b"rowz")));
        assert_eq!(checked(changed).map_err(|refusal| refusal.reason), Err("SNAPSHOT_BROKEN".into()));
        assert_eq!(
            checked(wire::InstallSnapshotRequest { message: Some(chunk()), chunk_crc32c: None }).ok(),
            Some(chunk())
        );
    }
}
