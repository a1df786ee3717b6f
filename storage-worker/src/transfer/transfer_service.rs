//! The public service: a command sends a file into an attempt, or reads a volume from one.

use super::pieces;
use super::pieces::OnWire;
use super::reader_stream::ReaderStream;
use super::tickets::Purpose;
use super::tickets::Reader;
use super::tickets::Sender;
use super::tickets::Tickets;
use super::tickets::Visit;
use crate::work::PIECES_IN_FLIGHT;
use crate::work::Piece;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1::DownloadRequest;
use sdm_proto::wire::v1::DownloadResponse;
use sdm_proto::wire::v1::TransferOpen;
use sdm_proto::wire::v1::UploadRequest;
use sdm_proto::wire::v1::UploadResponse;
use sdm_proto::wire::v1::download_response;
use sdm_proto::wire::v1::transfer_service_server::TransferService;
use sdm_proto::wire::v1::upload_request;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

/// Serves commands.
pub(super) struct Transfers {
    pub(super) tickets: Tickets,
}

async fn opening(stream: &mut Streaming<UploadRequest>) -> Result<TransferOpen, Status> {
    let first = tokio::time::timeout(limits::CALL_TIMEOUT, stream.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no first message came"))??;
    match first.and_then(|first| first.message) {
        Some(upload_request::Message::Open(open)) => Ok(open),
        _ => Err(to_status(&pieces::invalid("the first message is not `open`"))),
    }
}

/// Carries pieces from the wire to the attempt until the end of the file, or of the sender.
async fn carry(mut stream: Streaming<UploadRequest>, to: mpsc::Sender<Piece>) -> Result<(), Status> {
    while let Some(message) = stream.message().await? {
        let piece = match message.message {
            Some(upload_request::Message::Piece(piece)) => pieces::piece(piece),
            Some(upload_request::Message::End(end)) => pieces::end(&end),
            Some(upload_request::Message::Open(_)) => Err(pieces::invalid("a second `open`")),
            None => Err(pieces::invalid("a message without content")),
        }
        .map_err(|refusal| to_status(&refusal))?;
        let last = matches!(piece, Piece::End { .. });
        // The attempt takes no more when it has ended; then its answer is on the way.
        if to.send(piece).await.is_err() || last {
            return Ok(());
        }
    }
    Err(Status::cancelled("the stream ended before the file did"))
}

fn moved() -> Refusal {
    Refusal::new(Class::Unavailable, "TRANSFER_INTERRUPTED", "the attempt that took the bytes was stopped")
        .hint("ask the transaction where to send them now, and begin again")
}

#[tonic::async_trait]
impl TransferService for Transfers {
    async fn upload(&self, request: Request<Streaming<UploadRequest>>) -> Result<Response<UploadResponse>, Status> {
        let mut stream = request.into_inner();
        let open = opening(&mut stream).await?;
        let (to, pieces) = mpsc::channel(PIECES_IN_FLIGHT);
        let (answer, mut answered) = oneshot::channel();
        // An empty channel has room for one.
        let _ = to.try_send(Piece::Open { ordinal: 0, bytes: open.file_size });
        self.tickets
            .visit(Purpose::Upload, &open.ticket, &open.token, Visit::Sender(Sender { pieces, answer }))
            .map_err(|refusal| to_status(&refusal))?;
        let answer = tokio::select! {
            answer = &mut answered => answer,
            carried = carry(stream, to) => {
                carried?;
                answered.await
            }
        };
        let hash = answer.unwrap_or_else(|_| Err(moved())).map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(UploadResponse { blake3: hash.0.to_vec().into() }))
    }

    type DownloadStream = ReaderStream<DownloadResponse>;

    async fn download(&self, request: Request<DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        let DownloadRequest { ticket, token } = request.into_inner();
        let (to, pieces) = mpsc::channel(PIECES_IN_FLIGHT);
        let (finish, finished) = oneshot::channel();
        self.tickets
            .visit(Purpose::Download, &ticket, &token, Visit::Reader(Reader { pieces: to, finished }))
            .map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(ReaderStream::new(pieces, finish, message)))
    }
}

fn message(piece: Piece) -> DownloadResponse {
    let message = match pieces::on_wire(piece) {
        OnWire::Open { bytes, .. } => {
            download_response::Message::Open(TransferOpen { file_size: bytes, ..TransferOpen::default() })
        }
        OnWire::Piece(piece) => download_response::Message::Piece(piece),
        OnWire::End(end) => download_response::Message::End(end),
    };
    DownloadResponse { message: Some(message) }
}
