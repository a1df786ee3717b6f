//! Rounds: many callers ask the same kind of question of the leader at once; whoever waits when a
//! round starts shares it. One round is in flight at a time, so the cost does not grow with the
//! callers.

use sdm_proto::refusal::Refusal;
use std::future::Future;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Callers that wait for a round. Past it, callers wait for a place.
const WAITING_MAX: usize = 4096;

pub(crate) struct Waiter<Q, A> {
    question: Q,
    deadline: Instant,
    answer: oneshot::Sender<Result<A, Refusal>>,
}

/// Where callers ask.
pub(crate) struct Rounds<Q, A> {
    queue: mpsc::Sender<Waiter<Q, A>>,
}

/// The other end, for `drive`.
pub(crate) type Waiters<Q, A> = mpsc::Receiver<Waiter<Q, A>>;

impl<Q, A> Rounds<Q, A> {
    /// Both ends.
    pub fn new() -> (Self, Waiters<Q, A>) {
        let (queue, waiters) = mpsc::channel(WAITING_MAX);
        (Self { queue }, waiters)
    }

    /// Asks in the next round. None: the deadline passed, or the member is closing.
    pub async fn ask(&self, question: Q, deadline: Instant) -> Option<Result<A, Refusal>> {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            self.queue.send(Waiter { question, deadline, answer }).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout_at(deadline, asking).await.ok().flatten()
    }
}

/// Runs rounds until the member closes. A round gets all questions that wait, and the latest of
/// their deadlines.
pub(crate) async fn drive<Q, A, F, R>(mut waiters: Waiters<Q, A>, closing: CancellationToken, round: R)
where
    A: Clone,
    F: Future<Output = Result<A, Refusal>>,
    R: Fn(Vec<Q>, Instant) -> F,
{
    let serve = async {
        while let Some(first) = waiters.recv().await {
            let mut deadline = first.deadline;
            let (mut questions, mut answers) = (vec![first.question], vec![first.answer]);
            while let Ok(next) = waiters.try_recv() {
                deadline = deadline.max(next.deadline);
                questions.push(next.question);
                answers.push(next.answer);
            }
            answers.retain(|answer| !answer.is_closed());
            if answers.is_empty() {
                continue;
            }
            let outcome = round(questions, deadline).await;
            for answer in answers {
                // Whoever gave up meanwhile needs no answer.
                let _ = answer.send(outcome.clone());
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = closing.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::time::Duration;
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn callers_that_wait_together_share_one_round_and_never_an_earlier_one() {
        let (rounds, waiters) = Rounds::<u32, usize>::new();
        let (started, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let round = {
            let (started, go) = (started.clone(), go.clone());
            move |_questions: Vec<u32>, _| {
                let number = started.fetch_add(1, Ordering::SeqCst) + 1;
                let go = go.clone();
                async move {
                    go.acquire().await.unwrap().forget();
                    Ok(number)
                }
            }
        };
        let closing = CancellationToken::new();
        tokio::spawn(drive(waiters, closing.clone(), round));
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut first = Box::pin(rounds.ask(1, deadline));
        while started.load(Ordering::SeqCst) == 0 {
            assert!(futures_util::poll!(&mut first).is_pending());
            tokio::task::yield_now().await;
        }
        let mut later = Box::pin(futures_util::future::join(rounds.ask(2, deadline), rounds.ask(3, deadline)));
        assert!(futures_util::poll!(&mut later).is_pending());
        go.add_permits(2);
        assert_eq!(first.await, Some(Ok(1)));
        assert_eq!(later.await, (Some(Ok(2)), Some(Ok(2))));
    }

    #[tokio::test]
    async fn a_caller_whose_deadline_passes_gets_no_answer() {
        let (rounds, waiters) = Rounds::<(), ()>::new();
        tokio::spawn(drive(waiters, CancellationToken::new(), |_, _| std::future::pending()));
        assert_eq!(rounds.ask((), Instant::now()).await, None);
    }
}
