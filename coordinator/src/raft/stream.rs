//! Pipelined replication to one peer: requests go out while earlier ones are not answered yet,
//! answers come in their order. The input is pulled only by whoever polls the output: when
//! openraft drops the session, nothing of the next one is swallowed by this one.

use super::convert;
use super::convert::Range;
use super::network::unreachable;
use crate::peers::PeerChannel;
use futures_util::Stream;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use openraft::OptionalSend;
use openraft::errors::RPCError;
use openraft::raft::AppendEntriesRequest;
use openraft::raft::StreamAppendResult;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::raft_service_client::RaftServiceClient;
use sdm_raft_store::TypeConfig;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Requests in flight to one peer: enough to keep its disk busy, few enough (16 MiB) to keep this
/// member small.
const IN_FLIGHT_MAX: usize = 16;

/// How long the oldest request may stay unanswered, and how long opening a session may take. A lost
/// answer would wedge the session for good; an fsync on a busy disk may take a second.
const ANSWER_TIME: Duration = Duration::from_secs(4);

type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

struct Session<S> {
    client: RaftServiceClient<PeerChannel>,
    peer: String,
    input: S,
    /// Whether the input may have more.
    more: bool,
    /// None before the first request is there, and after the input ended.
    requests: Option<mpsc::Sender<wire::AppendRequest>>,
    /// None before the first request is there.
    responses: Option<Streaming<wire::AppendResponse>>,
    in_flight: VecDeque<Range>,
    deadline: Instant,
    over: bool,
}

/// The output of a session over this input.
///
/// It connects only once there is something to send: openraft waits out its backoff where the input
/// is pulled, so connecting first would try a dead peer again at once, without end.
pub(crate) fn session<'s, S>(client: RaftServiceClient<PeerChannel>, peer: String, input: S) -> BoxStream<'s, Answer>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    let session = Session {
        client,
        peer,
        input,
        more: true,
        requests: None,
        responses: None,
        in_flight: VecDeque::new(),
        deadline: Instant::now(),
        over: false,
    };
    let output = futures_util::stream::unfold(session, |mut session| async move {
        let answer = session.next().await?;
        Some((answer, session))
    });
    Box::pin(output)
}

impl<S> Session<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    async fn next(&mut self) -> Option<Answer> {
        while !self.over && (self.more || !self.in_flight.is_empty()) {
            let Some(responses) = &mut self.responses else {
                let first = self.input.next().await?;
                if let Err(reason) = self.open().await.and_then(|()| self.on_request(Some(first))) {
                    return Some(self.fail(reason));
                }
                continue;
            };
            tokio::select! {
                biased;
                response = responses.message() => return Some(self.on_response(response)),
                request = self.input.next(), if self.more && self.in_flight.len() < IN_FLIGHT_MAX => {
                    if let Err(reason) = self.on_request(request) {
                        return Some(self.fail(reason));
                    }
                }
                () = tokio::time::sleep_until(self.deadline), if !self.in_flight.is_empty() => {
                    let reason = format!("no answer to entries within {ANSWER_TIME:?}");
                    return Some(self.fail(reason));
                }
            }
        }
        None
    }

    async fn open(&mut self) -> Result<(), String> {
        let (requests, receiver) = mpsc::channel(IN_FLIGHT_MAX);
        let opening = self.client.stream_append(ReceiverStream::new(receiver));
        match tokio::time::timeout(ANSWER_TIME, opening).await {
            Ok(Ok(response)) => self.responses = Some(response.into_inner()),
            Ok(Err(status)) => return Err(status.message().to_owned()),
            Err(_) => return Err(format!("no stream was opened within {ANSWER_TIME:?}")),
        }
        self.requests = Some(requests);
        Ok(())
    }

    fn on_request(&mut self, request: Option<AppendEntriesRequest<TypeConfig>>) -> Result<(), String> {
        let Some(request) = request else {
            self.more = false;
            self.requests = None;
            return Ok(());
        };
        let message = convert::append(&request).map_err(|error| error.to_string())?;
        if self.in_flight.is_empty() {
            self.deadline = Instant::now() + ANSWER_TIME;
        }
        self.in_flight.push_back(convert::range(&request));
        // There is room: the queue is as long as requests may be in flight.
        let sent = self.requests.as_ref().map(|requests| requests.try_send(message));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err("the connection is closed".to_owned()),
        }
    }

    fn on_response(&mut self, response: Result<Option<wire::AppendResponse>, tonic::Status>) -> Answer {
        let response = match response {
            Ok(Some(response)) => response,
            Ok(None) => return self.fail("the stream ended early".to_owned()),
            Err(status) => return self.fail(status.message().to_owned()),
        };
        let Some(range) = self.in_flight.pop_front() else {
            return self.fail("an answer to nothing".to_owned());
        };
        self.deadline = Instant::now() + ANSWER_TIME;
        match convert::read_stream_response(range, &response) {
            Ok(result) => {
                // After a refusal the peer reads no further, and neither do we.
                self.over = result.is_err();
                Ok(result)
            }
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn fail(&mut self, reason: String) -> Answer {
        self.over = true;
        Err(RPCError::Unreachable(unreachable(format!("{}: {reason}", self.peer))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Peers;
    use crate::peers::Purpose;
    use futures_util::future::BoxFuture;
    use sdm_proto::credentials::ClusterSecret;
    use sdm_proto::credentials::OwnIdentity;
    use sdm_proto::seams::Connection;
    use sdm_proto::seams::Incoming;
    use sdm_proto::seams::Transport;
    use sdm_raft_store::LeaderId;
    use sdm_raft_store::Vote;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    /// Nobody is there, and it counts who asks.
    #[derive(Debug, Default)]
    struct Nowhere(AtomicUsize);

    impl Transport for Nowhere {
        fn connect(&self, _address: String) -> BoxFuture<'static, io::Result<Connection>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        }

        fn listen(&self, _address: String) -> BoxFuture<'static, io::Result<(String, Incoming)>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }
    }

    fn session_to_nowhere(
        input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    ) -> (Arc<Nowhere>, BoxStream<'static, Answer>) {
        let nowhere = Arc::new(Nowhere::default());
        let peers = Peers::new(nowhere.clone(), ClusterSecret::default(), OwnIdentity::default());
        let client = peers.raft(2, "nowhere:1", Purpose::Replication).unwrap();
        (nowhere, session(client, "member 2".to_owned(), input))
    }

    #[tokio::test]
    async fn nothing_is_connected_before_there_is_something_to_send() {
        let (nowhere, mut output) = session_to_nowhere(futures_util::stream::pending());
        assert!(futures_util::poll!(output.next()).is_pending());
        tokio::task::yield_now().await;
        assert_eq!(nowhere.0.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_dead_peer_is_one_error_and_the_end() {
        let request = AppendEntriesRequest {
            vote: Vote { leader_id: LeaderId { term: 1, node_id: 1 }, committed: true },
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let (nowhere, output) = session_to_nowhere(futures_util::stream::iter([request]));
        let answers: Vec<Answer> = output.collect().await;
        assert!(matches!(answers.as_slice(), [Err(RPCError::Unreachable(_))]), "{answers:?}");
        assert_eq!(nowhere.0.load(Ordering::SeqCst), 1);
    }
}
