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
    peer: String,
    input: S,
    /// None once the input ended.
    requests: Option<mpsc::Sender<wire::AppendRequest>>,
    responses: Streaming<wire::AppendResponse>,
    in_flight: VecDeque<Range>,
    deadline: Instant,
    over: bool,
}

/// Opens a session and answers with its output.
pub(crate) async fn open<'s, S>(
    mut client: RaftServiceClient<PeerChannel>,
    peer: String,
    input: S,
) -> Result<BoxStream<'s, Answer>, RPCError<TypeConfig>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    let (requests, receiver) = mpsc::channel(IN_FLIGHT_MAX);
    let opening = client.stream_append(ReceiverStream::new(receiver));
    let responses = match tokio::time::timeout(ANSWER_TIME, opening).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            return Err(RPCError::Unreachable(unreachable(format!("{peer}: {}", status.message()))));
        }
        Err(_) => {
            let reason = format!("{peer} did not open a stream within {ANSWER_TIME:?}");
            return Err(RPCError::Unreachable(unreachable(reason)));
        }
    };
    let session = Session {
        peer,
        input,
        requests: Some(requests),
        responses,
        in_flight: VecDeque::new(),
        deadline: Instant::now(),
        over: false,
    };
    let output = futures_util::stream::unfold(session, |mut session| async move {
        let answer = session.next().await?;
        Some((answer, session))
    });
    Ok(Box::pin(output))
}

impl<S> Session<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    async fn next(&mut self) -> Option<Answer> {
        while !self.over {
            if self.requests.is_none() && self.in_flight.is_empty() {
                return None;
            }
            tokio::select! {
                biased;
                response = self.responses.message() => return Some(self.on_response(response)),
                request = self.input.next(), if self.requests.is_some() && self.in_flight.len() < IN_FLIGHT_MAX => {
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

    fn on_request(&mut self, request: Option<AppendEntriesRequest<TypeConfig>>) -> Result<(), String> {
        let Some(request) = request else {
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
