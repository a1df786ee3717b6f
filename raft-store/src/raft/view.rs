//! The applied state as everyone on this member reads it: one pointer, replaced whole. A reader
//! holds its view for as long as it likes and holds up nobody.

use crate::types::LogId;
use crate::types::StoredMembership;
use arc_swap::ArcSwap;
use sdm_state::State;
use std::sync::Arc;
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
}

/// A handle on the newest view. Clones share it.
#[derive(Clone, Debug)]
pub struct ViewHandle(Arc<Shared>);

impl ViewHandle {
    pub(crate) fn new(view: StateView) -> Self {
        let applied = watch::Sender::new(view.applied_index());
        ViewHandle(Arc::new(Shared { view: ArcSwap::from_pointee(view), applied }))
    }

    /// The newest view.
    pub fn load(&self) -> Arc<StateView> {
        self.0.view.load_full()
    }

    /// Changes with every new view: the index of its last entry. What `load` returns after a
    /// change is at least as new.
    pub fn changes(&self) -> watch::Receiver<Option<u64>> {
        self.0.applied.subscribe()
    }

    /// The first view, from now on, that holds this entry. Waits without a limit.
    pub async fn wait_applied(&self, index: u64) -> Arc<StateView> {
        // The sender lives in `self`: the wait cannot fail.
        let _ = self.changes().wait_for(|applied| applied.is_some_and(|at| at >= index)).await;
        self.load()
    }

    /// Makes a view the newest one.
    pub(crate) fn publish(&self, view: StateView) {
        let applied = view.applied_index();
        self.0.view.store(Arc::new(view));
        self.0.applied.send_replace(applied);
    }
}
