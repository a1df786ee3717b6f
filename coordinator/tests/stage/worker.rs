//! A worker that a test plays: it speaks the gateway's protocol by hand, or obeys by itself and does
//! nothing but claim success.

use super::MEMBER;
use super::PATIENCE;
use super::Stage;
use super::secret;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams;
use sdm_proto::seams::SimulatedNetwork;
use sdm_proto::seams::Transport;
use sdm_proto::status::from_status;
use sdm_proto::wire::internal::v1::Assignment;
use sdm_proto::wire::internal::v1::Assignments;
use sdm_proto::wire::internal::v1::DomainReport;
use sdm_proto::wire::internal::v1::DomainReports;
use sdm_proto::wire::internal::v1::Done;
use sdm_proto::wire::internal::v1::GatewayMessage;
use sdm_proto::wire::internal::v1::Hello;
use sdm_proto::wire::internal::v1::KeepAlivePing;
use sdm_proto::wire::internal::v1::Layer;
use sdm_proto::wire::internal::v1::Report;
use sdm_proto::wire::internal::v1::ResizeOrder;
use sdm_proto::wire::internal::v1::VolumeResult;
use sdm_proto::wire::internal::v1::VolumeSpec;
use sdm_proto::wire::internal::v1::Welcome;
use sdm_proto::wire::internal::v1::WorkerMessage;
use sdm_proto::wire::internal::v1::assignment::Order;
use sdm_proto::wire::internal::v1::gateway_message::Message as Out;
use sdm_proto::wire::internal::v1::layer::From;
use sdm_proto::wire::internal::v1::report::Outcome;
use sdm_proto::wire::internal::v1::worker_gateway_service_client::WorkerGatewayServiceClient;
use sdm_proto::wire::internal::v1::worker_message::Message as In;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// What a worker of this name says first.
pub fn hello(label: &str) -> Hello {
    Hello {
        worker_id: WorkerId::derive("stage", &[label.as_bytes()]).to_string(),
        name: label.into(),
        address: format!("{label}:7401"),
        reach: Vec::new(),
        machine_id: format!("machine-{label}"),
        boot_id: "boot-1".into(),
        process_nonce: format!("nonce-{label}"),
        version: "0.1.0".into(),
        ..Hello::default()
    }
}

/// A worker that was welcomed.
pub struct Scripted {
    pub welcome: Welcome,
    outgoing: mpsc::Sender<WorkerMessage>,
    incoming: Streaming<GatewayMessage>,
    sequence: u64,
}

impl Scripted {
    /// Says hello to the stage's member; answers with the refusal if there is one.
    pub async fn connect(stage: &Stage, hello: Hello) -> Result<Self, Refusal> {
        Self::connect_to(&stage.network, MEMBER, secret(), hello).await
    }

    /// Says hello to any member.
    pub async fn connect_to(
        network: &SimulatedNetwork,
        address: &str,
        secret: ClusterSecret,
        hello: Hello,
    ) -> Result<Self, Refusal> {
        let transport: Arc<dyn Transport> = Arc::new(network.host(&hello.name));
        let channel = seams::channel(&transport, address).unwrap();
        let credentials = CallCredentials::internal(secret, OwnIdentity::default(), "");
        let (outgoing, messages) = mpsc::channel(1024);
        outgoing.send(WorkerMessage { message: Some(In::Hello(hello)) }).await.unwrap();
        let mut client = WorkerGatewayServiceClient::with_interceptor(channel, credentials);
        let opening = client.open_session(ReceiverStream::new(messages));
        let opened = tokio::time::timeout(PATIENCE, opening).await.expect("an answer to the hello");
        let incoming = opened.map_err(|status| from_status(&status))?.into_inner();
        let mut worker = Self { welcome: Welcome::default(), outgoing, incoming, sequence: 0 };
        match worker.next().await {
            Ok(Some(Out::Welcome(welcome))) => worker.welcome = welcome,
            other => panic!("a welcome comes first, not {other:?}"),
        }
        Ok(worker)
    }

    /// What the member says next; None when it ended the stream.
    pub async fn next(&mut self) -> Result<Option<Out>, Refusal> {
        let message = tokio::time::timeout(PATIENCE, self.incoming.message()).await.expect("a message in time");
        Ok(message.map_err(|status| from_status(&status))?.and_then(|message| message.message))
    }

    /// The next set for which this holds.
    pub async fn set_where(&mut self, wanted: impl Fn(&Assignments) -> bool) -> Assignments {
        loop {
            match self.next().await {
                Ok(Some(Out::Assignments(set))) if wanted(&set) => return set,
                Ok(Some(_)) => {}
                other => panic!("a set was awaited, the member said {other:?}"),
            }
        }
    }

    /// The next set with exactly one assignment.
    pub async fn only_assignment(&mut self) -> Assignment {
        self.set_where(|set| set.items.len() == 1).await.items.remove(0)
    }

    /// Ends the worker's half of the stream.
    pub fn say_no_more(&mut self) {
        self.outgoing = mpsc::channel(1).0;
    }

    pub async fn send(&mut self, message: In) {
        self.outgoing.send(WorkerMessage { message: Some(message) }).await.unwrap();
    }

    pub async fn report(&mut self, token: &str, outcome: Outcome) {
        self.sequence += 1;
        let report = Report { token: token.into(), sequence: self.sequence, outcome: Some(outcome) };
        self.send(In::Report(report)).await;
    }

    pub async fn ping(&mut self, sequence: u64) {
        self.send(In::KeepAlive(KeepAlivePing { sequence })).await;
    }

    /// Says that it reaches all that it is to look at.
    pub async fn reach_all(&mut self, set: &Assignments) {
        let items = set.domains.iter().map(|target| seen(&target.domain_id)).collect();
        self.send(In::Domains(DomainReports { items })).await;
    }

    /// Obeys for ever: claims success of everything, of jobs only while the gate is open.
    pub async fn obey(mut self, mut gate: watch::Receiver<bool>) {
        let mut set = Assignments::default();
        let mut told = BTreeSet::new();
        let mut looked_at = BTreeSet::new();
        let mut pulse = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                message = self.incoming.message() => match message {
                    Ok(Some(GatewayMessage { message: Some(Out::Assignments(newer)) })) => set = newer,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                },
                _ = gate.changed() => {}
                _ = pulse.tick() => self.ping(self.sequence).await,
            }
            let domains: BTreeSet<String> = set.domains.iter().map(|target| target.domain_id.clone()).collect();
            if domains != looked_at {
                self.reach_all(&set).await;
                looked_at = domains;
            }
            for assignment in set.items.clone() {
                if (*gate.borrow() || !is_job(&assignment)) && told.insert(assignment.token.clone()) {
                    self.report(&assignment.token, success(&assignment)).await;
                }
            }
        }
    }
}

fn is_job(assignment: &Assignment) -> bool {
    match &assignment.order {
        Some(Order::Copy(_) | Order::Receive(_) | Order::Send(_)) => true,
        Some(Order::Build(order)) => order.layers.iter().any(moves_data),
        Some(Order::BuildRebased(order)) => order.build.iter().flat_map(|build| &build.layers).any(moves_data),
        _ => false,
    }
}

fn moves_data(layer: &Layer) -> bool {
    matches!(layer.from, Some(From::Bytes(_) | From::Flatten(_)))
}

/// The leaf as it is once it has grown.
fn grown(order: &ResizeOrder) -> Option<VolumeSpec> {
    let leaf = order.volume.clone()?;
    Some(VolumeSpec { virtual_size: order.new_size, ..leaf })
}

fn seen(domain_id: &str) -> DomainReport {
    DomainReport {
        domain_id: domain_id.into(),
        reachable: true,
        total_bytes: 100 << 30,
        free_bytes: 50 << 30,
        file_system_id: "fs".into(),
        ..DomainReport::default()
    }
}

/// What a worker says that did all it was told.
pub fn success(assignment: &Assignment) -> Outcome {
    let volumes = match assignment.order.as_ref().unwrap() {
        Order::CreateDisk(order) => order.volumes.clone(),
        Order::Copy(order) => order.volumes.clone(),
        Order::Receive(order) => order.volume.iter().cloned().collect(),
        Order::Send(order) => order.volume.iter().cloned().collect(),
        Order::Build(order) => order.layers.iter().filter_map(|layer| layer.volume.clone()).collect(),
        Order::BuildRebased(order) => {
            order.build.iter().flat_map(|build| &build.layers).filter_map(|layer| layer.volume.clone()).collect()
        }
        Order::Resize(order) => grown(order).into_iter().collect(),
        Order::CreateDomain(_)
        | Order::ServeSource(_)
        | Order::Delete(_)
        | Order::Noop(_)
        | Order::Project(_)
        | Order::RenameDomain(_)
        | Order::DetachDomain(_)
        | Order::WriteCatalog(_)
        | Order::ReadCatalog(_)
        | Order::AttachDomain(_)
        | Order::MergeInPlace(_)
        | Order::FormatDomain(_) => Vec::new(),
    };
    Outcome::Done(Done { volumes: volumes.iter().map(built).collect(), bytes: 1 << 20, ..Done::default() })
}

fn built(spec: &VolumeSpec) -> VolumeResult {
    VolumeResult {
        volume_id: spec.volume_id.clone(),
        virtual_size: spec.virtual_size.max(spec.file_size),
        file_size: spec.virtual_size.max(spec.file_size),
        allocated_bytes: 4096,
        blake3: vec![7; 32].into(),
    }
}
