//! One connection to one member: being opened, open, or waited for. It carries messages; what they
//! mean is the gateway's affair.

use futures_util::future::BoxFuture;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::limits;
use sdm_proto::seams;
use sdm_proto::seams::Transport;
use sdm_proto::wire::internal::v1::GatewayMessage;
use sdm_proto::wire::internal::v1::WorkerMessage;
use sdm_proto::wire::internal::v1::worker_gateway_service_client::WorkerGatewayServiceClient;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::Streaming;

/// Messages on their way to a member: a report for every assignment, with room for pings.
const TO_MEMBER_MAX: usize = 2 * limits::ASSIGNMENTS_MAX;

/// What a link says.
pub(super) enum LinkEvent {
    /// A message came.
    Message(Box<GatewayMessage>),
    /// The connection could not be made, was refused, or broke.
    Broken(Status),
}

enum State {
    Opening(BoxFuture<'static, Result<Streaming<GatewayMessage>, Status>>),
    Open(Box<Streaming<GatewayMessage>>),
}

/// A connection.
pub(super) struct Link {
    state: State,
    to_member: mpsc::Sender<WorkerMessage>,
    /// The member's address.
    pub(super) endpoint: String,
    /// When the hello was sent.
    pub(super) hello_ms: u64,
    /// When the last sign of the cluster (welcome or acknowledged ping) came; the hello's time before.
    pub(super) heard_ms: u64,
    /// Whether the member answered the hello.
    pub(super) welcomed: bool,
    /// When the next ping goes out.
    pub(super) ping_at_ms: u64,
}

impl Link {
    /// Begins to connect; the hello is the first message.
    pub(super) fn open(
        transport: &Arc<dyn Transport>,
        credentials: CallCredentials,
        endpoint: String,
        hello: WorkerMessage,
        now_ms: u64,
    ) -> Self {
        let (to_member, outgoing) = mpsc::channel(TO_MEMBER_MAX);
        // An empty channel has room for one.
        let _ = to_member.try_send(hello);
        let channel = seams::channel(transport, &endpoint);
        let opening = async move {
            let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
            let mut client = WorkerGatewayServiceClient::with_interceptor(channel, credentials)
                .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
            let response = client.open_session(ReceiverStream::new(outgoing)).await?;
            Ok(response.into_inner())
        };
        Self {
            state: State::Opening(Box::pin(opening)),
            to_member,
            endpoint,
            hello_ms: now_ms,
            heard_ms: now_ms,
            welcomed: false,
            ping_at_ms: now_ms,
        }
    }

    /// The next event. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> LinkEvent {
        loop {
            match &mut self.state {
                State::Opening(opening) => match opening.await {
                    Ok(stream) => self.state = State::Open(Box::new(stream)),
                    Err(status) => return LinkEvent::Broken(status),
                },
                State::Open(stream) => {
                    return match stream.message().await {
                        Ok(Some(message)) => LinkEvent::Message(Box::new(message)),
                        Ok(None) => LinkEvent::Broken(Status::unavailable("the member closed the connection")),
                        Err(status) => LinkEvent::Broken(status),
                    };
                }
            }
        }
    }

    /// Sends what waits, says that no more comes, and completes when the member has closed, too.
    pub(super) async fn close(mut self) {
        // The stream to the member ends when its last sender is gone.
        self.to_member = mpsc::channel(1).0;
        while let LinkEvent::Message(_) = self.next().await {}
    }

    /// Sends a message; false when the member takes none.
    pub(super) fn send(&self, message: WorkerMessage) -> bool {
        self.to_member.try_send(message).is_ok()
    }

    /// How many messages it takes now, with room left for pings.
    pub(super) fn room(&self) -> usize {
        self.to_member.capacity().saturating_sub(limits::ASSIGNMENTS_MAX / 4)
    }
}
