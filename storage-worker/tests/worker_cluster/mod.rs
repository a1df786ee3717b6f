//! A cluster as workers see it: members that speak the real gateway service over a simulated
//! network and do what a test says; and workers that run against it. The members decide nothing.

#![allow(dead_code, reason = "each test uses a part")]

use sdm_proto::credentials::CallCredentials;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::credentials::Guard;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::credentials::PeerIdentity;
use sdm_proto::ids::ClusterId;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::BlockingPool;
use sdm_proto::seams::Clock;
use sdm_proto::seams::SimulatedNetwork;
use sdm_proto::seams::Transport;
use sdm_proto::seams::channel;
use sdm_proto::status::to_status;
use sdm_proto::token::Token;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::gateway_message;
use sdm_proto::wire::internal::v1::report::Outcome;
use sdm_proto::wire::internal::v1::worker_gateway_service_server::WorkerGatewayService;
use sdm_proto::wire::internal::v1::worker_gateway_service_server::WorkerGatewayServiceServer;
use sdm_proto::wire::internal::v1::worker_message;
use sdm_proto::wire::v1::transfer_service_client::TransferServiceClient;
use sdm_storage_worker::WorkerConfig;
use sdm_storage_worker::WorkerError;
use sdm_storage_worker::folder::SimulatedFolder;
use sdm_storage_worker::process::IoProcesses;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use uuid::Uuid;

/// A test that waits longer hangs.
const TOO_LONG: Duration = Duration::from_secs(60);

/// Waits until something watched is so.
pub async fn seen<T: Clone>(watched: &watch::Sender<T>, what: &str, is: impl FnMut(&T) -> bool) -> T {
    let mut watched = watched.subscribe();
    let found = tokio::time::timeout(TOO_LONG, watched.wait_for(is)).await;
    found.unwrap_or_else(|_| panic!("never seen: {what}")).expect("the sender lives").clone()
}

/// What the cluster would replicate; members share it.
pub struct Cluster {
    pub network: SimulatedNetwork,
    pub id: ClusterId,
    pub pool: Uuid,
    pub ttl_ms: u64,
    /// The set that each worker (by name) is sent.
    pub sets: watch::Sender<BTreeMap<String, wire::Assignments>>,
    /// The newest report of each (worker, token), and how often it came.
    pub reports: watch::Sender<BTreeMap<(String, String), (Outcome, u64)>>,
    /// The newest state of each (worker, domain).
    pub domains: watch::Sender<BTreeMap<(String, String), wire::DomainReport>>,
    /// Hellos that members got: member, hello.
    pub hellos: watch::Sender<Vec<(String, wire::Hello)>>,
    /// Workers that said goodbye, by name.
    pub goodbyes: watch::Sender<Vec<String>>,
    /// Pings that were answered.
    pub pongs: watch::Sender<u64>,
    /// Whether pings are answered.
    pub answering: watch::Sender<bool>,
    /// Refuses the next hellos.
    pub refusal: Mutex<Option<Refusal>>,
    /// Ends the session of a worker (by name) when it rises.
    pub ended: watch::Sender<u64>,
    index: Mutex<u64>,
    sessions: Mutex<BTreeMap<String, (String, u64)>>,
}

impl Cluster {
    pub fn new(ttl_ms: u64) -> Arc<Self> {
        // Shown for a failed test when RUST_LOG says so.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        Arc::new(Self {
            network: SimulatedNetwork::default(),
            id: ClusterId::from_uuid(Uuid::from_u128(0xc1)),
            pool: Uuid::from_u128(0x9001),
            ttl_ms,
            sets: watch::Sender::default(),
            reports: watch::Sender::default(),
            domains: watch::Sender::default(),
            hellos: watch::Sender::default(),
            goodbyes: watch::Sender::default(),
            pongs: watch::Sender::default(),
            answering: watch::Sender::new(true),
            refusal: Mutex::default(),
            ended: watch::Sender::new(0),
            index: Mutex::new(100),
            sessions: Mutex::default(),
        })
    }

    fn next_index(&self) -> u64 {
        let mut index = self.index.lock().unwrap();
        *index += 1;
        *index
    }

    /// A token that no other attempt has.
    pub fn token(&self) -> Token {
        Token { epoch: 1, index: self.next_index(), ordinal: 0 }
    }

    /// Starts a member on a host of its own name; answers with its address.
    pub async fn member(self: &Arc<Self>, name: &str) -> String {
        let (address, incoming) = self.network.host(name).listen(format!("{name}:0")).await.unwrap();
        let identity = OwnIdentity::default();
        identity.set(PeerIdentity { cluster_id: self.id.to_string(), epoch: 1, name: format!("member/{name}") });
        let service = WorkerGatewayServiceServer::new(Member { name: name.to_owned(), cluster: Arc::clone(self) });
        let guard = Guard::with_newcomers(ClusterSecret::default(), identity);
        let server = sdm_proto::seams::server().add_service(InterceptedService::new(service, guard));
        tokio::spawn(server.serve_with_incoming(incoming));
        address
    }

    /// Sends a worker exactly these assignments and domains from now on.
    pub fn assign(&self, worker: &str, items: Vec<wire::Assignment>, domains: Vec<wire::DomainTarget>) {
        // A member stamps a set when it sends it.
        self.assign_as_of(worker, 0, items, domains);
    }

    /// The same as of another index than the newest.
    pub fn assign_as_of(
        &self,
        worker: &str,
        applied_index: u64,
        items: Vec<wire::Assignment>,
        domains: Vec<wire::DomainTarget>,
    ) {
        let set = wire::Assignments { epoch: 1, applied_index, items, domains };
        self.sets.send_modify(|sets| {
            sets.insert(worker.to_owned(), set);
        });
    }

    /// Waits for a report about this token that fits.
    pub async fn reported(&self, worker: &str, token: Token, what: &str, is: impl Fn(&Outcome) -> bool) -> Outcome {
        let key = (worker.to_owned(), token.to_string());
        let what = format!("{worker} reports {what} of {token}");
        let reports =
            seen(&self.reports, &what, |reports| reports.get(&key).is_some_and(|(outcome, _)| is(outcome))).await;
        reports[&key].0.clone()
    }

    /// Waits for the end of an attempt, which has to be `Done`.
    pub async fn done(&self, worker: &str, token: Token) -> wire::Done {
        let last = |outcome: &Outcome| !matches!(outcome, Outcome::Checkpoint(_) | Outcome::Sender(_));
        match self.reported(worker, token, "the end", last).await {
            Outcome::Done(done) => done,
            other => panic!("{token} is not done: {other:?}"),
        }
    }

    /// Waits until a worker reports a domain as reachable or not.
    pub async fn domain(&self, worker: &str, domain: &str, reachable: bool) -> wire::DomainReport {
        let key = (worker.to_owned(), domain.to_owned());
        let what = format!("{worker} says that {domain} is {reachable}");
        let is =
            |domains: &BTreeMap<_, wire::DomainReport>| domains.get(&key).is_some_and(|d| d.reachable == reachable);
        seen(&self.domains, &what, is).await[&key].clone()
    }

    /// A client of a worker's public service, as a command on `host` has.
    pub fn transfers(&self, address: &str) -> TransferServiceClient<Channel> {
        let transport: Arc<dyn Transport> = Arc::new(self.network.host("command"));
        TransferServiceClient::new(channel(&transport, address).unwrap())
    }

    /// Credentials of another process of this cluster.
    pub fn internal_credentials(&self, name: &str) -> CallCredentials {
        let identity = OwnIdentity::default();
        identity.set(PeerIdentity { cluster_id: self.id.to_string(), epoch: 1, name: name.to_owned() });
        CallCredentials::internal(ClusterSecret::default(), identity, "")
    }
}

struct Member {
    name: String,
    cluster: Arc<Cluster>,
}

#[tonic::async_trait]
impl WorkerGatewayService for Member {
    type OpenSessionStream = ReceiverStream<Result<wire::GatewayMessage, Status>>;

    async fn open_session(
        &self,
        request: Request<Streaming<wire::WorkerMessage>>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        let mut from = request.into_inner();
        let Some(worker_message::Message::Hello(hello)) = from.message().await?.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("no hello"));
        };
        self.cluster.hellos.send_modify(|hellos| hellos.push((self.name.clone(), hello.clone())));
        if let Some(refusal) = &*self.cluster.refusal.lock().unwrap() {
            return Err(to_status(refusal));
        }
        let (to, stream) = mpsc::channel(64);
        tokio::spawn(Arc::clone(&self.cluster).converse(self.name.clone(), hello, from, to));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Cluster {
    fn welcome(&self, member: &str, hello: &wire::Hello) -> wire::Welcome {
        let mut sessions = self.sessions.lock().unwrap();
        let known = sessions.get(&hello.name).filter(|(id, _)| *id == hello.session_id).cloned();
        let (session_id, session_epoch) = known.unwrap_or_else(|| {
            let epoch = self.next_index();
            (format!("session-{epoch}"), epoch)
        });
        sessions.insert(hello.name.clone(), (session_id.clone(), session_epoch));
        wire::Welcome {
            cluster_id: self.id.to_string(),
            pool_id: self.pool.to_string(),
            epoch: 1,
            session_id,
            session_epoch,
            ttl_ms: self.ttl_ms,
            member: member.to_owned(),
            storage_epoch: 0,
        }
    }

    async fn converse(
        self: Arc<Self>,
        member: String,
        hello: wire::Hello,
        mut from: Streaming<wire::WorkerMessage>,
        to: mpsc::Sender<Result<wire::GatewayMessage, Status>>,
    ) {
        let say = async |message| to.send(Ok(wire::GatewayMessage { message: Some(message) })).await.is_ok();
        let mut sets = self.sets.subscribe();
        let mut ended = self.ended.subscribe();
        ended.mark_unchanged();
        sets.mark_changed();
        if !say(gateway_message::Message::Welcome(self.welcome(&member, &hello))).await {
            return;
        }
        loop {
            tokio::select! {
                message = from.message() => {
                    let Ok(Some(message)) = message else { return };
                    if let Some(pong) = self.take(&hello.name, message)
                        && !say(gateway_message::Message::KeepAlive(pong)).await { return }
                }
                _ = sets.changed() => {
                    let set = sets.borrow_and_update().get(&hello.name).cloned();
                    let stamped = |set: wire::Assignments| match set.applied_index {
                        0 => wire::Assignments { applied_index: self.next_index(), ..set },
                        _ => set,
                    };
                    if let Some(set) = set.map(stamped) && !say(gateway_message::Message::Assignments(set)).await { return }
                }
                _ = ended.changed() => {
                    self.sessions.lock().unwrap().remove(&hello.name);
                    let over = wire::SessionEnded { message: "the test ended it".into() };
                    say(gateway_message::Message::SessionEnded(over)).await;
                    return;
                }
            }
        }
    }

    fn take(&self, worker: &str, message: wire::WorkerMessage) -> Option<wire::KeepAlivePong> {
        match message.message? {
            worker_message::Message::KeepAlive(ping) => {
                let answering = *self.answering.borrow();
                if answering {
                    self.pongs.send_modify(|pongs| *pongs += 1);
                }
                return answering.then_some(wire::KeepAlivePong { sequence: ping.sequence });
            }
            worker_message::Message::Report(report) => {
                let outcome = report.outcome.expect("a report says something");
                self.reports.send_modify(|reports| {
                    let entry = reports.entry((worker.to_owned(), report.token)).or_insert((outcome.clone(), 0));
                    *entry = (outcome, entry.1 + 1);
                });
            }
            worker_message::Message::Domains(domains) => self.domains.send_modify(|known| {
                let items = domains.items.into_iter();
                known.extend(items.map(|item| ((worker.to_owned(), item.domain_id.clone()), item)));
            }),
            worker_message::Message::Goodbye(_) => {
                self.goodbyes.send_modify(|goodbyes| goodbyes.push(worker.to_owned()))
            }
            worker_message::Message::Hello(_) => {}
        }
        None
    }
}

/// A running worker.
pub struct Worker {
    pub name: String,
    pub address: String,
    stop: CancellationToken,
    task: JoinHandle<Result<(), WorkerError>>,
}

/// What a test's worker is made of.
pub struct Setup {
    pub cluster: Arc<Cluster>,
    pub coordinators: Vec<String>,
    pub clock: Arc<dyn Clock>,
    pub processes: Arc<dyn IoProcesses>,
}

impl Setup {
    /// Starts a worker on a host of its own name.
    pub fn worker(&self, name: &str, reach: &[&Path]) -> Worker {
        self.worker_in(name, reach, &SimulatedFolder::new(name))
    }

    pub fn worker_in(&self, name: &str, reach: &[&Path], folder: &SimulatedFolder) -> Worker {
        let address = format!("{name}:7000");
        let config = WorkerConfig {
            name: name.to_owned(),
            listen: address.clone(),
            advertise: None,
            data_dir: PathBuf::new(),
            coordinators: self.coordinators.clone(),
            readmit: None,
            reach: reach.iter().map(|path| path.to_path_buf()).collect(),
            secret: ClusterSecret::default(),
            transport: Arc::new(self.cluster.network.host(name)),
            clock: Arc::clone(&self.clock),
            processes: Arc::clone(&self.processes),
            pool: BlockingPool::default(),
        };
        let stop = CancellationToken::new();
        let folder = folder.open().unwrap();
        let task = tokio::spawn(sdm_storage_worker::run_in_folder(config, folder, stop.clone().cancelled_owned()));
        Worker { name: name.to_owned(), address, stop, task }
    }
}

impl Worker {
    /// Stops it as a signal would.
    pub async fn stop(self) -> Result<(), WorkerError> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits for its end.
    pub async fn ended(self) -> Result<(), WorkerError> {
        tokio::time::timeout(TOO_LONG, self.task).await.expect("the worker ends").expect("the worker does not panic")
    }
}

/// A storage domain in the making, and orders for it.
#[derive(Clone)]
pub struct Domain {
    pub cluster: Arc<Cluster>,
    pub token: Token,
    pub path: PathBuf,
}

impl Domain {
    pub fn new(cluster: &Arc<Cluster>, path: &Path) -> Self {
        Self { cluster: Arc::clone(cluster), token: cluster.token(), path: path.to_owned() }
    }

    pub fn id(&self) -> String {
        self.token.domain(self.cluster.id).to_string()
    }

    pub fn target(&self) -> wire::DomainTarget {
        wire::DomainTarget { domain_id: self.id(), path: self.path.to_string_lossy().into_owned(), local: true }
    }

    pub fn create(&self) -> wire::Assignment {
        let dot_name = self.token.dot_name(self.cluster.id);
        let order = wire::CreateDomainOrder { domain: Some(self.target()), name: "d".into(), dot_name };
        assignment(self.token, wire::assignment::Order::CreateDomain(order))
    }

    pub fn placement(&self, token: Token) -> wire::PlacementTarget {
        wire::PlacementTarget {
            domain: Some(self.target()),
            dot_name: token.dot_name(self.cluster.id),
            placement_id: token.placement(self.cluster.id).to_string(),
            disk_id: Uuid::from_u128(0xd15c).to_string(),
            description: "web-01".into(),
            ..Default::default()
        }
    }

    /// Where a placement's file lies.
    pub fn file(&self, token: Token, volume: &str) -> PathBuf {
        let placement = token.placement(self.cluster.id).to_string();
        self.path.join(self.id()).join("images").join(placement).join(volume)
    }

    pub fn delete(&self, token: Token, made_by: Token) -> wire::Assignment {
        let order = wire::DeleteOrder {
            domain: Some(self.target()),
            dot_name: made_by.dot_name(self.cluster.id),
            placement_id: made_by.placement(self.cluster.id).to_string(),
            made_by_token: made_by.to_string(),
            deletion_dot_name: token.dot_name(self.cluster.id),
            whole_domain: false,
        };
        assignment(token, wire::assignment::Order::Delete(order))
    }
}

/// An assignment under this token.
pub fn assignment(token: Token, order: wire::assignment::Order) -> wire::Assignment {
    wire::Assignment {
        token: token.to_string(),
        transaction_id: Uuid::from_u128(u128::from(token.index)).to_string(),
        attempt: 1,
        stop: false,
        order: Some(order),
    }
}

/// A raw volume of this size.
pub fn raw(id: u128, virtual_size: u64) -> wire::VolumeSpec {
    wire::VolumeSpec {
        volume_id: Uuid::from_u128(id).to_string(),
        format: "raw".into(),
        virtual_size,
        ..wire::VolumeSpec::default()
    }
}
