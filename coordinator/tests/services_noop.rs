//! Transactions that do nothing, from a client's call through a worker's stream to the outcome.

mod stage;

use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1::Done;
use sdm_proto::wire::internal::v1::assignment::Order;
use sdm_proto::wire::internal::v1::report::Outcome;
use sdm_proto::wire::v1;
use stage::Stage;
use stage::begun;
use stage::under;
use stage::worker::Scripted;
use stage::worker::hello;

const ID: &str = "0b9e2a2c-6f4b-4a4e-8d8e-1f2a3b4c5d6e";

async fn noop(stage: &Stage, id: &str, name: &str, wait_ms: u64) -> Result<v1::Transaction, Refusal> {
    let request = v1::BeginNoopRequest { header: under(id), resource: name.into(), wait_ms };
    begun(stage.transactions().begin_noop(request).await, |response| response.transaction)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_noop_is_received_by_a_worker_whose_report_commits_it_and_the_call_answers_then() {
    let stage = Stage::open().await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    let (asked, ()) = tokio::join!(noop(&stage, ID, "user/bench/7", 20_000), async {
        let assignment = worker.only_assignment().await;
        assert!(matches!(assignment.order, Some(Order::Noop(_))), "{assignment:?}");
        worker.report(&assignment.token, Outcome::Done(Done::default())).await;
    });
    let txn = asked.unwrap();
    assert_eq!((txn.id.as_str(), txn.kind.as_str(), txn.phase.as_str()), (ID, "noop", "committed"));
    assert_eq!(txn.objects, ["user/bench/7"]);
    // The same request again: the same answer, and nothing for the worker to do.
    assert_eq!(noop(&stage, ID, "bench/7", 0).await.unwrap(), txn);
    assert_eq!(noop(&stage, ID, "bench/8", 0).await.unwrap_err().reason, "REQUEST_ID_REUSED");
    assert_eq!(stage.locks().list_locks(v1::ListLocksRequest::default()).await.unwrap().into_inner().items, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_waiting_the_answer_is_what_has_begun_and_without_a_worker_it_is_refused() {
    let stage = Stage::open().await;
    let refusal = noop(&stage, "", "bench/7", 20_000).await.unwrap_err();
    assert_eq!(refusal.reason, "NO_LIVE_WORKER");
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    let txn = noop(&stage, "", "bench/7", 0).await.unwrap();
    assert_eq!(txn.phase, "running");
    assert!(txn.phase_reason.contains("worker a"), "{}", txn.phase_reason);
    let assignment = worker.only_assignment().await;
    worker.report(&assignment.token, Outcome::Done(Done::default())).await;
    assert_eq!(stage.outcome(&txn.id).await.phase, "committed");
    assert_eq!(noop(&stage, "", "disk/7", 0).await.unwrap_err().reason, "BAD_RESOURCE");
}
