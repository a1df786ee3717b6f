//! `sdm bench locks`: sessions that take and release free names.

use super::load;
use super::load::AT_ONCE;
use super::load::Client;
use super::load::LoadOptions;
use crate::client::Cluster;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use clap::Args;
use futures_util::StreamExt;
use futures_util::TryStreamExt;
use futures_util::stream;
use sdm_proto::limits::SESSION_TTL;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::lock_answer::Outcome;
use sdm_proto::wire::v1::lock_call::Call;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Names of each client, taken in turn.
const NAMES: u64 = 64;

/// Sessions renewed with one request.
const KEEP_ALIVE_SESSIONS: usize = 1000;

/// Its options.
#[derive(Args, Debug)]
pub struct LocksBench {
    #[command(flatten)]
    load: LoadOptions,
    /// Connections to each member that the clients share; by default each client is a program with one of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: Option<u32>,
    /// Makes a call of each request, instead of sending them over one stream for each connection
    #[arg(long)]
    calls: bool,
}

impl LocksBench {
    /// Does it.
    ///
    /// # Errors
    /// No session could be opened, or not one operation succeeded.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let leases = Leases::default();
        let clusters = load::clusters(context, self.load.clients, self.connections)?;
        let opening = stream::iter(clusters)
            .map(|cluster| LockClient::open(cluster, leases.clone(), self.calls))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<LockClient>>();
        let opened = tokio::select! {
            opened = opening => opened,
            failure = context.unwanted() => Err(failure),
        };
        let renewing = tokio::spawn(keep_alive(context.cluster.beginning_at(0), leases.clone()));
        let finished = match opened {
            Ok(clients) => Ok(load::run(clients, self.load.seconds, context.unwanted()).await),
            Err(failure) => Err(failure),
        };
        renewing.abort();
        close_all(&context.cluster, &leases).await;
        load::end(context, &finished?)
    }
}

/// The sessions that are open, as (id, epoch).
#[derive(Clone, Default)]
struct Leases(Arc<Mutex<BTreeSet<(u64, u64)>>>);

impl Leases {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<(u64, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> Vec<v1::SessionKey> {
        self.lock().iter().map(|(id, epoch)| v1::SessionKey { id: *id, epoch: *epoch }).collect()
    }
}

/// Renews all sessions until it is aborted. What fails is tried again in time; a session that is lost
/// all the same shows in the errors.
async fn keep_alive(cluster: Cluster, leases: Leases) {
    loop {
        tokio::time::sleep(SESSION_TTL / 4).await;
        for sessions in leases.keys().chunks(KEEP_ALIVE_SESSIONS) {
            let request = v1::KeepAliveRequest { sessions: sessions.to_vec() };
            let answer = cluster.call(|link| {
                let request = request.clone();
                async move { LockServiceClient::new(link).keep_alive(request).await }
            });
            if let Err(failure) = answer.await {
                tracing::warn!(%failure, "sessions were not renewed");
            }
        }
    }
}

/// Ends all sessions, and with them whatever they hold. One that cannot be closed ends with its lease.
async fn close_all(cluster: &Cluster, leases: &Leases) {
    let closing = stream::iter(leases.keys()).for_each_concurrent(AT_ONCE, |key| async move {
        let request = v1::CloseSessionRequest { session: Some(key) };
        let answer = cluster.call(|link| async move { LockServiceClient::new(link).close_session(request).await });
        if let Err(failure) = answer.await {
            tracing::warn!(%failure, "a session was not closed: it ends with its lease");
        }
    });
    closing.await;
}

/// One client with its session.
struct LockClient {
    cluster: Cluster,
    leases: Leases,
    session: v1::SessionKey,
    /// Whether each request is a call of its own.
    calls: bool,
    /// Of the last request.
    sequence: u64,
    turn: u64,
}

impl LockClient {
    async fn open(cluster: Cluster, leases: Leases, calls: bool) -> Result<Self, Failure> {
        let session = open_session(&cluster, &leases).await?;
        Ok(Self { cluster, leases, session, calls, sequence: 0, turn: 0 })
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    async fn acquire(&mut self) -> Result<String, Failure> {
        self.turn = (self.turn + 1) % NAMES;
        let resource = format!("user/bench/{}/{}", self.session.id, self.turn);
        let request = v1::AcquireRequest {
            session: Some(self.session),
            sequence: self.next_sequence(),
            resources: vec![v1::LockedResource { resource, mode: "X".to_owned() }],
            wait_ms: 0,
            why: "sdm bench".to_owned(),
        };
        if !self.calls {
            return match self.cluster.call_lock(&Call::Acquire(request)).await? {
                Outcome::Acquired(answer) => Ok(answer.lock_id),
                other => Err(bad_answer(&other)),
            };
        }
        let answer = self.cluster.call(|link| {
            let request = request.clone();
            async move { LockServiceClient::new(link).acquire(request).await }
        });
        Ok(answer.await?.lock_id)
    }

    async fn release(&mut self, lock_id: String) -> Result<(), Failure> {
        let request = v1::ReleaseRequest { session: Some(self.session), sequence: self.next_sequence(), lock_id };
        if !self.calls {
            return match self.cluster.call_lock(&Call::Release(request)).await? {
                Outcome::Released(_) => Ok(()),
                other => Err(bad_answer(&other)),
            };
        }
        let answer = self.cluster.call(|link| {
            let request = request.clone();
            async move { LockServiceClient::new(link).release(request).await }
        });
        answer.await.map(|_| ())
    }

    /// After a failure nobody knows what the session holds: another one knows.
    async fn begin_anew(&mut self) {
        let old = self.session;
        let request = v1::CloseSessionRequest { session: Some(old) };
        let closed = self.cluster.call(|link| async move { LockServiceClient::new(link).close_session(request).await });
        if closed.await.is_ok() {
            self.leases.lock().remove(&(old.id, old.epoch));
        }
        if let Ok(session) = open_session(&self.cluster, &self.leases).await {
            self.session = session;
            self.sequence = 0;
        }
    }
}

impl Client for LockClient {
    async fn operate(&mut self) -> Result<(), Failure> {
        let done = match self.acquire().await {
            Ok(lock_id) => self.release(lock_id).await,
            Err(failure) => Err(failure),
        };
        if done.is_err() {
            self.begin_anew().await;
        }
        done
    }
}

fn bad_answer(outcome: &Outcome) -> Failure {
    Failure::new(Class::Internal, "BAD_ANSWER", format!("the member answered something else: {outcome:?}"))
}

async fn open_session(cluster: &Cluster, leases: &Leases) -> Result<v1::SessionKey, Failure> {
    let nonce: u128 = rand::random();
    let request = v1::OpenSessionRequest { label: "sdm bench".to_owned(), ttl_ms: 0, nonce: format!("{nonce:032x}") };
    let answer = cluster.call(|link| {
        let request = request.clone();
        async move { LockServiceClient::new(link).open_session(request).await }
    });
    let session = answer.await?.session.ok_or_else(|| {
        Failure::new(Class::Internal, "BAD_ANSWER", "a session was opened, and the answer does not say which")
    })?;
    leases.lock().insert((session.id, session.epoch));
    Ok(session)
}
