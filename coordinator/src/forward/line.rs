//! A line: the stream over which this member forwards commands to one leader. Commands that wait
//! when the stream can take more go in one message; each is answered when the leader is done with
//! it, in any order. When the line breaks, nobody knows what became of what was not answered: the
//! caller tries again, as after any broken call.

use crate::peers::PeerChannel;
use crate::peers::Peers;
use crate::route::Attempt;
use bytes::Bytes;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::status::refusal_in;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::forward_answer::Outcome;
use sdm_proto::wire::internal::v1::member_service_client::MemberServiceClient;
use sdm_raft_store::NodeId;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::Status;

/// Commands that wait for the line; past it, callers wait for a place.
const QUEUE_MAX: usize = 1024;

/// Commands that the leader works on at once for one line. Past it they wait here.
pub(crate) const IN_FLIGHT_MAX: usize = 4096;

/// Bytes of the commands that wait for the line or for their answers. A command may be large: without
/// this, four thousand of them would be a gigabyte, here and at the leader.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 20;
const _: () = assert!(LINE_BYTES_MAX >= limits::COMMAND_BYTES_MAX);

/// Commands in one message, and their bytes: far below what a message may hold.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(BATCH_BYTES_MAX + limits::COMMAND_BYTES_MAX < limits::MESSAGE_BYTES_MAX);

/// Messages that wait for the connection: two, so that one is ready when the other was sent, and
/// what comes meanwhile travels together.
const MESSAGES_MAX: usize = 2;

/// How long opening a line may take.
const OPEN_TIME: Duration = Duration::from_secs(2);

struct Waiting {
    command: Bytes,
    entropy: [u8; 16],
    answer: Answer,
}

/// Who waits for an answer, and the room that the command takes until then.
struct Answer {
    sender: oneshot::Sender<Result<wire::ForwardResponse, Refusal>>,
    _room: OwnedSemaphorePermit,
}

/// What a leader did with a command, or that it has no lines.
pub(crate) enum Forwarded {
    /// Done, refused, or unknown.
    Tried(Attempt<wire::ForwardResponse>),
    /// The leader is of an earlier version, which takes calls only.
    CallsOnly,
}

/// One line. Clones share it.
#[derive(Clone)]
pub(crate) struct Line {
    id: NodeId,
    address: String,
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    opened: Arc<AtomicBool>,
    /// Whether this line, or one before it to the same leader, was open.
    reached: Arc<AtomicBool>,
    calls_only: Arc<AtomicBool>,
}

impl Line {
    /// Completes when the line has ended.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Whether its leader ever answered.
    pub fn was_open(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }

    /// Whether its leader ever answered, on this line or one before it: whoever needs a line opens it, and
    /// one that broke may not be the one that is asked.
    pub fn reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// Whether its leader turned out to know no lines.
    pub fn calls_only(&self) -> bool {
        self.calls_only.load(Ordering::Relaxed)
    }

    /// Sends a command and waits for its answer, for as long as the line holds.
    pub async fn forward(&self, command: Bytes, entropy: [u8; 16]) -> Forwarded {
        if self.calls_only() {
            return Forwarded::CallsOnly;
        }
        match self.answer(command, entropy).await {
            Some(Ok(response)) => Forwarded::Tried(Attempt::Done(response)),
            Some(Err(refusal)) => Forwarded::Tried(Attempt::of_refusal(refusal)),
            None if self.calls_only() => Forwarded::CallsOnly,
            None => {
                let message = format!("the connection to the leader, member {} at {}, broke", self.id, self.address);
                Forwarded::Tried(Attempt::Again(Refusal::new(Class::Unavailable, "LEADER_LOST", message)))
            }
        }
    }

    /// None: the line has ended.
    async fn answer(&self, command: Bytes, entropy: [u8; 16]) -> Option<Result<wire::ForwardResponse, Refusal>> {
        // The room comes back when the line ends, and then the queue takes nothing.
        let bytes = u32::try_from(command.len().min(LINE_BYTES_MAX)).ok()?;
        let room = self.room.clone().acquire_many_owned(bytes).await.ok()?;
        let (sender, answered) = oneshot::channel();
        let answer = Answer { sender, _room: room };
        self.queue.send(Waiting { command, entropy, answer }).await.ok()?;
        answered.await.ok()
    }
}

/// The line that this member has.
#[derive(Default)]
pub(crate) struct Lines {
    current: Mutex<Option<Line>>,
}

impl Lines {
    /// The line to this leader; opened if there is none, or the one there has ended.
    ///
    /// # Errors
    /// The leader's address cannot be used.
    pub fn to(&self, peers: &Peers, id: NodeId, address: &str) -> Result<Line, Refusal> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |line: &&Line| line.id == id && line.address == address;
        if let Some(line) = current.as_ref().filter(same)
            && (!line.queue.is_closed() || line.calls_only())
        {
            return Ok(line.clone());
        }
        let client = peers.member(id, address)?;
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let (opened, calls_only) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let reached = current.as_ref().filter(same).map(|line| Arc::clone(&line.reached)).unwrap_or_default();
        let line = Line {
            id,
            address: address.to_owned(),
            queue,
            room: Arc::new(Semaphore::new(LINE_BYTES_MAX)),
            opened: opened.clone(),
            reached: reached.clone(),
            calls_only: calls_only.clone(),
        };
        tokio::spawn(async move {
            let mut waiting = waiting;
            if let Err(status) = run(client, &mut waiting, [&opened, &reached]).await {
                let told = refusal_in(&status).is_some();
                calls_only.store(status.code() == Code::Unimplemented && !told, Ordering::Relaxed);
                tracing::debug!(member = id, reason = from_status(&status).message, "the line to the leader ended");
            }
            // Whoever waits learns of the end from here on.
            drop(waiting);
        });
        // The line before, if there was one, ends when its last user lets it go.
        *current = Some(line.clone());
        Ok(line)
    }

    /// Lets the line go: there is no leader to talk to.
    pub fn close(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

type Client = MemberServiceClient<PeerChannel>;

/// Runs a line until it breaks or nobody uses it any more.
async fn run(mut client: Client, queue: &mut mpsc::Receiver<Waiting>, open: [&AtomicBool; 2]) -> Result<(), Status> {
    let (messages, outgoing) = mpsc::channel(MESSAGES_MAX);
    let opening = client.forward_stream(ReceiverStream::new(outgoing));
    let opened = tokio::time::timeout(OPEN_TIME, opening).await;
    let mut answers = opened.map_err(|_| Status::unavailable("the leader opened no line in time"))??.into_inner();
    for open in open {
        open.store(true, Ordering::Relaxed);
    }
    let mut waiting = Table::default();
    let (mut received, mut unsent) = (Vec::new(), VecDeque::new());
    loop {
        tokio::select! {
            message = answers.message() => match message? {
                Some(message) => waiting.answer(message)?,
                None => return Err(Status::unavailable("the leader ended the line")),
            },
            count = queue.recv_many(&mut received, BATCH_MAX), if unsent.is_empty() && waiting.has_room() => {
                if count == 0 {
                    return Ok(());
                }
                unsent.extend(received.drain(..));
            }
            place = messages.reserve(), if !unsent.is_empty() => {
                let place = place.map_err(|_| Status::unavailable("the connection is closed"))?;
                place.send(waiting.batch(&mut unsent));
            }
        }
    }
}

/// Who waits for which answer.
#[derive(Default)]
struct Table {
    last: u64,
    answers: BTreeMap<u64, Answer>,
}

impl Table {
    fn has_room(&self) -> bool {
        self.answers.len() < IN_FLIGHT_MAX
    }

    /// The next message: as much as fits.
    fn batch(&mut self, unsent: &mut VecDeque<Waiting>) -> wire::ForwardBatch {
        let mut items = Vec::with_capacity(unsent.len());
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX {
            let Some(Waiting { command, entropy, answer }) = unsent.pop_front() else { break };
            bytes += command.len();
            self.last += 1;
            self.answers.insert(self.last, answer);
            let entropy = Bytes::copy_from_slice(&entropy);
            items.push(wire::ForwardItem { number: self.last, command, entropy });
        }
        wire::ForwardBatch { items }
    }

    fn answer(&mut self, message: wire::ForwardAnswers) -> Result<(), Status> {
        for answer in message.items {
            let outcome = match answer.outcome {
                Some(Outcome::Done(response)) => Ok(response),
                Some(Outcome::Refused(refusal)) => Err(Refusal::from(&refusal)),
                None => return Err(Status::internal("the leader gave an answer without an outcome")),
            };
            if let Some(waiting) = self.answers.remove(&answer.number) {
                // Whoever gave up meanwhile needs no answer.
                _ = waiting.sender.send(outcome);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(bytes: usize) -> (Waiting, oneshot::Receiver<Result<wire::ForwardResponse, Refusal>>) {
        let (sender, answered) = oneshot::channel();
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let answer = Answer { sender, _room: room };
        (Waiting { command: vec![7; bytes].into(), entropy: [1; 16], answer }, answered)
    }

    #[tokio::test]
    async fn commands_wait_for_room_and_learn_when_the_line_ends() {
        let (queue, mut received) = mpsc::channel(QUEUE_MAX);
        let room = Arc::new(Semaphore::new(LINE_BYTES_MAX));
        let (opened, reached, calls_only) = (Arc::default(), Arc::default(), Arc::default());
        let line = Line { id: 1, address: "a:1".to_owned(), queue, room, opened, reached, calls_only };
        let forward = |bytes: usize| {
            let line = line.clone();
            tokio::spawn(async move { line.answer(vec![7; bytes].into(), [1; 16]).await })
        };
        let first = forward(LINE_BYTES_MAX);
        let waiting = received.recv().await.unwrap();
        let second = forward(10);
        tokio::task::yield_now().await;
        assert!(received.try_recv().is_err(), "there was no room for it");
        let done = wire::ForwardResponse { index: 9, reply: Bytes::new() };
        let mut table = Table::default();
        table.batch(&mut VecDeque::from([waiting]));
        assert!(received.try_recv().is_err(), "the leader has not answered yet");
        let items = vec![wire::ForwardAnswer { number: 1, outcome: Some(Outcome::Done(done.clone())) }];
        table.answer(wire::ForwardAnswers { items }).unwrap();
        assert_eq!(first.await.unwrap(), Some(Ok(done)));
        let waiting = received.recv().await.unwrap();
        assert_eq!(waiting.command.len(), 10);
        let third = forward(LINE_BYTES_MAX);
        tokio::task::yield_now().await;
        drop((received, waiting));
        assert_eq!((second.await.unwrap(), third.await.unwrap()), (None, None));
    }

    #[test]
    fn a_message_takes_what_waits_up_to_its_size() {
        let mut table = Table::default();
        let (mut unsent, mut answered): (VecDeque<_>, Vec<_>) =
            [10, BATCH_BYTES_MAX, 20, 30].map(waiting).into_iter().unzip();
        assert_eq!(table.batch(&mut unsent).items.len(), 2);
        let rest = table.batch(&mut unsent);
        assert_eq!(rest.items.iter().map(|item| item.number).collect::<Vec<_>>(), [3, 4]);
        assert!(unsent.is_empty());
        let done = wire::ForwardResponse { index: 9, reply: Bytes::new() };
        let refused = Refusal::new(Class::Precondition, "LOCKED", "held");
        let items = vec![
            wire::ForwardAnswer { number: 4, outcome: Some(Outcome::Done(done.clone())) },
            wire::ForwardAnswer { number: 1, outcome: Some(Outcome::Refused((&refused).into())) },
            // Nobody asked, or gave up.
            wire::ForwardAnswer { number: 77, outcome: Some(Outcome::Done(done.clone())) },
        ];
        table.answer(wire::ForwardAnswers { items }).unwrap();
        let [first, _second, _third, fourth] = &mut answered[..] else { panic!("four") };
        assert_eq!(fourth.try_recv().unwrap(), Ok(done));
        assert_eq!(first.try_recv().unwrap().unwrap_err().reason, "LOCKED");
        assert_eq!(table.answers.len(), 2);
        let empty = vec![wire::ForwardAnswer { number: 2, outcome: None }];
        assert!(table.answer(wire::ForwardAnswers { items: empty }).is_err());
    }
}
