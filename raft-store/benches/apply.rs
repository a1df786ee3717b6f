//! What `apply` costs in a small and in a large state, and what its longest pause is while a
//! snapshot of the large one is written. The state machine runs here by itself: no log, no network,
//! so that nothing else is measured.
//!
//! `cargo bench -p sdm-raft-store --bench apply -- [VOLUMES [FOLDER]]`; `SDM_BENCH_BETWEEN_US=0` applies without
//! a rest between two entries.

#[path = "apply/operations.rs"]
mod operations;

use futures_util::stream;
use openraft::storage::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use operations::Operations;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::PoolId;
use sdm_raft_store::Identity;
use sdm_raft_store::LeaderId;
use sdm_raft_store::LogEntry;
use sdm_raft_store::LogId;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::Opened;
use sdm_raft_store::Payload;
use sdm_raft_store::StateMachine;
use sdm_raft_store::seed_folder;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::State;
use sdm_state::command::AddMember;
use sdm_state::command::Found;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::fill::Fill;
use sdm_state::members::FEATURE_LEVEL_MAX;
use sdm_state::settings::Settings;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;
use uuid::Uuid;

/// Volumes of a disk.
const CHAIN: u64 = 10;

/// The small state that the large one is compared with.
const SMALL_VOLUMES: u64 = 1_000;

/// Requests that wait in the states with waiting ones.
const WAITING: u64 = 9_000;

/// Time for which the pauses of `apply` are watched without a snapshot.
const WATCHED: Duration = Duration::from_secs(3);

fn identity() -> Identity {
    Identity {
        cluster_id: ClusterId::from_uuid(Uuid::from_u128(1)),
        pool_id: PoolId::from_uuid(Uuid::from_u128(2)),
        epoch: 1,
        node_id: 1,
        name: "m1".to_owned(),
        incarnation: Uuid::from_u128(3),
    }
}

fn state(volumes: u64, waiting: u64) -> State {
    let member = AddMember {
        name: "m1".parse().expect("a name"),
        address: "127.0.0.1:1".to_owned(),
        incarnation: identity().incarnation.to_string(),
        version: "bench".to_owned(),
        feature_level_max: FEATURE_LEVEL_MAX,
    };
    let (cluster_id, pool_id, epoch) = (identity().cluster_id, identity().pool_id, identity().epoch);
    let found = Found { cluster_id, pool_id, epoch, member, settings: Settings::default() };
    let disks = (volumes / CHAIN).max(1);
    Fill { volumes, disks, domains: 4, waiting }.state(found).expect("such a state")
}

/// The median of each operation, in a small and a large state, without and with waiting requests.
fn costs(volumes: u64) {
    let shapes = [(SMALL_VOLUMES, 0), (volumes, 0), (SMALL_VOLUMES, WAITING), (volumes, WAITING)];
    let columns = shapes.map(|(volumes, waiting)| Operations::of(state(volumes, waiting)).medians());
    println!("median time of apply, in microseconds:");
    println!(
        "{:<34} {:>9} {:>9} {:>6}   {:>9} {:>9}",
        "operation", SMALL_VOLUMES, volumes, "ratio", "waiting", "waiting"
    );
    for (name, small) in &columns[0] {
        let of = |column: usize| columns[column].get(name).copied().unwrap_or_default();
        println!("{name:<34} {small:>9.1} {:>9.1} {:>6.2}   {:>9.1} {:>9.1}", of(1), of(1) / small, of(2), of(3));
    }
}

/// Between two entries: a thread that never sleeps is one that the kernel makes wait.
const BETWEEN: Duration = Duration::from_micros(50);

fn between() -> Duration {
    let asked = std::env::var("SDM_BENCH_BETWEEN_US").ok().and_then(|text| text.parse().ok());
    asked.map_or(BETWEEN, Duration::from_micros)
}

/// Applies session entries one at a time, as a member that keeps up does, and times each.
struct Pauses {
    machine: StateMachine,
    index: u64,
    between: Duration,
    /// How long each took, and how much of that this thread waited for a processor.
    times: Vec<(Duration, Duration)>,
}

/// How long this thread was ready to run and did not, since it began.
fn waited_for_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

impl Pauses {
    async fn step(&mut self) {
        self.index += 1;
        let owner = SessionOwner::Client("pauses".to_owned());
        let command = Command::OpenSession(OpenSession { owner, ttl_ms: 3_000, nonce: self.index.to_string() });
        // Sessions come and go, so that the state keeps its size.
        let last = sdm_state::command::SessionRef { id: self.index - 1, epoch: self.index - 1 };
        let command = if self.index.is_multiple_of(2) { command } else { Command::CloseSession(last) };
        let entry = Entry { stamp_ms: self.index, entropy: [1; 16], command };
        let log_id = LogId { leader_id: LeaderId { term: 2, node_id: 1 }, index: self.index };
        let entry = LogEntry { log_id, payload: Payload::Normal(entry) };
        if !self.between.is_zero() {
            std::thread::sleep(self.between);
        }
        let before = waited_for_processor();
        let begun = Instant::now();
        self.machine.apply(stream::iter([Ok((entry, None))])).await.expect("applied");
        let took = begun.elapsed();
        self.times.push((took, waited_for_processor().saturating_sub(before)));
    }

    fn told(&mut self, when: &str) {
        self.times.sort_unstable();
        let at = |share: f64| self.times[((self.times.len() as f64 * share) as usize).min(self.times.len() - 1)].0;
        let own = self.times.iter().map(|(took, waited)| took.saturating_sub(*waited)).max().unwrap_or_default();
        println!(
            "{when:<26} {:>7} entries, median {:.1?}, p99.9 {:.1?}, longest {:.1?}, without waits for a processor {own:.1?}",
            self.times.len(),
            at(0.5),
            at(0.999),
            at(1.0)
        );
        self.times.clear();
    }
}

async fn pauses(volumes: u64, folder: &Path) {
    let disk = MemberDisk::open(folder).await.expect("a folder");
    let begun = Instant::now();
    let seeded = seed_folder(&disk, &identity(), "127.0.0.1:1", state(volumes, 0)).await.expect("seeded");
    println!("state made and written: {:.2?}, {} bytes", begun.elapsed(), seeded.snapshot_bytes);
    let begun = Instant::now();
    let opened = sdm_raft_store::open(&disk).await.expect("opens");
    println!("opened: {:.2?}", begun.elapsed());
    let Opened { state_machine: machine, view, .. } = opened;
    let mut pauses =
        Pauses { machine, index: view.load().state.applied_index() + 2, between: between(), times: Vec::new() };
    let until = Instant::now() + WATCHED;
    while Instant::now() < until {
        pauses.step().await;
    }
    pauses.told("without a snapshot:");
    for number in 1..=3 {
        let mut builder = pauses.machine.get_snapshot_builder().await;
        let begun = Instant::now();
        let mut building = tokio::spawn(async move { builder.build_snapshot().await.map(|_| ()) });
        while !building.is_finished() {
            pauses.step().await;
        }
        (&mut building).await.expect("no panic").expect("built");
        let took = begun.elapsed();
        // The old version of the maps is let go about now.
        let until = Instant::now() + WATCHED / 3;
        while Instant::now() < until {
            pauses.step().await;
        }
        pauses.told(&format!("snapshot {number} in {took:.2?}:"));
    }
}

fn main() {
    // Cargo passes --bench.
    let mut asked = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let volumes = asked.next().map_or(1_000_000, |text| text.parse().expect("a number of volumes"));
    let given = asked.next().map(std::path::PathBuf::from);
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let folder = given.unwrap_or_else(|| temporary.path().join("member"));
    costs(volumes);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(pauses(volumes, &folder));
}
