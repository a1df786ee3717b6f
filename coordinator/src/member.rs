//! The life of a member: its folder, its identity, its Raft, its port, its loops, its end. What
//! each of them does is elsewhere; here is the order in which they come and go.
//!
//! ```text
//!  folder ─ listen ─ identity (read, founded or joined) ─ Raft ─ internal services ─ admitted ─ public services
//! ```

use crate::check_in;
use crate::check_in::Standing;
use crate::config::MemberConfig;
use crate::config::Start;
use crate::core::Core;
use crate::door::Door;
use crate::door::Stage;
use crate::error::MemberError;
use crate::founding;
use crate::join;
use crate::peers::Peers;
use crate::pending::Pending;
use crate::pending::PendingFile;
use crate::running::Running;
use crate::services;
use crate::starts::StartsFile;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::credentials::PeerIdentity;
use sdm_proto::seams;
use sdm_proto::seams::Incoming;
use sdm_raft_store::Identity;
use sdm_raft_store::IdentityFile;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::disk::Closed;
use sdm_raft_store::identity::IdentityError;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

/// How long the leadership's hand-over and the calls that are open may go on when the member closes.
const CLOSE_TIME: Duration = Duration::from_secs(4);

/// Runs a member until it is told to stop or cannot go on. When it returns, its folder can be
/// opened again.
///
/// # Errors
/// Whatever keeps it from being a member; see `MemberError::refusal` for what to do.
pub async fn run(config: MemberConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), MemberError> {
    run_with(config, shutdown, |_| ()).await
}

/// The same; hands out the member's core once this process is a member. Whoever keeps it keeps the
/// folder from being opened again.
///
/// # Errors
/// As `run`.
pub async fn run_with(
    config: MemberConfig,
    shutdown: impl Future<Output = ()> + Send,
    ready: impl FnOnce(Core) + Send,
) -> Result<(), MemberError> {
    let disk = match &config.disk {
        Some(disk) => disk.clone(),
        None => MemberDisk::open(&config.data_dir).await?,
    };
    let closed = disk.closed();
    let outcome = run_on(config, disk, shutdown, ready).await;
    let_go(closed).await;
    tracing::debug!("the folder is free");
    outcome
}

/// Waits until nothing holds the folder any more.
async fn let_go(closed: Closed) {
    if tokio::time::timeout(CLOSE_TIME, closed.wait()).await.is_err() {
        tracing::warn!("something still holds the data folder; it is let go when the process ends");
    }
}

async fn run_on(
    config: MemberConfig,
    disk: MemberDisk,
    shutdown: impl Future<Output = ()> + Send,
    ready: impl FnOnce(Core) + Send,
) -> Result<(), MemberError> {
    let pending_file = PendingFile::of(&disk);
    let known = IdentityFile::of(&disk).read().await?;
    let pending = next_step(&config, &disk, known.as_ref(), &pending_file).await?;
    refuse_exposed(&config)?;
    let (bound, incoming) = listen(&config).await?;
    let address = reachable_at(&config, &bound)?;
    tracing::info!(name = %config.name, %bound, %address, "listening");

    let health = HealthReporter::new();
    services::health::begin(&health).await;
    let door = Door::new(services::standard(&health));
    let closing = CancellationToken::new();
    let serving = serve(door.clone(), incoming, closing.clone());

    let mut life = Life { config, disk, pending_file, address, health, door, closing: closing.clone(), running: None };
    let mut serving = std::pin::pin!(serving);
    let outcome = tokio::select! {
        outcome = life.live(known, pending, ready) => outcome,
        served = &mut serving => Err(served.err().unwrap_or_else(|| MemberError::Serve("it stopped".to_owned()))),
        () = shutdown => {
            tracing::info!("shutting down");
            Ok(())
        }
    };
    let close = async {
        if let Some(running) = life.running.as_ref().filter(|_| outcome.is_ok()) {
            running.hand_over().await;
        }
        closing.cancel();
    };
    // The port serves on until the last call has ended.
    let (served, ()) = tokio::join!(tokio::time::timeout(CLOSE_TIME, serving), close);
    if served.is_err() {
        tracing::warn!("some calls did not end in time");
    }
    tracing::debug!("the port is closed");
    life.end().await;
    outcome
}

/// What is still to be done before this is a member, written down before it is begun.
async fn next_step(
    config: &MemberConfig,
    disk: &MemberDisk,
    known: Option<&Identity>,
    file: &PendingFile,
) -> Result<Option<Pending>, MemberError> {
    let pending = file.read().await?;
    if let Some(identity) = known {
        if identity.name != config.name.as_str() {
            let asked = config.name.to_string();
            return Err(MemberError::AnotherName { found: identity.name.clone(), asked });
        }
        if let (Start::Join(via), Some(Pending::Joining { incarnation, .. })) = (&config.start, &pending) {
            // It has an id and no seat yet. The member it asked first may be lost for good.
            let via = via.clone();
            tracing::info!(via, "the folder's member is not admitted yet: it asks this one");
            let next = Pending::Joining { via, stay_learner: config.stay_learner, incarnation: *incarnation };
            file.write(next.clone()).await?;
            return Ok(Some(next));
        }
        if config.start != Start::Resume {
            tracing::info!(
                name = identity.name,
                node = identity.node_id,
                "the folder holds a member already: it goes on as that one, --bootstrap and --join are ignored"
            );
        }
        return Ok(pending);
    }
    IdentityFile::of(disk).refuse_remains().await?;
    if StartsFile::of(disk).read().await? > 0 {
        return Err(IdentityError::Gone("a count of starts").into());
    }
    let next = match (&config.start, pending) {
        (Start::Resume, None) => return Err(MemberError::NothingThere(config.data_dir.clone())),
        (Start::Resume, Some(pending)) => pending,
        (Start::Bootstrap, _) => Pending::Founding,
        // The same incarnation: an id that was given to an earlier try is this one's.
        (Start::Join(via), Some(Pending::Joining { incarnation, .. })) => {
            Pending::Joining { via: via.clone(), stay_learner: config.stay_learner, incarnation }
        }
        (Start::Join(via), _) => Pending::Joining {
            via: via.clone(),
            stay_learner: config.stay_learner,
            incarnation: founding::random_uuid(),
        },
    };
    file.write(next.clone()).await?;
    Ok(Some(next))
}

fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Without a secret anybody who reaches the port rules the storage.
fn refuse_exposed(config: &MemberConfig) -> Result<(), MemberError> {
    let host = host_of(&config.listen);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if loopback || config.secret.is_set() { Ok(()) } else { Err(MemberError::Exposed(config.listen.clone())) }
}

async fn listen(config: &MemberConfig) -> Result<(String, Incoming), MemberError> {
    let listening = config.transport.listen(config.listen.clone()).await;
    listening.map_err(|source| MemberError::Listen { address: config.listen.clone(), source })
}

/// Where others reach this member.
fn reachable_at(config: &MemberConfig, bound: &str) -> Result<String, MemberError> {
    let address = config.advertise.clone().unwrap_or_else(|| bound.to_owned());
    let anywhere = host_of(&address).parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or_default();
    if anywhere || port == 0 { Err(MemberError::NotReachable(address)) } else { Ok(address) }
}

async fn serve(door: Door, incoming: Incoming, closing: CancellationToken) -> Result<(), MemberError> {
    let serving = seams::server().serve_with_incoming_shutdown(door, incoming, closing.cancelled_owned());
    serving.await.map_err(|error| MemberError::Serve(error.to_string()))
}

/// A member on its way.
struct Life {
    config: MemberConfig,
    disk: MemberDisk,
    pending_file: PendingFile,
    address: String,
    health: HealthReporter,
    door: Door,
    closing: CancellationToken,
    running: Option<Running>,
}

impl Life {
    /// From an identity, or the way to one, to the end.
    async fn live(
        &mut self,
        known: Option<Identity>,
        pending: Option<Pending>,
        ready: impl FnOnce(Core) + Send,
    ) -> Result<(), MemberError> {
        let own = OwnIdentity::default();
        let peers = Peers::new(self.config.transport.clone(), self.config.secret.clone(), own.clone());
        // Whoever was started before may have voted: what is in its folder may be old.
        let returns = known.is_some();
        let identity = match (known, &pending) {
            (Some(identity), _) => identity,
            (None, pending) => self.new_identity(&peers, pending.as_ref()).await?,
        };
        own.set(PeerIdentity {
            cluster_id: identity.cluster_id.to_string(),
            epoch: identity.epoch,
            name: format!("member/{}", identity.node_id),
        });
        IdentityFile::of(&self.disk).claim().await?;
        let opened = sdm_raft_store::open(&self.disk).await?;
        let starts_file = StartsFile::of(&self.disk);
        let standing = Standing {
            incarnation: identity.incarnation.to_string(),
            address: self.address.clone(),
            starts: AtomicU64::new(starts_file.read().await?),
            ..Standing::default()
        };
        let running = Running::start(&self.config, opened, peers, standing, !returns, self.closing.clone()).await?;
        let running = self.running.insert(running);
        if returns && pending.is_none() && running.core.inner.standing.begin.log_end.is_none() {
            return Err(MemberError::LogGone);
        }
        let core = running.core.clone();
        self.door.let_raft(!returns);
        self.door.open(Stage::Inside, services::all(&core, &self.health));

        let taking_part = TakingPart { core: core.clone(), door: self.door.clone(), starts_file, returns };
        let via = match &self.config.start {
            Start::Join(via) => Some(via.clone()),
            Start::Bootstrap | Start::Resume => None,
        };
        let mut taking_part = std::pin::pin!(taking_part.begin(via));
        // One that returns and waits for the others shows what it knows meanwhile.
        let becoming = become_member(core.clone(), &identity, &self.address, pending, &self.pending_file);
        let mut becoming = std::pin::pin!(becoming);
        let mut takes_part = false;
        loop {
            tokio::select! {
                took = &mut taking_part, if !takes_part => {
                    took?;
                    takes_part = true;
                    running.may_elect();
                }
                became = &mut becoming => {
                    became?;
                    break;
                }
                failed = running.failed() => return Err(failed),
            }
        }
        self.door.admit(Stage::Open);
        running.serve(self.health.clone());
        tracing::info!(node = identity.node_id, name = identity.name, cluster = %identity.cluster_id, "this process is a member");
        ready(core);
        if !takes_part {
            tokio::select! {
                took = &mut taking_part => took?,
                failed = running.failed() => return Err(failed),
            }
            running.may_elect();
        }
        Err(running.failed().await)
    }

    async fn new_identity(&self, peers: &Peers, pending: Option<&Pending>) -> Result<Identity, MemberError> {
        let identity = match pending {
            None => return Err(MemberError::NothingThere(self.config.data_dir.clone())),
            Some(Pending::Founding) => founding::new_identity(&self.config.name),
            Some(Pending::Joining { via, incarnation, .. }) => {
                join::ask_for_id(peers, &self.config.name, via, &self.address, *incarnation).await?
            }
        };
        IdentityFile::of(&self.disk).write(&identity).await?;
        tracing::info!(node = identity.node_id, cluster = %identity.cluster_id, "the folder is this member's now");
        Ok(identity)
    }

    /// Ends what runs and lets the folder go.
    async fn end(self) {
        if let Some(running) = self.running {
            running.end().await;
            tracing::debug!("Raft and the loops have ended");
        }
        // Routes hold the core, and the core the folder.
        self.door.open(Stage::Outside, tonic::service::Routes::default());
    }
}

/// Finishes what is pending and waits until this member has its seat.
async fn become_member(
    core: Core,
    identity: &Identity,
    address: &str,
    pending: Option<Pending>,
    file: &PendingFile,
) -> Result<(), MemberError> {
    match &pending {
        Some(Pending::Founding) => founding::initialize(&core.inner.raft, identity, address).await?,
        Some(Pending::Joining { via, stay_learner, .. }) => {
            let role = join::ask_for_admission(&core, via, *stay_learner).await?;
            tracing::info!(role, "admitted");
        }
        None => {}
    }
    let mut leadership = core.inner.leadership.clone();
    if leadership.wait_for(|now| now.seats.contains_key(&identity.node_id)).await.is_err() {
        return Err(MemberError::Raft("it stopped".to_owned()));
    }
    if pending == Some(Pending::Founding) {
        founding::found(&core, identity, address).await?;
    }
    if pending.is_some() {
        file.clear().await?;
    }
    Ok(())
}

/// The way from a process that runs to one that votes and takes entries.
struct TakingPart {
    core: Core,
    door: Door,
    starts_file: StartsFile,
    /// It was started before.
    returns: bool,
}

impl TakingPart {
    async fn begin(self, via: Option<String>) -> Result<(), MemberError> {
        if self.returns {
            check_in::before_voting(&self.core, via.as_deref()).await.map_err(MemberError::Refused)?;
        }
        // Counted before anything is acknowledged: a copy of the folder from before counts fewer.
        let starts = &self.core.inner.standing.starts;
        let number = starts.load(Ordering::Acquire) + 1;
        self.starts_file.write(number).await?;
        starts.store(number, Ordering::Release);
        self.door.let_raft(true);
        tracing::info!(start = number, "this process takes part");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_raft_store::SimulatedDisk;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_member_without_a_seat_asks_whom_it_is_told_last_under_its_old_incarnation() {
        let disk = SimulatedDisk::new().start();
        let file = PendingFile::of(&disk);
        let incarnation = Uuid::from_u128(7);
        let joining = |via: &str, stay_learner| Pending::Joining { via: via.to_owned(), stay_learner, incarnation };
        file.write(joining("a:7400", false)).await.unwrap();
        let identity =
            Identity { node_id: 3, name: "c".to_owned(), incarnation, ..founding::new_identity(&"c".parse().unwrap()) };
        let config = |start| MemberConfig::new("c".parse().unwrap(), "c:7400", "in memory", start);

        let resumed = next_step(&config(Start::Resume), &disk, Some(&identity), &file).await.unwrap();
        assert_eq!(resumed, Some(joining("a:7400", false)));
        let mut elsewhere = config(Start::Join("b:7400".to_owned()));
        elsewhere.stay_learner = true;
        let next = next_step(&elsewhere, &disk, Some(&identity), &file).await.unwrap();
        assert_eq!(next, Some(joining("b:7400", true)));
        assert_eq!(file.read().await.unwrap(), next, "the next start knows it, too");
        // Once it has its seat, it is a member, whatever it is told.
        file.clear().await.unwrap();
        assert_eq!(next_step(&elsewhere, &disk, Some(&identity), &file).await.unwrap(), None);
    }
}
