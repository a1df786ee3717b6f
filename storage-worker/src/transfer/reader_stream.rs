//! The stream that a reader gets: messages made of pieces. It tells the attempt when the reader took
//! everything to the end; dropped before, it tells that the reader went away.

use crate::work::Piece;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::Status;

/// Pieces as messages of type `M`.
pub(crate) struct ReaderStream<M> {
    pieces: mpsc::Receiver<Result<Piece, Refusal>>,
    finished: Option<oneshot::Sender<()>>,
    message: Box<dyn Fn(Piece) -> M + Send + Sync>,
}

impl<M> ReaderStream<M> {
    pub(super) fn new(
        pieces: mpsc::Receiver<Result<Piece, Refusal>>,
        finished: oneshot::Sender<()>,
        message: impl Fn(Piece) -> M + Send + Sync + 'static,
    ) -> Self {
        Self { pieces, finished: Some(finished), message: Box::new(message) }
    }
}

impl<M> Stream for ReaderStream<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!(self.pieces.poll_recv(cx)) {
            Some(Ok(piece)) => Poll::Ready(Some(Ok((self.message)(piece)))),
            Some(Err(refusal)) => {
                self.finished = None;
                Poll::Ready(Some(Err(to_status(&refusal))))
            }
            None => {
                if let Some(finished) = self.finished.take() {
                    let _ = finished.send(());
                }
                Poll::Ready(None)
            }
        }
    }
}
