//! What workers are told to do and what becomes of their reports, against a real member and its
//! collector.

mod stage;

use sdm_proto::wire::internal::v1::Checkpoint;
use sdm_proto::wire::internal::v1::Failed;
use sdm_proto::wire::internal::v1::assignment::Order;
use sdm_proto::wire::internal::v1::report::Outcome;
use sdm_proto::wire::v1;
use stage::Stage;
use stage::until;
use stage::worker::Scripted;
use stage::worker::hello;
use stage::worker::success;

async fn ask_for_domain(stage: &Stage, name: &str) -> String {
    let request =
        v1::CreateDomainRequest { header: None, name: name.into(), path: format!("/srv/{name}"), local: true };
    stage.domains().create_domain(request).await.unwrap().into_inner().transaction.unwrap().id
}

/// Has two domains and a disk made by this worker.
async fn furnish(stage: &Stage, worker: &mut Scripted) {
    for domain in ["nfs1", "nfs2"] {
        ask_for_domain(stage, domain).await;
        let assignment = worker.only_assignment().await;
        worker.report(&assignment.token, success(&assignment)).await;
        let count = if domain == "nfs1" { 1 } else { 2 };
        let set = worker.set_where(|set| set.domains.len() == count && set.items.is_empty()).await;
        worker.reach_all(&set).await;
    }
    let begun = stage.create_disk("web-01", None).await.unwrap();
    let assignment = worker.only_assignment().await;
    worker.report(&assignment.token, success(&assignment)).await;
    worker.set_where(|set| set.items.is_empty()).await;
    assert_eq!(stage.outcome(&begun.id).await.phase, "committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_commits_and_the_next_set_no_longer_asks() {
    let stage = Stage::open().await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    let id = ask_for_domain(&stage, "nfs1").await;
    let assignment = worker.only_assignment().await;
    assert_eq!((assignment.transaction_id.as_str(), assignment.attempt), (id.as_str(), 1));
    let Some(Order::CreateDomain(order)) = &assignment.order else { panic!("a domain, not {assignment:?}") };
    assert_eq!(order.domain.as_ref().unwrap().path, "/srv/nfs1");
    worker.report(&assignment.token, success(&assignment)).await;
    let set = worker.set_where(|set| set.items.is_empty()).await;
    assert_eq!(set.domains.len(), 1, "from now on it looks at the new domain");
    assert_eq!(stage.outcome(&id).await.phase, "committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_comes_too_late_is_answered_with_the_set_again() {
    let stage = Stage::open().await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    ask_for_domain(&stage, "nfs1").await;
    let assignment = worker.only_assignment().await;
    worker.report(&assignment.token, success(&assignment)).await;
    let first = worker.set_where(|set| set.items.is_empty()).await;
    // It said so before and did not hear that it was heard.
    worker.report(&assignment.token, success(&assignment)).await;
    let again = worker.set_where(|set| set.items.is_empty()).await;
    assert_eq!((&again.items, &again.domains), (&first.items, &first.domains));
    assert!(again.applied_index > first.applied_index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_runs_through_checkpoints_to_its_commit_and_the_collector_has_the_source_deleted() {
    let stage = Stage::open().await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    furnish(&stage, &mut worker).await;
    let before = stage.disk("web-01").await.unwrap();
    let begun = stage.move_disk("web-01", "nfs2", None).await.unwrap();
    let assignment = worker.only_assignment().await;
    worker.report(&assignment.token, Outcome::Checkpoint(Checkpoint { durable_bytes: 1 << 19 })).await;
    until("the checkpoint is recorded", async || {
        let txn = stage.transaction(&begun.id).await.unwrap();
        (txn.phase_reason == "copying at worker a, 50 % durable").then_some(())
    })
    .await;
    worker.report(&assignment.token, success(&assignment)).await;
    assert_eq!(stage.outcome(&begun.id).await.phase, "committed");
    let after = stage.disk("web-01").await.unwrap();
    assert_eq!((after.domain.as_str(), &after.id), ("nfs2", &before.id));

    let deletion = worker.set_where(|set| matches!(set.items.as_slice(), [one] if one.token != assignment.token)).await;
    let Some(Order::Delete(order)) = &deletion.items[0].order else { panic!("a deletion, not {deletion:?}") };
    assert_eq!(order.placement_id, before.placement_id);
    worker.report(&deletion.items[0].token, success(&deletion.items[0])).await;
    until("the garbage is gone", async || stage.garbage_now().await.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_attempt_is_followed_by_another_under_a_new_token_and_its_names_are_garbage() {
    let stage = Stage::open().await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    furnish(&stage, &mut worker).await;
    let begun = stage.move_disk("web-01", "nfs2", None).await.unwrap();
    let first = worker.only_assignment().await;
    let failed = Failed { reason: "EIO".into(), message: "read failed".into(), hint: String::new() };
    worker.report(&first.token, Outcome::Failed(failed)).await;
    let is_copy = |order: &Option<Order>| matches!(order, Some(Order::Copy(_)));
    let set = worker.set_where(|set| set.items.iter().any(|item| is_copy(&item.order) && item.attempt == 2)).await;
    let second = set.items.into_iter().find(|item| is_copy(&item.order)).unwrap();
    assert_ne!(second.token, first.token);
    let txn = stage.transaction(&begun.id).await.unwrap();
    assert!(txn.last_error.contains("read failed [EIO]"), "{}", txn.last_error);
    let garbage = stage.garbage_now().await;
    assert!(garbage.iter().any(|row| row.kind == "closed-attempt" && row.transaction_id == begun.id), "{garbage:?}");
    worker.report(&second.token, success(&second)).await;
    assert_eq!(stage.outcome(&begun.id).await.phase, "committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_gets_the_same_work_again_over_a_new_stream() {
    let stage = Stage::open().await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    furnish(&stage, &mut worker).await;
    stage.move_disk("web-01", "nfs2", None).await.unwrap();
    let before = worker.only_assignment().await;
    drop(worker);
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    assert_eq!(worker.only_assignment().await, before);
}
