//! The load that makes a snapshot due: sessions that take and give back large lock sets, so that the
//! log grows by much and the state by nothing; and a probe with small ones beside it.

use crate::times::Times;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Sessions of the load, and what each asks for: as many names as a lock set may have, as long as
/// they may be. Paced, so that it fills neither the disk's queue nor the processors.
const SESSIONS: u64 = 4;
const NAMES: u64 = 64;
const NAME_BYTES: usize = 190;
const PAUSE: Duration = Duration::from_millis(1);

/// Lease of the sessions: the whole measurement fits into it.
const TTL_MS: u64 = 600_000;

static WRITTEN: AtomicU64 = AtomicU64::new(0);
static PROBED: Mutex<Vec<(Instant, Duration)>> = Mutex::new(Vec::new());

/// A resource, exclusively.
pub fn resource(resource: String) -> v1::LockedResource {
    v1::LockedResource { resource, mode: "X".to_owned() }
}

/// A client's session.
pub struct Session {
    client: LockServiceClient<Channel>,
    key: Option<v1::SessionKey>,
    sequence: u64,
}

impl Session {
    /// Opens one.
    pub async fn open(channel: Channel, label: &str) -> Self {
        let mut client = LockServiceClient::new(channel);
        let nonce = format!("{label}-{:?}", std::time::SystemTime::now());
        let open = v1::OpenSessionRequest { label: label.to_owned(), ttl_ms: TTL_MS, nonce };
        let opened = client.open_session(open).await.expect("a session").into_inner();
        Self { client, key: opened.session, sequence: 0 }
    }

    /// Takes a lock set and gives it back.
    pub async fn pair(&mut self, resources: Vec<v1::LockedResource>) {
        self.sequence += 1;
        let (session, sequence) = (self.key, self.sequence);
        let acquire = v1::AcquireRequest { session, sequence, resources, wait_ms: 0, why: "bench".to_owned() };
        let lock_id = self.client.acquire(acquire).await.expect("granted").into_inner().lock_id;
        self.sequence += 1;
        let release = v1::ReleaseRequest { session, sequence: self.sequence, lock_id };
        self.client.release(release).await.expect("released");
    }

    /// Ends it.
    pub async fn close(mut self) {
        self.client.close_session(v1::CloseSessionRequest { session: self.key }).await.expect("closed");
    }
}

/// The load while it runs.
pub struct Load {
    over: Arc<AtomicBool>,
    sessions: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts it.
    pub fn start(channel: &Channel) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let one = |number: u64| {
            let (channel, over) = (channel.clone(), over.clone());
            tokio::spawn(async move {
                let mut session = Session::open(channel, "load").await;
                while !over.load(Ordering::Relaxed) {
                    let name = |at: u64| format!("user/{:0>width$}", format!("{number}-{at}"), width = NAME_BYTES);
                    session.pair((0..NAMES).map(|at| resource(name(at))).collect()).await;
                    WRITTEN.fetch_add(NAMES * NAME_BYTES as u64, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
                session.close().await;
            })
        };
        Self { sessions: (0..SESSIONS).map(one).collect(), over: over.clone() }
    }

    /// Ends it.
    pub async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        for session in self.sessions {
            session.await.expect("the load went well");
        }
    }
}

/// Bytes of names that the load wrote.
pub fn written_bytes() -> u64 {
    WRITTEN.load(Ordering::Relaxed)
}

/// Takes and gives back one small lock after another, until it is aborted.
pub async fn probe(channel: Channel) {
    let mut session = Session::open(channel, "probe").await;
    loop {
        let begun = Instant::now();
        session.pair(vec![resource("user/probe".to_owned())]).await;
        PROBED.lock().unwrap_or_else(PoisonError::into_inner).push((begun, begun.elapsed()));
    }
}

/// What the probe measured before `begun`, and between it and `ended`.
pub fn probed(begun: Instant, ended: Instant) -> (Times, Times) {
    let (mut before, mut meanwhile) = (Times::default(), Times::default());
    for (at, took) in PROBED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if *at + *took < begun {
            before.add(*took);
        } else if *at < ended {
            meanwhile.add(*took);
        }
    }
    (before, meanwhile)
}
