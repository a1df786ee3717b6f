//! What a seed draws before anything runs: how large the cluster is, how fast its links and timers are, who works on it,
//! for how long. The faults are drawn while it runs (`nemesis`).

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
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

/// A defect of what the product stands on, planted in the simulation, that must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Planted {
    /// A power cut takes the newest batches of the log that were synced: as if the log was not
    LyingDisk,
    /// One rename of forty on the storage is answered, and not done
    LostRename,
}

impl Planted {
    /// As the command line has it.
    pub fn word(self) -> &'static str {
        match self {
            Planted::LyingDisk => "lying-disk",
            Planted::LostRename => "lost-rename",
        }
    }
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
    /// Members, m1 and on.
    pub members: usize,
    /// Workers, w1 and on.
    pub workers: usize,
    /// Hosts with clients, c1 and on.
    pub client_hosts: usize,
    /// Raft's timers.
    pub timing: RaftTiming,
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
        let members = *pick(&mut random, &[3, 3, 3, 5]);
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
        let ms = Duration::from_millis;
        Self {
            seed,
            workload,
            planted: None,
            members,
            workers,
            client_hosts: random.random_range(1..=3),
            timing,
            latency: (ms(shortest), ms(shortest + random.random_range(1..=25))),
            sync_time: ms(random.random_range(0..=12)),
            call_time: ms(*pick(&mut random, &[0, 2, 8, 40])),
            work_time: ms(random.random_range(30_000..=50_000)),
            fault_pause: ms(random.random_range(1_500..=6_000)),
        }
    }

    /// Names of the members.
    pub fn member_names(&self) -> Vec<String> {
        (1..=self.members).map(|n| format!("m{n}")).collect()
    }

    /// Names of the workers.
    pub fn worker_names(&self) -> Vec<String> {
        (1..=self.workers).map(|n| format!("w{n}")).collect()
    }

    /// Names of the hosts with clients.
    pub fn client_names(&self) -> Vec<String> {
        (1..=self.client_hosts).map(|n| format!("c{n}")).collect()
    }

    /// Where the members are reached.
    pub fn addresses(&self) -> Vec<String> {
        self.member_names().iter().map(|name| format!("{name}:{MEMBER_PORT}")).collect()
    }

    /// Short, for the history.
    pub fn words(&self) -> String {
        format!(
            "{} members, {} workers, {} client hosts, election {}..{} ms, latency {}..{} ms, sync {} ms, storage {} ms, {} s of work, a fault every {} ms",
            self.members,
            self.workers,
            self.client_hosts,
            self.timing.election_min_ms,
            self.timing.election_max_ms,
            self.latency.0.as_millis(),
            self.latency.1.as_millis(),
            self.sync_time.as_millis(),
            self.call_time.as_millis(),
            self.work_time.as_secs(),
            self.fault_pause.as_millis()
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
