//! A client's session: opened under a random nonce, renewed in the background at whichever member
//! answers, and known to be lost before the cluster may give its locks to somebody else. The lease is
//! counted from when an acknowledged request was sent, on the boot-time clock, which goes on while
//! the machine or this process sleeps.

use super::Cluster;
use super::cluster_error::Passed;
use super::cluster_error::Verdict;
use super::cluster_error::judge;
use super::cluster_error::nobody_answered;
use super::mutation::initiator;
use crate::output::ExitCode;
use crate::output::Failure;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::Clock;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// The lease is renewed when this part of it has passed: two renewals may fail.
const RENEWED_PART: u64 = 3;

/// A session counts as lost when no more than this part of its lease is left: what runs under it has to be over when the
/// lease is.
const ENDING_PART: u64 = 10;

/// Pause after a renewal that failed.
const RETRY_MS: u64 = 200;

/// How long one member is asked to wait before the request is repeated: it costs the cluster nothing,
/// and a member that hangs is left for another.
const ASK_FOR: Duration = Duration::from_secs(10);

/// Pause before a waiting request goes to another member.
const PAUSE: Duration = Duration::from_millis(250);

/// How long nobody may answer after the wait is over: an election, and room to spare.
const ANSWER_LATE: Duration = Duration::from_secs(30);

/// A session.
pub struct LockSession {
    cluster: Cluster,
    key: v1::SessionKey,
    ttl: Duration,
    sequence: u64,
    lost: watch::Receiver<Option<Refusal>>,
    _renewing: AbortOnDropHandle<()>,
}

impl LockSession {
    /// Opens one, and keeps it alive as long as this lives.
    ///
    /// # Errors
    /// Nobody answers, or the cluster refuses.
    pub async fn open(cluster: &Cluster, ttl: Duration, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let nonce: u128 = rand::random();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let request = v1::OpenSessionRequest { label: initiator(), ttl_ms, nonce: format!("{nonce:032x}") };
        let sent_ms = clock.now_ms();
        let answer = cluster.call(|link| {
            let request = request.clone();
            async move { LockServiceClient::new(link).open_session(request).await }
        });
        let opened = answer.await?;
        let key = opened.session.ok_or_else(|| {
            Failure::new(Class::Internal, "BAD_ANSWER", "a session was opened, and the answer does not say which")
        })?;
        let (tell, lost) = watch::channel(None);
        let lease = Lease { key, ttl_ms: opened.ttl_ms.max(1), until_ms: sent_ms + opened.ttl_ms, clock };
        let renewing = AbortOnDropHandle::new(tokio::spawn(lease.renew(cluster.beginning_at(0), sent_ms, tell)));
        let ttl = Duration::from_millis(opened.ttl_ms);
        Ok(Self { cluster: cluster.beginning_at(0), key, ttl, sequence: 0, lost, _renewing: renewing })
    }

    /// Its id, for people and logs.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.key.id
    }

    /// The epoch of this opening of it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.key.epoch
    }

    /// Its lease.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How long what runs under it may take to end when it is lost: then its lease is over, and others may hold its locks.
    #[must_use]
    pub fn ending(&self) -> Duration {
        self.ttl / u32::try_from(ENDING_PART).unwrap_or(u32::MAX)
    }

    /// Completes when the session is lost: others may hold its locks soon, if not yet.
    pub fn lost(&self) -> impl Future<Output = Refusal> + use<> {
        let mut lost = self.lost.clone();
        async move {
            let told = lost.wait_for(Option::is_some).await;
            let gone = || Refusal::new(Class::Internal, "SESSION_LOST", "the session is not renewed any more");
            told.ok().and_then(|told| told.clone()).unwrap_or_else(gone)
        }
    }

    /// Takes one lock set; waits for it at most this long.
    ///
    /// # Errors
    /// It is held by others, the wait is over, or nobody answers.
    pub async fn acquire(
        &mut self,
        resources: Vec<v1::LockedResource>,
        wait: Duration,
        why: String,
    ) -> Result<v1::AcquireResponse, Failure> {
        self.sequence += 1;
        let request = v1::AcquireRequest {
            session: Some(self.key),
            sequence: self.sequence,
            resources,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            why,
        };
        if wait.is_zero() {
            let answer = self.cluster.call(|link| {
                let request = request.clone();
                async move { LockServiceClient::new(link).acquire(request).await }
            });
            return answer.await;
        }
        self.wait_for(&request, wait).await
    }

    /// One member is asked at a time; the next one when that one is gone. The cluster knows the request
    /// by its number: it keeps its place in the queue.
    async fn wait_for(&self, request: &v1::AcquireRequest, wait: Duration) -> Result<v1::AcquireResponse, Failure> {
        let until = Instant::now() + wait + ANSWER_LATE;
        let mut passed: Vec<Passed> = Vec::new();
        while let Some((at, address, link)) = self.cluster.current_link().filter(|_| Instant::now() < until) {
            let mut client = LockServiceClient::new(link);
            let status = match tokio::time::timeout(ASK_FOR, client.acquire(request.clone())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => Some(status),
                Err(_) => None,
            };
            if status.is_some() {
                match judge(address, status.as_ref(), ASK_FOR) {
                    // It is locked, now as before: that is what a script asks for, with or without a wait.
                    Verdict::Final(refusal) if refusal.reason == "LOCK_WAIT_TIMEOUT" => {
                        return Err(Failure::from(refusal).ending(ExitCode::Precondition));
                    }
                    Verdict::Final(refusal) => return Err(refusal.into()),
                    Verdict::PassOver(endpoint) => {
                        passed.retain(|known| known.address != endpoint.address);
                        passed.push(endpoint);
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
            self.cluster.pass_over(at);
        }
        Err(nobody_answered(&passed).into())
    }

    /// Ends it: its waits end, its locks are released.
    ///
    /// # Errors
    /// Nobody answered in this time; then it ends with its lease.
    pub async fn close(&self, within: Duration) -> Result<(), Failure> {
        let request = v1::CloseSessionRequest { session: Some(self.key) };
        let answer = self.cluster.call(|link| async move { LockServiceClient::new(link).close_session(request).await });
        match tokio::time::timeout(within, answer).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => {
                Err(Failure::new(Class::Timeout, "NOT_CLOSED", format!("no answer within {} s", within.as_secs())))
            }
        }
    }
}

/// That an operator took its lock away: the session lives, and its lock is somebody else's.
fn broken(broken: &v1::BrokenLock) -> Refusal {
    let v1::BrokenLock { lock_id, by, reason } = broken;
    Refusal::new(Class::Precondition, "LOCK_BROKEN", format!("lock {lock_id} was broken by {by}: {reason}"))
        .hint("what happened: sdm events --kind lock")
}

/// What is renewed.
struct Lease {
    key: v1::SessionKey,
    ttl_ms: u64,
    /// On the boot-time clock: from then on others may hold the locks.
    until_ms: u64,
    clock: Arc<dyn Clock>,
}

impl Lease {
    /// Renews until the session is lost, and tells why.
    async fn renew(mut self, cluster: Cluster, opened_ms: u64, tell: watch::Sender<Option<Refusal>>) {
        let part_ms = self.ttl_ms / RENEWED_PART;
        let mut next_ms = opened_ms + part_ms;
        let mut last_failure = None;
        loop {
            let lost_ms = self.until_ms.saturating_sub(self.ttl_ms / ENDING_PART);
            self.clock.sleep_until(next_ms.min(lost_ms)).await;
            let sent_ms = self.clock.now_ms();
            if sent_ms >= lost_ms {
                tell.send_replace(Some(self.ran_out(last_failure.as_ref())));
                return;
            }
            let request = v1::KeepAliveRequest { sessions: vec![self.key] };
            let answer = cluster.call(|link| {
                let request = request.clone();
                async move { LockServiceClient::new(link).keep_alive(request).await }
            });
            // Whoever hangs is left alone after a while, and all are asked anew.
            let impatient = self.clock.sleep_until((sent_ms + part_ms).min(lost_ms));
            tokio::select! {
                answer = answer => match answer {
                    Ok(answer) if answer.acknowledged.contains(&self.key) && !answer.broken.is_empty() => {
                        tell.send_replace(answer.broken.last().map(broken));
                        return;
                    }
                    Ok(answer) if answer.acknowledged.contains(&self.key) => {
                        self.until_ms = sent_ms + self.ttl_ms;
                        next_ms = sent_ms + part_ms;
                        last_failure = None;
                    }
                    Ok(_) => {
                        tell.send_replace(Some(self.over()));
                        return;
                    }
                    Err(failure) => {
                        tracing::warn!(session = self.key.id, %failure, "the lease was not renewed");
                        next_ms = self.clock.now_ms() + RETRY_MS;
                        last_failure = Some(failure);
                    }
                },
                () = impatient => {
                    tracing::warn!(session = self.key.id, "nobody answered a renewal of the lease in time");
                    next_ms = self.clock.now_ms();
                }
            }
        }
    }

    fn over(&self) -> Refusal {
        let message = format!("the cluster ended session {}: it had not heard from it within its lease", self.key.id);
        Refusal::new(Class::Precondition, "SESSION_LOST", message)
    }

    fn ran_out(&self, last: Option<&Failure>) -> Refusal {
        let why = last.map(|failure| format!(": {}", failure.refusal.message)).unwrap_or_default();
        let message = format!(
            "the lease of session {} ran out after {} s without a renewal{why}",
            self.key.id,
            self.ttl_ms / 1000
        );
        Refusal::new(Class::Precondition, "SESSION_LOST", message)
    }
}
