//! The client side of a pull: reads a placement's volumes from the worker at its source. It does not
//! start over in the middle: a stream that breaks ends the attempt, and the cluster decides.

use super::pieces;
use crate::process::PieceSender;
use crate::work::Piece;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams;
use sdm_proto::seams::Clock;
use sdm_proto::seams::Transport;
use sdm_proto::status::from_status;
use sdm_proto::wire::internal::v1::PullRequest;
use sdm_proto::wire::internal::v1::PullResponse;
use sdm_proto::wire::internal::v1::pull_response;
use sdm_proto::wire::internal::v1::worker_data_service_client::WorkerDataServiceClient;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;
use tonic::Streaming;

/// How long the source may be unreachable or not know the ticket yet before the attempt fails: both
/// workers get their assignments from one entry, but not at one moment.
const OPEN_PATIENCE_MS: u64 = 15_000;

/// Time between two tries.
const OPEN_RETRY_MS: u64 = 250;

/// How long the source may send nothing. Before its first piece it flushes the source to disk, which
/// takes its time on a slow one.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// Pulls from other workers.
#[derive(Clone)]
pub(crate) struct PullClient {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) secret: ClusterSecret,
    pub(crate) identity: OwnIdentity,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The reason a lost source is reported under.
pub(crate) const SOURCE_UNREACHABLE: &str = "SOURCE_UNREACHABLE";

/// A broken stream becomes "source unreachable"; what the source itself says stays as it is.
fn lost(address: &str, refusal: Refusal) -> Refusal {
    let transient = matches!(refusal.class, Class::Unavailable | Class::Timeout | Class::Internal | Class::Aborted);
    if !transient {
        return refusal;
    }
    let message = format!("the worker at {address}, which reads the source, cannot be used: {}", refusal.message);
    Refusal::new(Class::Unavailable, SOURCE_UNREACHABLE, message).hint(refusal.hint)
}

impl PullClient {
    /// Opens the stream; tries again while the source is not ready.
    ///
    /// # Errors
    /// The source stayed unreachable, or refused.
    pub(crate) async fn open(
        &self,
        address: &str,
        token: &str,
        ticket: &[u8],
    ) -> Result<Streaming<PullResponse>, Refusal> {
        let channel = seams::channel(&self.transport, address)
            .map_err(|error| Refusal::new(Class::Unavailable, SOURCE_UNREACHABLE, error.to_string()))?;
        let credentials = CallCredentials::internal(self.secret.clone(), self.identity.clone(), String::new());
        let mut client = WorkerDataServiceClient::with_interceptor(channel, credentials)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
        let give_up_ms = self.clock.now_ms() + OPEN_PATIENCE_MS;
        loop {
            let request = PullRequest { token: token.to_owned(), ticket: ticket.to_vec().into() };
            let opened = tokio::time::timeout(limits::CALL_TIMEOUT, client.pull(request))
                .await
                .unwrap_or_else(|_| Err(Status::unavailable("it did not answer in time")));
            let refusal = match opened {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => lost(address, from_status(&status)),
            };
            let now_ms = self.clock.now_ms();
            if refusal.class != Class::Unavailable || now_ms >= give_up_ms {
                return Err(refusal);
            }
            self.clock.sleep_until(now_ms + OPEN_RETRY_MS).await;
        }
    }

    /// Carries pieces from the stream into an order until all volumes are complete.
    ///
    /// # Errors
    /// The stream broke, or breaks its rules. When the order takes no more pieces, this is no error
    /// here: the order's end says why.
    pub(crate) async fn carry(
        &self,
        address: &str,
        mut stream: Streaming<PullResponse>,
        volumes: &[String],
        to: &PieceSender,
    ) -> Result<(), Refusal> {
        let mut complete = 0;
        while complete < volumes.len() {
            let message = tokio::time::timeout(SILENCE_MAX, stream.message())
                .await
                .unwrap_or_else(|_| Err(Status::unavailable("it sent nothing for too long")))
                .map_err(|status| lost(address, from_status(&status)))?
                .and_then(|message| message.message);
            let piece = match message {
                Some(pull_response::Message::Volume(volume)) => {
                    if volumes.get(complete) != Some(&volume.volume_id) {
                        return Err(pieces::invalid(format!("volume {} was not expected now", volume.volume_id)));
                    }
                    let ordinal = u32::try_from(complete).unwrap_or(u32::MAX);
                    Piece::Open { ordinal, bytes: volume.file_size }
                }
                Some(pull_response::Message::Piece(piece)) => pieces::piece(piece)?,
                Some(pull_response::Message::End(end)) => {
                    complete += 1;
                    pieces::end(&end)?
                }
                None => {
                    let ended = Refusal::new(Class::Unavailable, SOURCE_UNREACHABLE, "the stream ended early");
                    return Err(lost(address, ended));
                }
            };
            if to.send(piece).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}
