//! Who goes on when locks are released. One entry looks at a limited number of those that waited; how
//! far it came is part of the state, and every later entry goes on from there (a Tick is due at once).
//! So a lock with thousands of sharers behind it holds up nobody else when it is released.

use crate::apply::Turn;
use crate::lock_queues::LockQueues;
use crate::lock_queues::Modes;
use crate::locks::LockSet;
use crate::locks::Resource;
use crate::locks::Unsettled;
use crate::state::State;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

impl State {
    /// Grants what the released locks held up, in the order of the requests. A grant can release
    /// again (a refused or an instant transaction), so this goes on until nothing is left, or the entry
    /// has done its share.
    pub(super) fn settle_locks(&mut self, turn: &mut Turn) {
        if self.meta.feature_level < 2 {
            return self.settle_locks_one_by_one(turn);
        }
        let mut left = usize::try_from(self.meta.settings.work_per_entry).unwrap_or(usize::MAX).max(1);
        let mut passes = Passes::resume(std::mem::take(&mut self.meta.unsettled));
        loop {
            passes.begin(&std::mem::take(&mut turn.released));
            if passes.are_over() || left == 0 {
                break;
            }
            let mut free = passes.next(&self.index.lock_queues, left);
            left -= free.len();
            free.retain(|id| self.locks.get(id).is_some_and(|asked| !self.is_blocked(asked)));
            for id in free {
                let Some(asked) = self.locks.get(&id).filter(|lock| lock.granted.is_none()).cloned() else { continue };
                if !self.is_blocked(&asked) {
                    self.grant_waiting(turn, asked);
                }
            }
        }
        self.meta.unsettled = passes.rest();
    }

    /// As the first level did it: one released set after the other, the last one first, each time
    /// looking at everyone who waits for any of its resources. The grants are the same; the order of
    /// their tokens is not.
    fn settle_locks_one_by_one(&mut self, turn: &mut Turn) {
        while let Some(released) = turn.released.pop() {
            for id in self.index.lock_queues.waiters(&released) {
                let Some(asked) = self.locks.get(&id).filter(|lock| lock.granted.is_none()).cloned() else { continue };
                if !self.is_blocked(&asked) {
                    self.grant_waiting(turn, asked);
                }
            }
        }
    }
}

/// One look at those who wait for a resource, from the front of its queue to the end.
struct Pass {
    freed: Modes,
    from: u64,
    again: bool,
}

/// The looks that are not over, by resource.
struct Passes(BTreeMap<Resource, Pass>);

impl Passes {
    fn resume(unsettled: Vec<Unsettled>) -> Self {
        let pass = |Unsettled { resource, from, again }| (resource, Pass { freed: Modes::ALL, from, again });
        Self(unsettled.into_iter().map(pass).collect())
    }

    /// Something was released. A look that is past the front of the queue is not cut off: it would never
    /// come to the end where releases come fast. It begins again when it is over.
    fn begin(&mut self, released: &[LockSet]) {
        for (resource, mode) in released.iter().flat_map(|lock| &lock.resources) {
            let new = || Pass { freed: Modes::default(), from: 0, again: false };
            let pass = self.0.entry(resource.clone()).or_insert_with(new);
            pass.freed.add(*mode);
            pass.again |= pass.from > 0;
        }
    }

    fn are_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next ones to look at, by rising id, at most so many.
    fn next(&mut self, queues: &LockQueues, most: usize) -> BTreeSet<u64> {
        let look = |(resource, pass): (&Resource, &Pass)| {
            (resource.clone(), queues.let_through(resource, pass.freed, pass.from, most.saturating_add(1)))
        };
        let found: Vec<(Resource, BTreeSet<u64>)> = self.0.iter().take(most).map(look).collect();
        let mut ids: BTreeSet<u64> = found.iter().flat_map(|(_, ids)| ids).copied().collect();
        let cut = ids.iter().nth(most).copied();
        if let Some(cut) = cut {
            ids.split_off(&cut);
        }
        for (resource, found) in found {
            let goes_on = cut.filter(|cut| found.last().is_some_and(|last| last >= cut));
            let Some(pass) = self.0.get_mut(&resource) else { continue };
            match goes_on {
                Some(from) => pass.from = from,
                None if pass.again => *pass = Pass { freed: Modes::ALL, from: 0, again: false },
                None => {
                    self.0.remove(&resource);
                }
            }
        }
        ids
    }

    fn rest(self) -> Vec<Unsettled> {
        self.0.into_iter().map(|(resource, Pass { from, again, .. })| Unsettled { resource, from, again }).collect()
    }
}
