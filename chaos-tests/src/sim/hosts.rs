//! The hosts of a simulation: members and workers as the product runs them, on simulated disks, folders and links. Each
//! of them may be crashed and started again.

use super::network::JumpingClock;
use super::network::SimClock;
use super::network::SimTransport;
use super::operator;
use super::plan::MEMBER_PORT;
use super::plan::Planted;
use super::plan::WORKER_PORT;
use super::shared::Phase;
use super::shared::Shared;
use crate::history::Promise;
use sdm_coordinator::MemberConfig;
use sdm_coordinator::MemberError;
use sdm_coordinator::Start;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::seams::BlockingPool;
use sdm_storage_worker::WorkerConfig;
use sdm_storage_worker::process::InProcess;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that a host's software may answer to turmoil.
pub type Ended = turmoil::Result;

/// A machine for a member: its process, from its start until it is killed, for as long as it is to run one.
pub async fn member(name: String, shared: Arc<Shared>) -> Ended {
    loop {
        shared.member_is_to_run(&name).await;
        let outcome = run_member(&name, &shared).await?;
        if *shared.phase.borrow() >= Phase::Over {
            return Ok(());
        }
        let why = outcome.as_ref().err().map(|error| error.to_string()).unwrap_or_default();
        let was_removed =
            matches!(&outcome, Err(MemberError::Refused(refusal)) if REMOVED.contains(&refusal.reason.as_str()));
        let (leaves, is_sick) = {
            let roster = shared.roster();
            (roster.leaving.contains(&name), roster.sick.contains(&name))
        };
        shared.history.event("info", &name, "ended", "", json!(why));
        if was_removed && leaves {
            shared.coverage().count("removed-member-ended");
            shared.roster().running.remove(&name);
            continue;
        }
        if is_sick && matches!(outcome, Err(ref error) if is_of_the_disk(error)) {
            shared.coverage().count("member-stopped-by-its-disk");
            // Whoever mends the disk starts the machine again.
            std::future::pending::<()>().await;
        }
        shared.violated(Promise::Serves, format!("member {name} ended by itself: {why}"));
        std::future::pending::<()>().await;
    }
}

/// What members say to one that was removed, and what the cluster answers to one that was removed while its start was
/// on its way to be recorded.
const REMOVED: [&str; 2] = ["REMOVED_MEMBER", "MEMBER_NOT_FOUND"];

/// Whether the disk is why it ended.
fn is_of_the_disk(error: &MemberError) -> bool {
    matches!(
        error,
        MemberError::Disk(_) | MemberError::Pending { .. } | MemberError::Identity(_) | MemberError::Open(_)
    )
}

/// One process of a member, until it ends by itself.
async fn run_member(name: &str, shared: &Shared) -> Result<Result<(), MemberError>, Box<dyn std::error::Error>> {
    let Some(disk) = shared.disks.get(name) else { return Ok(Ok(())) };
    let founder = shared.plan.member_names().first().cloned().unwrap_or_default();
    let via = shared.roster().running.get(name).cloned().flatten();
    let start = match via {
        Some(via) => Start::Join(format!("{via}:{MEMBER_PORT}")),
        None if name == founder => Start::Bootstrap,
        None => Start::Join(format!("{founder}:{MEMBER_PORT}")),
    };
    // Loopback in name: without a secret a member listens nowhere else.
    let listen = format!("127.0.0.1:{MEMBER_PORT}");
    let mut config = MemberConfig::new(name.parse()?, listen, PathBuf::from("simulated"), start);
    config.advertise = Some(format!("{name}:{MEMBER_PORT}"));
    config.transport = SimTransport::of(name, &shared.cuts);
    config.clock = match shared.plan.planted {
        Some(Planted::JumpingClock) => Arc::new(JumpingClock),
        _ => Arc::new(SimClock),
    };
    config.timing = shared.plan.timing;
    config.log_cut = shared.plan.log_cut;
    disk.slow_syncs(shared.plan.sync_time);
    config.disk = Some(disk.start());
    shared.history.event("info", name, "start", "", json!(null));
    Ok(sdm_coordinator::run(config, std::future::pending()).await)
}

/// A worker's process, from its start until it is killed.
pub async fn worker(name: String, shared: Arc<Shared>) -> Ended {
    let Some(folder) = shared.folders.get(&name) else { return Ok(()) };
    let config = WorkerConfig {
        name: name.clone(),
        listen: format!("{name}:{WORKER_PORT}"),
        advertise: None,
        data_dir: PathBuf::new(),
        coordinators: shared.plan.addresses(),
        readmit: None,
        reach: vec![PathBuf::from(operator::SHARE)],
        secret: ClusterSecret::default(),
        transport: SimTransport::of(&name, &shared.cuts),
        clock: Arc::new(SimClock),
        processes: Arc::new(InProcess::new(Arc::new(shared.storage.runner(&name)))),
        pool: BlockingPool::InPlace,
    };
    shared.history.event("info", &name, "start", "", json!(null));
    let opened = folder.open()?;
    let outcome = sdm_storage_worker::run_in_folder(config, opened, std::future::pending()).await;
    let why = outcome.err().map(|error| error.to_string()).unwrap_or_default();
    if *shared.phase.borrow() < Phase::Over {
        shared.violated(Promise::Serves, format!("worker {name} ended by itself: {why}"));
    }
    Ok(())
}
