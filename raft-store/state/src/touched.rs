//! What the last entry changed that somebody may wait for. Not part of the state: derived while an
//! entry is applied, so that whoever waits for one row need not look at every entry.

use crate::state::State;
use sdm_proto::ids::TxnId;

/// A row that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Touched {
    /// A lock set was granted, or is gone.
    Lock(u64),
    /// A transaction, its step or its job is another than before.
    Txn(TxnId),
}

impl State {
    /// What the entry that was applied last changed; empty after it was taken. A row may be named
    /// more than once.
    pub fn take_touched(&mut self) -> Vec<Touched> {
        std::mem::take(&mut self.index.touched)
    }

    pub(crate) fn touch(&mut self, row: Touched) {
        self.index.touched.push(row);
    }

    /// Counts a lock set as it is before it is changed: None when it goes, else whether it is held
    /// then.
    pub(crate) fn touch_lock(&mut self, id: u64, held: Option<bool>) {
        let before = self.locks.get(&id).is_some_and(|lock| lock.granted.is_some());
        let after = held == Some(true);
        self.index.locks_held = self.index.locks_held + usize::from(after) - usize::from(before);
        if before != after || held.is_none() {
            self.touch(Touched::Lock(id));
        }
    }
}
