//! A domain whose I/O hangs: only that domain is reported unreachable, everything else goes on, and
//! processes do not pile up behind it.

mod worker_cluster;

use sdm_proto::ids::DomainId;
use sdm_proto::seams::SimulatedClock;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::assignment::Order;
use sdm_proto::wire::internal::v1::report::Outcome;
use sdm_storage_worker::process::InProcess;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use worker_cluster::Cluster;
use worker_cluster::Domain;
use worker_cluster::Setup;
use worker_cluster::Worker;
use worker_cluster::assignment;
use worker_cluster::raw;

struct Bench {
    setup: Setup,
    clock: SimulatedClock,
    processes: InProcess,
}

async fn bench() -> Bench {
    // The lease outlives the test: this is about storage.
    let cluster = Cluster::new(600_000);
    let coordinators = vec![cluster.member("m1").await];
    let clock = SimulatedClock::default();
    let processes = InProcess::default();
    let setup = Setup { cluster, coordinators, clock: Arc::new(clock.clone()), processes: Arc::new(processes.clone()) };
    Bench { setup, clock, processes }
}

impl Bench {
    async fn domain(&self, worker: &Worker, path: &Path) -> Domain {
        let domain = Domain::new(&self.setup.cluster, path);
        self.setup.cluster.assign(&worker.name, vec![domain.create()], vec![]);
        self.setup.cluster.done(&worker.name, domain.token).await;
        domain
    }

    /// Time passes faster than it does, and not so fast that what a slow machine really does takes too long.
    async fn passing_time<T>(&self, until: impl Future<Output = T>) -> T {
        tokio::pin!(until);
        loop {
            tokio::select! {
                done = &mut until => return done,
                () = tokio::time::sleep(Duration::from_millis(5)) => self.clock.advance(100),
            }
        }
    }
}

fn uuid_of(domain: &Domain) -> uuid::Uuid {
    domain.id().parse::<DomainId>().unwrap().uuid()
}

#[tokio::test]
async fn a_hung_domain_is_unreachable_and_its_neighbour_is_not() {
    let bench = bench().await;
    let cluster = &bench.setup.cluster;
    let folders = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let worker = bench.setup.worker("w1", &[]);
    let hung = bench.domain(&worker, folders.0.path()).await;
    let well = bench.domain(&worker, folders.1.path()).await;
    let targets = || vec![hung.target(), well.target()];
    cluster.assign("w1", vec![], targets());
    cluster.domain("w1", &hung.id(), true).await;
    cluster.domain("w1", &well.id(), true).await;

    bench.processes.hang(uuid_of(&hung));
    let report = bench.passing_time(cluster.domain("w1", &hung.id(), false)).await;
    assert_eq!(report.reason, "TIMEOUT");
    assert!(report.message.contains("hangs"), "{}", report.message);

    // Steps of the neighbour go on.
    let token = cluster.token();
    let order = wire::CreateDiskOrder { target: Some(well.placement(token)), volumes: vec![raw(1, 1 << 20)] };
    cluster.assign("w1", vec![assignment(token, Order::CreateDisk(order))], targets());
    bench.passing_time(cluster.done("w1", token)).await;
    bench.passing_time(cluster.domain("w1", &well.id(), true)).await;
    assert!(!cluster.domains.borrow()[&("w1".to_owned(), hung.id())].reachable);

    bench.processes.unhang(uuid_of(&hung));
    bench.passing_time(cluster.domain("w1", &hung.id(), true)).await;
}

#[tokio::test]
async fn processes_that_a_kill_does_not_end_do_not_pile_up() {
    let bench = bench().await;
    let cluster = &bench.setup.cluster;
    let folder = tempfile::tempdir().unwrap();
    let worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain(&worker, folder.path()).await;
    cluster.assign("w1", vec![], vec![domain.target()]);
    cluster.domain("w1", &domain.id(), true).await;
    bench.processes.freeze();
    bench.processes.hang(uuid_of(&domain));
    let (mut dying, living) = (bench.processes.dying(), bench.processes.living());
    bench.passing_time(dying.wait_for(|dying| *dying == 3)).await.unwrap();

    // A step that finds no process fails instead of waiting.
    let token = cluster.token();
    let order = wire::CreateDiskOrder { target: Some(domain.placement(token)), volumes: vec![raw(1, 1 << 20)] };
    cluster.assign("w1", vec![assignment(token, Order::CreateDisk(order))], vec![domain.target()]);
    let hung = |outcome: &Outcome| matches!(outcome, Outcome::Failed(failed) if failed.message.contains("did not end"));
    bench.passing_time(cluster.reported("w1", token, "that no process can be had", hung)).await;
    assert_eq!(*living.borrow(), 3);

    bench.processes.unhang(uuid_of(&domain));
    bench.processes.thaw();
    bench.passing_time(cluster.domain("w1", &domain.id(), true)).await;
}

#[tokio::test]
async fn a_foreign_domain_is_unreachable_with_its_reason() {
    let bench = bench().await;
    let cluster = &bench.setup.cluster;
    let folder = tempfile::tempdir().unwrap();
    let worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain(&worker, folder.path()).await;
    let mut stranger = domain.clone();
    stranger.token = cluster.token();
    cluster.assign("w1", vec![], vec![stranger.target()]);
    let report = bench.passing_time(cluster.domain("w1", &stranger.id(), false)).await;
    assert_eq!(report.reason, "DOMAIN_MISSING");
    assert!(!report.message.is_empty());
}
