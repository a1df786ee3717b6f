//! A client that takes and gives back locks under a session, one request after the other. Locks that
//! stay held, with their tokens, are the evidence that is looked for after a cut.

use super::Answer;
use super::Endpoints;
use super::endpoints::locks;
use crate::history::Asked;
use crate::history::Grant;
use crate::history::History;
use crate::history::Promise;
use crate::history::Question;
use crate::history::Repeatable;
use crate::history::SHARED;
use crate::history::is_shared;
use rand::RngExt;
use rand::rngs::StdRng;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The lease: longer than any outage that a run makes, and the longest that the cluster allows.
pub const TTL_MS: u64 = 600_000;

/// Locks that a client holds at once, about. Enough that each cut finds many, few enough to list.
const HELD_ABOUT: usize = 40;

/// Resources that all clients want.
const SHARED_NAMES: u32 = 8;

/// How long a request is repeated before the client gives it up for good.
const PATIENCE: Duration = Duration::from_secs(60);

/// One client.
pub struct LockClient {
    number: usize,
    endpoints: Endpoints,
    history: Arc<History>,
    random: StdRng,
    nonce: String,
    sequence: u64,
    names: u64,
    /// Cuts that this client has seen.
    cuts: u64,
}

impl LockClient {
    /// The client of this number, with its own source of randomness.
    pub fn new(number: usize, endpoints: Endpoints, history: Arc<History>, random: StdRng) -> Self {
        Self { number, endpoints, history, random, nonce: new_nonce(), sequence: 0, names: 0, cuts: 0 }
    }

    /// Does one thing.
    pub async fn step(&mut self) {
        let (session, held, last, cuts) = {
            let record = self.history.record();
            let Some(book) = record.books.get(self.number) else { return };
            (book.session, book.held.len(), book.last.clone(), record.cuts)
        };
        let Some(session) = session else { return self.open().await };
        let first_since_cut = std::mem::replace(&mut self.cuts, cuts) != cuts;
        let dice = self.random.random_range(0..1000);
        match last {
            Some(last) if first_since_cut || dice < 25 => self.repeat(session, last).await,
            _ if dice < 27 => self.close(session).await,
            _ if dice < 150 => self.acquire(session, true).await,
            _ if self.random.random_range(0..2 * HELD_ABOUT) >= held => self.acquire(session, false).await,
            _ => self.release(session).await,
        }
    }

    /// Whether a request without an answer is repeated or given up.
    fn insists(&mut self) -> Duration {
        if self.random.random_range(0..4) == 0 { Duration::ZERO } else { PATIENCE }
    }

    fn event(&self, kind: &str, f: &str, key: &str, value: serde_json::Value) {
        self.history.event(kind, &self.number.to_string(), f, key, value);
    }

    fn counted<T>(&self, answer: &Answer<T>, again: bool) {
        let counts = &mut self.history.record().counts;
        match answer {
            Answer::Unknown(_) => counts.unknown += 1,
            _ => counts.acknowledged += 1,
        }
        counts.repeated += u64::from(again && !matches!(answer, Answer::Unknown(_)));
    }

    async fn open(&mut self) {
        let request = v1::OpenSessionRequest {
            label: format!("chaos-tests client {}", self.number),
            ttl_ms: TTL_MS,
            nonce: self.nonce.clone(),
        };
        self.event("invoke", "open", &self.nonce, json!(null));
        let call = |channel| {
            let request = request.clone();
            async move { locks(channel).open_session(request).await }
        };
        // The nonce opens it once, so this is repeated until it is known.
        let (answer, again) = self.endpoints.insist(PATIENCE, call).await;
        self.counted(&answer, again);
        match answer {
            Answer::Done(opened) => {
                let told = json!({ "session": opened.session.map(|key| key.id), "ttl_ms": opened.ttl_ms });
                self.event("ok", "open", &self.nonce, told);
                let mut record = self.history.record();
                if let Some(book) = record.books.get_mut(self.number) {
                    book.session = opened.session;
                    book.answered = 0;
                    book.last = None;
                }
                drop(record);
                self.sequence = 0;
                self.nonce = new_nonce();
            }
            Answer::Refused(refusal) => {
                self.event("fail", "open", &self.nonce, json!(refusal.reason));
                self.refused("open a session", &refusal.to_string());
            }
            Answer::Unknown(why) => self.event("info", "open", &self.nonce, json!(why)),
        }
    }

    /// Ends the session: everything under it goes.
    async fn close(&mut self, session: v1::SessionKey) {
        self.event("invoke", "close", &session.id.to_string(), json!({ "session": session.id }));
        self.stop_counting_on_shared();
        let call = |channel| async move {
            let request = v1::CloseSessionRequest { session: Some(session) };
            locks(channel).close_session(request).await
        };
        let (answer, again) = self.endpoints.insist(PATIENCE, call).await;
        self.counted(&answer, again);
        match answer {
            Answer::Done(_) => {
                self.event("ok", "close", &session.id.to_string(), json!(null));
                let mut record = self.history.record();
                record.closed.insert(session.id);
                if let Some(book) = record.books.get_mut(self.number) {
                    *book = Default::default();
                }
            }
            Answer::Refused(refusal) => {
                self.event("fail", "close", &session.id.to_string(), json!(refusal.reason));
                self.refused("close its session", &refusal.to_string());
            }
            // It is closed again next time; until then nobody knows what it holds.
            Answer::Unknown(why) => {
                self.event("info", "close", &session.id.to_string(), json!(why));
                self.history
                    .violated(Promise::Serves, format!("client {} cannot close its session: {why}", self.number));
            }
        }
    }

    fn stop_counting_on_shared(&self) {
        let mut record = self.history.record();
        let held: Vec<String> = match record.books.get(self.number) {
            Some(book) => book.held.values().map(|grant| grant.resource.clone()).collect(),
            None => return,
        };
        for resource in held {
            record.giving_back(self.number, &resource);
        }
    }

    async fn acquire(&mut self, session: v1::SessionKey, shared: bool) {
        let resource = if shared {
            format!("{SHARED}{}", self.random.random_range(0..SHARED_NAMES))
        } else {
            self.names += 1;
            format!("user/chaos/{}/{}/{}", session.id, self.number, self.names)
        };
        self.sequence += 1;
        let sequence = self.sequence;
        let floor = self.history.record().newest_token();
        self.event("invoke", "acquire", &resource, json!({ "session": session.id, "sequence": sequence }));
        let patience = self.insists();
        let (answer, again) = self.send_acquire(session, sequence, &resource, patience).await;
        self.counted(&answer, again);
        match answer {
            Answer::Done(granted) => match self.grant_of(&granted, &resource) {
                Some(grant) => self.was_granted(sequence, grant, floor),
                None => {
                    self.event("info", "acquire", &resource, json!("an answer that is none"));
                    self.refused("acquire", &format!("an answer that is none: {granted:?}"));
                }
            },
            Answer::Refused(refusal) => {
                self.event("fail", "acquire", &resource, json!(refusal.reason));
                self.answered(sequence, None);
                // It would be a wonder if somebody else had a name that was just made up.
                if !(is_shared(&resource) && refusal.reason == "LOCKED") {
                    self.refused(&format!("acquire {resource}"), &refusal.to_string());
                }
            }
            Answer::Unknown(why) => {
                self.event("info", "acquire", &resource, json!(why));
                self.unsure(Question { sequence, asked: Asked::Acquire { resource, floor } });
            }
        }
    }

    async fn send_acquire(
        &mut self,
        session: v1::SessionKey,
        sequence: u64,
        resource: &str,
        patience: Duration,
    ) -> (Answer<v1::AcquireResponse>, bool) {
        let request = v1::AcquireRequest {
            session: Some(session),
            sequence,
            resources: vec![v1::LockedResource { resource: resource.to_owned(), mode: "X".to_owned() }],
            wait_ms: 0,
            why: "chaos-tests".to_owned(),
        };
        let call = |channel| {
            let request = request.clone();
            async move { locks(channel).acquire(request).await }
        };
        self.endpoints.insist(patience, call).await
    }

    fn grant_of(&self, granted: &v1::AcquireResponse, resource: &str) -> Option<Grant> {
        let token: Token = granted.token.parse().ok()?;
        Some(Grant { lock: granted.lock_id.clone(), token, resource: resource.to_owned() })
    }

    fn was_granted(&self, sequence: u64, grant: Grant, floor: Token) {
        self.event("ok", "acquire", &grant.resource, json!({ "token": grant.token.to_string(), "lock": grant.lock }));
        let mut record = self.history.record();
        record.granted(self.number, &grant, floor);
        if let Some(book) = record.books.get_mut(self.number) {
            book.held.insert(grant.lock.clone(), grant.clone());
        }
        drop(record);
        self.answered(sequence, Some(Repeatable::Acquire(sequence, grant)));
    }

    async fn release(&mut self, session: v1::SessionKey) {
        let held: Vec<Grant> = match self.history.record().books.get(self.number) {
            Some(book) => book.held.values().cloned().collect(),
            None => return,
        };
        if held.is_empty() {
            return;
        }
        let Some(grant) = held.get(self.random.random_range(0..held.len())).cloned() else { return };
        self.sequence += 1;
        let sequence = self.sequence;
        let asked = json!({ "session": session.id, "sequence": sequence, "lock": grant.lock });
        self.event("invoke", "release", &grant.resource, asked);
        self.history.record().giving_back(self.number, &grant.resource);
        let patience = self.insists();
        let (answer, again) = self.send_release(session, sequence, &grant.lock, patience).await;
        self.counted(&answer, again);
        if let Some(book) = self.history.record().books.get_mut(self.number) {
            book.held.remove(&grant.lock);
        }
        match answer {
            Answer::Done(_) => {
                self.event("ok", "release", &grant.resource, json!(null));
                self.answered(sequence, Some(Repeatable::Release(sequence, grant)));
            }
            Answer::Refused(refusal) => {
                self.event("fail", "release", &grant.resource, json!(refusal.reason));
                self.answered(sequence, None);
                self.refused(&format!("release {} ({})", grant.lock, grant.resource), &refusal.to_string());
            }
            Answer::Unknown(why) => {
                self.event("info", "release", &grant.resource, json!(why));
                self.unsure(Question { sequence, asked: Asked::Release(grant) });
            }
        }
    }

    async fn send_release(
        &mut self,
        session: v1::SessionKey,
        sequence: u64,
        lock: &str,
        patience: Duration,
    ) -> (Answer<v1::ReleaseResponse>, bool) {
        let request = v1::ReleaseRequest { session: Some(session), sequence, lock_id: lock.to_owned() };
        let call = |channel| {
            let request = request.clone();
            async move { locks(channel).release(request).await }
        };
        self.endpoints.insist(patience, call).await
    }

    /// Sends the last answered request again: the recorded answer must come.
    async fn repeat(&mut self, session: v1::SessionKey, last: Repeatable) {
        let number = self.number;
        let (Repeatable::Acquire(_, grant) | Repeatable::Release(_, grant)) = &last;
        let key = grant.resource.clone();
        self.event("invoke", "repeat", &key, json!({ "session": session.id, "sequence": last.sequence() }));
        let mut told = json!(null);
        let wrong = match &last {
            Repeatable::Acquire(sequence, grant) => {
                let answer = self.send_acquire(session, *sequence, &grant.resource, PATIENCE).await.0;
                if let Answer::Done(again) = &answer {
                    told = json!({ "token": again.token, "lock": again.lock_id });
                }
                match answer {
                    Answer::Done(again) if self.grant_of(&again, &grant.resource).as_ref() == Some(grant) => None,
                    Answer::Unknown(why) => {
                        self.event("info", "repeat", &key, json!(why));
                        return;
                    }
                    other => Some(format!("{other:?} instead of {grant:?}")),
                }
            }
            Repeatable::Release(sequence, grant) => {
                match self.send_release(session, *sequence, &grant.lock, PATIENCE).await.0 {
                    Answer::Done(_) => None,
                    Answer::Unknown(why) => {
                        self.event("info", "repeat", &key, json!(why));
                        return;
                    }
                    other => Some(format!("{other:?} instead of the release of {grant:?}")),
                }
            }
        };
        self.event("ok", "repeat", &key, wrong.as_ref().map_or(told, |wrong| json!(wrong)));
        self.history.record().counts.compared += 1;
        if let Some(wrong) = wrong {
            let what = format!("client {number} repeated request {} and was told {wrong}", last.sequence());
            self.history.violated(Promise::Idempotent, what);
        }
    }

    fn answered(&self, sequence: u64, last: Option<Repeatable>) {
        if let Some(book) = self.history.record().books.get_mut(self.number) {
            book.answered = sequence;
            book.last = last;
        }
    }

    fn unsure(&self, question: Question) {
        if let Some(book) = self.history.record().books.get_mut(self.number) {
            book.last = None;
            book.open.push(question);
        }
    }

    /// A refusal that nothing excuses: what was acknowledged to this client is not known any more.
    fn refused(&self, what: &str, why: &str) {
        self.history.violated(Promise::Kept, format!("client {} may not {what}: {why}", self.number));
    }
}

/// The resources that all clients want.
pub fn shared_resources() -> impl Iterator<Item = String> {
    (0..SHARED_NAMES).map(|number| format!("{SHARED}{number}"))
}

fn new_nonce() -> String {
    uuid::Uuid::from_bytes(rand::random()).to_string()
}
