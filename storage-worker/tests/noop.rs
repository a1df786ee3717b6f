//! An order to do nothing: the worker answers it at once, over its stream, without touching storage.

mod worker_cluster;

use sdm_proto::seams::BootClock;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::assignment::Order;
use sdm_storage_worker::process::InProcess;
use std::path::Path;
use std::sync::Arc;
use worker_cluster::Cluster;
use worker_cluster::Setup;
use worker_cluster::assignment;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noops_are_reported_done_also_by_a_worker_that_reaches_no_storage() {
    let cluster = Cluster::new(600_000);
    let coordinators = vec![cluster.member("m1").await];
    let setup = Setup { cluster, coordinators, clock: Arc::new(BootClock), processes: Arc::new(InProcess::default()) };
    let worker = setup.worker("w1", &[Path::new("/nowhere")]);
    let tokens: Vec<_> = (0..50).map(|_| setup.cluster.token()).collect();
    let orders = tokens.iter().map(|token| assignment(*token, Order::Noop(wire::NoopOrder {}))).collect();
    setup.cluster.assign(&worker.name, orders, vec![]);
    for token in tokens {
        assert_eq!(setup.cluster.done(&worker.name, token).await, wire::Done::default());
    }
    worker.stop().await.unwrap();
}
