//! What runs while a member runs: Raft and the loops around it, started together and ended
//! together.

use crate::collector::Collector;
use crate::comparing;
use crate::config::MemberConfig;
use crate::core::Core;
use crate::core::Inner;
use crate::ending::Ending;
use crate::error::MemberError;
use crate::keepalive;
use crate::keepalive::Leases;
use crate::leadership::watch_leadership;
use crate::peers::Peers;
use crate::raft::PeerNetwork;
use crate::reachability::Reachability;
use crate::read;
use crate::report;
use crate::rounds;
use crate::rounds::Rounds;
use crate::services;
use crate::shown_clock;
use crate::shown_clock::ShownClock;
use crate::stopwatch::Stopwatch;
use crate::timekeeper;
use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use sdm_raft_store::Fatal;
use sdm_raft_store::NodeId;
use sdm_raft_store::Opened;
use sdm_raft_store::Raft;
use sdm_raft_store::raft_config;
use sdm_raft_store::snapshot::drive_snapshots;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

/// How long handing over the leadership may take: one vote round and a heartbeat.
const HAND_OVER_TIME: Duration = Duration::from_secs(2);

/// A successor must have answered a heartbeat within this time.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// Raft and the loops around it.
pub(crate) struct Running {
    pub core: Core,
    raft: Raft,
    fatal: Fatal,
    loops: JoinSet<()>,
}

impl Running {
    /// Starts Raft on an opened disk.
    pub async fn start(
        config: &MemberConfig,
        opened: Opened,
        peers: Peers,
        closing: CancellationToken,
    ) -> Result<Self, MemberError> {
        let cluster = opened.identity.cluster_id.to_string();
        let settings =
            raft_config(&cluster, config.timing).map_err(|error| MemberError::Settings(error.to_string()))?;
        let network = PeerNetwork::new(peers.clone());
        let node_id = opened.identity.node_id;
        let starting = Raft::new(node_id, settings, network, opened.log_store, opened.state_machine).await;
        let raft = starting.map_err(|error| match opened.fatal.get() {
            Some(fatal) => MemberError::Disk(fatal),
            None => MemberError::Raft(error.to_string()),
        })?;

        let mut loops = JoinSet::new();
        let (leadership, follow) = watch_leadership(&raft);
        loops.spawn(follow);
        loops.spawn(drive_snapshots(raft.clone(), opened.snapshot_trigger));
        let (reads, readers) = Rounds::new();
        let (renewals, renewers) = Rounds::new();
        let core = Core {
            inner: Arc::new(Inner {
                name: config.name.clone(),
                node_id,
                raft: raft.clone(),
                view: opened.view,
                snapshots: opened.snapshots,
                leadership,
                clock: config.clock.clone(),
                peers,
                stopwatch: Stopwatch::new(config.clock.clone()),
                shown_clock: ShownClock::default(),
                leases: Leases::default(),
                reads,
                renewals,
                reachability: Reachability::default(),
                ending: Ending::default(),
                closing: closing.clone(),
            }),
        };
        let asked = core.clone();
        loops.spawn(rounds::drive(readers, closing.clone(), move |_, deadline| read::round(asked.clone(), deadline)));
        let asked = core.clone();
        loops.spawn(rounds::drive(renewers, closing, move |sessions, deadline| {
            keepalive::round(asked.clone(), sessions, deadline)
        }));
        loops.spawn(timekeeper::run(core.clone()));
        loops.spawn(shown_clock::run(core.clone()));
        loops.spawn(comparing::run(core.clone()));
        Ok(Self { core, raft, fatal: opened.fatal, loops })
    }

    /// Starts what a member does once it is one.
    pub fn serve(&mut self, health: HealthReporter) {
        self.loops.spawn(services::health::run(self.core.clone(), health));
        self.loops.spawn(report::run(self.core.clone()));
        self.loops.spawn(Collector::new(self.core.clone()).run());
    }

    /// Waits until the member cannot go on.
    pub async fn failed(&mut self) -> MemberError {
        let mut leadership = self.core.inner.leadership.clone();
        let raft_ended = async { while leadership.changed().await.is_ok() {} };
        tokio::select! {
            fatal = self.fatal.wait() => MemberError::Disk(fatal),
            reason = self.core.inner.ending.wait() => MemberError::Refused(reason),
            () = raft_ended => match self.fatal.get() {
                Some(fatal) => MemberError::Disk(fatal),
                None => MemberError::Raft("it stopped by itself".to_owned()),
            },
        }
    }

    /// A leader that goes away names its successor, so that nobody waits for an election timeout.
    /// Without a fit one the others elect as after a crash.
    pub async fn hand_over(&self) {
        let successor = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let voters: Vec<NodeId> = metrics.membership_config.membership().voter_ids().collect();
            let heard = |id: &NodeId| {
                let acked = metrics.heartbeat.as_ref().and_then(|all| all.get(id)?.as_ref());
                acked.is_some_and(|at| at.elapsed() < HEARD_WITHIN)
            };
            let followers = metrics.replication.iter().flatten();
            let fit = followers.filter(|(id, _)| **id != metrics.id && voters.contains(id) && heard(id));
            fit.max_by_key(|(_, matched)| matched.map(|at| at.index)).map(|(id, _)| *id)
        };
        let Some(successor) = successor.filter(|_| self.core.inner.leadership.borrow().own.is_some()) else { return };
        tracing::info!(successor, "handing over the leadership");
        let mut leadership = self.core.inner.leadership.clone();
        if self.raft.trigger().transfer_leader(successor).await.is_ok() {
            let over = leadership.wait_for(|now| now.own.is_none() && now.leader == Some(successor));
            let handed = tokio::time::timeout(HAND_OVER_TIME, over).await;
            tracing::info!(successor, handed = matches!(handed, Ok(Ok(_))), "the leadership");
        }
    }

    /// Ends everything. The closing token is cancelled already.
    pub async fn end(mut self) {
        if self.raft.shutdown().await.is_err() {
            tracing::warn!("Raft did not end in order");
        }
        // None of them leaves anything half done.
        self.loops.shutdown().await;
    }
}
