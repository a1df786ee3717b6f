//! Checking a stopped member's folder: everything that is written in it is read and decoded, and
//! what contradicts itself is named. One damage does not hide another where both can be found.

use super::folder::StoppedError;
use super::folder::StoppedFolder;
use super::replay::load_state;
use super::replay::snapshot_names;
use super::survey::each_entry;
use super::survey::log_range;
use crate::types::Payload;
use std::io;

/// Broken invariants that are named.
const NAMED_MAX: usize = 8;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Snapshots that are whole, by their last entry.
    pub snapshots: Vec<u64>,
    /// Entries that were read and decoded.
    pub entries: u64,
    /// The last of them, or the last that was purged.
    pub last: Option<u64>,
    /// What is wrong; empty when nothing is.
    pub problems: Vec<String>,
}

impl StoppedFolder {
    /// Checks everything. What it finds wrong is an answer, not an error.
    ///
    /// # Errors
    /// The snapshots cannot even be listed.
    pub async fn verify(&self) -> Result<Verdict, StoppedError> {
        let mut verdict = Verdict::default();
        let files = self.disk.snapshots.clone();
        let names = files.names().map_err(|source| self.unread(source))?;
        for (index, name) in snapshot_names(&names) {
            let (files, opened) = (files.clone(), name.clone());
            let checked = self.disk.blocking(move || {
                let file = files.open(&opened)?;
                let state = load_state(file.as_ref()).map_err(io::Error::from)?;
                Ok(sdm_state::invariants::check(&state).err().unwrap_or_default())
            });
            match checked.await {
                Ok(broken) if broken.is_empty() => verdict.snapshots.push(index),
                Ok(broken) => verdict.problems.push(format!("snapshot {name}: {}", broken_text(broken))),
                Err(error) => verdict.problems.push(format!("snapshot {name}: {error}")),
            }
        }
        verdict.snapshots.sort_unstable();
        match self.opened().await {
            Err(error) => verdict.problems.push(error.to_string()),
            Ok(mut opened) => {
                let mut state = opened.view.load().state.clone();
                let covered = opened.view.load().applied_index();
                verdict.last = log_range(&mut opened.log_store).await.ok().and_then(|range| range.last);
                let mut read = 0;
                let walked = each_entry(&mut opened, 0, u64::MAX, |entry| {
                    read += 1;
                    let later = covered.is_none_or(|covered| entry.log_id.index > covered);
                    if let (true, Payload::Normal(command)) = (later, &entry.payload) {
                        state.apply(entry.log_id.index, command);
                    }
                    true
                });
                if let Err(error) = walked.await {
                    verdict.problems.push(format!("the log: {error}"));
                }
                verdict.entries = read;
                if let Err(broken) = sdm_state::invariants::check(&state) {
                    verdict.problems.push(format!("the state after the log: {}", broken_text(broken)));
                }
            }
        }
        Ok(verdict)
    }
}

fn broken_text(mut broken: Vec<String>) -> String {
    broken.truncate(NAMED_MAX);
    broken.join("; ")
}
