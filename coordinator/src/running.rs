//! What runs while a member runs: Raft and the loops around it, started together and ended
//! together.

use crate::check_in;
use crate::check_in::Begin;
use crate::check_in::Standing;
use crate::collector::Collector;
use crate::comparing;
use crate::config::MemberConfig;
use crate::core::Core;
use crate::core::Inner;
use crate::ending::Ending;
use crate::error::MemberError;
use crate::forward::Lines;
use crate::forward::lifeline;
use crate::keepalive;
use crate::keepalive::Leases;
use crate::leadership::watch_leadership;
use crate::membership;
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
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use sdm_raft_store::Fatal;
use sdm_raft_store::Opened;
use sdm_raft_store::Payload;
use sdm_raft_store::Raft;
use sdm_raft_store::raft_config;
use sdm_raft_store::snapshot::drive_snapshots;
use sdm_state::Command;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

/// Raft and the loops around it.
pub(crate) struct Running {
    pub core: Core,
    raft: Raft,
    fatal: Fatal,
    loops: JoinSet<()>,
}

impl Running {
    /// Starts Raft on an opened disk.
    ///
    /// `standing`: what it says of itself to others. `votes`: whether it may stand for election at once;
    /// else when `may_elect` is called.
    pub async fn start(
        config: &MemberConfig,
        mut opened: Opened,
        peers: Peers,
        standing: Standing,
        votes: bool,
        closing: CancellationToken,
    ) -> Result<Self, MemberError> {
        let cluster = opened.identity.cluster_id.to_string();
        let settings =
            raft_config(&cluster, config.timing).map_err(|error| MemberError::Settings(error.to_string()))?;
        let settings = config.log_cut.applied_to((*settings).clone());
        let settings = Arc::new(openraft::Config { enable_elect: votes, ..settings });
        opened.snapshot_trigger.pays_from(config.log_cut.growth_bytes);
        let begin = begin_of(&mut opened).await.map_err(|error| MemberError::Raft(error.to_string()))?;
        let standing = Standing { begin, ..standing };
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
                lines: Lines::default(),
                stopwatch: Stopwatch::new(config.clock.clone()),
                shown_clock: ShownClock::default(),
                leases: Leases::default(),
                reads,
                renewals,
                reachability: Reachability::default(),
                standing,
                membership: tokio::sync::Mutex::default(),
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
        self.loops.spawn(membership::keeper::run(self.core.clone()));
        let core = self.core.clone();
        self.loops.spawn(async move {
            tokio::select! {
                reason = check_in::stay(&core) => core.inner.ending.end(reason),
                () = core.closing().cancelled() => {}
            }
        });
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

    /// It may stand for election from now on.
    pub fn may_elect(&mut self) {
        self.raft.runtime_config().elect(true);
        // It asks for elections of its own.
        self.loops.spawn(lifeline::run(self.core.clone()));
    }

    /// A leader that goes away names its successor, so that nobody waits for an election timeout.
    /// Without a fit one the others elect as after a crash.
    pub async fn hand_over(&self) {
        if let Some(successor) = membership::successor(&self.core) {
            membership::transfer(&self.core, successor).await;
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

/// Entries that are looked through at once.
const LOOK_ENTRIES: u64 = 1_000;

/// What the folder holds before Raft runs on it: its metrics tell that only after a while. Among it
/// the starts that members reported in entries which this member will not apply before it hears of a
/// leader: after a power cut of all, the newest report may stand there.
async fn begin_of(opened: &mut Opened) -> io::Result<Begin> {
    let log = opened.log_store.get_log_state().await?;
    let committed = opened.log_store.read_committed().await?.map(|id| id.index);
    let applied = opened.view.load().applied_index();
    let mut reader = opened.log_store.get_log_reader().await;
    let vote = reader.read_vote().await?.map(|vote| vote.leader_id);
    let log_end = log.last_log_id.map(|id| id.index).max(applied);
    let known = committed.max(applied).max(log.last_purged_log_id.map(|id| id.index));
    let mut from = known.map_or(0, |index| index + 1);
    let mut starts = BTreeMap::new();
    loop {
        let entries = reader.try_get_log_entries(from..from + LOOK_ENTRIES).await?;
        let Some(last) = entries.last() else {
            return Ok(Begin { log_end, vote, unapplied_starts: starts });
        };
        from = last.log_id.index + 1;
        for entry in &entries {
            let Payload::Normal(entry) = &entry.payload else { continue };
            if let Command::ReportStart { id, starts: number, .. } = &entry.command {
                let known = starts.entry(*id).or_insert(0);
                *known = (*known).max(*number);
            }
        }
    }
}
