//! The hosts of a simulation: members and workers as the product runs them, on simulated disks, folders and links. Each
//! of them may be crashed and started again.

use super::network::SimClock;
use super::network::SimTransport;
use super::operator;
use super::plan::MEMBER_PORT;
use super::plan::WORKER_PORT;
use super::shared::Phase;
use super::shared::Shared;
use crate::history::Promise;
use sdm_coordinator::MemberConfig;
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

/// A member's process, from its start until it is killed.
pub async fn member(name: String, shared: Arc<Shared>) -> Ended {
    let Some(disk) = shared.disks.get(&name) else { return Ok(()) };
    let founder = shared.plan.member_names().first().cloned().unwrap_or_default();
    let start = if name == founder { Start::Bootstrap } else { Start::Join(format!("{founder}:{MEMBER_PORT}")) };
    // Loopback in name: without a secret a member listens nowhere else.
    let listen = format!("127.0.0.1:{MEMBER_PORT}");
    let mut config = MemberConfig::new(name.parse()?, listen, PathBuf::from("simulated"), start);
    config.advertise = Some(format!("{name}:{MEMBER_PORT}"));
    config.transport = SimTransport::of(&name, &shared.cuts);
    config.clock = Arc::new(SimClock);
    config.timing = shared.plan.timing;
    disk.slow_syncs(shared.plan.sync_time);
    config.disk = Some(disk.start());
    shared.history.event("info", &name, "start", "", json!(null));
    let outcome = sdm_coordinator::run(config, std::future::pending()).await;
    let why = outcome.err().map(|error| error.to_string()).unwrap_or_default();
    if *shared.phase.borrow() < Phase::Over {
        shared.violated(Promise::Serves, format!("member {name} ended by itself: {why}"));
    }
    Ok(())
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
