//! The leader's end of the other members' lines: each command is written as if it had come by a call
//! of its own; answers that are ready at the same time go back in one message.

use super::line::IN_FLIGHT_MAX;
use super::line::LINE_BYTES_MAX;
use crate::core::Core;
use crate::propose::propose_forwarded;
use crate::route::not_leader;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::forward_answer::Outcome;
use sdm_raft_store::LeaderId;
use sdm_state::envelope;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::Streaming;

/// Messages of answers that wait for the connection. Past it, answers wait and travel together.
const MESSAGES_MAX: usize = 2;

/// Answers in one message, and their bytes. One answer is far below a megabyte.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// What the other member gets.
pub(crate) type Answers = ReceiverStream<Result<wire::ForwardAnswers, Status>>;

/// Serves a line for as long as this member leads.
///
/// # Errors
/// It does not.
pub(crate) fn serve(core: &Core, input: Streaming<wire::ForwardBatch>) -> Result<Answers, Refusal> {
    let Some(own) = core.inner.leadership.borrow().own else { return Err(not_leader(core)) };
    let (output, answers) = mpsc::channel(MESSAGES_MAX);
    let core = core.clone();
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = work(&core, own, input, &output) => ended,
            () = core.closing().cancelled() => Some(crate::route::stopping(&core)),
            // The other end is gone.
            () = output.closed() => None,
        };
        if let Some(refusal) = ended {
            // It may be gone as well.
            _ = output.send(Err(to_status(&refusal))).await;
        }
    });
    Ok(ReceiverStream::new(answers))
}

/// None: the other end has nothing more to say.
async fn work(
    core: &Core,
    own: LeaderId,
    mut input: Streaming<wire::ForwardBatch>,
    output: &mpsc::Sender<Result<wire::ForwardAnswers, Status>>,
) -> Option<Refusal> {
    let mut leadership = core.inner.leadership.clone();
    let over = async move {
        // An error means that Raft has ended, which is an end, too.
        _ = leadership.wait_for(|now| now.own != Some(own)).await;
    };
    let mut over = std::pin::pin!(over);
    let mut writing = FuturesUnordered::new();
    // Of the commands that are being written. The other end keeps to the same limit, or should.
    let mut bytes = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut over => return Some(not_leader(core)),
            Some(first) = writing.next(), if !writing.is_empty() => {
                let place = output.reserve().await.ok()?;
                let (answers, done) = together(first, &mut writing);
                bytes -= done;
                place.send(Ok(answers));
            }
            message = input.message(), if writing.len() < IN_FLIGHT_MAX && bytes < LINE_BYTES_MAX => {
                let Ok(Some(batch)) = message else { return None };
                bytes += batch.items.iter().map(|item| item.command.len()).sum::<usize>();
                writing.extend(batch.items.into_iter().map(|item| write(core, own, item)));
            }
        }
    }
}

/// An answer, and how long its command was.
type Written = (wire::ForwardAnswer, usize);

/// This answer and whatever else is ready, and the bytes of their commands.
fn together<F: Future<Output = Written>>(
    (first, mut done): Written,
    writing: &mut FuturesUnordered<F>,
) -> (wire::ForwardAnswers, usize) {
    let bytes_of = |answer: &wire::ForwardAnswer| match &answer.outcome {
        Some(Outcome::Done(response)) => response.reply.len(),
        _ => 0,
    };
    let mut bytes = bytes_of(&first);
    let mut items = vec![first];
    while items.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
        let Some(Some((answer, length))) = writing.next().now_or_never() else { break };
        bytes += bytes_of(&answer);
        done += length;
        items.push(answer);
    }
    (wire::ForwardAnswers { items }, done)
}

async fn write(core: &Core, own: LeaderId, item: wire::ForwardItem) -> Written {
    let outcome = match propose_forwarded(core, own, &item.command, &item.entropy).await {
        Ok(proposed) => {
            let reply = envelope::encode_reply(&proposed.reply).into();
            Outcome::Done(wire::ForwardResponse { index: proposed.index, reply })
        }
        Err(refusal) => Outcome::Refused((&refusal).into()),
    };
    (wire::ForwardAnswer { number: item.number, outcome: Some(outcome) }, item.command.len())
}
