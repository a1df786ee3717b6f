//! Calls to whichever member answers. Endpoints are tried in turn, beginning with the one that
//! answered last; one that is dead, silent, no member yet, or without a quorum is passed over.

use super::cluster_error::Passed;
use super::cluster_error::Verdict;
use super::cluster_error::judge;
use super::cluster_error::nobody_answered;
use super::cluster_error::silent_for;
use super::lock_line::LockLine;
use crate::output::Failure;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::Transport;
use sdm_proto::seams::channel;
use sdm_proto::wire::v1::lock_answer;
use sdm_proto::wire::v1::lock_call;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use tonic::Response;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// A channel that carries the cluster's secret.
pub type Link = InterceptedService<Channel, CallCredentials>;

/// How long rounds over the endpoints are repeated while some endpoint is alive but cannot serve:
/// longer than an election takes, shorter than a person waits without a word.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long one endpoint may be silent before the next is asked as well. A member that lives answers
/// within milliseconds, except during an election.
const PATIENCE_WITH_ONE: Duration = Duration::from_millis(500);

/// How long a call may take with all its rounds: a member's own answer for want of a leader takes nine
/// seconds, and nobody wants to wait much longer for bad news.
const CALL_LIMIT: Duration = limits::CALL_TIMEOUT;

/// How long the others may be silent after the first answer to a question that goes to all.
const PATIENCE_AFTER_FIRST: Duration = Duration::from_secs(3);

/// Pause between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// Deadline of one attempt: a member holds a call for `LEADER_WAIT` while there is no leader, and its
/// own answer to that should arrive before ours.
const ATTEMPT_TIMEOUT: Duration =
    Duration::from_secs(limits::LEADER_WAIT.as_secs() + limits::CONNECT_TIMEOUT.as_secs() + 1);

#[derive(Clone)]
struct Endpoint {
    address: String,
    link: Link,
    /// For locks that are taken and released one after the other.
    line: LockLine,
}

impl Endpoint {
    async fn ask<T, F, A>(&self, ask: &A) -> Result<T, Verdict>
    where
        A: Fn(&Endpoint) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        match tokio::time::timeout(ATTEMPT_TIMEOUT, ask(self)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(judge(&self.address, Some(&status), ATTEMPT_TIMEOUT)),
            Err(_) => Err(judge(&self.address, None, ATTEMPT_TIMEOUT)),
        }
    }
}

/// The members that the user named.
pub struct Cluster {
    endpoints: Vec<Endpoint>,
    /// Index of the endpoint to begin with.
    preferred: AtomicUsize,
    transport: Arc<dyn Transport>,
    secret: ClusterSecret,
}

impl Cluster {
    /// Connects to none of them yet.
    ///
    /// # Errors
    /// An address does not read as one.
    pub fn new(addresses: &[String], secret: ClusterSecret, transport: Arc<dyn Transport>) -> Result<Self, Failure> {
        let endpoints: Result<Vec<_>, Failure> = addresses
            .iter()
            .map(|address| {
                let link = link(&transport, &secret, address)?;
                Ok(Endpoint { address: address.clone(), link, line: LockLine::default() })
            })
            .collect();
        Ok(Self { endpoints: endpoints?, preferred: AtomicUsize::new(0), transport, secret })
    }

    /// The same members over connections of their own, as another program has them.
    ///
    /// # Errors
    /// None: their addresses read as such before.
    pub fn apart(&self) -> Result<Self, Failure> {
        let addresses: Vec<String> = self.endpoints.iter().map(|endpoint| endpoint.address.clone()).collect();
        Self::new(&addresses, self.secret.clone(), Arc::clone(&self.transport))
    }

    /// The same members over the same connections for another caller, who begins with the endpoint of
    /// this number, counted round: many callers spread themselves.
    #[must_use]
    pub fn beginning_at(&self, number: usize) -> Self {
        Self {
            endpoints: self.endpoints.clone(),
            preferred: AtomicUsize::new(number.checked_rem(self.endpoints.len()).unwrap_or(0)),
            transport: Arc::clone(&self.transport),
            secret: self.secret.clone(),
        }
    }

    /// A channel to a worker.
    ///
    /// # Errors
    /// The address does not read as one.
    pub fn worker(&self, address: &str) -> Result<Link, Failure> {
        link(&self.transport, &self.secret, address)
    }

    /// Asks members in turn until one answers.
    ///
    /// # Errors
    /// What a member refused; or, when none answered, what each endpoint said.
    pub async fn call<T, F, A>(&self, ask: A) -> Result<T, Failure>
    where
        A: Fn(Link) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_at(|endpoint| ask(endpoint.link.clone())).await
    }

    /// Takes or releases locks over a line to whichever member answers.
    ///
    /// # Errors
    /// What a member refused; or, when none answered, what each endpoint said.
    pub async fn call_lock(&self, call: &lock_call::Call) -> Result<lock_answer::Outcome, Failure> {
        self.call_at(|endpoint| {
            let (line, link, call) = (endpoint.line.clone(), endpoint.link.clone(), call.clone());
            async move { line.call(link, call).await }
        })
        .await
    }

    async fn call_at<T, F, A>(&self, ask: A) -> Result<T, Failure>
    where
        A: Fn(&Endpoint) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        loop {
            let passed = match self.round(&ask, begun + CALL_LIMIT).await {
                Ok(answer) => return answer,
                Err(passed) => passed,
            };
            if begun.elapsed() >= PATIENCE || !passed.iter().any(|endpoint| endpoint.alive) {
                return Err(nobody_answered(&passed).into());
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// Asks every endpoint once; the answer of the first that has one. The next one is asked when the
    /// one before has nothing useful to say, or nothing at all for a while: a member that hangs costs
    /// little time, and asking two changes nothing twice. Who says nothing until `until` is passed over.
    async fn round<T, F, A>(&self, ask: &A, until: Instant) -> Result<Result<T, Failure>, Vec<Passed>>
    where
        A: Fn(&Endpoint) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        let first = self.preferred.load(Ordering::Relaxed).min(self.endpoints.len());
        let order = (first..self.endpoints.len()).chain(0..first);
        let mut in_turn = order.filter_map(|at| self.endpoints.get(at).map(|endpoint| (at, endpoint)));
        let mut asked = FuturesUnordered::new();
        let mut silent = BTreeMap::new();
        let mut passed = Vec::new();
        loop {
            if let Some((at, endpoint)) = in_turn.next() {
                silent.insert(at, &endpoint.address);
                asked.push(async move { (at, endpoint.ask(ask).await) });
            }
            let patience = PATIENCE_WITH_ONE.min(until.saturating_duration_since(Instant::now()));
            if asked.is_empty() || patience.is_zero() {
                break;
            }
            let Ok(Some((at, answer))) = tokio::time::timeout(patience, asked.next()).await else { continue };
            silent.remove(&at);
            match answer {
                Ok(answer) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(Ok(answer));
                }
                Err(Verdict::Final(refusal)) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(Err(refusal.into()));
                }
                Err(Verdict::PassOver(endpoint)) => passed.push(endpoint),
            }
        }
        passed.extend(silent.into_values().map(|address| silent_for(address, begun.elapsed())));
        Err(passed)
    }

    /// Every endpoint, in the order in which the user named them.
    pub(super) fn links(&self) -> impl Iterator<Item = (&str, Link)> {
        self.endpoints.iter().map(|endpoint| (endpoint.address.as_str(), endpoint.link.clone()))
    }

    /// The endpoint to ask now, with its index for `pass_over`.
    pub(super) fn current_link(&self) -> Option<(usize, &str, Link)> {
        self.current().map(|(at, endpoint)| (at, endpoint.address.as_str(), endpoint.link.clone()))
    }

    fn current(&self) -> Option<(usize, &Endpoint)> {
        let at = self.preferred.load(Ordering::Relaxed).checked_rem(self.endpoints.len())?;
        self.endpoints.get(at).map(|endpoint| (at, endpoint))
    }

    /// Goes to the endpoint after this one, unless somebody did already.
    pub(super) fn pass_over(&self, at: usize) {
        let next = (at + 1).checked_rem(self.endpoints.len()).unwrap_or(0);
        // Losing the race means that another call went on already: nothing is left to do.
        _ = self.preferred.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks all endpoints at once and hands every answer to `accept`, until it takes one. For questions
    /// where a better answer may come from another endpoint.
    ///
    /// # Errors
    /// None of them answered, or the first that did refused.
    pub async fn ask_all<T, F, A>(&self, ask: A, mut accept: impl FnMut(T) -> bool) -> Result<(), Failure>
    where
        A: Fn(Link) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let ask = |endpoint: &Endpoint| ask(endpoint.link.clone());
        let mut asked: FuturesUnordered<_> = self.endpoints.iter().map(|endpoint| endpoint.ask(&ask)).collect();
        let mut passed = Vec::new();
        let mut refused = None;
        let mut answered = false;
        let mut until = tokio::time::Instant::now() + CALL_LIMIT;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, asked.next()).await {
            match answer {
                Ok(answer) => {
                    answered = true;
                    until = until.min(tokio::time::Instant::now() + PATIENCE_AFTER_FIRST);
                    if accept(answer) {
                        return Ok(());
                    }
                }
                Err(Verdict::Final(refusal)) => refused = refused.or(Some(refusal)),
                Err(Verdict::PassOver(endpoint)) => passed.push(endpoint),
            }
        }
        match refused {
            _ if answered => Ok(()),
            Some(refusal) => Err(refusal.into()),
            None => Err(nobody_answered(&passed).into()),
        }
    }
}

fn link(transport: &Arc<dyn Transport>, secret: &ClusterSecret, address: &str) -> Result<Link, Failure> {
    let channel = channel(transport, address).map_err(|error| {
        Refusal::new(Class::Invalid, "BAD_ADDRESS", format!("{address}: {error}")).hint("give HOST:PORT")
    })?;
    Ok(InterceptedService::new(channel, CallCredentials::public(secret.clone())))
}
