//! A line to one member: the stream over which this process takes and releases locks there. Calls that
//! are ready at the same time go in one message, and each is answered when it is done. A line opens
//! when first used; what was not answered when it broke is asked anew by whoever waits for it, at this
//! member over another line, or at the next one.

use super::Link;
use futures_util::Stream;
use futures_util::StreamExt;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::lock_answer::Outcome;
use sdm_proto::wire::v1::lock_call::Call;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tonic::Response;
use tonic::Status;

/// Calls in one message: far below what a message may hold.
const BATCH_MAX: usize = 256;

/// Calls that wait for the connection; past it callers wait for a place.
const QUEUE_MAX: usize = 1024;

type Answered = oneshot::Sender<Result<Outcome, Status>>;

/// Who waits for which answer. None: the line has ended.
type Table = Mutex<Option<HashMap<u64, Answered>>>;

/// An open line.
struct Open {
    calls: mpsc::Sender<v1::LockCall>,
    waiting: Arc<Table>,
    last: u64,
}

/// The line to one member. Clones share it.
#[derive(Clone, Default)]
pub(super) struct LockLine(Arc<Mutex<Option<Open>>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken() -> Status {
    Status::unavailable("the connection broke before the answer came")
}

impl LockLine {
    /// Asks, and waits for the answer for as long as the line holds.
    ///
    /// # Errors
    /// The member's refusal, or why there is no answer.
    pub async fn call(&self, link: Link, call: Call) -> Result<Response<Outcome>, Status> {
        let (number, calls, answered) = self.begin(link);
        if calls.send(v1::LockCall { number, call: Some(call) }).await.is_err() {
            self.forget();
            // The line's end has told, or will: a reason is better than none.
            return answered.await.unwrap_or_else(|_| Err(broken())).map(Response::new);
        }
        answered.await.unwrap_or_else(|_| Err(broken())).map(Response::new)
    }

    /// A number for a call, and where its answer comes.
    fn begin(&self, link: Link) -> (u64, mpsc::Sender<v1::LockCall>, oneshot::Receiver<Result<Outcome, Status>>) {
        let (tell, answered) = oneshot::channel();
        let mut line = lock(&self.0);
        if line.as_ref().is_some_and(|open| lock(&open.waiting).is_none()) {
            *line = None;
        }
        let open = line.get_or_insert_with(|| Open::start(link));
        open.last += 1;
        if let Some(waiting) = lock(&open.waiting).as_mut() {
            waiting.insert(open.last, tell);
        }
        (open.last, open.calls.clone(), answered)
    }

    fn forget(&self) {
        let mut line = lock(&self.0);
        if line.as_ref().is_some_and(|open| open.calls.is_closed()) {
            *line = None;
        }
    }
}

impl Open {
    fn start(link: Link) -> Self {
        let (calls, queue) = mpsc::channel(QUEUE_MAX);
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let told = waiting.clone();
        tokio::spawn(async move {
            let ended = run(link, queue, &told).await;
            // From here on nobody waits on this line any more.
            let left = lock(&told).take();
            for (_, waiting) in left.into_iter().flatten() {
                // Whoever gave up needs no word.
                _ = waiting.send(Err(ended.clone()));
            }
        });
        Open { calls, waiting, last: 0 }
    }
}

/// Runs a line until it breaks or nobody uses it any more; why it ended.
async fn run(link: Link, queue: mpsc::Receiver<v1::LockCall>, waiting: &Table) -> Status {
    let mut answers = match LockServiceClient::new(link).lock(Together(queue)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        let message = match answers.next().await {
            Some(Ok(message)) => message,
            Some(Err(status)) => return status,
            None => return broken(),
        };
        let mut waiting = lock(waiting);
        let Some(waiting) = waiting.as_mut() else { return broken() };
        for v1::LockAnswer { number, outcome } in message.items {
            let outcome = match outcome {
                Some(Outcome::Refused(refusal)) => Err(to_status(&Refusal::from(&refusal))),
                Some(outcome) => Ok(outcome),
                None => Err(Status::internal("an answer without an outcome")),
            };
            if let Some(waiting) = waiting.remove(&number) {
                // Whoever gave up needs no answer.
                _ = waiting.send(outcome);
            }
        }
    }
}

/// What waits in the queue, as messages.
struct Together(mpsc::Receiver<v1::LockCall>);

impl Stream for Together {
    type Item = v1::LockCalls;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<v1::LockCalls>> {
        let mut items = Vec::new();
        self.0.poll_recv_many(cx, &mut items, BATCH_MAX).map(|count| (count > 0).then_some(v1::LockCalls { items }))
    }
}
