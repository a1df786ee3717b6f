//! The demo's steps, in their order.

use super::image;
use super::image::Image;
use super::moving;
use super::moving::Killed;
use super::stage::Look;
use super::stage::MEMBERS;
use super::stage::Stage;
use super::stage::WORKERS;
use crate::client::all_pages;
use crate::client::wait_for_outcome;
use crate::commands::ExportDisk;
use crate::commands::ImportDisk;
use crate::commands::disk_of;
use crate::commands::garbage_of;
use crate::commands::status_of;
use crate::context::Context;
use crate::output::Failure;
use crate::output::Report;
use crate::output::bytes_text;
use crate::values::draw_request_id;
use crate::views::DiskView;
use crate::views::LockView;
use crate::views::StatusView;
use crate::views::WorkerView;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::domain_service_client::DomainServiceClient;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use sdm_proto::wire::v1::worker_service_client::WorkerServiceClient;
use std::path::Path;

/// Name of the disk that moves.
pub const DISK: &str = "web-01";

/// How often a move is repeated that was through before anybody could kill the leader.
const MOVES_MAX: usize = 6;

/// Tells all of it.
///
/// # Errors
/// Something did not go as it should.
pub async fn tell(stage: &mut Stage, size: u64) -> Result<(), Failure> {
    start_members(stage).await?;
    start_workers(stage).await?;
    make_domains(stage).await?;
    let image = make_image(stage, size).await?;
    import(stage, &image).await?;
    let (source, moved, killed) = move_and_kill(stage).await?;
    check_move(stage, &image, &moved)?;
    export(stage, &image).await?;
    collect(stage, &source, &killed).await?;
    bring_back(stage, &killed).await?;
    final_status(stage).await
}

async fn start_members(stage: &mut Stage) -> Result<(), Failure> {
    stage.step("three members: any of them takes any request, a majority decides, none is special");
    stage.result(&format!("everything of this demo is in {}", stage.folder().display()));
    let first = stage.members.first().cloned().unwrap_or_default();
    for (at, name) in MEMBERS.iter().enumerate() {
        let how: &[&str] = if at == 0 { &["--bootstrap"] } else { &["--join", &first] };
        moving::start_member(stage, name, how)?;
    }
    let ready = async |context: &Context| match status_of(context).await {
        Ok(status) => {
            let up = status
                .members
                .iter()
                .filter(|m| m.reachable && ["leader", "follower"].contains(&m.role.as_str()))
                .count();
            if up == MEMBERS.len() && status.has_quorum {
                Look::Found(status.leader)
            } else {
                Look::NotYet(format!("{up} voters"))
            }
        }
        Err(failure) => Look::NotYet(failure.to_string()),
    };
    let leader = stage.until("three voters", ready).await?;
    stage.result(&format!("{leader} leads: it orders the log's entries and watches the clock, no more"));
    Ok(())
}

async fn start_workers(stage: &mut Stage) -> Result<(), Failure> {
    stage.step("two workers, the hands on two hosts; each reaches only its own shelf of storage");
    let coordinators = stage.members.join(",");
    for ((name, shelf), address) in WORKERS.iter().zip(stage.workers.clone()) {
        let (folder, reach) = (stage.path(name).display().to_string(), stage.path(shelf).display().to_string());
        let arguments = [
            "worker",
            "--name",
            name,
            "--listen",
            &address,
            "--data-dir",
            &folder,
            "--coordinators",
            &coordinators,
            "--reach",
            &reach,
        ];
        stage.processes.start(name, &address, &arguments)?;
    }
    let live = async |context: &Context| match workers_of(context).await {
        Ok(workers) if workers.iter().filter(|worker| worker.state == "live").count() == WORKERS.len() => {
            Look::Found(())
        }
        Ok(workers) => Look::NotYet(format!("{} of {} known", workers.len(), WORKERS.len())),
        Err(failure) => Look::NotYet(failure.to_string()),
    };
    stage.until("two live workers", live).await
}

async fn workers_of(context: &Context) -> Result<Vec<WorkerView>, Failure> {
    let list = all_pages::<_, WorkerView, _>(async |page| {
        let request = v1::ListWorkersRequest { page: Some(page) };
        let ask = context.cluster.call(async |link| WorkerServiceClient::new(link).list_workers(request.clone()).await);
        ask.await.map(|answer| (answer.items, answer.page))
    });
    Ok(list.await?.items)
}

async fn make_domains(stage: &mut Stage) -> Result<(), Failure> {
    stage.step("two storage domains, one on each shelf");
    for (_, shelf) in WORKERS {
        let path = stage.path(shelf).display().to_string();
        stage.command(&format!("domain create {shelf} --path {path} --local"));
        let request = v1::CreateDomainRequest { header: Some(header()), name: shelf.to_owned(), path, local: true };
        let create = async |link| DomainServiceClient::new(link).create_domain(request.clone()).await;
        let answer = stage.context.cluster.call(create).await?;
        let txn = answer.transaction.unwrap_or_default();
        wait_for_outcome(&stage.context.cluster, txn, "        create", stage.context.printer.format).await?;
    }
    Ok(())
}

fn header() -> v1::MutationHeader {
    v1::MutationHeader { request_id: draw_request_id(), initiator: "sdm demo".to_owned(), ..Default::default() }
}

async fn make_image(stage: &mut Stage, size: u64) -> Result<Image, Failure> {
    stage.step(&format!("a disk image of {}, with data and with holes", bytes_text(size)));
    let path = stage.path("image.raw");
    let image = blocking(move || image::make(&path, size)).await?;
    stage.result(&format!("{} of it are data; BLAKE3 {}", bytes_text(image.data_bytes), image.hash.to_hex()));
    Ok(image)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| Failure::new(Class::Internal, "DEMO_FAILED", error.to_string()))?
}

async fn import(stage: &mut Stage, image: &Image) -> Result<(), Failure> {
    stage.step("imported: this command streams the file to a worker, which checks and publishes it");
    let path = stage.path("image.raw");
    stage.command(&format!("disk import {} --name {DISK} --domain shelf-1 --format raw", path.display()));
    let imported = ImportDisk::raw(path, DISK, "shelf-1").import(&stage.context).await?.unwrap_or_default();
    let hash = imported.transaction.outcome.map(|outcome| outcome.blake3).unwrap_or_default();
    expect("the import's hash", &hash, image.hash.to_hex().as_str())
}

async fn move_and_kill(stage: &mut Stage) -> Result<(DiskView, v1::Transaction, Killed), Failure> {
    stage.step("moved: one worker pulls it from the other, and in the middle of it the leader dies");
    for _ in 0..MOVES_MAX {
        let source = disk_of(&stage.context, DISK).await?;
        if !Path::new(&source.path).is_dir() {
            let message = format!("{} is not there, where {DISK} should lie", source.path);
            return Err(Failure::new(Class::Internal, "DEMO_FAILED", message));
        }
        let to = if source.domain == "shelf-1" { "shelf-2" } else { "shelf-1" };
        let moved = moving::move_and_kill(stage, to).await?;
        if let Some(killed) = moved.killed {
            return Ok((source, moved.transaction, killed));
        }
        stage.result("it was through before its middle was seen; once more, the other way");
    }
    let message = format!("{MOVES_MAX} moves were through before the leader could be killed in their middle");
    let hint = "give a larger --size: this storage is fast";
    Err(Refusal::new(Class::Aborted, "DEMO_FAILED", message).hint(hint).into())
}

fn check_move(stage: &mut Stage, image: &Image, moved: &v1::Transaction) -> Result<(), Failure> {
    stage.step("through: one log entry made the copy the disk, and the old one garbage");
    stage.result(&format!("its story: sdm txn show {}", moved.id));
    let outcome = moved.outcome.clone().unwrap_or_default();
    expect("the move's hash", &outcome.blake3, image.hash.to_hex().as_str())?;
    stage.result(&format!("BLAKE3 of what was written: {} - the same", outcome.blake3));
    Ok(())
}

async fn export(stage: &mut Stage, image: &Image) -> Result<(), Failure> {
    stage.step("read back: the disk is exported from where it lies now, and hashed again");
    let path = stage.path("exported.raw");
    stage.command(&format!("disk export {DISK} {}", path.display()));
    let exported = ExportDisk::of(DISK, path.clone()).export(&stage.context).await?;
    let Some(exported) = exported else { return Ok(()) };
    expect("the export's hash", exported.hash.to_hex().as_str(), image.hash.to_hex().as_str())?;
    let original = stage.path("image.raw");
    let same = blocking(move || files_are_equal(&original, &path)).await?;
    if !same {
        return Err(Failure::new(Class::Internal, "DEMO_FAILED", "the exported file differs from the image"));
    }
    stage.result("byte for byte the image that was imported");
    Ok(())
}

async fn collect(stage: &mut Stage, source: &DiskView, killed: &Killed) -> Result<(), Failure> {
    let mut others = MEMBERS.into_iter().filter(|name| *name != killed.victim && *name != killed.successor);
    let collector = others.next().unwrap_or("node-a");
    stage.step(&format!("cleaned: {collector} is no leader either, and collects garbage all the same"));
    stage.command("gc run");
    let context = stage.only(&[collector])?;
    let run = async |link| GcServiceClient::new(link).run_collection(v1::RunCollectionRequest::default()).await;
    context.cluster.call(run).await?;
    let path = source.path.clone();
    let gone = async |context: &Context| match garbage_of(context).await {
        Ok(garbage) if garbage.items.is_empty() && !Path::new(&path).exists() => Look::Found(()),
        Ok(garbage) => Look::NotYet(format!("{} items are left", garbage.items.len())),
        Err(failure) => Look::NotYet(failure.to_string()),
    };
    stage.until("the source is deleted", gone).await?;
    stage.result(&format!("{path} is gone"));
    Ok(())
}

async fn bring_back(stage: &mut Stage, killed: &Killed) -> Result<(), Failure> {
    let victim = &killed.victim;
    stage.step(&format!("{victim} is started again: it reads its own log and catches up"));
    moving::restart(stage, victim).await
}

async fn final_status(stage: &mut Stage) -> Result<(), Failure> {
    stage.step("what is left: the disk in its new place, no lock, no open transaction, no garbage");
    let locks = locks_of(&stage.context).await?;
    let status = status_of(&stage.context).await?;
    let counts = status.counts.unwrap_or_default();
    stage.text(&StatusView::from(status).text());
    let left = [
        ("locks", locks.len() as u64),
        ("open transactions", counts.transactions_open),
        ("jobs", counts.jobs),
        ("garbage", counts.garbage),
    ];
    match left.iter().find(|(_, count)| *count > 0) {
        None => Ok(()),
        Some((what, count)) => {
            Err(Failure::new(Class::Internal, "DEMO_FAILED", format!("{what} at the end: {count} instead of none")))
        }
    }
}

async fn locks_of(context: &Context) -> Result<Vec<LockView>, Failure> {
    let list = all_pages::<_, LockView, _>(async |page| {
        let request = v1::ListLocksRequest { page: Some(page) };
        let ask = context.cluster.call(async |link| LockServiceClient::new(link).list_locks(request.clone()).await);
        ask.await.map(|answer| (answer.items, answer.page))
    });
    Ok(list.await?.items)
}

fn expect(what: &str, found: &str, expected: &str) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    let message = format!("{what} is {found:?} instead of {expected:?}");
    Err(Failure::new(Class::Internal, "DEMO_FAILED", message))
}

fn files_are_equal(a: &Path, b: &Path) -> Result<bool, Failure> {
    use std::io::Read;
    let trouble = |error: std::io::Error| Failure::new(Class::Internal, "DEMO_FAILED", error.to_string());
    let open = |path: &Path| std::fs::File::open(path).map(std::io::BufReader::new).map_err(trouble);
    let (mut a, mut b) = (open(a)?, open(b)?);
    let (mut from_a, mut from_b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let length = a.read(&mut from_a).map_err(trouble)?;
        if length == 0 {
            return Ok(b.read(&mut from_b).map_err(trouble)? == 0);
        }
        let (Some(left), Some(right)) = (from_a.get(..length), from_b.get_mut(..length)) else { return Ok(false) };
        match b.read_exact(right) {
            Ok(()) if left == right => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(trouble(error)),
        }
    }
}
