//! Attempts that change the same published files in place take turns: a later one begins when an earlier one on this
//! host can write no more, its process reaped. So whoever hears that the later one is done knows that the earlier one
//! is over, too, although nobody waited for its answer.
//!
//! That holds across a restart of the worker: what its predecessor left behind on the same paths is waited for first,
//! however long the kernel takes.

use crate::folder::Remains;
use crate::work::Order;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::sync::OwnedMutexGuard;
use tokio::sync::watch;
use uuid::Uuid;

/// Files that one attempt at a time changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    domain: Uuid,
    /// None: the domain's own files.
    placement: Option<Uuid>,
}

impl Place {
    /// Where the order changes what is there already; None for one that makes new files, or only reads or deletes.
    pub(super) fn of(order: &Order) -> Option<Self> {
        let placement = match order {
            Order::ResizeVolume(order) => Some(order.placement),
            Order::MergeInPlace(order) => Some(order.placement),
            Order::ProjectPlacement(order) => Some(order.placement),
            // Its first write goes into a header of the placement that it is built from.
            Order::BuildChain(order) if order.rebase.is_some() => {
                order.source.as_ref().map(|source| source.at.placement)
            }
            Order::RenameDomain(_) | Order::DetachDomain(_) | Order::WriteCatalog(_) | Order::AttachDomain(_) => None,
            _ => return None,
        };
        Some(Self { domain: order.domain().domain, placement })
    }
}

type Queues = BTreeMap<Place, Arc<tokio::sync::Mutex<()>>>;

/// The turns of one worker. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    queues: Arc<Mutex<Queues>>,
    predecessor: watch::Receiver<Remains>,
}

/// One attempt's turn, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    place: Place,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// `predecessor` is what is left of earlier workers of this folder.
    pub(crate) fn new(predecessor: watch::Receiver<Remains>) -> Self {
        Self { queues: Arc::default(), predecessor }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn; the order touches these paths.
    pub(super) async fn take(&self, place: Place, paths: &[PathBuf]) -> Turn {
        let is_free = |remains: &Remains| !paths.iter().any(|path| remains.may_touch(path));
        if self.predecessor.clone().wait_for(is_free).await.is_err() {
            // Nobody looks any more: the worker ends.
            std::future::pending::<()>().await;
        }
        let queue = Arc::clone(self.queues().entry(place).or_default());
        Turn { turns: self.clone(), place, guard: Some(queue.lock_owned().await) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut queues = self.turns.queues();
        if queues.get(&self.place).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(placement: u128) -> Place {
        Place { domain: Uuid::nil(), placement: Some(Uuid::from_u128(placement)) }
    }

    #[tokio::test]
    async fn the_same_files_are_changed_by_one_at_a_time_and_others_meanwhile() {
        let (_left, predecessor) = watch::channel(Remains::default());
        let turns = Turns::new(predecessor);
        let first = turns.take(place(1), &[]).await;
        let mut second = Box::pin(turns.take(place(1), &[]));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(turns.take(place(2), &[]).await);
        drop(first);
        drop(second.await);
        assert!(turns.queues().is_empty(), "nothing is kept of those who had their turn");
    }

    #[tokio::test]
    async fn nothing_is_changed_in_place_while_the_predecessor_may_still_write() {
        let hung = PathBuf::from("/mnt/nfs1");
        let remains = Remains { groups: 1, paths: [hung.clone()].into(), anywhere: false };
        let (left, predecessor) = watch::channel(remains);
        let turns = Turns::new(predecessor);
        let paths = [PathBuf::from("/mnt/nfs2"), hung];
        let mut first = Box::pin(turns.take(place(1), &paths));
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(turns.take(place(2), &paths[..1]).await);
        left.send_replace(Remains::default());
        first.await;
    }
}
