//! A client that begins transactions. No worker reaches what they name, so each of them ends in the
//! entry that began it, refused; that refusal is recorded under the request's id for good, and is the
//! evidence that is looked for after a cut.

use super::Answer;
use super::Endpoints;
use super::endpoints::domains;
use crate::history::History;
use crate::history::KnownTxn;
use crate::history::Promise;
use rand::RngExt;
use rand::rngs::StdRng;
use sdm_proto::wire::v1;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Why each of them is refused.
const EXPECTED: &str = "NO_WORKER_FOR_PATH";

/// Why a request is refused whose id was used for another one.
const REUSED: &str = "REQUEST_ID_REUSED";

/// How long a request is repeated before the client gives it up for good.
const PATIENCE: Duration = Duration::from_secs(60);

/// One client.
pub struct TxnClient {
    number: usize,
    endpoints: Endpoints,
    history: Arc<History>,
    random: StdRng,
    names: u64,
}

impl TxnClient {
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
        let name = format!("chaos-{}-{}", self.number, self.names);
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        self.history.record().request_ids.insert(id.clone());
        let process = format!("txn-{}", self.number);
        self.history.event("invoke", &process, "begin", &id, json!(name));
        let patience = if self.random.random_range(0..4) == 0 { Duration::ZERO } else { PATIENCE };
        let (answer, again) = self.send(&id, &name, patience).await;
        let mut record = self.history.record();
        match &answer {
            Answer::Unknown(_) => record.counts.unknown += 1,
            _ => record.counts.acknowledged += 1,
        }
        record.counts.repeated += u64::from(again && !matches!(answer, Answer::Unknown(_)));
        match answer {
            Answer::Refused(refusal) if refusal.reason == EXPECTED => {
                let phase = "refused".to_owned();
                record.txn_answered(KnownTxn { id: id.clone(), name, phase, reason: refusal.reason, revision: None });
                drop(record);
                self.history.event("ok", &process, "begin", &id, json!(EXPECTED));
            }
            Answer::Unknown(why) => {
                drop(record);
                self.history.event("info", &process, "begin", &id, json!(why));
            }
            other => {
                record.violated(Promise::Idempotent, format!("a new request {id} was answered with {other:?}"));
                drop(record);
                self.history.event("info", &process, "begin", &id, json!(format!("{other:?}")));
            }
        }
    }

    /// An earlier request again, as it was or under another name.
    async fn repeat(&mut self) {
        let known: Option<KnownTxn> = {
            let record = self.history.record();
            // Those answered last are the most likely to be lost.
            let reach = record.txns.len().min(200);
            let back = if reach == 0 { 0 } else { self.random.random_range(0..reach) };
            record.txns.iter().rev().nth(back).cloned()
        };
        let Some(known) = known else { return };
        let other_name = self.random.random_range(0..3) == 0;
        let (name, expected) = match other_name {
            true => (format!("{}-other", known.name), REUSED),
            false => (known.name.clone(), known.reason.as_str()),
        };
        let process = format!("txn-{}", self.number);
        if !other_name {
            self.history.event("invoke", &process, "repeat", &known.id, json!({ "id": known.id }));
        }
        let (answer, _) = self.send(&known.id, &name, PATIENCE).await;
        if !other_name {
            let (kind, told) = match &answer {
                Answer::Refused(refusal) => ("ok", json!(refusal.reason)),
                Answer::Unknown(why) => ("info", json!(why)),
                other => ("ok", json!(format!("{other:?}"))),
            };
            self.history.event(kind, &process, "repeat", &known.id, told);
        }
        self.history.record().counts.compared += 1;
        match answer {
            Answer::Refused(refusal) if refusal.reason == expected => {}
            Answer::Unknown(_) => {}
            other => {
                let what = format!("request {} was repeated as {name} and answered with {other:?}", known.id);
                self.history.violated(Promise::Idempotent, what);
            }
        }
    }

    async fn send(&mut self, id: &str, name: &str, patience: Duration) -> (Answer<v1::CreateDomainResponse>, bool) {
        let request = v1::CreateDomainRequest {
            header: Some(v1::MutationHeader {
                request_id: id.to_owned(),
                no_wait_lock: true,
                initiator: format!("chaos-tests client {}", self.number),
                ..v1::MutationHeader::default()
            }),
            name: name.to_owned(),
            path: format!("/nobody/reaches/{name}"),
            local: true,
        };
        let call = |channel| {
            let request = request.clone();
            async move { domains(channel).create_domain(request).await }
        };
        self.endpoints.insist(patience, call).await
    }
}
