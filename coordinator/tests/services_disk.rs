//! The public services against a real member: repetitions, names, waiting, watching, collecting.

mod stage;

use sdm_proto::refusal::Class;
use sdm_proto::seams::SimulatedClock;
use sdm_proto::wire::v1;
use stage::PATIENCE;
use stage::Stage;
use stage::begun;
use stage::under;
use stage::until;
use stage::worker::Scripted;
use stage::worker::hello;
use tokio::sync::watch;

const REQUEST: &str = "6b1e0000-1111-4222-8333-444444444444";
const OTHER_REQUEST: &str = "6b1e0000-1111-4222-8333-555555555555";

/// A member, an obedient worker, two domains. While the gate is closed, jobs go on and on.
async fn furnished() -> (Stage, watch::Sender<bool>) {
    furnished_on(None).await
}

/// The same on a clock that the test moves.
async fn furnished_on(clock: Option<SimulatedClock>) -> (Stage, watch::Sender<bool>) {
    let stage = Stage::open_on(clock).await;
    let (gate, jobs_end) = watch::channel(true);
    let worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    tokio::spawn(worker.obey(jobs_end));
    for domain in ["nfs1", "nfs2"] {
        stage.make_domain(domain).await;
    }
    (stage, gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_gets_the_recorded_answer_whatever_happened_to_the_names() {
    let (stage, _gate) = furnished().await;
    let disk = stage.make_disk("web-01").await;
    let deleted = stage.delete_disk("web-01", under(REQUEST)).await.unwrap();
    assert_eq!((deleted.id.as_str(), deleted.phase.as_str()), (REQUEST, "committed"));
    // The name is gone, and even means another disk now.
    let another = stage.make_disk("web-01").await;
    assert_ne!(another.id, disk.id);
    let again = stage.delete_disk("web-01", under(REQUEST)).await.unwrap();
    assert_eq!((again.phase.as_str(), &again.outcome), ("committed", &deleted.outcome));
    assert_eq!(stage.disk("web-01").await.unwrap().id, another.id);
    // Another request under the same id is not taken for the same.
    let refusal = stage.delete_disk(&another.id, under(REQUEST)).await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Conflict, "REQUEST_ID_REUSED"));
}

/// Most that one entry moves the cluster's clock.
const CLOCK_STEP_MS: u64 = 120_000;
const DAY_MS: u64 = 86_400_000;

/// The same when nobody remembers the first time any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_whose_result_was_forgotten_is_too_old_and_spares_the_disk_that_has_the_name_now() {
    let clock = SimulatedClock::default();
    let (stage, _gate) = furnished_on(Some(clock.clone())).await;
    stage.make_disk("web-01").await;
    let deleted = stage.delete_disk("web-01", None).await.unwrap();
    assert_eq!(deleted.phase, "committed");
    let another = stage.make_disk("web-01").await;
    // Entries, each of which moves the clock as far as one may, for two days where one is enough.
    let mut forgotten = false;
    for entry in 1..=2 * DAY_MS / CLOCK_STEP_MS {
        clock.advance(CLOCK_STEP_MS);
        let refusal = stage.create_disk("web-01", None).await.unwrap_err();
        assert_eq!(refusal.reason, "DISK_EXISTS");
        if entry % 100 == 0 {
            let known = stage.transaction(&deleted.id).await;
            forgotten = known.is_err_and(|refusal| refusal.reason == "TXN_NOT_FOUND");
        }
        if forgotten {
            break;
        }
    }
    assert!(forgotten, "its result is remembered for longer than two days");
    let refusal = stage.delete_disk("web-01", under(&deleted.id)).await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "REQUEST_TOO_OLD"));
    assert!(refusal.hint.contains("new request id"), "{refusal}");
    assert_eq!(stage.disk("web-01").await.unwrap().id, another.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_refusal_stays_and_says_that_another_try_needs_another_id() {
    let (stage, _gate) = furnished().await;
    stage.make_disk("web-01").await;
    let refusal = stage.create_disk("web-01", under(REQUEST)).await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Conflict, "DISK_EXISTS"));
    stage.delete_disk("web-01", None).await.unwrap();
    let again = stage.create_disk("web-01", under(REQUEST)).await.unwrap_err();
    assert_eq!(again.reason, "DISK_EXISTS");
    assert!(again.hint.contains("new request id"), "{}", again.hint);
    assert!(stage.create_disk("web-01", under(OTHER_REQUEST)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_before_anything_is_recorded() {
    let (stage, _gate) = furnished().await;
    let create = async |request: v1::CreateDiskRequest| {
        begun(stage.disks().create_disk(request).await, |response| response.transaction).unwrap_err()
    };
    let good = || v1::CreateDiskRequest {
        header: None,
        name: "web-01".into(),
        domain: "nfs1".into(),
        size: 4096,
        format: v1::DiskFormat::Raw as i32,
        ..v1::CreateDiskRequest::default()
    };
    for (request, class, reason) in [
        (v1::CreateDiskRequest { name: "a/b".into(), ..good() }, Class::Invalid, "BAD_NAME"),
        (v1::CreateDiskRequest { size: 0, ..good() }, Class::Invalid, "SIZE_ZERO"),
        (v1::CreateDiskRequest { size: u64::MAX, ..good() }, Class::Invalid, "SIZE_TOO_LARGE"),
        (v1::CreateDiskRequest { format: 0, ..good() }, Class::Invalid, "BAD_FORMAT"),
        (v1::CreateDiskRequest { header: under("7"), ..good() }, Class::Invalid, "BAD_REQUEST_ID"),
        (v1::CreateDiskRequest { domain: "nfs9".into(), ..good() }, Class::NotFound, "DOMAIN_NOT_FOUND"),
    ] {
        let refusal = create(request).await;
        assert_eq!((refusal.class, refusal.reason.as_str()), (class, reason));
        assert!(!refusal.hint.is_empty(), "{refusal}");
    }
    assert_eq!(stage.disk("web-01").await.unwrap_err().reason, "DISK_NOT_FOUND");
    assert_eq!(stage.transaction(REQUEST).await.unwrap_err().reason, "TXN_NOT_FOUND");
    assert_eq!(stage.transaction("7").await.unwrap_err().reason, "BAD_REQUEST_ID");
    let open = stage
        .transactions()
        .list_transactions(v1::ListTransactionsRequest { open_only: true, ..Default::default() })
        .await;
    assert_eq!(open.unwrap().into_inner().items, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_command_on_a_disk_waits_for_the_first_or_is_told_who_holds_it() {
    let (stage, gate) = furnished().await;
    stage.make_disk("web-01").await;
    gate.send_replace(false);
    let request = v1::ExportDiskRequest { header: under(REQUEST), disk: "web-01".into() };
    let reading = begun(stage.disks().export_disk(request).await, |response| response.transaction).unwrap();
    assert_eq!(reading.phase, "running");
    assert!(reading.transfer.is_some());
    let impatient = v1::MutationHeader { no_wait_lock: true, ..Default::default() };
    let refusal = stage.delete_disk("web-01", Some(impatient)).await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "LOCKED"));
    assert!(refusal.blockers.iter().any(|blocker| blocker.description.contains(REQUEST)), "{refusal}");
    let waiting = stage.delete_disk("web-01", None).await.unwrap();
    assert_eq!(waiting.phase, "waiting");
    assert!(waiting.phase_reason.contains(REQUEST), "{}", waiting.phase_reason);
    let locks = stage.locks().list_locks(v1::ListLocksRequest::default()).await.unwrap().into_inner().items;
    let states: Vec<&str> = locks.iter().map(|lock| lock.state.as_str()).collect();
    assert_eq!(states, ["held", "waiting"]);
    gate.send_replace(true);
    assert_eq!(stage.outcome(&waiting.id).await.phase, "committed");
    assert_eq!(stage.outcome(REQUEST).await.phase, "committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_each_change_and_ends_with_the_outcome() {
    let (stage, gate) = furnished().await;
    stage.make_disk("web-01").await;
    gate.send_replace(false);
    let moving = stage.move_disk("web-01", "nfs2", None).await.unwrap();
    let request = v1::WatchTransactionRequest { id: moving.id.clone() };
    let mut told = stage.transactions().watch_transaction(request).await.unwrap().into_inner();
    let first = told.message().await.unwrap().unwrap().transaction.unwrap();
    assert_eq!((first.phase.as_str(), first.attempt.unwrap().worker.as_str()), ("running", "a"));
    gate.send_replace(true);
    let mut last = v1::Transaction::default();
    while let Some(update) = tokio::time::timeout(PATIENCE, told.message()).await.expect("it ends").unwrap() {
        last = update.transaction.unwrap();
    }
    assert_eq!(last.phase, "committed");
    let unknown = v1::WatchTransactionRequest { id: REQUEST.into() };
    let refusal = sdm_proto::status::from_status(&stage.transactions().watch_transaction(unknown).await.unwrap_err());
    assert_eq!(refusal.reason, "TXN_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_transaction_gives_signs_of_life_and_a_closing_member_ends_the_watch() {
    let (stage, gate) = furnished().await;
    stage.make_disk("web-01").await;
    gate.send_replace(false);
    let moving = stage.move_disk("web-01", "nfs2", None).await.unwrap();
    let request = v1::WatchTransactionRequest { id: moving.id.clone() };
    let mut told = stage.transactions().watch_transaction(request).await.unwrap().into_inner();
    for _ in 0..2 {
        let update = tokio::time::timeout(PATIENCE, told.message()).await.expect("a sign of life").unwrap().unwrap();
        assert_eq!(update.transaction.unwrap().phase, "running");
    }
    stage.close().await;
    let end = async { while let Ok(Some(_)) = told.message().await {} };
    tokio::time::timeout(PATIENCE, end).await.expect("the watch ends with its member");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_follow_each_other_to_the_end() {
    let (stage, _gate) = furnished().await;
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(stage.make_disk(&format!("web-{number}")).await.id);
    }
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = Some(v1::PageRequest { page_size: 2, page_token });
        let request = v1::ListDisksRequest { page, domain: "nfs1".into(), ..Default::default() };
        let response = stage.disks().list_disks(request).await.unwrap().into_inner();
        assert!(response.items.len() <= 2);
        listed.extend(response.items.into_iter().map(|disk| disk.id));
        page_token = response.page.unwrap().next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    made.sort_unstable();
    assert_eq!(listed, made);
    let elsewhere = v1::ListDisksRequest { domain: "nfs2".into(), ..Default::default() };
    assert_eq!(stage.disks().list_disks(elsewhere).await.unwrap().into_inner().items, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_is_asked_for_names_what_to_wait_for() {
    let (stage, _gate) = furnished().await;
    stage.make_disk("web-01").await;
    stage.delete_disk("web-01", None).await.unwrap();
    let asked = stage.garbage().run_collection(v1::RunCollectionRequest::default()).await.unwrap().into_inner();
    let left = until("what was named is gone", async || {
        let left = stage.garbage_now().await;
        left.iter().all(|row| !asked.garbage_ids.contains(&row.id)).then_some(left)
    })
    .await;
    assert_eq!(left, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_names_the_worker_and_the_ticket_for_its_bytes() {
    let (stage, gate) = furnished().await;
    gate.send_replace(false);
    let request = v1::ImportDiskRequest {
        header: under(REQUEST),
        name: "db-01".into(),
        domain: "nfs1".into(),
        format: v1::DiskFormat::Raw as i32,
        file_size: 1 << 20,
        allocated_bytes: 4096,
    };
    let import =
        async || begun(stage.disks().import_disk(request.clone()).await, |response| response.transaction).unwrap();
    let transfer = import().await.transfer.unwrap();
    assert_eq!(transfer.address, "a:7401");
    assert!(!transfer.ticket.is_empty() && !transfer.token.is_empty() && !transfer.volume_id.is_empty());
    // The same command from elsewhere takes it over.
    assert_eq!(import().await.transfer, Some(transfer));
    let jobs = stage.jobs().list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner().items;
    assert_eq!((jobs.len(), jobs[0].state.as_str()), (1, "waiting for sender"));
    gate.send_replace(true);
    assert_eq!(stage.outcome(REQUEST).await.phase, "committed");
    assert!(import().await.transfer.is_none());
}
