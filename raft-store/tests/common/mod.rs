//! What the tests of this crate share: entries, identities, and a log in few words.

#![allow(dead_code)] // Each test file is a program of its own and uses its part.

use openraft::storage::RaftLogReader;
use openraft::storage::RaftLogStorage;
use openraft::storage::RaftLogStorageExt;
use openraft::storage::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use openraft::type_config::TypeConfigExt;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::PoolId;
use sdm_raft_store::Identity;
use sdm_raft_store::IdentityFile;
use sdm_raft_store::IoFlushed;
use sdm_raft_store::LeaderId;
use sdm_raft_store::LogEntry;
use sdm_raft_store::LogId;
use sdm_raft_store::LogStore;
use sdm_raft_store::MemberDisk;
use sdm_raft_store::MemberNode;
use sdm_raft_store::Membership;
use sdm_raft_store::OpenError;
use sdm_raft_store::Opened;
use sdm_raft_store::Payload;
use sdm_raft_store::SnapshotFile;
use sdm_raft_store::StateMachine;
use sdm_raft_store::TypeConfig;
use sdm_raft_store::Vote;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::ops::Range;
use tokio::sync::oneshot;
use uuid::Uuid;

pub fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, node_id: 1 }, index }
}

pub fn vote(term: u64) -> Vote {
    Vote { leader_id: LeaderId { term, node_id: 1 }, committed: false }
}

pub fn blank(term: u64, index: u64) -> LogEntry {
    LogEntry { log_id: id(term, index), payload: Payload::Blank }
}

pub fn blanks(term: u64, indexes: Range<u64>) -> Vec<LogEntry> {
    indexes.map(|index| blank(term, index)).collect()
}

/// An entry of about so many bytes.
pub fn large(term: u64, index: u64, bytes: usize) -> LogEntry {
    let address: String = ('a'..='z').cycle().skip(index as usize % 26).take(bytes).collect();
    let nodes = BTreeMap::from([(1, MemberNode { name: "n".to_owned(), address })]);
    let membership = Membership::new(vec![BTreeSet::from([1])], nodes).expect("valid");
    LogEntry { log_id: id(term, index), payload: Payload::Membership(membership) }
}

pub fn identity(node_id: u64) -> Identity {
    Identity {
        cluster_id: ClusterId::from_uuid(Uuid::from_u128(1)),
        pool_id: PoolId::from_uuid(Uuid::from_u128(2)),
        epoch: 0,
        node_id,
        name: format!("member-{node_id}"),
        incarnation: Uuid::from_u128(u128::from(node_id)),
    }
}

/// Opens the disk of a member, which it becomes if it was nobody's.
pub async fn open(disk: &MemberDisk, node_id: u64) -> Result<Opened, OpenError> {
    let file = IdentityFile::of(disk);
    if file.read().await?.is_none() {
        file.write(&identity(node_id)).await?;
    }
    sdm_raft_store::open(disk).await
}

/// Appends and returns what tells when it is durable.
pub async fn submit(log: &mut LogStore, entries: Vec<LogEntry>) -> oneshot::Receiver<io::Result<()>> {
    let (done, told) = TypeConfig::oneshot();
    let (bridge, finished) = oneshot::channel();
    log.append(entries, IoFlushed::signal(done)).await.expect("accepted");
    tokio::spawn(async move { bridge.send(told.await.expect("told")) });
    finished
}

/// Appends and waits until it is durable.
pub async fn append(log: &mut LogStore, entries: Vec<LogEntry>) {
    log.blocking_append(entries).await.expect("durable");
}

pub async fn read(log: &mut LogStore, indexes: Range<u64>) -> Vec<LogEntry> {
    log.get_log_reader().await.try_get_log_entries(indexes).await.expect("readable")
}

pub async fn indexes(log: &mut LogStore) -> Vec<u64> {
    read(log, 0..u64::MAX).await.iter().map(|entry| entry.log_id.index).collect()
}

/// Applies entries that nobody waits for.
pub async fn apply(state_machine: &mut StateMachine, entries: Vec<LogEntry>) {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    state_machine.apply(futures_util::stream::iter(entries)).await.expect("applied");
}

/// Applies entries and takes a snapshot.
pub async fn snapshot(state_machine: &mut StateMachine, entries: Vec<LogEntry>) -> SnapshotFile {
    apply(state_machine, entries).await;
    let mut builder = state_machine.get_snapshot_builder().await;
    builder.build_snapshot().await.expect("built").snapshot
}

/// An entry with a command that always can be applied.
pub fn tick(term: u64, index: u64) -> LogEntry {
    let command = sdm_state::Command::Tick;
    let entry = sdm_state::Entry { stamp_ms: index * 1000, entropy: [0; 16], command };
    LogEntry { log_id: id(term, index), payload: Payload::Normal(entry) }
}

pub async fn saved_vote(log: &mut LogStore) -> Option<Vote> {
    log.get_log_reader().await.read_vote().await.expect("readable")
}

/// The key of an entry's first piece.
pub fn key(index: u64) -> Vec<u8> {
    [b"l".as_slice(), &index.to_be_bytes(), &[0, 0]].concat()
}

/// Lets every task run until all of them wait.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Waits for a condition that other tasks bring about.
pub async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    while !condition().await {
        tokio::task::yield_now().await;
    }
}

/// Ends a member in order, so that all it wrote is durable and witnessed.
pub async fn close(opened: Opened) {
    let closed = opened.closed.clone();
    drop(opened);
    closed.wait().await;
}
