//! Workers and watchers of a cluster of three, while members die or are cut off.

mod cluster;
mod stage;

use cluster::Cluster;
use cluster::secret;
use sdm_coordinator::Core;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::refusal::Class;
use sdm_proto::seams;
use sdm_proto::seams::Transport;
use sdm_proto::status::from_status;
use sdm_proto::wire::internal::v1::Hello;
use sdm_proto::wire::internal::v1::gateway_message::Message as Out;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::domain_service_client::DomainServiceClient;
use sdm_proto::wire::v1::transaction_service_client::TransactionServiceClient;
use stage::Link;
use stage::PATIENCE;
use stage::worker::Scripted;
use stage::worker::hello;
use stage::worker::success;
use std::sync::Arc;
use std::time::Duration;
use tonic::service::interceptor::InterceptedService;

const MEMBERS: [&str; 3] = ["a", "b", "c"];

async fn worker_at(cluster: &Cluster, member: &str, hello: Hello) -> Scripted {
    let address = format!("{member}:7400");
    Scripted::connect_to(&cluster.network, &address, secret("the secret of this test"), hello).await.unwrap()
}

fn link(cluster: &Cluster, member: &str) -> Link {
    let transport: Arc<dyn Transport> = Arc::new(cluster.network.host("test"));
    let channel = seams::channel(&transport, &format!("{member}:7400")).unwrap();
    InterceptedService::new(channel, CallCredentials::public(secret("the secret of this test")))
}

async fn ask_for_domain(cluster: &Cluster, member: &str, name: &str) -> String {
    let request =
        v1::CreateDomainRequest { header: None, name: name.into(), path: format!("/srv/{name}"), local: true };
    let asked = DomainServiceClient::new(link(cluster, member)).create_domain(request).await;
    asked.unwrap().into_inner().transaction.unwrap().id
}

/// Waits until a member's own view shows this outcome.
async fn committed(core: &Core, id: &str) {
    let id = id.parse().unwrap();
    let mut applied = core.watch();
    let shown = async {
        while core.view().state.txns.get(&id).is_none_or(|txn| txn.phase.word() != "committed") {
            applied.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("it commits");
}

/// Pings until a pong comes.
async fn acknowledged(worker: &mut Scripted) {
    for sequence in 1_000.. {
        worker.ping(sequence).await;
        let answer = tokio::time::timeout(Duration::from_secs(1), async {
            while !matches!(worker.next().await.unwrap(), Some(Out::KeepAlive(_))) {}
        });
        if answer.await.is_ok() {
            return;
        }
        assert!(sequence < 1_060, "no ping was acknowledged for a minute");
    }
}

fn other_than<'a>(leader: &str) -> &'a str {
    MEMBERS.into_iter().find(|name| *name != leader).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workers_session_and_work_outlive_the_leader() {
    let mut cluster = Cluster::of(&MEMBERS).await;
    let leader = cluster.leader("a").await;
    let member = other_than(&leader);
    let mut worker = worker_at(&cluster, member, hello("w")).await;
    let id = ask_for_domain(&cluster, member, "nfs1").await;
    let assignment = worker.only_assignment().await;
    acknowledged(&mut worker).await;
    cluster.kill(&leader);
    worker.report(&assignment.token, success(&assignment)).await;
    committed(&cluster.core(member).await, &id).await;
    acknowledged(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_member_dies_goes_on_at_another_with_the_same_work() {
    let mut cluster = Cluster::of(&MEMBERS).await;
    let leader = cluster.leader("a").await;
    let first = other_than(&leader);
    let mut worker = worker_at(&cluster, first, hello("w")).await;
    let id = ask_for_domain(&cluster, &leader, "nfs1").await;
    let assignment = worker.only_assignment().await;
    let welcome = worker.welcome.clone();
    cluster.kill(first);
    let resuming = Hello {
        session_id: welcome.session_id.clone(),
        session_epoch: welcome.session_epoch,
        cluster_id: welcome.cluster_id.clone(),
        ..hello("w")
    };
    let mut worker = worker_at(&cluster, &leader, resuming).await;
    assert_eq!(worker.welcome.session_id, welcome.session_id);
    assert_eq!(worker.only_assignment().await, assignment);
    worker.report(&assignment.token, success(&assignment)).await;
    committed(&cluster.core(&leader).await, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_cut_off_acknowledges_nothing_and_ends_its_watches() {
    let mut cluster = Cluster::of(&MEMBERS).await;
    let leader = cluster.leader("a").await;
    let member = other_than(&leader);
    let mut worker = worker_at(&cluster, member, hello("w")).await;
    let id = ask_for_domain(&cluster, member, "nfs1").await;
    worker.only_assignment().await;
    let request = v1::WatchTransactionRequest { id };
    let watching = TransactionServiceClient::new(link(&cluster, member)).watch_transaction(request).await;
    let mut told = watching.unwrap().into_inner();
    assert_eq!(told.message().await.unwrap().unwrap().transaction.unwrap().phase, "running");
    acknowledged(&mut worker).await;
    cluster.isolate(member);
    worker.ping(9_000).await;
    let status = tokio::time::timeout(PATIENCE, async {
        loop {
            match told.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the watch ended without a reason"),
                Err(status) => break status,
            }
        }
    });
    let refusal = from_status(&status.await.expect("the watch ends"));
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Unavailable, "NO_QUORUM"));
    // All this time nobody acknowledged the ping.
    let answered = |said: Option<Out>| matches!(said, Some(Out::KeepAlive(pong)) if pong.sequence == 9_000);
    let pong =
        tokio::time::timeout(Duration::from_millis(100), async { while !answered(worker.next().await.unwrap()) {} });
    assert!(pong.await.is_err(), "a lease was prolonged without the leader");
}
