//! A client that begins transactions of kind noop: a lock, a step that a real worker receives and
//! reports, and the outcome. Whatever the outcome was when it was told, it stays.

use super::Answer;
use super::Endpoints;
use super::endpoints::transactions;
use crate::history::History;
use crate::history::KnownTxn;
use crate::history::Promise;
use rand::RngExt;
use rand::rngs::StdRng;
use sdm_proto::wire::v1;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may wait for the outcome, in milliseconds.
const WAIT_MS: u64 = 8_000;

/// How long a request is repeated before the client gives it up for good.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the cluster refuses a noop, and remembers that, while the worker is not back.
const NO_WORKER: &str = "NO_LIVE_WORKER";

/// One client.
pub struct NoopClient {
    number: usize,
    endpoints: Endpoints,
    history: Arc<History>,
    random: StdRng,
    names: u64,
}

impl NoopClient {
    /// The client of this number, with its own source of randomness.
    pub fn new(number: usize, endpoints: Endpoints, history: Arc<History>, random: StdRng) -> Self {
        Self { number, endpoints, history, random, names: 0 }
    }

    /// Does one thing.
    pub async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..8 => self.repeat().await,
            _ => self.begin().await,
        }
    }

    async fn begin(&mut self) {
        self.names += 1;
        let name = format!("user/bench/chaos-{}-{}", self.number, self.names);
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        self.history.record().request_ids.insert(id.clone());
        let process = format!("noop-{}", self.number);
        self.history.event("invoke", &process, "begin", &id, json!(name));
        let patience = if self.random.random_range(0..4) == 0 { Duration::ZERO } else { PATIENCE };
        let (answer, again) = self.send(&id, &name, patience).await;
        let told = outcome(&id, &name, &answer);
        let mut record = self.history.record();
        match &told {
            Some(_) => record.counts.acknowledged += 1,
            None => record.counts.unknown += 1,
        }
        record.counts.repeated += u64::from(again && told.is_some());
        let phase = told.as_ref().map(|told| told.phase.clone());
        if let Some(told) = told {
            record.noop_answered(told);
        } else if let Answer::Refused(refusal) = &answer {
            record.violated(Promise::Idempotent, format!("a new request {id} was refused: {refusal}"));
        }
        drop(record);
        let kind = if phase.is_some() { "ok" } else { "info" };
        self.history.event(kind, &process, "begin", &id, json!(phase));
    }

    /// One of the last requests again: the recorded outcome must come.
    async fn repeat(&mut self) {
        let known: Option<KnownTxn> = {
            let record = self.history.record();
            let reach = record.noops.len().min(50);
            let back = if reach == 0 { 0 } else { self.random.random_range(0..reach) };
            record.noops.iter().rev().nth(back).cloned()
        };
        let Some(known) = known else { return };
        let (answer, _) = self.send(&known.id, &known.name, PATIENCE).await;
        self.history.record().counts.compared += 1;
        if matches!(answer, Answer::Unknown(_)) {
            return;
        }
        let same = outcome(&known.id, &known.name, &answer).is_some_and(|again| {
            let revisions = known.revision.zip(again.revision);
            again.phase == known.phase && again.reason == known.reason && revisions.is_none_or(|(a, b)| a == b)
        });
        if !same {
            self.history.violated(Promise::Idempotent, format!("{known:?} was repeated and answered with {answer:?}"));
        }
    }

    async fn send(&mut self, id: &str, name: &str, patience: Duration) -> (Answer<v1::BeginNoopResponse>, bool) {
        let request = v1::BeginNoopRequest {
            header: Some(v1::MutationHeader {
                request_id: id.to_owned(),
                initiator: format!("chaos-tests noop client {}", self.number),
                ..v1::MutationHeader::default()
            }),
            resource: name.to_owned(),
            wait_ms: WAIT_MS,
        };
        let call = |channel| {
            let request = request.clone();
            async move { transactions(channel).begin_noop(request).await }
        };
        self.endpoints.insist(patience, call).await
    }
}

/// The outcome that an answer tells; None while there is none.
fn outcome(id: &str, name: &str, answer: &Answer<v1::BeginNoopResponse>) -> Option<KnownTxn> {
    let known = |phase: &str, reason: String, revision| {
        let (id, name, phase) = (id.to_owned(), name.to_owned(), phase.to_owned());
        Some(KnownTxn { id, name, phase, reason, revision })
    };
    match answer {
        Answer::Done(done) => {
            let txn = done.transaction.as_ref()?;
            let reason = txn.refusal.as_ref().map(|refusal| refusal.reason.clone()).unwrap_or_default();
            match txn.phase.as_str() {
                "committed" | "aborted" | "refused" => known(&txn.phase, reason, Some(txn.revision)),
                _ => None,
            }
        }
        Answer::Refused(refusal) if refusal.reason == NO_WORKER => known("refused", refusal.reason.clone(), None),
        _ => None,
    }
}
