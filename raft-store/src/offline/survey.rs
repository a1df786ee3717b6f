//! What a stopped member's folder holds, in numbers, and its entries one by one.

use super::folder::StoppedError;
use super::folder::StoppedFolder;
use super::tables::table_counts;
use super::tables::value;
use crate::identity::Identity;
use crate::log::LogStore;
use crate::open::Opened;
use crate::types::LogEntry;
use crate::types::LogId;
use crate::types::Payload;
use openraft::storage::RaftLogReader;
use openraft::storage::RaftLogStorage;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;
use std::io;

/// Entries that are asked for at once; the log cuts by bytes.
const ENTRIES_AT_ONCE: u64 = 256;

/// Which entries the log holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LogRange {
    /// Index of the first entry; null when there is none.
    pub first: Option<u64>,
    /// Index of the last entry, or of the last one that was purged.
    pub last: Option<u64>,
    /// Index up to which entries are gone from the log because a snapshot holds them.
    pub purged: Option<u64>,
    /// Index up to which the member knew entries to be committed; it may lag.
    pub committed: Option<u64>,
    /// Term of the last entry.
    pub last_term: Option<u64>,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotSurvey {
    /// Index of the last entry in it.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Length of its file.
    pub bytes: u64,
    /// BLAKE3 of its file.
    pub blake3: String,
}

/// What a folder holds.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// Who the member is.
    pub identity: Identity,
    /// Term of its last vote.
    pub vote_term: Option<u64>,
    /// Whom it voted for.
    pub vote_node: Option<u64>,
    /// Its log.
    pub log: LogRange,
    /// Its newest snapshot.
    pub snapshot: Option<SnapshotSurvey>,
    /// Voters as of that snapshot.
    pub voters: Vec<u64>,
    /// Members as of that snapshot: id and address.
    pub members: BTreeMap<u64, String>,
    /// The cluster's clock in that snapshot, in milliseconds.
    pub clock_ms: u64,
    /// Hash of the state in that snapshot.
    pub state_hash: String,
    /// Rows of each table in that snapshot.
    pub tables: BTreeMap<&'static str, u64>,
}

impl StoppedFolder {
    /// Looks at what a member would start from.
    ///
    /// # Errors
    /// What would keep it from starting.
    pub async fn survey(&self) -> Result<Survey, StoppedError> {
        let mut opened = self.opened().await?;
        let log = log_range(&mut opened.log_store).await.map_err(|source| self.unread(source))?;
        let vote = opened.log_store.get_log_reader().await.read_vote().await.map_err(|source| self.unread(source))?;
        let view = opened.view.load();
        let membership = view.membership.membership();
        Ok(Survey {
            identity: opened.identity.clone(),
            vote_term: vote.map(|vote| vote.leader_id.term),
            vote_node: vote.map(|vote| vote.leader_id.node_id),
            log,
            snapshot: opened.snapshots.current().map(|file| SnapshotSurvey {
                index: file.meta().last_log_id.map_or(0, |id| id.index),
                term: file.meta().last_log_id.map_or(0, |id| id.leader_id.term),
                bytes: file.length(),
                blake3: hex(file.hash()),
            }),
            voters: membership.voter_ids().collect(),
            members: membership.nodes().map(|(id, node)| (*id, node.to_string())).collect(),
            clock_ms: view.state.meta.clock_ms,
            state_hash: hex(view.state.hash()),
            tables: table_counts(&view.state),
        })
    }

    /// Shows the entries `from..=to` of the log as JSON, in order, until `show` has enough.
    ///
    /// # Errors
    /// What would keep the member from starting; an entry that does not read.
    pub async fn entries(&self, from: u64, to: u64, mut show: impl FnMut(Value) -> bool) -> Result<(), StoppedError> {
        let mut opened = self.opened().await?;
        each_entry(&mut opened, from, to, |entry| show(entry_json(entry))).await.map_err(|source| self.unread(source))
    }

    pub(super) fn unread(&self, source: io::Error) -> StoppedError {
        StoppedError::Files { operation: "read the log in", path: self.path().to_owned(), source }
    }
}

pub(super) fn hex(hash: [u8; 32]) -> String {
    blake3::Hash::from_bytes(hash).to_hex().to_string()
}

pub(super) async fn log_range(log: &mut LogStore) -> io::Result<LogRange> {
    let state = log.get_log_state().await?;
    let committed = log.read_committed().await?;
    let index = |id: Option<LogId>| id.map(|id| id.index);
    let (purged, last) = (index(state.last_purged_log_id), index(state.last_log_id));
    let next = purged.map_or(0, |purged| purged.saturating_add(1));
    Ok(LogRange {
        first: last.filter(|last| *last >= next).map(|_| next),
        last,
        purged,
        committed: index(committed),
        last_term: state.last_log_id.map(|id| id.leader_id.term),
    })
}

/// Shows entries in order until there are no more or `visit` has enough.
pub(super) async fn each_entry(
    opened: &mut Opened,
    from: u64,
    to: u64,
    mut visit: impl FnMut(&LogEntry) -> bool,
) -> io::Result<()> {
    let range = log_range(&mut opened.log_store).await?;
    let (Some(first), Some(last)) = (range.first, range.last) else { return Ok(()) };
    let mut reader = opened.log_store.get_log_reader().await;
    let (mut next, end) = (from.max(first), to.min(last).saturating_add(1));
    while next < end {
        let entries = reader.try_get_log_entries(next..end.min(next.saturating_add(ENTRIES_AT_ONCE))).await?;
        if entries.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("entry {next} is missing")));
        }
        for entry in &entries {
            if entry.log_id.index != next {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("entry {next} is missing")));
            }
            if !visit(entry) {
                return Ok(());
            }
            next += 1;
        }
    }
    Ok(())
}

fn entry_json(entry: &LogEntry) -> Value {
    let id = &entry.log_id;
    let (kind, content) = match &entry.payload {
        Payload::Blank => ("blank", Value::Null),
        Payload::Normal(command) => (command.command.kind(), value(command)),
        Payload::Membership(membership) => {
            let voters: Vec<u64> = membership.voter_ids().collect();
            let members: BTreeMap<u64, String> = membership.nodes().map(|(id, node)| (*id, node.to_string())).collect();
            ("membership", json!({ "voters": voters, "members": members }))
        }
    };
    json!({
        "index": id.index,
        "term": id.leader_id.term,
        "leader": id.leader_id.node_id,
        "kind": kind,
        "entry": content,
    })
}
