//! A worker and its session: which member it speaks to, when it stops, and what it answers then.
//! Time is simulated, so nothing here depends on how fast the machine is.

mod worker_cluster;

use bytes::Bytes;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::SimulatedClock;
use sdm_proto::token::Token;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::assignment::Order;
use sdm_proto::wire::internal::v1::report::Outcome;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::upload_request;
use sdm_storage_worker::WorkerError;
use sdm_storage_worker::folder::SimulatedFolder;
use sdm_storage_worker::process::InProcess;
use sdm_storage_worker::process::OrderRunner;
use sdm_storage_worker::work;
use sdm_storage_worker::work::Order as WorkOrder;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use worker_cluster::Cluster;
use worker_cluster::Domain;
use worker_cluster::Setup;
use worker_cluster::assignment;
use worker_cluster::raw;
use worker_cluster::seen;

const TTL_MS: u64 = 9_000;

/// Runs nothing: orders stay until their process is killed or a test lets them go. Probes are good.
#[derive(Clone)]
struct Stuck {
    running: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl OrderRunner for Stuck {
    fn run(&self, order: WorkOrder, ports: work::Ports) -> futures_util::future::BoxFuture<'static, work::Outcome> {
        let Self { running, released } = self.clone();
        Box::pin(async move {
            if let WorkOrder::ProbeDomain(_) = order {
                let report = work::DomainReport {
                    total_bytes: 1 << 30,
                    free_bytes: 1 << 29,
                    file_system: "fs".into(),
                    block_bytes: 4096,
                };
                return work::Outcome::Done(work::Done::DomainProbed(report));
            }
            running.send_modify(|running| *running += 1);
            let mut released = released.subscribe();
            let stopped = async {
                while !ports.cancel.is_set() {
                    tokio::task::yield_now().await;
                }
            };
            let outcome = tokio::select! {
                _ = released.wait_for(|released| *released) => {
                    work::Outcome::Done(work::Done::Placed(work::PlacementReport { volumes: vec![] }))
                }
                () = stopped => work::Outcome::Stopped,
            };
            running.send_modify(|running| *running -= 1);
            outcome
        })
    }
}

struct Bench {
    setup: Setup,
    clock: SimulatedClock,
    processes: InProcess,
    stuck: Stuck,
}

async fn bench(members: &[&str]) -> Bench {
    let cluster = Cluster::new(TTL_MS);
    let mut coordinators = Vec::new();
    for member in members {
        coordinators.push(cluster.member(member).await);
    }
    let clock = SimulatedClock::default();
    let stuck = Stuck { running: watch::Sender::new(0), released: watch::Sender::new(false) };
    let processes = InProcess::new(Arc::new(stuck.clone()));
    let setup = Setup { cluster, coordinators, clock: Arc::new(clock.clone()), processes: Arc::new(processes.clone()) };
    Bench { setup, clock, processes, stuck }
}

impl Bench {
    fn cluster(&self) -> &Arc<Cluster> {
        &self.setup.cluster
    }

    fn domain(&self) -> Domain {
        Domain::new(self.cluster(), Path::new("/srv/d"))
    }

    /// Waits until so many orders run.
    async fn running(&self, count: usize) {
        seen(&self.stuck.running, &format!("{count} orders running"), |running| *running == count).await;
    }

    async fn answered_pings(&self, more: u64) {
        let before = *self.cluster().pongs.borrow();
        // The next ping may be due only later.
        self.passing_time(seen(&self.cluster().pongs, "an answered ping", |pongs| *pongs >= before + more)).await;
    }

    /// Lets simulated time pass, as little as needed, until something is so.
    async fn passing_time<T>(&self, until: impl Future<Output = T>) -> T {
        tokio::pin!(until);
        loop {
            tokio::select! {
                done = &mut until => return done,
                () = tokio::time::sleep(std::time::Duration::from_millis(5)) => self.clock.advance(200),
            }
        }
    }

    fn hellos(&self) -> Vec<(String, wire::Hello)> {
        self.cluster().hellos.borrow().clone()
    }
}

fn copy(domain: &Domain, token: Token) -> wire::Assignment {
    let order = wire::CopyOrder {
        target: Some(domain.placement(token)),
        volumes: vec![raw(1, 4096)],
        source_placement_id: domain.placement(token).placement_id,
        source_domain: Some(domain.target()),
        pull: None,
    };
    assignment(token, Order::Copy(order))
}

fn create_disk(domain: &Domain, token: Token) -> wire::Assignment {
    let order = wire::CreateDiskOrder { target: Some(domain.placement(token)), volumes: vec![raw(1, 4096)] };
    assignment(token, Order::CreateDisk(order))
}

#[tokio::test]
async fn what_a_newer_set_no_longer_names_is_stopped() {
    let bench = bench(&["m1"]).await;
    let _worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let (copied, created) = (bench.cluster().token(), bench.cluster().token());
    bench.cluster().assign("w1", vec![copy(&domain, copied), create_disk(&domain, created)], vec![]);
    bench.running(2).await;
    bench.cluster().assign("w1", vec![create_disk(&domain, created)], vec![]);
    bench.running(1).await;
    bench.cluster().assign("w1", vec![], vec![]);
    bench.running(0).await;
    let processes = bench.processes.living();
    let mut living = processes.clone();
    living.wait_for(|living| *living == 0).await.unwrap();
    let reported = bench.cluster().reports.borrow().clone();
    assert!(reported.is_empty(), "nobody asked about them: {reported:?}");
}

#[tokio::test]
async fn a_worker_that_ends_in_order_says_goodbye_when_nothing_of_it_runs() {
    let bench = bench(&["m1"]).await;
    let worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, token)], vec![]);
    bench.running(1).await;
    worker.stop().await.unwrap();
    assert_eq!(*bench.cluster().goodbyes.borrow(), ["w1"]);
    assert_eq!((*bench.stuck.running.borrow(), *bench.processes.living().borrow()), (0, 0));
}

#[tokio::test]
async fn a_worker_whose_process_does_not_end_says_no_goodbye() {
    let bench = bench(&["m1"]).await;
    let worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, token)], vec![]);
    bench.running(1).await;
    bench.processes.freeze();
    worker.stop().await.unwrap();
    assert!(bench.cluster().goodbyes.borrow().is_empty());
    bench.processes.thaw();
}

#[tokio::test]
async fn processes_that_a_kill_does_not_end_are_not_joined_by_ever_more() {
    const MOST: usize = 8;
    let bench = bench(&["m1"]).await;
    let _worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let copies = |count: usize| (0..count).map(|_| copy(&domain, bench.cluster().token())).collect();
    bench.cluster().assign("w1", copies(MOST), vec![]);
    bench.running(MOST).await;
    bench.processes.freeze();
    let (mut dying, living) = (bench.processes.dying(), bench.processes.living());
    let next = bench.cluster().token();
    let unreadable = wire::Assignment { token: next.to_string(), ..wire::Assignment::default() };
    bench.cluster().assign("w1", vec![], vec![]);
    dying.wait_for(|dying| *dying == MOST).await.unwrap();
    bench.cluster().assign("w1", [copies(2), vec![unreadable]].concat(), vec![]);
    bench.cluster().reported("w1", next, "that it followed the set", |_| true).await;
    bench.answered_pings(2).await;
    assert_eq!(*living.borrow(), MOST);
    bench.processes.thaw();
    bench.running(2).await;
}

/// A sender that has always more.
fn endless(open: v1::TransferOpen) -> impl tokio_stream::Stream<Item = v1::UploadRequest> + Send + 'static {
    let pieces = (0..1 << 20).map(|n: u64| {
        let piece = v1::Piece { offset: n << 19, data: Bytes::from(vec![7; 1 << 19]), hole_bytes: 0 };
        upload_request::Message::Piece(piece)
    });
    let messages = std::iter::once(upload_request::Message::Open(open)).chain(pieces);
    tokio_stream::iter(messages.map(|message| v1::UploadRequest { message: Some(message) }))
}

#[tokio::test]
async fn a_process_that_a_kill_does_not_end_holds_up_nobody_but_its_own_last_word() {
    let bench = bench(&["m1"]).await;
    let worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    let ticket = Bytes::from_static(b"a ticket of the test");
    let receive = || {
        let order = wire::ReceiveOrder {
            target: Some(domain.placement(token)),
            volume: Some(raw(1, 0)),
            ticket: ticket.clone(),
        };
        assignment(token, Order::Receive(order))
    };
    let copied = bench.cluster().token();
    bench.cluster().assign("w1", vec![receive(), copy(&domain, copied)], vec![]);
    // The process takes nothing, so the sender fills what lies between and waits.
    let open = v1::TransferOpen { ticket, token: token.to_string(), file_size: 1 << 40, ..Default::default() };
    let mut client = bench.cluster().transfers(&worker.address);
    let upload = tokio::spawn(async move {
        loop {
            let answer = client.upload(endless(open.clone())).await.expect_err("it never ends well");
            let refusal = sdm_proto::status::from_status(&answer);
            // The assignment may still be on its way.
            if refusal.reason != "TICKET_UNKNOWN" {
                return refusal;
            }
        }
    });
    bench.running(2).await;
    bench.processes.freeze();
    let mut dying = bench.processes.dying();
    bench.cluster().assign("w1", vec![], vec![]);
    dying.wait_for(|dying| *dying == 2).await.unwrap();
    let refusal = upload.await.unwrap();
    assert_eq!(refusal.reason, "TRANSFER_INTERRUPTED", "{refusal}");
    assert_eq!(*bench.processes.living().borrow(), 2);

    // Asked again about the copy, the worker does not call it stopped before its process has ended.
    let next = bench.cluster().token();
    let unreadable = wire::Assignment { token: next.to_string(), ..wire::Assignment::default() };
    bench.cluster().assign("w1", vec![copy(&domain, copied), unreadable], vec![]);
    bench.cluster().reported("w1", next, "that it followed the set", |_| true).await;
    let stopped = |outcome: &Outcome| matches!(outcome, Outcome::Stopped(_));
    assert!(!bench.cluster().reports.borrow().values().any(|(outcome, _)| stopped(outcome)));
    bench.processes.thaw();
    bench.cluster().reported("w1", copied, "that it was stopped", stopped).await;
    let mut living = bench.processes.living();
    living.wait_for(|living| *living == 0).await.unwrap();
}

#[tokio::test]
async fn a_set_that_was_overtaken_is_ignored() {
    let bench = bench(&["m1"]).await;
    let _worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, token)], vec![]);
    bench.running(1).await;
    bench.cluster().assign_as_of("w1", 1, vec![], vec![]);
    let next = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, token), copy(&domain, next)], vec![]);
    bench.running(2).await;
}

#[tokio::test]
async fn a_worker_goes_on_with_its_session_at_another_member() {
    let bench = bench(&["m1", "m2"]).await;
    let _worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, token)], vec![domain.target()]);
    bench.running(1).await;
    let (first, _) = bench.hellos()[0].clone();
    bench.cluster().network.cut("w1", &first);
    let hellos = bench.passing_time(seen(&bench.cluster().hellos, "a second hello", |hellos| hellos.len() >= 2)).await;
    let (second, hello) = &hellos[1];
    assert_ne!(*second, first);
    assert!(hello.session_id.starts_with("session-"), "it names its session: {hello:?}");
    assert_eq!(hello.cluster_id, bench.cluster().id.to_string());
    bench.answered_pings(1).await;
    bench.running(1).await;

    // Its report reaches the cluster through the new member.
    bench.stuck.released.send_replace(true);
    bench.cluster().done("w1", token).await;
}

#[tokio::test]
async fn a_member_that_acknowledges_nothing_is_left_for_another() {
    let bench = bench(&["m1", "m2"]).await;
    let _worker = bench.setup.worker("w1", &[]);
    seen(&bench.cluster().hellos, "a hello", |hellos| !hellos.is_empty()).await;
    bench.answered_pings(1).await;
    bench.cluster().answering.send_replace(false);
    let hellos = bench.passing_time(seen(&bench.cluster().hellos, "another hello", |hellos| hellos.len() >= 2)).await;
    assert_ne!(hellos[0].0, hellos[1].0);
}

#[tokio::test]
async fn a_report_is_repeated_until_a_set_no_longer_names_it() {
    let bench = bench(&["m1"]).await;
    let _worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    bench.stuck.released.send_replace(true);
    bench.cluster().assign("w1", vec![copy(&domain, token)], vec![]);
    let key = ("w1".to_owned(), token.to_string());
    let times = |count| {
        let key = key.clone();
        move |reports: &std::collections::BTreeMap<_, (Outcome, u64)>| {
            reports.get(&key).is_some_and(|(_, n)| *n >= count)
        }
    };
    bench.passing_time(seen(&bench.cluster().reports, "three reports", times(3))).await;
    bench.cluster().assign("w1", vec![], vec![]);
    // The worker says something about another token after it took the set; from then on the first
    // is not mentioned any more.
    let other = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, other)], vec![]);
    bench.cluster().done("w1", other).await;
    let before = bench.cluster().reports.borrow()[&key].1;
    let other_key = ("w1".to_owned(), other.to_string());
    let repeated = seen(&bench.cluster().reports, "repetitions of the other", |reports| reports[&other_key].1 >= 3);
    bench.passing_time(repeated).await;
    assert_eq!(bench.cluster().reports.borrow()[&key].1, before);
}

#[tokio::test]
async fn when_the_lease_ends_everything_stops_and_says_so_when_asked_again() {
    let bench = bench(&["m1"]).await;
    let _worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let (copied, created) = (bench.cluster().token(), bench.cluster().token());
    bench.cluster().assign("w1", vec![copy(&domain, copied), create_disk(&domain, created)], vec![]);
    bench.running(2).await;
    bench.cluster().answering.send_replace(false);
    bench.passing_time(bench.running(0)).await;
    assert!(bench.cluster().reports.borrow().is_empty(), "nothing can be said yet");

    // The session lived on (a new leader gave everybody the whole lease again).
    bench.cluster().answering.send_replace(true);
    let stopped = |outcome: &Outcome| matches!(outcome, Outcome::Stopped(_));
    bench.passing_time(bench.cluster().reported("w1", copied, "that it was stopped", stopped)).await;
    bench.passing_time(bench.cluster().reported("w1", created, "that it was stopped", stopped)).await;
    bench.running(0).await;
}

#[tokio::test]
async fn nothing_runs_on_a_set_while_the_lease_does_not_hold() {
    let bench = bench(&["m1"]).await;
    let _worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, token)], vec![]);
    bench.running(1).await;
    bench.cluster().answering.send_replace(false);
    bench.passing_time(bench.running(0)).await;
    // Sets still arrive with every new connection; a second one proves that the first was ignored.
    let hellos = bench.hellos().len();
    let again = seen(&bench.cluster().hellos, "two more hellos", |seen| seen.len() >= hellos + 2);
    bench.passing_time(again).await;
    assert_eq!(*bench.stuck.running.borrow(), 0);
}

#[tokio::test]
async fn a_session_that_ended_is_followed_by_a_new_one_and_nothing_goes_on() {
    let bench = bench(&["m1"]).await;
    let _worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, token)], vec![]);
    bench.running(1).await;
    bench.cluster().sets.send_modify(|sets| sets.clear());
    bench.cluster().ended.send_modify(|ended| *ended += 1);
    bench.passing_time(bench.running(0)).await;
    let hellos = bench.passing_time(seen(&bench.cluster().hellos, "a hello", |hellos| hellos.len() >= 2)).await;
    assert_eq!(hellos[1].1.session_id, "");
    assert_eq!(hellos[1].1.process_nonce, hellos[0].1.process_nonce);
    let next = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, next)], vec![]);
    bench.running(1).await;
}

#[tokio::test]
async fn a_definite_refusal_ends_the_worker_and_a_transient_one_does_not() {
    let bench = bench(&["m1"]).await;
    let refuse = |class, reason| *bench.cluster().refusal.lock().unwrap() = Some(Refusal::new(class, reason, "no"));
    refuse(Class::Unavailable, "NO_QUORUM");
    let worker = bench.setup.worker("w1", &[]);
    bench.passing_time(seen(&bench.cluster().hellos, "three hellos", |hellos| hellos.len() >= 3)).await;
    refuse(Class::Conflict, "WORKER_NAME_IN_USE");
    let ended = bench.passing_time(worker.ended()).await;
    assert!(matches!(ended, Err(WorkerError::Refused(refusal)) if refusal.reason == "WORKER_NAME_IN_USE"));
}

#[tokio::test]
async fn a_worker_remembers_its_cluster_and_serves_no_other() {
    let first = bench(&["m1"]).await;
    let folder = SimulatedFolder::new("host");
    let worker = first.setup.worker_in("w1", &[], &folder);
    first.answered_pings(1).await;
    worker.stop().await.unwrap();
    assert_eq!(folder.open().unwrap().membership().unwrap().cluster_id, first.cluster().id.to_string());

    let mut cluster = Cluster::new(TTL_MS);
    Arc::get_mut(&mut cluster).unwrap().id = sdm_proto::ids::ClusterId::from_uuid(uuid::Uuid::from_u128(0xc2));
    let coordinators = vec![cluster.member("m1").await];
    let second = Setup { cluster, coordinators, ..first.setup };
    let ended = second.worker_in("w1", &[], &folder).ended().await;
    assert!(matches!(ended, Err(WorkerError::Refused(refusal)) if refusal.reason == "WRONG_CLUSTER"));
}

#[tokio::test]
async fn a_process_that_dies_is_a_failure_of_its_attempt() {
    let bench = bench(&["m1"]).await;
    let _worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, token)], vec![]);
    bench.running(1).await;
    bench.processes.kill_all();
    let died = |outcome: &Outcome| matches!(outcome, Outcome::Failed(failed) if failed.reason == "PROCESS_DIED");
    bench.cluster().reported("w1", token, "the death", died).await;
}

#[tokio::test]
async fn an_attempt_out_of_reach_is_not_begun() {
    let bench = bench(&["m1"]).await;
    let _worker = bench.setup.worker("w1", &[Path::new("/srv/elsewhere")]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    bench.cluster().assign("w1", vec![copy(&domain, token)], vec![domain.target()]);
    let far = |outcome: &Outcome| matches!(outcome, Outcome::Failed(failed) if failed.reason == "OUT_OF_REACH");
    bench.cluster().reported("w1", token, "that it is out of reach", far).await;
    assert!(bench.cluster().domains.borrow().is_empty());
}

#[tokio::test]
async fn a_source_is_served_only_under_a_living_session() {
    let bench = bench(&["m1"]).await;
    let worker = bench.setup.worker("w1", &[]);
    let domain = bench.domain();
    let token = bench.cluster().token();
    let ticket = Bytes::from_static(b"a ticket of the test");
    let order = wire::ServeSourceOrder {
        domain: Some(domain.target()),
        placement_id: domain.placement(token).placement_id,
        volumes: vec![raw(1, 4096)],
        ticket: ticket.clone(),
    };
    bench.cluster().assign("w1", vec![assignment(token, Order::ServeSource(order))], vec![]);
    let transport: Arc<dyn sdm_proto::seams::Transport> = Arc::new(bench.cluster().network.host("w2"));
    let channel = sdm_proto::seams::channel(&transport, &worker.address).unwrap();
    let credentials = bench.cluster().internal_credentials("worker/other");
    let mut client = wire::worker_data_service_client::WorkerDataServiceClient::with_interceptor(channel, credentials);
    let pull = || wire::PullRequest { token: token.to_string(), ticket: ticket.clone() };
    let mut stream = loop {
        match client.pull(pull()).await {
            Ok(response) => break response.into_inner(),
            Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}"),
        }
    };
    bench.running(1).await;
    bench.cluster().answering.send_replace(false);
    let status = bench.passing_time(stream.message()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    bench.passing_time(bench.running(0)).await;
    let status = client.pull(pull()).await.unwrap_err();
    assert_eq!(sdm_proto::status::from_status(&status).reason, "TICKET_UNKNOWN");
}
