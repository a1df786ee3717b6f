//! A worker from its start to its end: opens the folder, listens, and runs gateway, supervisor and
//! server beside each other until it is told to stop or the cluster refuses it.

use super::attempt::Workshop;
use super::reach::Reach;
use super::running_set::Supervisor;
use super::turns::Turns;
use super::unreaped::Unreaped;
use crate::folder::DiskFolder;
use crate::folder::FolderError;
use crate::folder::Membership;
use crate::folder::Remains;
use crate::folder::WorkerFolder;
use crate::gateway::Gateway;
use crate::gateway::GatewayError;
use crate::gateway::GatewaySettings;
use crate::gateway::Outbox;
use crate::process::IoProcesses;
use crate::transfer::ProgressBoard;
use crate::transfer::PullClient;
use crate::transfer::Takeover;
use crate::transfer::Tickets;
use crate::transfer::TransferServer;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::credentials::PeerIdentity;
use sdm_proto::ids::ClusterId;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::BlockingPool;
use sdm_proto::seams::Clock;
use sdm_proto::seams::Incoming;
use sdm_proto::seams::Transport;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How long a new worker waits for I/O processes that an earlier one left behind. They die with it;
/// only those stuck in the kernel take longer: they use names that nobody else ever uses, and what is changed in place
/// waits for them.
const EARLIER_PROCESSES_WAIT_MS: u64 = 2_000;

/// Time between two looks at them ...
const EARLIER_PROCESSES_LOOK_MS: u64 = 20;

/// ... and when it waits for them no more.
const STUCK_PROCESSES_LOOK_MS: u64 = 1_000;

/// How long a worker that ends waits for its processes and streams to end.
const ENDING_WAIT: Duration = Duration::from_secs(3);

/// Everything that a worker is told at its start.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// A label for people; a second live worker under it is refused by the cluster.
    pub name: String,
    /// `host:port` to listen at; port 0 takes a free one.
    pub listen: String,
    /// Where others reach it, where that differs from `listen`.
    pub advertise: Option<String>,
    /// Its local folder; made if missing.
    pub data_dir: PathBuf,
    /// `host:port` of members, any of them.
    pub coordinators: Vec<String>,
    /// The operator's word that the worker now belongs to this cluster, whichever it did before: one
    /// that was restored from a backup.
    pub readmit: Option<ClusterId>,
    /// Paths beneath which it works; none means everywhere.
    pub reach: Vec<PathBuf>,
    /// The cluster's secret. Whoever starts a worker sees to it that nothing listens beyond
    /// loopback without one.
    pub secret: ClusterSecret,
    /// How connections are made.
    pub transport: Arc<dyn Transport>,
    /// What leases are measured by.
    pub clock: Arc<dyn Clock>,
    /// Where I/O processes come from.
    pub processes: Arc<dyn IoProcesses>,
    /// Where short blocking work on the worker's own folder runs.
    pub pool: BlockingPool,
}

/// Why a worker ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It cannot listen.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What it was told makes no sense.
    #[error("{0}")]
    Config(String),
    /// The cluster does not want it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its server failed.
    #[error("the worker's server failed")]
    Server(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<GatewayError> for WorkerError {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::Refused(refusal) => Self::Refused(refusal),
            GatewayError::Folder(error) => Self::Folder(error),
        }
    }
}

/// Runs a worker until `shutdown` completes.
///
/// # Errors
/// The folder or the address cannot be used, or the cluster definitely refuses this worker.
pub async fn run(config: WorkerConfig, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
    let path = config.data_dir.clone();
    let folder = config
        .pool
        .run(move || DiskFolder::open(&path))
        .await
        .unwrap_or_else(|source| Err(FolderError::Io { action: "open", path: config.data_dir.clone(), source }))?;
    run_in_folder(config, Arc::new(folder), shutdown).await
}

/// The same with a folder that is open already; `data_dir` is not looked at.
///
/// # Errors
/// As `run`.
pub async fn run_in_folder(
    config: WorkerConfig,
    folder: Arc<dyn WorkerFolder>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), WorkerError> {
    if config.coordinators.is_empty() {
        return Err(WorkerError::Config("a worker needs the address of at least one coordinator".to_owned()));
    }
    let (address, incoming) = config
        .transport
        .listen(config.listen.clone())
        .await
        .map_err(|source| WorkerError::Listen { address: config.listen.clone(), source })?;
    if let Some(cluster) = config.readmit {
        readmit(&folder, cluster, config.pool).await?;
    }
    let worker = folder.identity().worker;
    tracing::info!(address, %worker, name = config.name, "listening");
    tokio::pin!(shutdown);
    let remains = tokio::select! {
        () = &mut shutdown => return Ok(()),
        remains = await_earlier_processes(&folder, config.pool, &config.clock) => remains,
    };
    let (gone, predecessor) = watch::channel(remains);
    let watching = watch_stuck_processes(Arc::clone(&folder), config.pool, Arc::clone(&config.clock), gone);
    let _watching = AbortOnDropHandle::new(tokio::spawn(watching));
    Parts::new(config, folder, address, Turns::new(predecessor)).run(incoming, shutdown).await
}

/// Has the folder forget the cluster that it belonged to.
async fn readmit(folder: &Arc<dyn WorkerFolder>, cluster: ClusterId, pool: BlockingPool) -> Result<(), WorkerError> {
    let known = folder.membership().map(|of| of.cluster_id);
    let wanted = cluster.to_string();
    if known.as_ref() == Some(&wanted) {
        return Ok(());
    }
    tracing::warn!(from = known, to = wanted, "the operator has this worker admitted to another cluster");
    let (folder, membership) = (Arc::clone(folder), Membership { cluster_id: wanted, epoch: 0 });
    let written = pool.run(move || folder.join(&membership)).await;
    Ok(written.unwrap_or_else(|source| Err(FolderError::Io { action: "write", path: "worker.json".into(), source }))?)
}

/// Waits for what an earlier process of this folder left behind, but not for ever. Answers with what is still there.
async fn await_earlier_processes(
    folder: &Arc<dyn WorkerFolder>,
    pool: BlockingPool,
    clock: &Arc<dyn Clock>,
) -> Remains {
    let give_up_ms = clock.now_ms() + EARLIER_PROCESSES_WAIT_MS;
    loop {
        let looked_at = Arc::clone(folder);
        // The pool fails only while the runtime ends.
        let remains = pool.run(move || looked_at.earlier_processes()).await.unwrap_or_default();
        let now_ms = clock.now_ms();
        if remains.is_nothing() {
            return remains;
        }
        if now_ms >= give_up_ms {
            tracing::warn!(paths = ?remains.paths, "I/O processes of an earlier worker are still there: their storage hangs");
            return remains;
        }
        clock.sleep_until(now_ms + EARLIER_PROCESSES_LOOK_MS).await;
    }
}

/// Looks on, and tells when they are gone.
async fn watch_stuck_processes(
    folder: Arc<dyn WorkerFolder>,
    pool: BlockingPool,
    clock: Arc<dyn Clock>,
    left: watch::Sender<Remains>,
) {
    while !left.borrow().is_nothing() {
        clock.sleep_until(clock.now_ms() + STUCK_PROCESSES_LOOK_MS).await;
        let looked_at = Arc::clone(&folder);
        let Ok(remains) = pool.run(move || looked_at.earlier_processes()).await else { continue };
        if remains.is_nothing() {
            tracing::info!("the I/O processes of an earlier worker are gone");
        }
        left.send_replace(remains);
    }
    // The sender stays: whoever asks later hears it, too.
    std::future::pending::<()>().await;
}

/// The parts of a worker before they run.
struct Parts {
    gateway: Gateway,
    supervisor: Supervisor,
    server: TransferServer,
    stop: CancellationToken,
}

impl Parts {
    fn new(config: WorkerConfig, folder: Arc<dyn WorkerFolder>, address: String, turns: Turns) -> Self {
        let identity = OwnIdentity::default();
        // One that is to be admitted anew is a newcomer until then: it does not know the cluster's epoch.
        if let Some(membership) = folder.membership().filter(|of| of.epoch > 0) {
            let name = format!("worker/{}", folder.identity().worker);
            identity.set(PeerIdentity { cluster_id: membership.cluster_id, epoch: membership.epoch, name });
        }
        let (tickets, progress, outbox) = (Tickets::default(), ProgressBoard::default(), Outbox::default());
        let lock = folder.children_lock();
        let name = Arc::from(config.name.as_str());
        let settings = GatewaySettings {
            name: config.name,
            address: config.advertise.unwrap_or(address),
            reach: config.reach.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            coordinators: config.coordinators,
            secret: config.secret.clone(),
            identity: identity.clone(),
            folder,
            transport: Arc::clone(&config.transport),
            clock: Arc::clone(&config.clock),
            pool: config.pool,
        };
        let takeover = Takeover::new(Arc::clone(&config.processes), lock.clone(), Reach::new(config.reach.clone()));
        let (gateway, mandate) = Gateway::new(settings, outbox.clone());
        let pull = PullClient {
            transport: config.transport,
            secret: config.secret.clone(),
            identity: identity.clone(),
            clock: Arc::clone(&config.clock),
        };
        let workshop = Workshop {
            processes: config.processes,
            lock,
            clock: config.clock,
            tickets: tickets.clone(),
            progress: progress.clone(),
            pull,
            name,
            unreaped: Unreaped::default(),
            turns,
        };
        Self {
            gateway,
            supervisor: Supervisor::new(workshop, config.reach, outbox, mandate),
            server: TransferServer { secret: config.secret, identity, tickets, progress, takeover },
            stop: CancellationToken::new(),
        }
    }

    async fn run(self, incoming: Incoming, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        let Self { mut gateway, supervisor, server, stop } = self;
        let stopped = stop.clone().cancelled_owned();
        let mut server = AbortOnDropHandle::new(tokio::spawn(server.serve(incoming, stopped)));
        let mut supervisor = AbortOnDropHandle::new(tokio::spawn(supervisor.run(stop.clone())));
        let mut server_over = false;
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            refused = gateway.run() => refused.map(|never| match never {}).map_err(WorkerError::from),
            served = &mut server => {
                server_over = true;
                Err(WorkerError::Server(match served {
                    Ok(Ok(())) => "it ended by itself".into(),
                    Ok(Err(error)) => error,
                    Err(error) => error.into(),
                }))
            }
        };
        stop.cancel();
        // The supervisor returns when the last process of an attempt was reaped, which storage that
        // hangs can hold up; the processes die with this one then.
        let reaping = tokio::time::timeout(ENDING_WAIT, &mut supervisor);
        tokio::pin!(reaping);
        let reaped = tokio::select! {
            reaped = &mut reaping => reaped.is_ok(),
            // The lease is kept meanwhile, and last words are sent.
            _ = gateway.run(), if ended.is_ok() => reaping.await.is_ok(),
        };
        if !reaped {
            tracing::warn!("not every I/O process ended in time");
        } else if ended.is_ok() {
            // Only now is it true that nothing of this session runs any more.
            gateway.farewell().await;
        }
        if !server_over && tokio::time::timeout(ENDING_WAIT, &mut server).await.is_err() {
            tracing::debug!("open connections were closed");
        }
        ended
    }
}
