//! The log on a real folder under the load of a long life: a million entries and more, in batches as
//! Raft appends them, with snapshots and purges as a member does them. Tells what the log takes of
//! disk and memory, how fast it is, how long its worst write took, and how long it takes to open
//! again.
//!
//! `cargo bench -p sdm-raft-store --bench churn -- ENTRIES [FOLDER]`

use openraft::storage::RaftLogStorage;
use openraft::storage::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use openraft::type_config::TypeConfigExt;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::PoolId;
use sdm_proto::ids::TxnId;
use sdm_raft_store::Identity;
use sdm_raft_store::IdentityFile;
use sdm_raft_store::IoFlushed;
use sdm_raft_store::LeaderId;
use sdm_raft_store::LogEntry;
use sdm_raft_store::LogId;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::Opened;
use sdm_raft_store::Payload;
use sdm_raft_store::TypeConfig;
use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use uuid::Uuid;

/// Entries of one append, as a leader under load makes them.
const APPEND_ENTRIES: u64 = 64;

/// Appends that wait for their callback: enough that batches form.
const APPENDS_WAITING: usize = 8;

/// Entries that stay behind a snapshot, as the member's Raft is configured.
const ENTRIES_KEPT: u64 = 10_000;

/// One line of the report for so many entries.
const REPORT_ENTRIES: u64 = 100_000;

/// One entry of so many is large.
const LARGE_ONE_OF: u64 = 200;

fn id(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index }
}

/// Bytes that an entry's text has: about 300 in all, some from 3 to 100 KiB.
fn text_bytes(index: u64) -> usize {
    let spread = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let bytes = if index.is_multiple_of(LARGE_ONE_OF) { 3 * 1024 + spread % (97 * 1024) } else { 150 + spread % 140 };
    usize::try_from(bytes).unwrap_or(0)
}

fn entry(index: u64) -> LogEntry {
    let reason: String = ('a'..='z').cycle().skip((index % 26) as usize).take(text_bytes(index)).collect();
    let txn = TxnId::from_uuid(Uuid::from_u128(u128::from(index)));
    let command = sdm_state::Command::Abort { txn, reason };
    LogEntry {
        log_id: id(index),
        payload: Payload::Normal(sdm_state::Entry { stamp_ms: index, entropy: [7; 16], command }),
    }
}

/// What is on the disk: the log's segments; the rest of the folder.
#[derive(Default)]
struct Space {
    database: u64,
    other: u64,
}

fn space(folder: &Path, into: &mut Space) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // A file may be replaced while it is looked at.
        let Ok(metadata) = entry.metadata() else { continue };
        let bytes = metadata.blocks() * 512;
        if metadata.is_dir() {
            space(&path, into)?;
        } else if path.parent().is_some_and(|parent| parent.ends_with("log")) {
            into.database += bytes;
        } else {
            into.other += bytes;
        }
    }
    Ok(())
}

/// A number of `/proc/self/status`, in KiB.
fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

struct Churn {
    folder: PathBuf,
    opened: Opened,
    waiting: VecDeque<(Instant, tokio::task::JoinHandle<Duration>)>,
    /// Sizes of the entries that are in the log.
    live: VecDeque<u64>,
    snapshots: u64,
    slowest: Duration,
}

impl Churn {
    async fn oldest_is_durable(&mut self) -> Result<(), Box<dyn Error>> {
        if let Some((_, told)) = self.waiting.pop_front() {
            self.slowest = self.slowest.max(told.await?);
        }
        Ok(())
    }

    async fn append(&mut self, from: u64) -> Result<(), Box<dyn Error>> {
        let entries: Vec<LogEntry> = (from..from + APPEND_ENTRIES).map(entry).collect();
        self.live.extend((from..from + APPEND_ENTRIES).map(|index| text_bytes(index) as u64 + 80));
        let began = Instant::now();
        let (done, told) = TypeConfig::oneshot();
        self.opened.log_store.append(entries.clone(), IoFlushed::signal(done)).await?;
        let told = async move {
            told.await.expect("told").expect("durable");
            began.elapsed()
        };
        self.waiting.push_back((began, tokio::spawn(told)));
        while self.waiting.len() >= APPENDS_WAITING {
            self.oldest_is_durable().await?;
        }
        let entries = futures_util::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
        self.opened.state_machine.apply(entries).await?;
        Ok(())
    }

    async fn snapshot(&mut self, last: u64) -> Result<(), Box<dyn Error>> {
        self.opened.state_machine.get_snapshot_builder().await.build_snapshot().await?;
        self.snapshots += 1;
        if let Some(upto) = last.checked_sub(ENTRIES_KEPT) {
            self.opened.log_store.purge(id(upto)).await?;
            let kept = usize::try_from(ENTRIES_KEPT)?;
            self.live.drain(..self.live.len().saturating_sub(kept));
        }
        Ok(())
    }

    fn report(&mut self, entries: u64, took: Duration) -> Result<(), Box<dyn Error>> {
        let mut used = Space::default();
        space(&self.folder, &mut used)?;
        println!(
            "{entries:>9} {:>9.1} {:>9.1} {:>7.1} {:>9.1} {:>9.0} {:>9.1} {:>9}",
            mib(self.live.iter().sum()),
            mib(used.database),
            mib(used.other),
            mib(status_kib("VmRSS:") * 1024),
            REPORT_ENTRIES as f64 / took.as_secs_f64(),
            self.slowest.as_secs_f64() * 1000.0,
            self.snapshots,
        );
        self.slowest = Duration::ZERO;
        Ok(())
    }
}

async fn open(folder: &Path) -> Result<Opened, Box<dyn Error>> {
    let disk = MemberDisk::open(folder).await?;
    let file = IdentityFile::of(&disk);
    if file.read().await?.is_none() {
        let identity = Identity {
            cluster_id: ClusterId::from_uuid(Uuid::from_u128(1)),
            pool_id: PoolId::from_uuid(Uuid::from_u128(2)),
            epoch: 1,
            node_id: 1,
            name: "churn".to_owned(),
            incarnation: Uuid::from_u128(3),
        };
        file.write(&identity).await?;
    }
    Ok(sdm_raft_store::open(&disk).await?)
}

async fn reopen(folder: &Path, what: &str) -> Result<Opened, Box<dyn Error>> {
    let began = Instant::now();
    let opened = open(folder).await?;
    println!("opened again {what} in {:.2} s", began.elapsed().as_secs_f64());
    Ok(opened)
}

async fn run(entries: u64, folder: &Path) -> Result<(), Box<dyn Error>> {
    let opened = open(folder).await?;
    let mut churn = Churn {
        folder: folder.to_owned(),
        opened,
        waiting: VecDeque::new(),
        live: VecDeque::new(),
        snapshots: 0,
        slowest: Duration::ZERO,
    };
    println!("  entries  live MiB    db MiB   other   RSS MiB entries/s  worst ms snapshots");
    let mut began = Instant::now();
    let mut next = 0;
    while next < entries {
        churn.append(next).await?;
        next += APPEND_ENTRIES;
        if churn.opened.snapshot_trigger.should_snapshot() {
            churn.snapshot(next - 1).await?;
        }
        if next % REPORT_ENTRIES < APPEND_ENTRIES {
            churn.report(next, began.elapsed())?;
            began = Instant::now();
        }
    }
    while !churn.waiting.is_empty() {
        churn.oldest_is_durable().await?;
    }
    println!("peak resident: {:.1} MiB", mib(status_kib("VmHWM:") * 1024));
    let closed = churn.opened.closed.clone();
    drop(churn);
    closed.wait().await;
    let opened = reopen(folder, "after an orderly end").await?;
    let closed = opened.closed.clone();
    drop(opened);
    closed.wait().await;
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let entries = arguments.next().map_or(Ok(1_000_000), |entries| entries.parse())?;
    let parent = arguments.next().map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = tempfile::Builder::new().prefix("churn-").tempdir_in(parent)?;
    run(entries, folder.path()).await
}
