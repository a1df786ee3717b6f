//! A client that holds a lock under a short lease and writes to a resource with the lock's token, as long as it believes
//! that it may and sometimes longer. Two promises are looked at: while a holder's lease runs, counted from when the
//! keepalive that was acknowledged was sent, nobody else is granted the lock; and tokens order the writes, so that the
//! resource can refuse what comes late.

use super::shared::Shared;
use crate::client::Answer;
use crate::client::Endpoints;
use crate::client::locks;
use crate::history::Promise;
use rand::RngExt;
use rand::rngs::StdRng;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// The lease: the shortest that the cluster gives.
const TTL: Duration = Duration::from_secs(3);

/// Resources that these clients want.
const NAMES: u32 = 2;

/// What their names begin with.
const PREFIX: &str = "user/lease/";

/// The resources that these clients want.
pub fn lease_resources() -> impl Iterator<Item = String> {
    (0..NAMES).map(|number| format!("{PREFIX}{number}"))
}

/// Whether these clients want this resource.
pub fn is_lease(resource: &str) -> bool {
    resource.starts_with(PREFIX)
}

/// How long one request is repeated.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a request waits for the lock, in milliseconds.
const WAIT_MS: u64 = 1_500;

/// Between two keepalives.
const RENEW_EVERY: Duration = Duration::from_millis(700);

#[derive(Clone, Debug)]
struct Holder {
    client: usize,
    token: Token,
    until: Duration,
}

/// The resources: who holds them as far as clients know, and the newest token that wrote.
#[derive(Debug, Default)]
pub struct Resources(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    holders: BTreeMap<String, Holder>,
    newest: BTreeMap<String, Token>,
    tokens: BTreeSet<Token>,
}

impl Resources {
    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A grant was told at this time: nobody else's lease may run.
    fn granted(&self, resource: &str, holder: Holder, now: Duration) -> Option<String> {
        self.with(|known| {
            if !known.tokens.insert(holder.token) {
                return Some(format!("the token {} was given twice", holder.token));
            }
            let before = known.holders.insert(resource.to_owned(), holder.clone());
            let other = before.filter(|other| other.client != holder.client && other.until > now)?;
            Some(format!(
                "client {} was granted {resource} with {} at {now:?} while client {} holds it with {} until {:?}",
                holder.client, holder.token, other.client, other.token, other.until
            ))
        })
    }

    fn renewed(&self, resource: &str, client: usize, until: Duration) {
        self.with(|known| {
            if let Some(holder) = known.holders.get_mut(resource).filter(|holder| holder.client == client) {
                holder.until = holder.until.max(until);
            }
        });
    }

    fn let_go(&self, resource: &str, client: usize) {
        self.with(|known| {
            if known.holders.get(resource).is_some_and(|holder| holder.client == client) {
                known.holders.remove(resource);
            }
        });
    }

    /// The resource takes a write, or refuses it as late.
    fn write(&self, resource: &str, token: Token) -> bool {
        self.with(|known| {
            let newest = known.newest.entry(resource.to_owned()).or_insert(token);
            let taken = *newest <= token;
            *newest = token.max(*newest);
            taken
        })
    }
}

/// One client.
pub struct LeaseClient {
    number: usize,
    endpoints: Endpoints,
    shared: Arc<Shared>,
    resources: Arc<Resources>,
    random: StdRng,
}

impl LeaseClient {
    /// The client of this number, with its own source of randomness.
    pub fn new(
        number: usize,
        endpoints: Endpoints,
        shared: Arc<Shared>,
        resources: Arc<Resources>,
        random: StdRng,
    ) -> Self {
        Self { number, endpoints, shared, resources, random }
    }

    fn event(&self, kind: &str, f: &str, key: &str, value: serde_json::Value) {
        self.shared.history.event(kind, &format!("lease-{}", self.number), f, key, value);
    }

    /// A session, a lock under it, some writes, and the lock's end.
    pub async fn step(&mut self) {
        let nonce = uuid::Uuid::from_bytes(self.random.random()).to_string();
        self.event("invoke", "open", &nonce, json!(null));
        let sent = self.shared.now();
        let call = |channel| {
            let (label, ttl_ms) = (format!("lease {}", self.number), TTL.as_millis() as u64);
            let request = v1::OpenSessionRequest { label, ttl_ms, nonce: nonce.clone() };
            async move { locks(channel).open_session(request).await }
        };
        let (answer, _) = self.endpoints.insist(PATIENCE, call).await;
        let Answer::Done(v1::OpenSessionResponse { session: Some(session), ttl_ms, .. }) = answer else {
            return self.event("info", "open", &nonce, json!(format!("{answer:?}")));
        };
        self.event("ok", "open", &nonce, json!({ "session": session.id, "ttl_ms": ttl_ms }));
        let until = sent + Duration::from_millis(ttl_ms);
        let resource = format!("{PREFIX}{}", self.random.random_range(0..NAMES));
        if let Some((lock, token, until)) = self.acquire(session, &resource, until).await {
            self.hold(session, &resource, token, until).await;
            self.release(session, &resource, &lock).await;
        }
    }

    async fn acquire(
        &mut self,
        session: v1::SessionKey,
        resource: &str,
        until: Duration,
    ) -> Option<(String, Token, Duration)> {
        let asked = json!({ "session": session.id, "sequence": 1, "wait_ms": WAIT_MS });
        self.event("invoke", "acquire", resource, asked);
        let call = |channel| {
            let locked = v1::LockedResource { resource: resource.to_owned(), mode: "X".to_owned() };
            let (session, resources) = (Some(session), vec![locked]);
            let request = v1::AcquireRequest { session, sequence: 1, resources, wait_ms: WAIT_MS, why: String::new() };
            async move { locks(channel).acquire(request).await }
        };
        let (answer, _) = self.endpoints.insist(PATIENCE, call).await;
        let Answer::Done(granted) = answer else {
            self.event("info", "acquire", resource, json!(format!("{answer:?}")));
            return None;
        };
        self.event("ok", "acquire", resource, json!({ "token": granted.token, "lock": granted.lock_id }));
        let token: Token = granted.token.parse().ok()?;
        let now = self.shared.now();
        let holder = Holder { client: self.number, token, until };
        if let Some(why) = self.resources.granted(resource, holder, now) {
            self.shared.violated(Promise::Tokens, why);
        }
        Some((granted.lock_id, token, until))
    }

    /// Writes while the lease runs, and sometimes once more when it has run out.
    async fn hold(&mut self, session: v1::SessionKey, resource: &str, token: Token, mut until: Duration) {
        let for_ms = self.random.random_range(200..8_000);
        let done = self.shared.now() + Duration::from_millis(for_ms);
        while self.shared.now() < done && self.shared.now() < until {
            self.write(resource, token);
            tokio::time::sleep(RENEW_EVERY).await;
            let sent = self.shared.now();
            self.event("invoke", "keepalive", resource, json!({ "session": session.id }));
            let call = |channel| {
                let request = v1::KeepAliveRequest { sessions: vec![session] };
                async move { locks(channel).keep_alive(request).await }
            };
            let asked = tokio::time::timeout(RENEW_EVERY, self.endpoints.ask(call)).await;
            match asked {
                Ok(Answer::Done(answer)) if answer.acknowledged.contains(&session) => {
                    self.event("ok", "keepalive", resource, json!(null));
                    until = until.max(sent + TTL);
                    self.resources.renewed(resource, self.number, until);
                }
                Ok(Answer::Done(_)) => {
                    self.event("fail", "keepalive", resource, json!("over"));
                    self.shared.coverage().count("leases-lost");
                    break;
                }
                _ => {
                    self.event("info", "keepalive", resource, json!(null));
                    self.endpoints.next().await;
                }
            }
        }
        if self.shared.now() >= until {
            self.shared.coverage().count("leases-run-out");
            self.event("info", "run-out", resource, json!({ "token": token.to_string() }));
            tokio::time::sleep(Duration::from_millis(self.random.random_range(0..4_000))).await;
            self.write(resource, token);
        }
    }

    fn write(&self, resource: &str, token: Token) {
        if !self.resources.write(resource, token) {
            self.shared.coverage().count("late-writes-refused");
        }
    }

    async fn release(&mut self, session: v1::SessionKey, resource: &str, lock: &str) {
        let asked = json!({ "session": session.id, "lock": lock });
        self.event("invoke", "close", resource, asked);
        self.resources.let_go(resource, self.number);
        let call = |channel| async move {
            locks(channel).close_session(v1::CloseSessionRequest { session: Some(session) }).await
        };
        let (answer, _) = self.endpoints.insist(PATIENCE, call).await;
        let kind = match answer {
            Answer::Done(_) => "ok",
            Answer::Refused(_) => "fail",
            Answer::Unknown(_) => "info",
        };
        self.event(kind, "close", resource, json!(null));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(client: usize, index: u64, until_s: u64) -> Holder {
        Holder { client, token: Token { epoch: 1, index, ordinal: 0 }, until: Duration::from_secs(until_s) }
    }

    #[test]
    fn a_grant_while_anothers_lease_runs_is_seen_and_one_after_it_is_not() {
        let resources = Resources::default();
        assert_eq!(resources.granted("r", holder(0, 1, 5), Duration::from_secs(1)), None);
        assert!(resources.granted("r", holder(1, 2, 9), Duration::from_secs(4)).is_some());
        assert_eq!(resources.granted("r", holder(0, 3, 19), Duration::from_secs(9)), None);
        assert!(resources.granted("q", holder(1, 3, 30), Duration::from_secs(20)).is_some(), "a token twice");
    }

    #[test]
    fn the_resource_refuses_what_comes_late() {
        let (resources, token) = (Resources::default(), |index| Token { epoch: 1, index, ordinal: 0 });
        assert!(resources.write("r", token(4)));
        assert!(resources.write("r", token(6)));
        assert!(!resources.write("r", token(5)));
    }
}
