//! The state after a given entry, built again from a stopped member's snapshot and log. Two members
//! that replay to the same index must come to the same hash.

use super::folder::StoppedError;
use super::folder::StoppedFolder;
use super::survey::each_entry;
use super::survey::log_range;
use crate::disk::FileReader;
use crate::snapshot::SnapshotError;
use crate::snapshot::SnapshotReader;
use crate::types::Payload;
use sdm_state::State;
use std::io;

/// Why a state cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The folder.
    #[error(transparent)]
    Stopped(#[from] StoppedError),
    /// Neither snapshot nor log reach there.
    #[error("entry {wanted} cannot be replayed to: the folder holds states from {from} to {to}")]
    OutOfReach {
        /// The entry asked for.
        wanted: u64,
        /// The earliest.
        from: u64,
        /// The latest.
        to: u64,
    },
    /// A snapshot does not read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// A state that was built.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The last entry in it.
    pub index: u64,
    /// The state.
    pub state: State,
    /// The snapshot it was built on, by its last entry.
    pub from_snapshot: Option<u64>,
    /// Entries applied after that.
    pub entries: u64,
    /// Index up to which the member knew entries to be committed. What lies beyond was perhaps
    /// acknowledged to nobody.
    pub committed: Option<u64>,
}

impl StoppedFolder {
    /// Builds the state after entry `to`; without it, after the last entry known to be committed.
    ///
    /// # Errors
    /// The folder does not open, or its snapshots and log do not reach that entry.
    pub async fn replay(&self, to: Option<u64>) -> Result<Replayed, ReplayError> {
        let mut opened = self.opened().await?;
        let range = log_range(&mut opened.log_store).await.map_err(|source| self.unread(source))?;
        let newest = opened.snapshots.current().and_then(|file| file.meta().last_log_id).map(|id| id.index);
        let committed = range.committed.max(newest);
        let to = to.or(committed).unwrap_or(0);
        let latest = range.last.max(newest).unwrap_or(0);
        let base = self.base(to).await?;
        let next = base.as_ref().map_or(0, |(index, _)| index.saturating_add(1));
        let earliest = range.purged.map_or(0, |purged| purged.saturating_add(1));
        if to > latest || (next <= to && next < earliest) {
            return Err(ReplayError::OutOfReach { wanted: to, from: self.earliest(earliest)?, to: latest });
        }
        let from_snapshot = base.as_ref().map(|(index, _)| *index);
        let mut state = base.map(|(_, state)| state).unwrap_or_default();
        let mut entries = 0;
        let applying = each_entry(&mut opened, next, to, |entry| {
            if let Payload::Normal(command) = &entry.payload {
                state.apply(entry.log_id.index, command);
            }
            entries += 1;
            true
        });
        applying.await.map_err(|source| self.unread(source))?;
        Ok(Replayed { index: to, state, from_snapshot, entries, committed })
    }

    /// The newest snapshot that ends at or before an entry.
    async fn base(&self, to: u64) -> Result<Option<(u64, State)>, ReplayError> {
        let files = self.disk.snapshots.clone();
        let load = move || {
            let mut fitting: Vec<(u64, String)> =
                snapshot_names(&files.names()?).into_iter().filter(|(index, _)| *index <= to).collect();
            fitting.sort_unstable();
            let Some((index, name)) = fitting.pop() else { return Ok(Ok(None)) };
            let reader = files.open(&name)?;
            Ok(load_state(reader.as_ref()).map(|state| Some((index, state))))
        };
        let loaded: Result<Option<(u64, State)>, SnapshotError> =
            self.disk.blocking(load).await.map_err(SnapshotError::Io)?;
        Ok(loaded?)
    }

    fn earliest(&self, in_log: u64) -> Result<u64, ReplayError> {
        let names = self.disk.snapshots.names().map_err(SnapshotError::Io)?;
        let snapshots = snapshot_names(&names).into_iter().map(|(index, _)| index);
        Ok(snapshots.min().unwrap_or(in_log))
    }
}

/// The state in a snapshot's file, once all of it was checked.
pub(super) fn load_state(file: &dyn FileReader) -> Result<State, SnapshotError> {
    let mut reader = SnapshotReader::begin(file)?;
    let state = State::from_rows(&mut reader);
    let (header, _) = reader.finish()?;
    let state = state?;
    if state.hash() != header.state_hash {
        return Err(SnapshotError::Damaged("its rows do not make the state that was saved"));
    }
    Ok(state)
}

/// Snapshots among these names, with the index of their last entry: `snap-TERM-NODE-INDEX`.
pub(super) fn snapshot_names(names: &[String]) -> Vec<(u64, String)> {
    let index = |name: &str| -> Option<u64> {
        let mut parts = name.strip_prefix("snap-")?.split('-');
        let (_, _, index) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(index)
    };
    names.iter().filter_map(|name| Some((index(name)?, name.clone()))).collect()
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        Self::Snapshot(SnapshotError::Io(error))
    }
}
