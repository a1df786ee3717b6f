//! What a seed draws before anything runs: how large the cluster is, how fast its links and timers are, who works on it,
//! for how long. The faults are drawn while it runs (`nemesis`).

use anyhow::Result;
use anyhow::bail;
use clap::ValueEnum;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sdm_raft_store::raft::LogCut;
use sdm_raft_store::raft::RaftTiming;
use std::time::Duration;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Locks and requests that are refused; no worker
    Locks,
    /// The same, and disks on domains that several workers share
    Disks,
}

/// A defect that must be found: the first three of what the product stands on, planted in the simulation, all others of
/// the product itself, in a build with the feature `planted` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Planted {
    /// A power cut takes the newest batches of the log that were synced: as if the log was not
    LyingDisk,
    /// One rename of forty on the storage is answered, and not done
    LostRename,
    /// Leases are counted on a clock that jumps, instead of one that only runs
    JumpingClock,
    /// The log is not made durable; its witness is
    LogNotSynced,
    /// Neither the log nor its witness is made durable
    NothingSynced,
    /// A vote is answered before it is written anywhere
    VoteNotSynced,
    /// What a majority has not confirmed within 200 ms is acknowledged all the same
    AcknowledgeEarly,
    /// A report of a closed attempt counts as one of the attempt that followed
    ClosedReport,
    /// Names of attempts are garbage as soon as the attempt is assigned
    CollectRunning,
    /// A disk is shown whose placement was never published
    VisibleEarly,
    /// The next attempt gets the names of the one before
    NamesAgain,
    /// Snapshots leave out locks, and so who holds which token
    SnapshotForgetsTokens,
    /// Snapshots leave out finished transactions, and so their request ids
    SnapshotForgetsRequests,
    /// Members answer reads from what they have, whether or not the leader still leads
    ReadWithoutIndex,
    /// A session is renewed while its expiry is on its way
    KeepaliveExpiring,
    /// The leader renews sessions without making sure that it still leads
    KeepaliveUnconfirmed,
    /// A new leader does not give everyone the full lease again
    LeaseNotRenewed,
    /// A member that was removed is let in, and told nothing
    RemovedStays,
}

impl Planted {
    /// As the command line has it.
    pub fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The failpoints of the product at which it is planted; none for one of the simulation itself.
    fn failpoints(self) -> &'static [&'static str] {
        match self {
            Planted::LyingDisk | Planted::LostRename | Planted::JumpingClock => &[],
            Planted::LogNotSynced => &["log.fdatasync=skip"],
            Planted::NothingSynced => &["log.fdatasync=skip", "witness.fdatasync=skip"],
            Planted::VoteNotSynced => &["plant.vote-in-memory=skip"],
            Planted::AcknowledgeEarly => &["plant.acknowledge-early=skip"],
            Planted::ClosedReport => &["plant.closed-report=skip"],
            Planted::CollectRunning => &["plant.collect-running=skip"],
            Planted::VisibleEarly => &["plant.visible-early=skip"],
            Planted::NamesAgain => &["plant.names-again=skip"],
            Planted::SnapshotForgetsTokens => &["plant.snapshot-tokens=skip"],
            Planted::SnapshotForgetsRequests => &["plant.snapshot-requests=skip"],
            Planted::ReadWithoutIndex => &["plant.read-index=skip"],
            Planted::KeepaliveExpiring => &["plant.keepalive-expiring=skip"],
            Planted::KeepaliveUnconfirmed => &["plant.keepalive-unconfirmed=skip"],
            Planted::LeaseNotRenewed => &["plant.lease-not-renewed=skip"],
            Planted::RemovedStays => &["plant.removed-stays=skip"],
        }
    }

    /// Plants it in this process.
    ///
    /// # Errors
    /// The product of this build has no place for it.
    pub fn plant(self) -> Result<()> {
        for plan in self.failpoints() {
            if !arm(plan) {
                bail!(
                    "this build plants no bugs in the product: cargo run --release -p chaos-tests --features planted -- ..."
                );
            }
        }
        Ok(())
    }
}

#[cfg(feature = "planted")]
fn arm(plan: &str) -> bool {
    sdm_proto::failpoint::arm(plan)
}

#[cfg(not(feature = "planted"))]
fn arm(_plan: &str) -> bool {
    false
}

impl Workload {
    /// As the command line has it.
    pub fn word(self) -> &'static str {
        match self {
            Workload::Locks => "locks",
            Workload::Disks => "disks",
        }
    }
}

/// One seed's configuration.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What the clients do.
    pub workload: Workload,
    /// A defect that must be found.
    pub planted: Option<Planted>,
    /// Members at first, m1 and on.
    pub members: usize,
    /// Machines beyond those, on which members are started later.
    pub spares: usize,
    /// Workers, w1 and on.
    pub workers: usize,
    /// Hosts with clients, c1 and on.
    pub client_hosts: usize,
    /// Raft's timers.
    pub timing: RaftTiming,
    /// When members cut their logs.
    pub log_cut: LogCut,
    /// Shortest and longest way of a message.
    pub latency: (Duration, Duration),
    /// How long a sync of a member's log takes.
    pub sync_time: Duration,
    /// Longest call of the storage; most are far shorter.
    pub call_time: Duration,
    /// How long clients work under faults.
    pub work_time: Duration,
    /// Mean pause between two faults.
    pub fault_pause: Duration,
}

impl Plan {
    /// What this seed draws.
    pub fn draw(seed: u64, workload: Workload) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let members = *pick(&mut random, &[3, 3, 3, 3, 3, 3, 4, 4, 5, 7]);
        // With more, a run takes too long.
        let spares = if members > 5 { 0 } else { *pick(&mut random, &[0, 1, 1]) };
        let workers = match workload {
            Workload::Locks => 0,
            Workload::Disks => random.random_range(2..=3),
        };
        let timing = *pick(
            &mut random,
            &[
                RaftTiming { heartbeat_ms: 100, election_min_ms: 500, election_max_ms: 1_000 },
                RaftTiming { heartbeat_ms: 150, election_min_ms: 1_000, election_max_ms: 2_000 },
            ],
        );
        let shortest = random.random_range(1..=3);
        let log_cut = *pick(
            &mut random,
            &[
                LogCut { growth_bytes: 8 << 10, entries_kept: 0, purge_entries: 1 },
                LogCut { growth_bytes: 32 << 10, entries_kept: 20, purge_entries: 10 },
                LogCut { growth_bytes: 64 << 10, entries_kept: 0, purge_entries: 50 },
                LogCut { growth_bytes: 128 << 10, entries_kept: 200, purge_entries: 100 },
                LogCut::default(),
            ],
        );
        let ms = Duration::from_millis;
        Self {
            seed,
            workload,
            planted: None,
            members,
            spares,
            workers,
            client_hosts: random.random_range(1..=3),
            timing,
            log_cut,
            latency: (ms(shortest), ms(shortest + random.random_range(1..=25))),
            sync_time: ms(random.random_range(0..=12)),
            call_time: ms(*pick(&mut random, &[0, 2, 8, 40])),
            work_time: ms(random.random_range(20_000..=36_000)),
            fault_pause: ms(random.random_range(1_200..=4_000)),
        }
    }

    /// Names of the machines for members.
    pub fn member_names(&self) -> Vec<String> {
        (1..=self.members + self.spares).map(|n| format!("m{n}")).collect()
    }

    /// Names of the workers.
    pub fn worker_names(&self) -> Vec<String> {
        (1..=self.workers).map(|n| format!("w{n}")).collect()
    }

    /// Names of the hosts with clients.
    pub fn client_names(&self) -> Vec<String> {
        (1..=self.client_hosts).map(|n| format!("c{n}")).collect()
    }

    /// Where members are reached.
    pub fn addresses(&self) -> Vec<String> {
        self.member_names().iter().map(|name| format!("{name}:{MEMBER_PORT}")).collect()
    }

    /// Short, for the history.
    pub fn words(&self) -> String {
        format!(
            "{} members and {} spare, {} workers, {} client hosts, election {}..{} ms, latency {}..{} ms, sync {} ms, storage {} ms, {} s of work, a fault every {} ms, log cut from {} KiB on, {} entries kept",
            self.members,
            self.spares,
            self.workers,
            self.client_hosts,
            self.timing.election_min_ms,
            self.timing.election_max_ms,
            self.latency.0.as_millis(),
            self.latency.1.as_millis(),
            self.sync_time.as_millis(),
            self.call_time.as_millis(),
            self.work_time.as_secs(),
            self.fault_pause.as_millis(),
            self.log_cut.growth_bytes >> 10,
            self.log_cut.entries_kept
        )
    }
}

/// Where every member listens.
pub const MEMBER_PORT: u16 = 7400;

/// Where every worker listens.
pub const WORKER_PORT: u16 = 7500;

/// One of them. None of the lists is empty.
pub fn pick<'a, T>(random: &mut StdRng, of: &'a [T]) -> &'a T {
    &of[random.random_range(0..of.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_another_seed_something_else() {
        let words = |seed| Plan::draw(seed, Workload::Disks).words();
        assert_eq!(words(7), words(7));
        assert!((0..10).any(|seed| words(seed) != words(7)));
    }
}
