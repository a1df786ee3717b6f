//! The lock table, events and explanations over gRPC: sets on the catalog, waits that are granted by a push, tokens in
//! mutation headers, orders of operators with their dry runs, streams that go on by index.

mod stage;

use futures_util::StreamExt;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::event_service_client::EventServiceClient;
use sdm_proto::wire::v1::explain_service_client::ExplainServiceClient;
use stage::PATIENCE;
use stage::Stage;
use stage::worker::Scripted;
use stage::worker::hello;
use tokio::sync::watch;
use tonic::Response;
use tonic::Status;

async fn furnished() -> (Stage, watch::Sender<bool>) {
    let stage = Stage::open().await;
    let (gate, jobs_end) = watch::channel(true);
    let worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    tokio::spawn(worker.obey(jobs_end));
    for domain in ["nfs1", "nfs2"] {
        stage.make_domain(domain).await;
    }
    stage.make_disk("web-01").await;
    (stage, gate)
}

fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T, Refusal> {
    answer.map(Response::into_inner).map_err(|status| from_status(&status))
}

async fn open(stage: &Stage, label: &str) -> v1::SessionKey {
    let request = v1::OpenSessionRequest { label: label.into(), ttl_ms: 60_000, nonce: label.into() };
    answer(stage.locks().open_session(request).await).unwrap().session.unwrap()
}

async fn acquire(
    stage: &Stage,
    session: v1::SessionKey,
    sequence: u64,
    resources: &[(&str, &str)],
    wait_ms: u64,
) -> Result<v1::AcquireResponse, Refusal> {
    let one = |(resource, mode): &(&str, &str)| v1::LockedResource {
        resource: (*resource).to_owned(),
        mode: (*mode).to_owned(),
    };
    let resources = resources.iter().map(one).collect();
    let request = v1::AcquireRequest { session: Some(session), sequence, resources, wait_ms, why: "a test".into() };
    answer(stage.locks().acquire(request).await)
}

async fn lock(stage: &Stage, id: &str) -> v1::Lock {
    answer(stage.locks().get_lock(v1::GetLockRequest { id: id.into() }).await).unwrap().lock.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_locked_by_its_name_and_shown_with_it() {
    let (stage, _gate) = furnished().await;
    let session = open(&stage, "ann@host:7").await;
    let held = acquire(&stage, session, 1, &[("disk/web-01", "X")], 0).await.unwrap();
    let shown = lock(&stage, &held.lock_id).await;
    assert_eq!(shown.names, ["domain/nfs1", "disk/web-01"]);
    assert_eq!((shown.state.as_str(), shown.session_epoch), ("held", session.epoch));
    assert!(shown.holder.contains("ann@host:7"), "{}", shown.holder);
    // A repetition of a request that was done answers as it did, whatever the disk is called by now.
    let again = acquire(&stage, session, 1, &[("disk/nobody", "X")], 0).await.unwrap();
    assert_eq!((&again.lock_id, &again.token), (&held.lock_id, &held.token));
    let refusal = acquire(&stage, session, 2, &[("disk/nobody", "X")], 0).await.unwrap_err();
    assert_eq!(refusal.reason, "DISK_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_pushed_to_whoever_watches_the_wait() {
    let (stage, _gate) = furnished().await;
    let (first, second) = (open(&stage, "first").await, open(&stage, "second").await);
    let held = acquire(&stage, first, 1, &[("user/r", "X")], 0).await.unwrap();
    let waiting = {
        let locks = stage.locks();
        let request = v1::AcquireRequest {
            session: Some(second),
            sequence: 1,
            resources: vec![v1::LockedResource { resource: "user/r".into(), mode: "X".into() }],
            wait_ms: 60_000,
            why: String::new(),
        };
        tokio::spawn(async move {
            let mut locks = locks;
            answer(locks.acquire(request).await)
        })
    };
    let id = stage::until("it waits", async || {
        let list = answer(stage.locks().list_locks(v1::ListLocksRequest::default()).await).unwrap().items;
        list.into_iter().find(|lock| lock.state == "waiting").map(|lock| lock.id)
    })
    .await;
    let request = v1::WatchLockRequest { id: id.clone() };
    let mut watch = answer(stage.locks().watch_lock(request).await).unwrap();
    let told = watch.message().await.unwrap().unwrap().lock.unwrap();
    assert_eq!((told.state.as_str(), told.wait_position), ("waiting", 1));
    assert_eq!(lock(&stage, &held.lock_id).await.waiters, 1);
    let request = v1::ReleaseLockOfRequest { id: held.lock_id, session: Some(first), dry_run: false };
    answer(stage.locks().release_lock_of(request).await).unwrap();
    let told = tokio::time::timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap().lock.unwrap();
    assert_eq!((told.state.as_str(), told.wait_position), ("held", 0));
    assert_eq!(waiting.await.unwrap().unwrap().lock_id, id);
    answer(stage.locks().close_session(v1::CloseSessionRequest { session: Some(second) }).await).unwrap();
    let told = tokio::time::timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap();
    assert!(told.lock.is_none(), "that it is gone is told, and then the watch ends");
    assert!(watch.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mutation_runs_under_the_token_in_its_header_and_a_stale_one_is_refused() {
    let (stage, _gate) = furnished().await;
    let session = open(&stage, "ann").await;
    let held = acquire(&stage, session, 1, &[("disk/web-01", "X")], 0).await.unwrap();
    let under =
        |token: &str| v1::UnderToken { token: token.to_owned(), session_id: session.id, session_epoch: session.epoch };
    let header = |token: &str, dry_run| {
        Some(v1::MutationHeader { under: Some(under(token)), dry_run, no_wait_lock: true, ..Default::default() })
    };
    // Without it the very same session's lock is in the way.
    let without = Some(v1::MutationHeader { no_wait_lock: true, ..Default::default() });
    let refusal = stage.delete_disk("web-01", without).await.unwrap_err();
    assert_eq!(refusal.reason, "LOCKED");
    assert!(refusal.hint.contains(&format!("sdm lock explain {}", held.lock_id)), "{refusal}");
    let request = v1::DeleteDiskRequest { header: header(&held.token, true), disk: "web-01".into() };
    let plan = answer(stage.disks().delete_disk(request).await).unwrap().plan.unwrap();
    assert!(plan.would_wait_for.is_empty(), "{plan:?}");
    let refusal = stage.move_disk("web-01", "nfs2", header(&held.token, false)).await.unwrap_err();
    assert_eq!(refusal.reason, "TOKEN_DOES_NOT_COVER");
    assert_eq!(stage.delete_disk("web-01", header(&held.token, false)).await.unwrap().phase, "committed");
    stage.make_disk("web-02").await;
    answer(stage.locks().close_session(v1::CloseSessionRequest { session: Some(session) }).await).unwrap();
    let refusal = stage.delete_disk("web-02", header(&held.token, false)).await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "TOKEN_STALE"));
    let refusal = stage.delete_disk("web-02", header("no token", false)).await.unwrap_err();
    assert_eq!(refusal.reason, "BAD_TOKEN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_lock_is_told_to_its_session_with_the_next_keepalive() {
    let (stage, _gate) = furnished().await;
    let session = open(&stage, "ann").await;
    let held = acquire(&stage, session, 1, &[("user/r", "X")], 0).await.unwrap();
    let order = |reason: &str, dry_run| v1::BreakLockRequest {
        id: held.lock_id.clone(),
        reason: reason.into(),
        initiator: "op".into(),
        dry_run,
    };
    assert_eq!(answer(stage.locks().break_lock(order("", false)).await).unwrap_err().reason, "REASON_MISSING");
    let planned = answer(stage.locks().break_lock(order("stuck", true)).await).unwrap();
    assert!(planned.would[0].contains("user/r would be broken"), "{planned:?}");
    assert_eq!(lock(&stage, &held.lock_id).await.state, "held");
    answer(stage.locks().break_lock(order("stuck", false)).await).unwrap();
    let renewed = answer(stage.locks().keep_alive(v1::KeepAliveRequest { sessions: vec![session] }).await).unwrap();
    assert_eq!(renewed.acknowledged, [session], "the session lives");
    let [broken] = renewed.broken.as_slice() else { panic!("{renewed:?}") };
    assert_eq!(
        (broken.lock_id.as_str(), broken.by.as_str(), broken.reason.as_str()),
        (held.lock_id.as_str(), "op", "stuck")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_on_after_an_index_and_explanations_say_what_to_do() {
    let (stage, _gate) = furnished().await;
    let mut events = EventServiceClient::new(stage.link.clone());
    let ask = |since_index, once| v1::WatchEventsRequest { since_index, kind: String::new(), once };
    let mut all = Vec::new();
    let mut last = 0;
    let mut stream = answer(events.watch_events(ask(None, true)).await).unwrap();
    while let Some(told) = stream.next().await {
        let told = told.unwrap();
        last = told.index;
        all.extend(told.events);
    }
    assert!(all.iter().any(|event| event.kind == "disk-made" && event.object == "disk/web-01"), "{all:?}");
    let mut stream = answer(events.watch_events(ask(Some(last), false)).await).unwrap();
    assert!(stream.message().await.unwrap().unwrap().events.is_empty(), "nothing twice");
    let deleted = stage.delete_disk("web-01", None).await.unwrap();
    let mut told = Vec::new();
    while !told.iter().any(|event: &v1::ClusterEvent| event.kind == "txn-finished") {
        let more = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
        told.extend(more.events);
    }
    assert!(told.iter().all(|event| event.index > last));
    assert!(told.iter().any(|event| event.transaction_id == deleted.id));
    let refusal = answer(events.watch_events(ask(Some(u64::MAX / 2), false)).await).unwrap_err();
    assert_eq!(refusal.reason, "INDEX_IN_FUTURE");
    let mut explain = ExplainServiceClient::new(stage.link.clone());
    let request = v1::ExplainRequest { object: deleted.id.clone() };
    let explained = answer(explain.explain(request).await).unwrap().explanation.unwrap();
    assert_eq!((explained.kind.as_str(), explained.state.as_str()), ("transaction", "committed"));
    assert!(!explained.events.is_empty() && !explained.ways_out.is_empty(), "{explained:?}");
    let request = v1::ExplainRequest { object: "web-01".into() };
    assert_eq!(answer(explain.explain(request).await).unwrap_err().reason, "NOTHING_KNOWN");
}
