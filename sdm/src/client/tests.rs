//! The client against servers on a simulated network: which endpoint is asked, and what happens when
//! one dies.

use super::Cluster;
use super::Link;
use super::Told;
use super::TransactionWatch;
use crate::output::Failure;
use futures_util::stream::BoxStream;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::SimulatedNetwork;
use sdm_proto::seams::Transport;
use sdm_proto::seams::server;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::transaction_service_client::TransactionServiceClient;
use sdm_proto::wire::v1::transaction_service_server::TransactionService;
use sdm_proto::wire::v1::transaction_service_server::TransactionServiceServer;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use tokio::sync::watch;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// A member that answers with its own name, refuses with what it is told, and tells its transaction.
#[derive(Clone)]
struct Member {
    name: &'static str,
    refuses: Option<Refusal>,
    asked: Arc<AtomicUsize>,
    phase: watch::Receiver<&'static str>,
}

#[tonic::async_trait]
impl TransactionService for Member {
    async fn get_transaction(
        &self,
        _: Request<v1::GetTransactionRequest>,
    ) -> Result<Response<v1::GetTransactionResponse>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(refusal) = &self.refuses {
            return Err(to_status(refusal));
        }
        let txn = v1::Transaction { summary: self.name.to_owned(), ..Default::default() };
        Ok(Response::new(v1::GetTransactionResponse { transaction: Some(txn), ..Default::default() }))
    }

    async fn list_transactions(
        &self,
        _: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        Err(Status::unimplemented("not asked in these tests"))
    }

    async fn abort_transaction(
        &self,
        _: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionResponse>, Status> {
        Err(Status::unimplemented("not asked in these tests"))
    }

    async fn retry_transaction(
        &self,
        _: Request<v1::RetryTransactionRequest>,
    ) -> Result<Response<v1::RetryTransactionResponse>, Status> {
        Err(Status::unimplemented("not asked in these tests"))
    }

    async fn begin_noop(&self, _: Request<v1::BeginNoopRequest>) -> Result<Response<v1::BeginNoopResponse>, Status> {
        Err(Status::unimplemented("not asked in these tests"))
    }

    type WatchTransactionStream = BoxStream<'static, Result<v1::WatchTransactionResponse, Status>>;

    async fn watch_transaction(
        &self,
        _: Request<v1::WatchTransactionRequest>,
    ) -> Result<Response<Self::WatchTransactionStream>, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(refusal) = &self.refuses {
            return Err(to_status(refusal));
        }
        let name = self.name;
        let phases = tokio_stream::wrappers::WatchStream::new(self.phase.clone());
        let updates = tokio_stream::StreamExt::map(phases, move |phase| {
            let txn = v1::Transaction { phase: phase.to_owned(), summary: name.to_owned(), ..Default::default() };
            Ok(v1::WatchTransactionResponse { transaction: Some(txn), progress: None })
        });
        Ok(Response::new(Box::pin(updates)))
    }
}

struct Fixture {
    network: SimulatedNetwork,
    phase: watch::Sender<&'static str>,
}

impl Fixture {
    fn new() -> Self {
        Self { network: SimulatedNetwork::default(), phase: watch::Sender::new("running") }
    }

    /// Starts a member on a host of its name; answers with how often it was asked.
    async fn member(&self, name: &'static str, refuses: Option<Refusal>) -> Arc<AtomicUsize> {
        let asked = Arc::new(AtomicUsize::new(0));
        let member = Member { name, refuses, asked: Arc::clone(&asked), phase: self.phase.subscribe() };
        let (_, incoming) = self.network.host(name).listen(format!("{name}:1")).await.unwrap();
        tokio::spawn(server().add_service(TransactionServiceServer::new(member)).serve_with_incoming(incoming));
        asked
    }

    fn cluster(&self, hosts: &[&str]) -> Cluster {
        let addresses: Vec<String> = hosts.iter().map(|host| format!("{host}:1")).collect();
        Cluster::new(&addresses, ClusterSecret::default(), Arc::new(self.network.host("client"))).unwrap()
    }
}

async fn ask(cluster: &Cluster) -> Result<String, Failure> {
    let ask = async |link: Link| {
        TransactionServiceClient::new(link).get_transaction(v1::GetTransactionRequest::default()).await
    };
    Ok(cluster.call(ask).await?.transaction.unwrap_or_default().summary)
}

fn refusal(class: Class, reason: &str) -> Option<Refusal> {
    Some(Refusal::new(class, reason, "said the member"))
}

#[tokio::test]
async fn dead_endpoints_and_those_that_are_no_members_yet_are_passed_over_once() {
    let fixture = Fixture::new();
    let joining = fixture.member("joining", refusal(Class::Unavailable, "NOT_A_MEMBER_YET")).await;
    let good = fixture.member("good", None).await;
    let cluster = fixture.cluster(&["dead", "joining", "good"]);
    assert_eq!(ask(&cluster).await.unwrap(), "good");
    assert_eq!(ask(&cluster).await.unwrap(), "good");
    assert_eq!((joining.load(Ordering::Relaxed), good.load(Ordering::Relaxed)), (1, 2));
}

#[tokio::test]
async fn a_refusal_is_told_and_nobody_else_is_asked() {
    let fixture = Fixture::new();
    fixture.member("first", refusal(Class::NotFound, "DISK_NOT_FOUND")).await;
    let second = fixture.member("second", None).await;
    let failure = ask(&fixture.cluster(&["first", "second"])).await.unwrap_err();
    assert_eq!((failure.refusal.reason.as_str(), failure.exit_code.number()), ("DISK_NOT_FOUND", 3));
    assert_eq!(second.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn dead_endpoints_alone_fail_at_once_with_each_of_them_named() {
    let fixture = Fixture::new();
    let begun = std::time::Instant::now();
    let failure = ask(&fixture.cluster(&["a", "b"])).await.unwrap_err();
    assert_eq!((failure.refusal.reason.as_str(), failure.exit_code.number()), ("UNREACHABLE", 20));
    let ids: Vec<_> = failure.refusal.blockers.iter().map(|blocker| blocker.id.as_str()).collect();
    assert_eq!(ids, ["a:1", "b:1"]);
    assert!(begun.elapsed() < super::cluster::PATIENCE, "nobody is alive, so nothing is worth waiting for");
}

#[tokio::test]
async fn a_member_without_a_majority_is_asked_again_before_it_is_given_up() {
    let fixture = Fixture::new();
    let lonely = fixture.member("lonely", refusal(Class::Unavailable, "NO_QUORUM")).await;
    let failure = ask(&fixture.cluster(&["lonely", "dead"])).await.unwrap_err();
    assert_eq!(failure.refusal.reason, "NO_QUORUM");
    assert!(lonely.load(Ordering::Relaxed) > 1);
}

#[tokio::test]
async fn a_member_that_hangs_costs_little_time() {
    let fixture = Fixture::new();
    // It accepts connections and never reads from them.
    let (_, _hanging) = fixture.network.host("hung").listen("hung:1".into()).await.unwrap();
    fixture.member("good", None).await;
    let cluster = fixture.cluster(&["hung", "good"]);
    let begun = std::time::Instant::now();
    assert_eq!(ask(&cluster).await.unwrap(), "good");
    assert!(begun.elapsed() < super::cluster::PATIENCE, "{:?}", begun.elapsed());
}

fn told(told: Told) -> (String, String) {
    match told {
        Told::Update(update) => {
            let txn = update.transaction.unwrap_or_default();
            (txn.summary, txn.phase)
        }
        Told::MemberLost(address, _) => ("lost".to_owned(), address),
    }
}

#[tokio::test]
async fn a_watch_goes_on_at_another_member_when_its_own_dies() {
    let fixture = Fixture::new();
    fixture.member("a", None).await;
    fixture.member("b", None).await;
    let cluster = fixture.cluster(&["a", "b"]);
    let mut watch = TransactionWatch::new(&cluster, "6b1e");
    assert_eq!(told(watch.next().await.unwrap()), ("a".into(), "running".into()));
    fixture.network.cut("client", "a");
    assert_eq!(told(watch.next().await.unwrap()), ("lost".into(), "a:1".into()));
    assert_eq!(told(watch.next().await.unwrap()), ("b".into(), "running".into()));
    fixture.phase.send_replace("committed");
    assert_eq!(told(watch.next().await.unwrap()), ("b".into(), "committed".into()));
}

#[tokio::test]
async fn a_watch_of_a_transaction_that_is_not_there_ends_with_that_refusal() {
    let fixture = Fixture::new();
    fixture.member("a", refusal(Class::NotFound, "TRANSACTION_NOT_FOUND")).await;
    let cluster = fixture.cluster(&["a"]);
    let failure = TransactionWatch::new(&cluster, "6b1e").next().await.err().unwrap();
    assert_eq!(failure.refusal.reason, "TRANSACTION_NOT_FOUND");
    assert_eq!(failure.request_id.as_deref(), Some("6b1e"));
}
