//! A small cluster for tests: each member on a thread and a runtime of its own, so that it can be
//! killed as a process is, with real folders, over a network in memory that can be cut.

#![allow(dead_code, reason = "each test file uses its part")]

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sdm_coordinator::Core;
use sdm_coordinator::MemberConfig;
use sdm_coordinator::MemberError;
use sdm_coordinator::Start;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::seams::Clock;
use sdm_proto::seams::Connection;
use sdm_proto::seams::Incoming;
use sdm_proto::seams::SimulatedNetwork;
use sdm_proto::seams::Transport;
use sdm_proto::seams::channel;
use sdm_proto::wire::v1::GetStatusRequest;
use sdm_proto::wire::v1::GetStatusResponse;
use sdm_proto::wire::v1::cluster_service_client::ClusterServiceClient;
use sdm_raft_store::SimulatedDisk;
use sdm_raft_store::disk::Crash;
use sdm_raft_store::raft::RaftTiming;
use sdm_state::Command;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// Nothing here takes this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Raft's timers in tests: shorter than real ones, far longer than an fsync.
pub const TIMING: RaftTiming = RaftTiming { heartbeat_ms: 100, election_min_ms: 500, election_max_ms: 1_000 };

pub fn secret(text: &str) -> ClusterSecret {
    ClusterSecret::from_bytes(text.as_bytes()).unwrap()
}

/// A command that leaves something to count: a client's session of ten seconds.
pub fn open_session(nonce: &str) -> Command {
    let owner = SessionOwner::Client("a test".to_owned());
    Command::OpenSession(OpenSession { owner, ttl_ms: 10_000, nonce: nonce.to_owned() })
}

/// A host's way into the network that gives one reason for whatever fails.
#[derive(Debug)]
struct FailingAs {
    network: SimulatedNetwork,
    kind: io::ErrorKind,
}

impl Transport for FailingAs {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Connection>> {
        let kind = self.kind;
        self.network.connect(address).map(move |made| made.map_err(|error| io::Error::new(kind, error))).boxed()
    }

    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<(String, Incoming)>> {
        self.network.listen(address)
    }
}

/// How a member ends.
enum End {
    InOrder,
    Killed,
}

/// One member's thread.
pub struct Running {
    end: Option<oneshot::Sender<End>>,
    thread: Option<JoinHandle<Option<Result<(), MemberError>>>>,
    core: watch::Receiver<Option<Core>>,
}

impl Running {
    /// The member's core, once it is a member.
    pub async fn core(&self) -> Core {
        let mut core = self.core.clone();
        let found = tokio::time::timeout(PATIENCE, core.wait_for(Option::is_some)).await;
        found.expect("the member is one in time").expect("the member runs").clone().expect("just seen")
    }

    fn stop(&mut self, end: End) -> Option<Result<(), MemberError>> {
        // Gone already when it ended by itself.
        let _ = self.end.take()?.send(end);
        // The test's own handles must not keep the folder.
        self.core = watch::channel(None).1;
        self.thread.take()?.join().expect("the member's thread does not panic")
    }

    /// Waits for an end that the test does not cause.
    pub async fn ended(mut self) -> Result<(), MemberError> {
        let thread = self.thread.take().expect("it runs");
        let keep = self.end.take();
        let outcome = tokio::task::spawn_blocking(move || thread.join()).await.unwrap().expect("no panic");
        drop(keep);
        outcome.expect("it was not killed")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(End::Killed);
    }
}

/// Members by name, `a` at `a:7400` and so on.
pub struct Cluster {
    pub network: SimulatedNetwork,
    /// Before their folder: it goes after them.
    pub members: BTreeMap<String, Running>,
    folder: tempfile::TempDir,
    channels: BTreeMap<String, Channel>,
    /// Raft's timers of members that start from now on.
    pub timing: RaftTiming,
    /// Disks that take the place of folders, by member.
    pub disks: BTreeMap<String, SimulatedDisk>,
    /// As what every connection fails that members make who start from now on, if it fails; the
    /// network's own reason when not set.
    pub failure: Option<io::ErrorKind>,
    /// The clock of members that start from now on; the kernel's when not set.
    pub clock: Option<Arc<dyn Clock>>,
}

impl Cluster {
    pub fn new() -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        Self {
            network: SimulatedNetwork::default(),
            folder: tempfile::tempdir().unwrap(),
            members: BTreeMap::new(),
            channels: BTreeMap::new(),
            timing: TIMING,
            disks: BTreeMap::new(),
            failure: None,
            clock: None,
        }
    }

    /// A founder `a`, and others that joined it.
    pub async fn of(names: &[&str]) -> Self {
        let mut cluster = Self::new();
        for (at, name) in names.iter().enumerate() {
            cluster.start(name, if at == 0 { Start::Bootstrap } else { Start::Join("a:7400".to_owned()) });
            cluster.members[*name].core().await;
        }
        cluster
    }

    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Names of the snapshots in a member's folder.
    pub fn snapshots(&self, name: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.data_dir(name).join("snapshots")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("snap-")).collect()
    }

    pub fn config(&self, name: &str, start: Start) -> MemberConfig {
        let mut config = MemberConfig::new(name.parse().unwrap(), format!("{name}:7400"), self.data_dir(name), start);
        config.secret = secret("the secret of this test");
        let network = self.network.host(name);
        config.transport = match self.failure {
            Some(kind) => Arc::new(FailingAs { network, kind }),
            None => Arc::new(network),
        };
        config.timing = self.timing;
        config.disk = self.disks.get(name).map(SimulatedDisk::start);
        if let Some(clock) = &self.clock {
            config.clock = Arc::clone(clock);
        }
        config
    }

    pub fn start(&mut self, name: &str, start: Start) {
        let config = self.config(name, start);
        wait_unlocked(&self.data_dir(name));
        self.members.insert(name.to_owned(), run(config));
    }

    /// Ends a member in order.
    pub fn stop(&mut self, name: &str) {
        let outcome = self.members.remove(name).expect("it runs").stop(End::InOrder);
        outcome.expect("it was not killed").expect("it ends in order");
    }

    /// Ends a member as SIGKILL does.
    pub fn kill(&mut self, name: &str) {
        self.members.remove(name).expect("it runs").stop(End::Killed);
    }

    /// Cuts a member's power: only what was synced is left of its simulated disk.
    pub fn cut_power(&mut self, name: &str) {
        self.disks[name].crash(Crash::LoseUnsynced);
        self.kill(name);
    }

    pub async fn core(&self, name: &str) -> Core {
        self.members[name].core().await
    }

    /// Proposes until the log behind a snapshot no longer reaches back to where it was.
    pub async fn outgrow_the_log(&mut self) {
        let core = self.core("a").await;
        let deadline = Instant::now() + PATIENCE;
        let abort = |reason: String| Command::Abort { txn: sdm_proto::ids::TxnId::default(), reason };
        for _ in 0..24 {
            let many = (0..500).map(|_| core.propose(abort(String::new()), deadline));
            for proposed in futures_util::future::join_all(many).await {
                proposed.unwrap();
            }
        }
        // A snapshot pays once the log grew by some megabytes; it must cover what the log keeps and
        // a thousand entries more, for those to be purged.
        let filler = "x".repeat(200 << 10);
        while !self.snapshots("a").iter().any(|name| snapshot_index(name) > 11_500) {
            core.propose(abort(filler.clone()), deadline).await.unwrap();
        }
        // Raft purges when it hears of the snapshot, and takes up to a turn to hear.
        for _ in 0..10 {
            core.propose(abort(String::new()), deadline).await.unwrap();
        }
    }

    /// Cuts a member off from all others, the test's own clients left out.
    pub fn isolate(&self, name: &str) {
        for other in self.members.keys().filter(|other| *other != name) {
            self.network.cut(name, other);
        }
    }

    pub fn client(&mut self, name: &str) -> ClusterServiceClient<InterceptedService<Channel, CallCredentials>> {
        let transport: Arc<dyn Transport> = Arc::new(self.network.host("test"));
        let channel = self
            .channels
            .entry(name.to_owned())
            .or_insert_with(|| channel(&transport, &format!("{name}:7400")).unwrap())
            .clone();
        let credentials = CallCredentials::public(secret("the secret of this test"));
        ClusterServiceClient::with_interceptor(channel, credentials)
    }

    pub async fn status(&mut self, name: &str) -> GetStatusResponse {
        let mut client = self.client(name);
        let status = tokio::time::timeout(PATIENCE, client.get_status(GetStatusRequest {})).await;
        status.expect("status answers in time").expect("status answers").into_inner()
    }

    /// Waits until a member's status is as wanted.
    pub async fn status_until(&mut self, name: &str, wanted: impl Fn(&GetStatusResponse) -> bool) -> GetStatusResponse {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(name).await;
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "the status of {name} stays {status:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The name of the leader that a member sees, confirmed.
    pub async fn leader(&mut self, seen_by: &str) -> String {
        self.status_until(seen_by, |status| status.has_quorum && !status.leader.is_empty()).await.leader
    }
}

fn snapshot_index(name: &str) -> u64 {
    name.rsplit('-').next().and_then(|index| index.parse().ok()).unwrap_or_default()
}

/// A killed process's folder is free at once; of a killed runtime, the log's writer has a thread of
/// its own, which ends when it sees that nobody is left.
fn wait_unlocked(folder: &Path) {
    let Ok(lock) = File::open(folder.join("lock")) else { return };
    lock.lock().unwrap();
}

/// Runs a member on a thread of its own.
pub fn run(config: MemberConfig) -> Running {
    let (end, ending) = oneshot::channel();
    let (found, core) = watch::channel(None);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async move {
            let (stop, stopped) = oneshot::channel::<()>();
            let ready = {
                let found = found.clone();
                move |core| {
                    found.send_replace(Some(core));
                }
            };
            let stopped = async move {
                // Never sent: only dropped.
                let _ = stopped.await;
                // The folder is free only once nobody has the core.
                found.send_replace(None);
            };
            let mut member = Box::pin(sdm_coordinator::run_with(config, stopped, ready));
            tokio::select! {
                outcome = &mut member => Some(outcome),
                end = ending => match end {
                    Ok(End::InOrder) => {
                        drop(stop);
                        Some(member.await)
                    }
                    _ => None,
                },
            }
        });
        // Whatever still runs is dropped where it stands.
        runtime.shutdown_timeout(PATIENCE);
        if let Some(Err(error)) = &outcome {
            eprintln!("a member ended: {error}");
        }
        outcome
    });
    Running { end: Some(end), thread: Some(thread), core }
}
