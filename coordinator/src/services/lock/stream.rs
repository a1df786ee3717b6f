//! Acquire and Release over one stream: each call is done as if it had come by itself, and answers that
//! are ready at the same time go back in one message.
//!
//! The answers' stream does all the work while it is asked for answers, without a task of its own:
//! where the connection takes no more, no more calls are read. When the caller goes, its calls are
//! given up as broken calls are, and it repeats them under their sequence, here or elsewhere.

use super::acquire;
use crate::core::Core;
use crate::route::stopping;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use futures_util::stream::BoxStream;
use futures_util::stream::FuturesUnordered;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::lock_answer::Outcome;
use sdm_proto::wire::v1::lock_call::Call;
use tonic::Status;
use tonic::Streaming;

/// Calls of one stream that are worked on at once, waits for locks among them. Past it the caller's
/// next ones wait in its connection.
const IN_FLIGHT_MAX: usize = 1024;

/// Answers in one message. Each is small.
const BATCH_MAX: usize = 256;

/// What the caller gets.
pub(super) type Answers = BoxStream<'static, Result<v1::LockAnswers, Status>>;

struct Session {
    core: Core,
    calls: Streaming<v1::LockCalls>,
    /// Whether the caller may have more to ask.
    more: bool,
    working: FuturesUnordered<BoxFuture<'static, v1::LockAnswer>>,
    over: bool,
}

/// Answers the calls of a stream.
pub(super) fn answers(core: Core, calls: Streaming<v1::LockCalls>) -> Answers {
    let session = Session { core, calls, more: true, working: FuturesUnordered::new(), over: false };
    let answers = stream::unfold(session, |mut session| async move {
        let message = session.next().await?;
        Some((message, session))
    });
    answers.boxed()
}

impl Session {
    /// The next message; None when the caller has no more calls and all are answered.
    async fn next(&mut self) -> Option<Result<v1::LockAnswers, Status>> {
        while !self.over && (self.more || !self.working.is_empty()) {
            tokio::select! {
                biased;
                Some(first) = self.working.next(), if !self.working.is_empty() => {
                    return Some(Ok(self.together(first)));
                }
                message = self.calls.message(), if self.more && self.working.len() < IN_FLIGHT_MAX => match message {
                    Ok(Some(calls)) => self.begin(calls),
                    Ok(None) => self.more = false,
                    // The caller is gone.
                    Err(_) => return None,
                },
                // What is being written is still answered.
                () = self.core.closing().cancelled(), if self.more => self.more = false,
            }
        }
        let closed = self.core.closing().is_cancelled() && !std::mem::replace(&mut self.over, true);
        closed.then(|| Err(to_status(&stopping(&self.core))))
    }

    fn begin(&mut self, calls: v1::LockCalls) {
        self.working.extend(calls.items.into_iter().map(|call| answer(self.core.clone(), call).boxed()));
    }

    /// This answer and whatever else is ready.
    fn together(&mut self, first: v1::LockAnswer) -> v1::LockAnswers {
        let mut items = vec![first];
        while items.len() < BATCH_MAX
            && let Some(Some(answer)) = self.working.next().now_or_never()
        {
            items.push(answer);
        }
        v1::LockAnswers { items }
    }
}

async fn answer(core: Core, v1::LockCall { number, call }: v1::LockCall) -> v1::LockAnswer {
    let outcome = match call {
        Some(Call::Acquire(request)) => acquire::acquire(&core, request).await.map(Outcome::Acquired),
        Some(Call::Release(request)) => acquire::release(&core, request).await.map(Outcome::Released),
        None => Err(Refusal::new(Class::Unsupported, "UNKNOWN_CALL", "this member does not know what is asked for")
            .hint("upgrade it to the release of the caller")),
    };
    v1::LockAnswer { number, outcome: Some(outcome.unwrap_or_else(|refusal| Outcome::Refused((&refusal).into()))) }
}
