//! One watched transaction: its row now, again after each change, and live progress while its job
//! runs on a worker. It sleeps on its own rows of the applied state, never polls it; who else stands
//! in its way may be told a few seconds late. Every few seconds without a
//! change it proves with a linearizable read that this member still belongs to the majority; where
//! that fails it ends, and whoever watches goes on at another member.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::present;
use crate::services::progress::ProgressReader;
use crate::services::progress::Question;
use crate::services::resolve;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::token::Token;
use sdm_proto::wire::v1::JobProgress;
use sdm_proto::wire::v1::WatchTransactionResponse;
use sdm_raft_store::RowWatch;
use sdm_state::State;
use sdm_state::Touched;
use sdm_state::txns::Txn;
use sdm_state::work::Work;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

/// Pause between two looks at live progress: smooth for a person, cheap for a worker.
const PROGRESS_EVERY: Duration = Duration::from_millis(300);

/// Longest silence. A watcher takes a member that says nothing for twice the time of an election as
/// dead; three signs fit into that.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(5);

/// The watch.
pub(crate) struct TransactionWatch {
    core: Core,
    progress: ProgressReader,
    id: TxnId,
    changes: RowWatch,
    shown: Option<Shown>,
    asking: Option<BoxFuture<'static, Option<JobProgress>>>,
    ask_at: Instant,
    sign_at: Instant,
    ended: bool,
}

/// What of the state a row was derived from: while this is equal, nothing is to be told.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    changed_index: u64,
    work: Option<Work>,
    waits_for: Vec<u64>,
}

impl Shown {
    fn of(state: &State, txn: &Txn) -> Self {
        let lock = txn.lock.and_then(|id| state.locks.get(&id)).filter(|lock| lock.granted.is_none());
        Self {
            changed_index: txn.changed_index,
            work: present::current_work(state, txn).cloned(),
            waits_for: lock.map(|lock| state.lock_blockers(lock)).unwrap_or_default(),
        }
    }

    /// The attempt of a job that a worker could tell about.
    fn token(&self, txn: &Txn) -> Option<Token> {
        txn.job?;
        self.work.as_ref()?.attempt.as_ref().map(|attempt| attempt.token)
    }
}

enum Event {
    Changed,
    CoreGone,
    AskDue,
    Progress(Option<JobProgress>),
    SignDue,
}

impl TransactionWatch {
    /// Of a transaction that this member knows.
    pub(crate) fn new(core: Core, progress: ProgressReader, id: TxnId) -> Self {
        let (changes, now) = (core.watch_row(Touched::Txn(id)), Instant::now());
        let sign_at = now + SIGN_OF_LIFE_EVERY;
        Self { core, progress, id, changes, shown: None, asking: None, ask_at: now, sign_at, ended: false }
    }

    /// As a stream, which ends after the outcome.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<WatchTransactionResponse, Status>> + Send {
        futures_util::stream::unfold(self, |mut watch| async move {
            let told = watch.next().await?;
            watch.ended |= told.is_err();
            Some((told.map_err(|refusal| to_status(&refusal)), watch))
        })
    }

    async fn next(&mut self) -> Option<Result<WatchTransactionResponse, Refusal>> {
        if self.ended {
            return None;
        }
        loop {
            // Watched since before it is loaded: what is applied in between wakes once more.
            let view = self.core.view();
            let state = &view.state;
            let Some(txn) = state.txns.get(&self.id) else { return Some(Err(resolve::unknown_txn(state, self.id))) };
            let now_shown = Shown::of(state, txn);
            let token = now_shown.token(txn);
            if self.shown.as_ref() != Some(&now_shown) {
                self.shown = Some(now_shown);
                self.ended = txn.phase.is_final();
                // Only rows count as signs: progress comes from a worker, even past a member that
                // was cut off from the others.
                self.sign_at = Instant::now() + SIGN_OF_LIFE_EVERY;
                return Some(Ok(told(state, txn, None)));
            }
            match self.event(token.is_some()).await {
                Event::Changed => {}
                Event::CoreGone => return Some(Err(closing())),
                Event::AskDue => self.begin_to_ask(state, txn),
                Event::Progress(None) => self.ask_at = Instant::now() + PROGRESS_EVERY,
                Event::Progress(progress) => {
                    self.ask_at = Instant::now() + PROGRESS_EVERY;
                    return Some(Ok(told(state, txn, progress)));
                }
                Event::SignDue => match Call::begin(&self.core).read().await {
                    // The next round of the loop tells what is new; if nothing is, the row again.
                    Ok(_) => self.shown = None,
                    Err(refusal) => return Some(Err(refusal)),
                },
            }
        }
    }

    async fn event(&mut self, can_ask: bool) -> Event {
        let idle = can_ask && self.asking.is_none();
        let Self { core, changes, asking, ask_at, sign_at, .. } = self;
        let answer = async {
            match asking.as_mut() {
                Some(answer) => answer.await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            () = core.closing().cancelled() => Event::CoreGone,
            () = changes.changed() => Event::Changed,
            progress = answer => Event::Progress(progress),
            () = tokio::time::sleep_until(*ask_at), if idle => Event::AskDue,
            () = tokio::time::sleep_until(*sign_at) => Event::SignDue,
        };
        if matches!(event, Event::Progress(_)) {
            self.asking = None;
        }
        event
    }

    fn begin_to_ask(&mut self, state: &State, txn: &Txn) {
        let attempt = present::current_work(state, txn).and_then(|work| work.attempt.as_ref());
        let questions = Question::about(state, attempt.into_iter());
        let Some(token) = attempt.map(|attempt| attempt.token.to_string()).filter(|_| !questions.is_empty()) else {
            self.ask_at = Instant::now() + PROGRESS_EVERY;
            return;
        };
        let progress = self.progress.clone();
        self.asking = Some(Box::pin(async move { progress.ask(questions).await.remove(&token) }));
    }
}

fn told(state: &State, txn: &Txn, progress: Option<JobProgress>) -> WatchTransactionResponse {
    WatchTransactionResponse { transaction: Some(present::transaction(state, txn)), progress }
}

fn closing() -> Refusal {
    Refusal::new(Class::Unavailable, "MEMBER_STOPS", "this member is shutting down; the transaction goes on")
        .hint("ask another member")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn shown(sample: &Sample, id: TxnId) -> Shown {
        Shown::of(&sample.state, sample.state.txns.get(&id).unwrap())
    }

    #[test]
    fn checkpoints_and_new_holders_are_changes_and_the_mere_passing_of_time_is_none() {
        let mut sample = Sample::with_disk();
        let mover = sample.begin_move("web-01", "nfs2");
        let deleter = sample.begin_delete("web-01");
        let (moving, waiting) = (shown(&sample, mover), shown(&sample, deleter));
        assert_eq!(waiting.waits_for.len(), 1);
        sample.pass(1_000);
        assert_eq!((shown(&sample, mover), shown(&sample, deleter)), (moving.clone(), waiting));
        sample.checkpoint(1 << 19);
        assert_ne!(shown(&sample, mover), moving);
    }

    #[test]
    fn only_a_job_that_runs_on_a_worker_has_progress_to_ask_for() {
        let mut sample = Sample::with_disk();
        let mover = sample.begin_move("web-01", "nfs2");
        let token = |sample: &Sample| shown(sample, mover).token(sample.state.txns.get(&mover).unwrap());
        assert!(token(&sample).is_some());
        sample.lose("a");
        assert_eq!(token(&sample), None);
    }
}
