//! The applied state as everyone on this member reads it: one pointer, replaced whole. A reader
//! holds its view for as long as it likes and holds up nobody.

use crate::types::LogId;
use crate::types::StoredMembership;
use arc_swap::ArcSwap;
use sdm_state::State;
use sdm_state::Touched;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::sync::Notify;
use tokio::sync::oneshot;
use tokio::sync::watch;

/// The state after one entry.
#[derive(Clone, Debug, Default)]
pub struct StateView {
    /// The last entry that is in the state, membership changes and empty entries included.
    pub applied: Option<LogId>,
    /// The state.
    pub state: State,
    /// Who the members were as of that entry.
    pub membership: StoredMembership,
}

impl StateView {
    /// Index of the last applied entry.
    pub fn applied_index(&self) -> Option<u64> {
        self.applied.map(|applied| applied.index)
    }
}

#[derive(Debug)]
struct Shared {
    view: ArcSwap<StateView>,
    applied: watch::Sender<Option<u64>>,
    waits: Mutex<Waits>,
}

/// Who waits for one thing only: a new view wakes those that it concerns, however many others wait.
#[derive(Debug, Default)]
struct Waits {
    by_index: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    by_row: HashMap<Touched, Vec<(u64, Arc<Notify>)>>,
    /// Of the last watch of a row.
    number: u64,
}

/// A handle on the newest view. Clones share it.
#[derive(Clone, Debug)]
pub struct ViewHandle(Arc<Shared>);

impl ViewHandle {
    pub(crate) fn new(view: StateView) -> Self {
        let applied = watch::Sender::new(view.applied_index());
        ViewHandle(Arc::new(Shared { view: ArcSwap::from_pointee(view), applied, waits: Mutex::default() }))
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.0.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest view.
    pub fn load(&self) -> Arc<StateView> {
        self.0.view.load_full()
    }

    /// Changes with every new view: the index of its last entry. What `load` returns after a
    /// change is at least as new. For the few that look at every view; whoever waits for one entry
    /// or one row has `wait_applied` and `watch_row`.
    pub fn changes(&self) -> watch::Receiver<Option<u64>> {
        self.0.applied.subscribe()
    }

    /// The first view, from now on, that holds this entry. Waits without a limit.
    pub async fn wait_applied(&self, index: u64) -> Arc<StateView> {
        let (wake, woken) = oneshot::channel();
        {
            // Under the lock: a view that is published from here on finds the wait.
            let mut waits = self.waits();
            let view = self.load();
            if view.applied_index().is_some_and(|at| at >= index) {
                return view;
            }
            waits.by_index.entry(index).or_default().push(wake);
        }
        // The sender lives in `self`: the wait cannot fail.
        let _ = woken.await;
        self.load()
    }

    /// Watches one row from now on: what was published before is not told.
    pub fn watch_row(&self, row: Touched) -> RowWatch {
        let wake = Arc::new(Notify::new());
        let mut waits = self.waits();
        waits.number += 1;
        let number = waits.number;
        waits.by_row.entry(row).or_default().push((number, wake.clone()));
        RowWatch { view: self.clone(), row, number, wake }
    }

    /// Makes a view the newest one, and wakes those who wait for its entry or for what it touched.
    pub(crate) fn publish(&self, view: StateView, touched: impl IntoIterator<Item = Touched>) {
        self.replace(view, |rows| {
            if !rows.is_empty() {
                touched.into_iter().filter_map(|row| rows.get(&row)).flatten().for_each(|(_, wake)| wake.notify_one());
            }
        });
    }

    /// Makes a view the newest one that did not come by entries: every row may be another.
    pub(crate) fn publish_anew(&self, view: StateView) {
        self.replace(view, |rows| rows.values().flatten().for_each(|(_, wake)| wake.notify_one()));
    }

    fn replace(&self, view: StateView, wake_rows: impl FnOnce(&HashMap<Touched, Vec<(u64, Arc<Notify>)>>)) {
        let applied = view.applied_index();
        self.0.view.store(Arc::new(view));
        self.0.applied.send_replace(applied);
        let mut waits = self.waits();
        wake_rows(&waits.by_row);
        let later = waits.by_index.split_off(&applied.map_or(0, |at| at.saturating_add(1)));
        let over = std::mem::replace(&mut waits.by_index, later);
        drop(waits);
        for wake in over.into_values().flatten() {
            // Whoever waited may have given up.
            let _ = wake.send(());
        }
    }
}

/// Tells when a row of the state changed. A change that nobody waited for is told to the next wait.
#[derive(Debug)]
pub struct RowWatch {
    view: ViewHandle,
    row: Touched,
    number: u64,
    wake: Arc<Notify>,
}

impl RowWatch {
    /// Waits for the next view in which the row may be another: what `load` returns then has the
    /// change. Told at least once for any number of changes since the last wait.
    pub async fn changed(&mut self) {
        self.wake.notified().await;
    }
}

impl Drop for RowWatch {
    fn drop(&mut self) {
        let mut waits = self.view.waits();
        let Some(all) = waits.by_row.get_mut(&self.row) else { return };
        all.retain(|(number, _)| *number != self.number);
        if all.is_empty() {
            waits.by_row.remove(&self.row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaderId;
    use futures_util::FutureExt;

    fn view(index: u64) -> StateView {
        let leader_id = LeaderId { term: 1, node_id: 1 };
        StateView { applied: Some(LogId { leader_id, index }), ..StateView::default() }
    }

    #[test]
    fn a_wait_for_an_entry_ends_with_the_view_that_holds_it() {
        let handle = ViewHandle::new(view(3));
        assert!(handle.wait_applied(3).now_or_never().is_some());
        let mut waiting = Box::pin(handle.wait_applied(5));
        assert!(waiting.as_mut().now_or_never().is_none());
        handle.publish(view(4), []);
        assert!(waiting.as_mut().now_or_never().is_none());
        handle.publish(view(6), []);
        let found = waiting.now_or_never().expect("the entry is there");
        assert_eq!(found.applied_index(), Some(6));
        assert!(handle.waits().by_index.is_empty());
    }

    #[test]
    fn a_row_wakes_its_own_watchers_and_nobody_else() {
        let handle = ViewHandle::new(view(1));
        let mut first = handle.watch_row(Touched::Lock(7));
        let mut second = handle.watch_row(Touched::Lock(7));
        let mut other = handle.watch_row(Touched::Lock(8));
        handle.publish(view(2), [Touched::Lock(7)]);
        assert!(first.changed().now_or_never().is_some());
        assert!(second.changed().now_or_never().is_some());
        assert!(other.changed().now_or_never().is_none());
        assert!(first.changed().now_or_never().is_none(), "one change is told once");
        handle.publish_anew(view(9));
        assert!(other.changed().now_or_never().is_some(), "an installed snapshot may have changed any row");
        drop((first, second, other));
        assert!(handle.waits().by_row.is_empty());
    }
}
