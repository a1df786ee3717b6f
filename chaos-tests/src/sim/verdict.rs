//! What must hold at the end, when everything was healed and the clients have finished: what clients were told is what
//! members say; nothing is open, locked or garbage; the catalog is what was acknowledged; the storage is the catalog.

use super::disk_client::Known;
use super::disk_client::Shelf;
use super::lease_client::is_lease;
use super::operator::DOMAINS;
use super::operator::LOOK_EVERY;
use super::operator::PATIENCE;
use super::operator::agreement;
use super::plan::Workload;
use super::shared::Shared;
use crate::check;
use crate::client::Answer;
use crate::client::Endpoints;
use crate::client::disks;
use crate::client::domains;
use crate::client::events;
use crate::client::garbage;
use crate::client::locks;
use crate::client::transactions;
use crate::history::Promise;
use sdm_proto::limits::PAGE_SIZE_MAX;
use sdm_proto::wire::v1;
use sdm_storage_worker::driver::DomainDriver;
use sdm_storage_worker::driver::EntryPath;
use sdm_storage_worker::driver::Storage;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tonic::Response;
use tonic::Status;
use tonic::transport::Channel;

/// How long open transactions may take to end, and garbage to be collected, after everything was healed.
const SETTLE_TIME: Duration = Duration::from_secs(240);

/// Between two looks at a storage that is not what it is to be.
const PROJECTED_EVERY: Duration = Duration::from_secs(5);

/// How long leases may go on after their clients have finished: the lease, a new leader's patience, and some rest.
const LEASES_TIME: Duration = Duration::from_secs(30);

/// Judges everything.
pub async fn judge(shared: &Shared, members: &mut Endpoints, shelf: &Shelf) {
    if let Err(why) = settle(shared, members).await {
        shared.violated(Promise::Serves, why);
    }
    if shared.plan.workload == Workload::Disks
        && let Err(why) = audit(shared, members).await
    {
        shared.violated(Promise::Serves, why);
    }
    if let Err(why) = leases_end(members).await {
        shared.violated(Promise::Serves, why);
    }
    agreement(shared, members).await;
    check::compare_members(shared.standing(members), &shared.history).await;
    service(shared, members).await;
    if shared.plan.workload == Workload::Disks {
        catalog(shared, members, shelf).await;
    }
    no_locks(shared, members).await;
    nobody_stays(shared).await;
    happened(shared, members).await;
}

/// A member that was removed ends by itself: it hears of it soon.
async fn nobody_stays(shared: &Shared) {
    let begun = tokio::time::Instant::now();
    loop {
        let roster = shared.roster().clone();
        let stays: Vec<&String> = roster.running.keys().filter(|name| !roster.members.contains(*name)).collect();
        if stays.is_empty() {
            return;
        }
        if begun.elapsed() >= LEASES_TIME {
            return shared.violated(Promise::Serves, format!("{stays:?} were removed, and their processes still run"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the cluster itself tells of what happened to it, for the coverage.
async fn happened(shared: &Shared, members: &mut Endpoints) {
    let call = |channel| async move {
        let mut stream = events(channel)
            .watch_events(v1::WatchEventsRequest { once: true, ..Default::default() })
            .await?
            .into_inner();
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        while let Some(said) = stream.message().await? {
            for event in said.events {
                *kinds.entry(event.kind).or_default() += 1;
            }
        }
        Ok(Response::new(kinds))
    };
    match members.insist(PATIENCE, call).await.0 {
        Answer::Done(kinds) => {
            for kind in EVENTS_COUNTED {
                shared.coverage().add(kind, kinds.get(kind).copied().unwrap_or_default());
            }
        }
        other => shared.violated(Promise::Serves, format!("the events are not told: {other:?}")),
    }
}

/// Kinds of events that show what a run was worth.
const EVENTS_COUNTED: [&str; 4] = ["attempt-failed", "garbage-collected", "session-lost", "worker-lost"];

fn page(page_token: String) -> Option<v1::PageRequest> {
    Some(v1::PageRequest { page_size: u32::try_from(PAGE_SIZE_MAX).unwrap_or(1), page_token })
}

async fn open_transactions(members: &mut Endpoints) -> Result<Vec<v1::Transaction>, String> {
    let call = |channel| async move {
        let request = v1::ListTransactionsRequest { page: page(String::new()), open_only: true, ..Default::default() };
        transactions(channel).list_transactions(request).await
    };
    match members.insist(PATIENCE, call).await.0 {
        Answer::Done(list) => Ok(list.items),
        other => Err(format!("the transactions are not listed: {other:?}")),
    }
}

async fn garbage_rows(members: &mut Endpoints) -> Result<Vec<v1::Garbage>, String> {
    let call = |channel| async move {
        let request = v1::ListGarbageRequest { page: page(String::new()), ..Default::default() };
        garbage(channel).list_garbage(request).await
    };
    match members.insist(PATIENCE, call).await.0 {
        Answer::Done(list) => Ok(list.items),
        other => Err(format!("the garbage is not listed: {other:?}")),
    }
}

/// Waits until nothing is open and nothing is garbage.
async fn settle(shared: &Shared, members: &mut Endpoints) -> Result<(), String> {
    let begun = tokio::time::Instant::now();
    loop {
        let open = open_transactions(members).await?;
        let rows = garbage_rows(members).await?;
        if open.is_empty() && rows.is_empty() {
            return Ok(());
        }
        if begun.elapsed() >= SETTLE_TIME {
            let txns: Vec<String> = open
                .iter()
                .map(|txn| format!("{} {} {} ({}; {})", txn.id, txn.kind, txn.phase, txn.phase_reason, txn.last_error))
                .collect();
            let rows: Vec<String> =
                rows.iter().map(|row| format!("{} {} {} ({})", row.id, row.kind, row.state, row.last_error)).collect();
            return Err(format!("open after {} s: {txns:?}; garbage: {rows:?}", SETTLE_TIME.as_secs()));
        }
        if open.is_empty() && shared.plan.workload == Workload::Disks {
            let call =
                |channel| async move { garbage(channel).run_collection(v1::RunCollectionRequest::default()).await };
            // Refused or not: the list tells.
            let _ = members.insist(PATIENCE, call).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a hung call left on the storage after its garbage had been collected is an orphan: an audit finds it, and
/// makes garbage of it that is collected.
async fn audit(shared: &Shared, members: &mut Endpoints) -> Result<(), String> {
    for (name, _) in DOMAINS {
        let id = uuid::Uuid::from_bytes(rand::random()).to_string();
        shared.history.record().request_ids.insert(id.clone());
        let header = Some(v1::MutationHeader { request_id: id, ..v1::MutationHeader::default() });
        let request = v1::AuditDomainRequest { header, domain: name.to_owned(), grace_ms: 1_000, apply: true };
        let call = |channel| audited(channel, request.clone());
        match members.insist(PATIENCE, call).await.0 {
            Answer::Done(summary) => {
                shared.coverage().add("orphans-collected", summary.adopted);
                shared.history.record().request_ids.extend(summary.transaction_ids);
            }
            other => return Err(format!("domain {name} cannot be audited: {other:?}")),
        }
    }
    settle(shared, members).await
}

async fn audited(channel: Channel, request: v1::AuditDomainRequest) -> Result<Response<v1::AuditSummary>, Status> {
    let mut stream = garbage(channel).audit_domain(request).await?.into_inner();
    let mut summary = None;
    while let Some(said) = stream.message().await? {
        if let Some(v1::audit_domain_response::Message::Summary(last)) = said.message {
            summary = Some(last);
        }
    }
    summary.map(Response::new).ok_or_else(|| Status::unavailable("an audit without a summary"))
}

/// Waits until the leases that nobody renews any more are over, and their locks with them.
async fn leases_end(members: &mut Endpoints) -> Result<(), String> {
    let begun = tokio::time::Instant::now();
    loop {
        let mut held = all_locks(members).await?;
        held.retain(|lock| lock.resources.iter().any(|locked| is_lease(&locked.resource)));
        if held.is_empty() {
            return Ok(());
        }
        if begun.elapsed() >= LEASES_TIME {
            return Err(format!("locks of sessions that nobody renews are still held: {held:?}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn all_locks(members: &mut Endpoints) -> Result<Vec<v1::Lock>, String> {
    let call =
        |channel| async move { locks(channel).list_locks(v1::ListLocksRequest { page: page(String::new()) }).await };
    match members.insist(PATIENCE, call).await.0 {
        Answer::Done(list) => Ok(list.items),
        other => Err(format!("the locks are not listed: {other:?}")),
    }
}

/// A lock is taken and given back through every member.
async fn service(shared: &Shared, members: &Endpoints) {
    for mut member in shared.standing(members) {
        if let Err(why) = one_lock(&mut member).await {
            shared.violated(
                Promise::Serves,
                format!("{} does not serve after everything was healed: {why}", member.address()),
            );
        }
    }
}

async fn one_lock(member: &mut Endpoints) -> Result<(), String> {
    let nonce = uuid::Uuid::from_bytes(rand::random()).to_string();
    let call = |channel| {
        let request = v1::OpenSessionRequest { label: "operator".to_owned(), ttl_ms: 60_000, nonce: nonce.clone() };
        async move { locks(channel).open_session(request).await }
    };
    let Answer::Done(v1::OpenSessionResponse { session, .. }) = member.insist(PATIENCE, call).await.0 else {
        return Err("no session".to_owned());
    };
    let call = |channel| {
        let resource = v1::LockedResource { resource: "user/operator".to_owned(), mode: "X".to_owned() };
        let resources = vec![resource];
        let request = v1::AcquireRequest { session, sequence: 1, resources, wait_ms: 30_000, why: "check".to_owned() };
        async move { locks(channel).acquire(request).await }
    };
    match member.insist(PATIENCE, call).await.0 {
        Answer::Done(_) => {}
        other => return Err(format!("{other:?}")),
    }
    let call = |channel| async move { locks(channel).close_session(v1::CloseSessionRequest { session }).await };
    match member.insist(PATIENCE, call).await.0 {
        Answer::Done(_) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// The clients' sessions end, and with them every lock.
async fn no_locks(shared: &Shared, members: &mut Endpoints) {
    let sessions: Vec<v1::SessionKey> = shared.history.record().books.iter().filter_map(|book| book.session).collect();
    for session in sessions {
        let session = Some(session);
        let call = |channel| async move { locks(channel).close_session(v1::CloseSessionRequest { session }).await };
        if let Answer::Unknown(why) = members.insist(PATIENCE, call).await.0 {
            shared.violated(Promise::Serves, format!("a session cannot be closed: {why}"));
        }
    }
    match all_locks(members).await {
        Ok(held) if held.is_empty() => {}
        Ok(held) => shared.violated(Promise::NoPhantom, format!("locks without a session or transaction: {held:?}")),
        Err(why) => shared.violated(Promise::Serves, why),
    }
}

async fn all_disks(member: &mut Endpoints) -> Result<Vec<v1::Disk>, String> {
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let call = |channel| {
            let request = v1::ListDisksRequest { page: page(token.clone()), ..Default::default() };
            async move { disks(channel).list_disks(request).await }
        };
        match member.insist(PATIENCE, call).await.0 {
            Answer::Done(list) => {
                found.extend(list.items);
                token = list.page.unwrap_or_default().next_page_token;
            }
            other => return Err(format!("{} does not list the disks: {other:?}", member.address())),
        }
        if token.is_empty() {
            return Ok(found);
        }
    }
}

/// The catalog against what was acknowledged, and the storage against the catalog.
async fn catalog(shared: &Shared, members: &mut Endpoints, shelf: &Shelf) {
    let listed = match all_disks(members).await {
        Ok(listed) => listed,
        Err(why) => return shared.violated(Promise::Serves, why),
    };
    let by_name: BTreeMap<&str, &v1::Disk> = listed.iter().map(|disk| (disk.name.as_str(), disk)).collect();
    let known = shelf.disks().clone();
    for (name, known) in &known {
        let disk = by_name.get(name.as_str());
        match (known, disk) {
            (Known::There { domain, snapshots }, Some(disk)) => {
                let there: BTreeSet<&str> = disk.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
                if disk.domain != *domain || snapshots.iter().any(|name| !there.contains(name.as_str())) {
                    let what = format!("disk {name} is in {} with {there:?} instead of {known:?}", disk.domain);
                    shared.violated(Promise::Kept, what);
                }
            }
            (Known::There { .. }, None) => shared.violated(Promise::Kept, format!("disk {name} is gone: {known:?}")),
            (Known::Gone, Some(_)) => {
                shared.violated(Promise::NoPhantom, format!("disk {name} is there, and it was told to be gone"))
            }
            _ => {}
        }
        shared.history.record().counts.compared += 1;
    }
    for disk in listed.iter().filter(|disk| !known.contains_key(&disk.name)) {
        shared.violated(Promise::NoPhantom, format!("nobody asked for disk {}", disk.name));
    }
    let domains = match domain_ids(members).await {
        Ok(domains) => domains,
        Err(why) => return shared.violated(Promise::Serves, why),
    };
    for (name, path) in DOMAINS {
        let Some(id) = domains.get(name) else {
            shared.violated(Promise::Kept, format!("domain {name} is gone"));
            continue;
        };
        let own: Vec<&v1::Disk> = listed.iter().filter(|disk| disk.domain == name).collect();
        // What a full or failing storage refused to write into a placement is written after a pause.
        let begun = tokio::time::Instant::now();
        let mut differs = storage_differs(shared, path, id, &own).await;
        while !differs.is_empty() && begun.elapsed() < SETTLE_TIME {
            tokio::time::sleep(PROJECTED_EVERY).await;
            differs = storage_differs(shared, path, id, &own).await;
        }
        for why in differs {
            shared.violated(Promise::Kept, format!("domain {name}: {why}"));
        }
    }
}

async fn domain_ids(members: &mut Endpoints) -> Result<BTreeMap<String, String>, String> {
    let call = |channel| async move {
        domains(channel).list_domains(v1::ListDomainsRequest { page: page(String::new()) }).await
    };
    match members.insist(PATIENCE, call).await.0 {
        Answer::Done(list) => Ok(list.items.into_iter().map(|domain| (domain.name, domain.id)).collect()),
        other => Err(format!("the domains are not listed: {other:?}")),
    }
}

/// How a domain's folder differs from its disks in the catalog.
async fn storage_differs(shared: &Shared, path: &str, domain: &str, disks: &[&v1::Disk]) -> Vec<String> {
    let folder = format!("{path}/{domain}/images");
    let root = match shared.storage.files.open_root(Path::new(&folder)).await {
        Ok(root) => root,
        Err(error) => return vec![format!("{folder} does not open: {error}")],
    };
    let names = |path: EntryPath| {
        let root = &root;
        async move {
            match root.list(&path).await {
                Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect::<BTreeSet<String>>()),
                Err(error) => Err(format!("{path} is not listed: {error}")),
            }
        }
    };
    let found = match names(EntryPath::root()).await {
        Ok(found) => found,
        Err(why) => return vec![why],
    };
    let expected: BTreeSet<String> = disks.iter().map(|disk| disk.placement_id.clone()).collect();
    let mut differs: Vec<String> =
        found.difference(&expected).map(|name| format!("{name} lies there and the catalog does not know it")).collect();
    for disk in disks {
        let Ok(placement) = EntryPath::root().join(&disk.placement_id) else { continue };
        match names(placement).await {
            Err(why) => differs.push(format!("disk {}: {why}", disk.name)),
            Ok(files) => {
                let mut wanted: BTreeSet<String> = BTreeSet::from([".sdm".to_owned()]);
                for volume in &disk.volumes {
                    wanted.insert(volume.id.clone());
                    wanted.insert(format!("{}.meta", volume.id));
                }
                if files != wanted {
                    differs.push(format!("disk {}: there is {files:?} instead of {wanted:?}", disk.name));
                }
            }
        }
    }
    differs
}
