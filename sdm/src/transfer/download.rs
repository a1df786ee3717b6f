//! Reads a volume from the worker that has the export's attempt into a file of its own.

use super::TargetPath;
use super::TransferError;
use super::target_file::PartFile;
use crate::client::Link;
use crate::output::Failure;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::download_response::Message;
use sdm_proto::wire::v1::transfer_service_client::TransferServiceClient;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tonic::Streaming;

/// Messages received ahead of the writer.
const PIECES_AHEAD: usize = 4;

/// Where a download goes and how far it is.
#[derive(Clone)]
pub struct Download {
    /// Where the file shall stand.
    pub target: TargetPath,
    /// Bytes done.
    pub done: Arc<AtomicU64>,
    /// Bytes to do, once the worker said so.
    pub total: Arc<AtomicU64>,
}

/// Reads all of it; answers with the file, checked and durable but without its name, and its hash.
/// Every attempt writes a file of its own, so a late writer of an earlier one spoils nothing.
///
/// # Errors
/// The file cannot be written, the worker refused, or the stream broke.
pub async fn download(
    link: Link,
    transfer: v1::Transfer,
    to: Download,
) -> Result<(PartFile, blake3::Hash), TransferError> {
    to.done.store(0, Ordering::Relaxed);
    let mut client = TransferServiceClient::new(link).max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
    let request = v1::DownloadRequest { ticket: transfer.ticket, token: transfer.token };
    let mut stream = client.download(request).await?.into_inner();
    let open = match stream.message().await?.and_then(|response| response.message) {
        Some(Message::Open(open)) => open,
        Some(_) => return Err(Failure::new(Class::Internal, "TRANSFER_DAMAGED", "the stream does not begin").into()),
        None => return Err(TransferError::Broken("the worker ended the stream at once".to_owned())),
    };
    to.total.store(open.file_size, Ordering::Relaxed);
    let (messages, queue) = mpsc::channel(PIECES_AHEAD);
    let writer = tokio::task::spawn_blocking(move || write_from(queue, &to, open.file_size));
    let received = receive(&mut stream, messages).await;
    let written = match writer.await {
        Ok(written) => written,
        Err(error) => Err(Failure::new(Class::Internal, "TRANSFER_FAILED", format!("the file's writer: {error}"))),
    };
    // A full disk here also ends the receiver; it is the cause, so it comes first.
    match written? {
        Some(whole) => Ok(whole),
        None => Err(received.err().unwrap_or_else(|| TransferError::Broken("the stream ended early".to_owned()))),
    }
}

async fn receive(
    stream: &mut Streaming<v1::DownloadResponse>,
    messages: mpsc::Sender<Message>,
) -> Result<(), TransferError> {
    while let Some(response) = stream.message().await? {
        let Some(message) = response.message else { continue };
        if messages.send(message).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Writes what comes; None when the stream ended before its end.
fn write_from(
    mut queue: mpsc::Receiver<Message>,
    to: &Download,
    size: u64,
) -> Result<Option<(PartFile, blake3::Hash)>, Failure> {
    let mut part = to.target.create(size)?;
    while let Some(message) = queue.blocking_recv() {
        match message {
            Message::Piece(piece) if piece.hole_bytes > 0 => part.hole(piece.offset, piece.hole_bytes)?,
            Message::Piece(piece) => part.write(piece.offset, &piece.data)?,
            Message::End(end) => {
                let hash = part.check(end.file_size, &end.blake3)?;
                to.done.store(size, Ordering::Relaxed);
                return Ok(Some((part, hash)));
            }
            Message::Open(_) => {
                return Err(Failure::new(Class::Internal, "TRANSFER_DAMAGED", "the stream begins twice"));
            }
        }
        to.done.store(part.position(), Ordering::Relaxed);
    }
    Ok(None)
}
