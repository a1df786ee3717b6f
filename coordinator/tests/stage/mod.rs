//! A stage for tests: one member in this process, on a network and a disk in memory, and workers that
//! a script plays. Everything between a client's call and a worker's order is the product's own.

#![allow(dead_code, reason = "each test binary plays with another part of it")]

pub mod worker;

use sdm_coordinator::MemberConfig;
use sdm_coordinator::MemberError;
use sdm_coordinator::Start;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams;
use sdm_proto::seams::SimulatedClock;
use sdm_proto::seams::SimulatedNetwork;
use sdm_proto::seams::Transport;
use sdm_proto::status::from_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;
use sdm_proto::wire::v1::domain_service_client::DomainServiceClient;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;
use sdm_proto::wire::v1::job_service_client::JobServiceClient;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use sdm_proto::wire::v1::transaction_service_client::TransactionServiceClient;
use sdm_proto::wire::v1::worker_service_client::WorkerServiceClient;
use sdm_raft_store::SimulatedDisk;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tonic::Response;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// Where the member listens.
pub const MEMBER: &str = "m1:7400";

/// Longest wait for anything that must happen: only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Link = InterceptedService<Channel, CallCredentials>;

/// The secret of every cluster on a stage.
pub fn secret() -> ClusterSecret {
    ClusterSecret::from_bytes(b"a secret for tests only").unwrap()
}

/// One member, and the way to it.
pub struct Stage {
    pub network: SimulatedNetwork,
    pub link: Link,
    stop: watch::Sender<bool>,
    member: oneshot::Receiver<Result<(), MemberError>>,
    _disk: SimulatedDisk,
}

impl Stage {
    /// A founded cluster of one member that answers.
    pub async fn open() -> Self {
        Self::open_on(None).await
    }

    /// The same on a clock that the test moves.
    pub async fn open_on(clock: Option<SimulatedClock>) -> Self {
        let network = SimulatedNetwork::default();
        let disk = SimulatedDisk::new();
        let mut config = MemberConfig::new("m1".parse().unwrap(), MEMBER, "in memory", Start::Bootstrap);
        config.disk = Some(disk.start());
        config.secret = secret();
        config.transport = Arc::new(network.host("m1"));
        if let Some(clock) = clock {
            config.clock = Arc::new(clock);
        }
        let (stop, mut stopped) = watch::channel(false);
        let (ended, member) = oneshot::channel();
        // A runtime of its own: when it ends, nothing of the member is left.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let outcome = runtime.block_on(sdm_coordinator::run(config, async move {
                // A stage that was dropped is over too.
                let _ = stopped.wait_for(|stop| *stop).await;
            }));
            let _ = ended.send(outcome);
        });
        let transport: Arc<dyn Transport> = Arc::new(network.host("client"));
        let channel = seams::channel(&transport, MEMBER).unwrap();
        let link = InterceptedService::new(channel, CallCredentials::public(secret()));
        let stage = Self { network, link, stop, member, _disk: disk };
        until("the member answers", async || {
            stage.workers().list_workers(v1::ListWorkersRequest::default()).await.ok()
        })
        .await;
        stage
    }

    /// Stops the member and waits for its end.
    pub async fn close(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.member).await.expect("the member ends").unwrap().unwrap();
    }

    pub fn disks(&self) -> DiskServiceClient<Link> {
        DiskServiceClient::new(self.link.clone())
    }

    pub fn domains(&self) -> DomainServiceClient<Link> {
        DomainServiceClient::new(self.link.clone())
    }

    pub fn transactions(&self) -> TransactionServiceClient<Link> {
        TransactionServiceClient::new(self.link.clone())
    }

    pub fn locks(&self) -> LockServiceClient<Link> {
        LockServiceClient::new(self.link.clone())
    }

    pub fn jobs(&self) -> JobServiceClient<Link> {
        JobServiceClient::new(self.link.clone())
    }

    pub fn workers(&self) -> WorkerServiceClient<Link> {
        WorkerServiceClient::new(self.link.clone())
    }

    pub fn garbage(&self) -> GcServiceClient<Link> {
        GcServiceClient::new(self.link.clone())
    }

    /// Makes a domain, with whatever worker there is, and waits until it is there and reachable.
    pub async fn make_domain(&self, name: &str) {
        let request =
            v1::CreateDomainRequest { header: None, name: name.into(), path: format!("/srv/{name}"), local: true };
        let begun = self.domains().create_domain(request).await.unwrap().into_inner().transaction.unwrap();
        assert_eq!(self.outcome(&begun.id).await.phase, "committed");
        until("the domain is reachable", async || {
            let domain = self.domain(name).await;
            (domain.state == "reachable" && domain.total_bytes > 0).then_some(())
        })
        .await;
    }

    pub async fn domain(&self, name: &str) -> v1::Domain {
        let response = self.domains().get_domain(v1::GetDomainRequest { domain: name.into() }).await;
        response.unwrap().into_inner().domain.unwrap()
    }

    /// Asks for a raw disk of 1 MiB in nfs1.
    pub async fn create_disk(
        &self,
        name: &str,
        header: Option<v1::MutationHeader>,
    ) -> Result<v1::Transaction, Refusal> {
        let (domain, format) = ("nfs1".into(), v1::DiskFormat::Raw as i32);
        let request =
            v1::CreateDiskRequest { header, name: name.into(), domain, size: 1 << 20, format, ..Default::default() };
        begun(self.disks().create_disk(request).await, |response| response.transaction)
    }

    /// Makes it and waits until it is there.
    pub async fn make_disk(&self, name: &str) -> v1::Disk {
        let begun = self.create_disk(name, None).await.unwrap();
        assert_eq!(self.outcome(&begun.id).await.phase, "committed");
        self.disk(name).await.unwrap()
    }

    pub async fn disk(&self, name: &str) -> Result<v1::Disk, Refusal> {
        let response = self.disks().get_disk(v1::GetDiskRequest { disk: name.into() }).await;
        begun(response, |response| response.disk)
    }

    pub async fn move_disk(
        &self,
        disk: &str,
        to: &str,
        header: Option<v1::MutationHeader>,
    ) -> Result<v1::Transaction, Refusal> {
        let request = v1::MoveDiskRequest { header, disk: disk.into(), to_domain: to.into() };
        begun(self.disks().move_disk(request).await, |response| response.transaction)
    }

    pub async fn delete_disk(
        &self,
        disk: &str,
        header: Option<v1::MutationHeader>,
    ) -> Result<v1::Transaction, Refusal> {
        let request = v1::DeleteDiskRequest { header, disk: disk.into() };
        begun(self.disks().delete_disk(request).await, |response| response.transaction)
    }

    pub async fn transaction(&self, id: &str) -> Result<v1::Transaction, Refusal> {
        let response = self.transactions().get_transaction(v1::GetTransactionRequest { id: id.into() }).await;
        begun(response, |response| response.transaction)
    }

    /// The transaction as it ended.
    pub async fn outcome(&self, id: &str) -> v1::Transaction {
        until("the transaction ends", async || {
            let txn = self.transaction(id).await.unwrap();
            matches!(txn.phase.as_str(), "committed" | "aborted" | "refused").then_some(txn)
        })
        .await
    }

    /// The state of a worker, by name; empty when it is not known.
    pub async fn worker_state(&self, name: &str) -> String {
        let workers = self.workers().list_workers(v1::ListWorkersRequest::default()).await.unwrap().into_inner().items;
        workers.into_iter().find(|worker| worker.name == name).map(|worker| worker.state).unwrap_or_default()
    }

    pub async fn garbage_now(&self) -> Vec<v1::Garbage> {
        self.garbage().list_garbage(v1::ListGarbageRequest::default()).await.unwrap().into_inner().items
    }
}

/// What a mutation or a read answered, or its refusal.
pub fn begun<R, T>(response: Result<Response<R>, Status>, take: impl FnOnce(R) -> Option<T>) -> Result<T, Refusal> {
    match response {
        Ok(response) => Ok(take(response.into_inner()).expect("a response without its content")),
        Err(status) => Err(from_status(&status)),
    }
}

/// A header that only names the request.
pub fn under(request_id: &str) -> Option<v1::MutationHeader> {
    Some(v1::MutationHeader { request_id: request_id.into(), ..Default::default() })
}

/// Looks until the condition holds; fails with its name after `PATIENCE`.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
