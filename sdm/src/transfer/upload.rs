//! Sends a file to the worker that has the import's attempt.

use super::ContentHash;
use super::SourceFile;
use super::TransferError;
use super::source_file::Part;
use crate::client::Link;
use crate::output::Failure;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::transfer_service_client::TransferServiceClient;
use sdm_proto::wire::v1::upload_request::Message;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Pieces read ahead of the stream: reading and sending overlap, and memory stays small.
const PIECES_AHEAD: usize = 4;

/// Sends the whole file; answers with its hashes when the worker has checked it and made it durable.
///
/// # Errors
/// The file cannot be read, the worker refused it, or the stream broke.
pub async fn upload(
    link: Link,
    transfer: v1::Transfer,
    source: Arc<SourceFile>,
    done: Arc<AtomicU64>,
) -> Result<ContentHash, TransferError> {
    done.store(0, Ordering::Relaxed);
    let (pieces, stream) = mpsc::channel(PIECES_AHEAD);
    let open = v1::TransferOpen {
        ticket: transfer.ticket,
        token: transfer.token,
        file_size: source.size(),
        allocated_bytes: source.allocated_bytes(),
    };
    let reader = tokio::task::spawn_blocking(move || read_into(&source, open, &pieces, &done));
    let mut client = TransferServiceClient::new(link)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
    let call = client.upload(ReceiverStream::new(stream));
    tokio::pin!(call);
    tokio::pin!(reader);
    let (answer, read) = tokio::select! {
        // A worker that refuses early ends the call; the reader then finds nobody who takes pieces.
        answer = &mut call => (Some(answer), reader.await),
        read = &mut reader => match read {
            Ok(Ok(_)) => (Some(call.await), read),
            // Dropping the call resets the stream: an end that is no end.
            _ => (None, read),
        },
    };
    // What went wrong with the file is the cause of whatever the worker says about the stream.
    let sent = match read {
        Ok(Ok(sent)) => sent,
        Ok(Err(failure)) => return Err(TransferError::Local(failure)),
        Err(error) => return Err(reader_failed(&error.to_string())),
    };
    let response = match answer {
        Some(Ok(response)) => response.into_inner(),
        Some(Err(status)) => return Err(status.into()),
        None => return Err(reader_failed("it ended early")),
    };
    match sent {
        // A raw file whose length is no multiple of 4 KiB is padded on the storage.
        Some(hash) if [hash.file, hash.padded].iter().any(|own| own.as_bytes().as_slice() == &*response.blake3) => {
            Ok(hash)
        }
        Some(hash) => {
            let message = format!("what was sent has BLAKE3 {}, what arrived has another", hash.file.to_hex());
            Err(TransferError::Local(Failure::new(Class::Internal, "TRANSFER_DAMAGED", message)))
        }
        None => Err(TransferError::Broken("the worker ended the stream before the file's end".to_owned())),
    }
}

fn reader_failed(why: &str) -> TransferError {
    TransferError::Local(Failure::new(Class::Internal, "TRANSFER_FAILED", format!("the file's reader: {why}")))
}

/// Reads the file into the channel; None when nobody takes its pieces any more.
fn read_into(
    source: &SourceFile,
    open: v1::TransferOpen,
    pieces: &mpsc::Sender<v1::UploadRequest>,
    done: &AtomicU64,
) -> Result<Option<ContentHash>, Failure> {
    let send = |message| pieces.blocking_send(v1::UploadRequest { message: Some(message) }).is_ok();
    if !send(Message::Open(open)) {
        return Ok(None);
    }
    let mut whole = None;
    source.read(|part| {
        let (message, position) = match part {
            Part::Data(offset, data) => {
                let position = offset + data.len() as u64;
                (Message::Piece(v1::Piece { offset, data, hole_bytes: 0 }), position)
            }
            Part::Hole(offset, hole_bytes) => {
                let piece = v1::Piece { offset, data: bytes::Bytes::new(), hole_bytes };
                (Message::Piece(piece), offset + hole_bytes)
            }
            Part::End(hash) => {
                let blake3 = bytes::Bytes::copy_from_slice(hash.file.as_bytes());
                let taken = send(Message::End(v1::TransferEnd { file_size: source.size(), blake3 }));
                whole = taken.then_some(hash);
                return taken;
            }
        };
        let taken = send(message);
        done.store(position, Ordering::Relaxed);
        taken
    })?;
    Ok(whole)
}
