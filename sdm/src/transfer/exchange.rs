//! A transaction that needs a byte stream with this command: watches it, keeps a stream with whichever
//! worker has the current attempt, and ends when the transaction does.

use crate::client::Cluster;
use crate::client::Told;
use crate::client::TransactionWatch;
use crate::client::abort_own;
use crate::client::cause_of;
use crate::client::outcome_of;
use crate::output::Failure;
use crate::output::Format;
use crate::output::Progress;
use futures_util::StreamExt;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::wire::v1;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use tokio::task::JoinSet;
use tonic::Status;

/// How often the progress is shown anew.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);

/// Pause before a broken stream is begun anew: the new attempt needs a moment to exist.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Why a stream ended without its result.
#[derive(Debug)]
pub enum TransferError {
    /// Here, on this side: the command ends.
    Local(Failure),
    /// The worker refused the bytes for good: the transaction will end and say so.
    Refused(Refusal),
    /// The worker does not know the ticket yet, or serves another stream with it: tried again, and no
    /// news.
    NotYet,
    /// It broke: it is begun anew while the transaction goes on.
    Broken(String),
}

impl From<Failure> for TransferError {
    fn from(failure: Failure) -> Self {
        Self::Local(failure)
    }
}

impl From<Status> for TransferError {
    fn from(status: Status) -> Self {
        let refusal = from_status(&status);
        let ours = !matches!(refusal.reason.as_str(), "UNREACHABLE" | "RPC_FAILED");
        match refusal.class {
            Class::Unavailable if matches!(refusal.reason.as_str(), "TICKET_UNKNOWN" | "TRANSFER_BUSY") => Self::NotYet,
            Class::Unavailable | Class::Timeout | Class::NotFound if ours => Self::Broken(refusal.message),
            _ if ours => Self::Refused(refusal),
            _ => Self::Broken(cause_of(&status)),
        }
    }
}

/// One such transaction.
pub struct Exchange<'a> {
    /// The members to ask.
    pub cluster: &'a Cluster,
    /// What to call it ("import web-01").
    pub label: String,
    /// What is said when this side has nothing left to do.
    pub closing: &'static str,
    /// Whether anybody looks at the progress.
    pub format: Format,
    /// Bytes done, counted by the stream.
    pub done: Arc<AtomicU64>,
    /// Bytes to do, as far as known.
    pub total: Arc<AtomicU64>,
}

struct Streams<T> {
    tasks: JoinSet<Result<T, TransferError>>,
    token: String,
    result: Option<T>,
    refused: Option<Refusal>,
}

impl Exchange<'_> {
    /// Runs streams that `start` begins until the transaction has ended. Answers with it and with the
    /// last stream's result, if one came to its end.
    ///
    /// # Errors
    /// The transaction was refused or aborted, or this side failed.
    pub async fn run<T, F>(
        &self,
        begun: v1::Transaction,
        start: impl Fn(v1::Transfer) -> F,
    ) -> Result<(v1::Transaction, Option<T>), Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, TransferError>> + Send + 'static,
    {
        let mut progress = Progress::begin(&self.label, self.format);
        let id = begun.id.clone();
        let mut streams = Streams { tasks: JoinSet::new(), token: String::new(), result: None, refused: None };
        let mut txn = begun;
        let watch = TransactionWatch::new(self.cluster, &id);
        let updates = futures_util::stream::unfold(watch, async |mut watch| Some((watch.next().await, watch)));
        tokio::pin!(updates);
        let mut show = tokio::time::interval(SHOW_INTERVAL);
        let mut rate = Rate::new();
        let mut told = String::new();
        loop {
            if let Some(outcome) = outcome_of(&txn) {
                progress.end();
                return self.ended(outcome, txn, streams).await;
            }
            streams.follow(&txn, &start);
            tokio::select! {
                Some(told) = updates.next() => match told? {
                    Told::Update(update) => txn = update.transaction.unwrap_or(txn),
                    Told::MemberLost(address, cause) => {
                        progress.note(&format!("member at {address} no longer tells ({cause}); asking the next one"));
                    }
                },
                Some(ended) = streams.tasks.join_next() => {
                    let note = match streams.on_end(ended) {
                        Ok(note) => note,
                        Err(failure) => return Err(self.abandon(failure, &id).await),
                    };
                    if let Some(note) = note.filter(|note| *note != told) {
                        progress.note(&format!("the stream to the worker broke ({note}); it begins anew"));
                        told = note;
                    }
                },
                _ = show.tick() => self.show(&mut progress, &txn, &streams, &mut rate),
            }
        }
    }

    fn show<T>(&self, progress: &mut Progress, txn: &v1::Transaction, streams: &Streams<T>, rate: &mut Rate) {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        if streams.tasks.is_empty() && streams.result.is_none() {
            progress.state(&format!("{}: {}", txn.phase, txn.phase_reason));
        } else if streams.result.is_some() || (done >= total && total > 0) {
            progress.state(self.closing);
        } else if total == 0 {
            progress.state("waiting for the worker");
        } else {
            progress.bytes("transfer", done, total, rate.per_second(done));
        }
    }

    async fn ended<T: Send + 'static>(
        &self,
        outcome: Result<(), Failure>,
        txn: v1::Transaction,
        mut streams: Streams<T>,
    ) -> Result<(v1::Transaction, Option<T>), Failure> {
        match (outcome, streams.refused.take()) {
            (Ok(()), _) => {
                // The commit can overtake the stream's own end by a moment.
                while let Some(ended) = streams.tasks.join_next().await {
                    streams.on_end(ended)?;
                }
                Ok((txn, streams.result))
            }
            // The worker said what was wrong; that nobody sent afterwards is only the consequence.
            (Err(failure), Some(refused)) if failure.refusal.reason == "SOURCE_GONE" => {
                Err(Failure::from(refused).of_request(&txn.id))
            }
            (Err(failure), _) => Err(failure),
        }
    }

    /// This side gives up, so the transaction is ended with it: its locks are worth more to others than
    /// the minute in which somebody could take it over. Without an answer it notices by itself.
    async fn abandon(&self, mut failure: Failure, id: &str) -> Failure {
        let then = if abort_own(self.cluster, id, &failure).await {
            format!("transaction {id} was aborted: repeat the command without --request-id or with a new one")
        } else {
            format!("transaction {id} ends within a minute if nobody takes it over; now: sdm txn abort {id}")
        };
        let hint = &mut failure.refusal.hint;
        *hint = if hint.is_empty() { then } else { format!("{hint}; {then}") };
        failure.of_request(id)
    }
}

impl<T: Send + 'static> Streams<T> {
    /// Sees to it that a stream runs for the current attempt, and none for an earlier one.
    fn follow<F>(&mut self, txn: &v1::Transaction, start: &impl Fn(v1::Transfer) -> F)
    where
        F: Future<Output = Result<T, TransferError>> + Send + 'static,
    {
        let Some(transfer) = txn.transfer.as_ref().filter(|transfer| !transfer.address.is_empty()) else { return };
        let is_new = transfer.token != self.token;
        if is_new {
            self.tasks.abort_all();
            self.tasks.detach_all();
            transfer.token.clone_into(&mut self.token);
            self.result = None;
            self.refused = None;
        }
        if self.tasks.is_empty() && self.result.is_none() && self.refused.is_none() {
            let stream = start(transfer.clone());
            let pause = if is_new { Duration::ZERO } else { RETRY_PAUSE };
            self.tasks.spawn(async move {
                tokio::time::sleep(pause).await;
                stream.await
            });
        }
    }

    /// Takes a stream's end; answers with a note when it is to be begun anew.
    fn on_end(
        &mut self,
        ended: Result<Result<T, TransferError>, tokio::task::JoinError>,
    ) -> Result<Option<String>, Failure> {
        match ended {
            Ok(Ok(result)) => self.result = Some(result),
            Ok(Err(TransferError::Local(failure))) => return Err(failure),
            Ok(Err(TransferError::Refused(refusal))) => self.refused = Some(refusal),
            Ok(Err(TransferError::Broken(cause))) => return Ok(Some(cause)),
            Ok(Err(TransferError::NotYet)) => {}
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                return Err(Failure::new(Class::Internal, "TRANSFER_FAILED", format!("the stream's task: {error}")));
            }
        }
        Ok(None)
    }
}

/// A moving average of what a counter does.
struct Rate {
    since: Instant,
    from: u64,
    per_second: f64,
}

impl Rate {
    fn new() -> Self {
        Self { since: Instant::now(), from: 0, per_second: 0.0 }
    }

    fn per_second(&mut self, now: u64) -> u64 {
        /// Weight of the newest value: five of them make most of the average.
        const WEIGHT: f64 = 0.3;
        let seconds = self.since.elapsed().as_secs_f64();
        if seconds > 0.0 {
            let newest = now.saturating_sub(self.from) as f64 / seconds;
            self.per_second += WEIGHT * (newest - self.per_second);
            (self.since, self.from) = (Instant::now(), now);
        }
        self.per_second as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_proto::status::to_status;

    fn transfer(token: &str) -> v1::Transaction {
        let transfer = v1::Transfer { address: "w:1".into(), token: token.into(), ..Default::default() };
        v1::Transaction { phase: "running".into(), transfer: Some(transfer), ..Default::default() }
    }

    #[tokio::test]
    async fn a_new_attempt_begins_its_stream_anew_also_after_the_first_one_was_through() {
        let mut streams: Streams<String> =
            Streams { tasks: JoinSet::new(), token: String::new(), result: None, refused: None };
        let start = |transfer: v1::Transfer| async move { Ok(transfer.token) };
        streams.follow(&transfer("1-5-0"), &start);
        let ended = streams.tasks.join_next().await.unwrap();
        streams.on_end(ended).unwrap();
        assert_eq!(streams.result.as_deref(), Some("1-5-0"));
        streams.follow(&transfer("1-5-0"), &start);
        assert!(streams.tasks.is_empty(), "a stream that is through is not repeated");
        streams.follow(&transfer("1-9-0"), &start);
        assert_eq!((streams.result.as_deref(), streams.tasks.len()), (None, 1));
    }

    #[test]
    fn unknown_tickets_and_broken_connections_are_tried_again_and_refusals_are_not() {
        let error = |status: Status| TransferError::from(status);
        assert!(matches!(error(Status::unavailable("reset")), TransferError::Broken(_)));
        assert!(matches!(error(Status::internal("h2 protocol error")), TransferError::Broken(_)));
        let unknown = to_status(&Refusal::new(Class::Unavailable, "TICKET_UNKNOWN", "no such ticket"));
        assert!(matches!(error(unknown), TransferError::NotYet));
        let bad = to_status(&Refusal::new(Class::Invalid, "ENCRYPTED", "it is encrypted"));
        assert!(matches!(error(bad), TransferError::Refused(_)));
    }
}
