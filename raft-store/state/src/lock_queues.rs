//! Who stands at each resource, by mode: holders, and waiters in the order of their requests. Derived
//! from the lock table, never stored. It answers what a request meets, and whom a release could let
//! through, by looking at the front of a queue only: neither costs more when more requests wait, or
//! when many share what the request shares with them.

use crate::locks::LockSet;
use crate::locks::Mode;
use crate::locks::Resource;
use std::collections::BTreeSet;
use std::sync::Arc;

const MODES: [Mode; 4] = [Mode::IntentShared, Mode::IntentExclusive, Mode::Shared, Mode::Exclusive];

/// Ids of lock sets, in their order. Most resources have one holder and nobody waits: that costs no
/// allocation of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Ids {
    /// None.
    #[default]
    Empty,
    /// One.
    One(u64),
    /// At least two.
    Many(imbl::OrdSet<u64>),
}

impl Ids {
    pub(crate) fn insert(&mut self, id: u64) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(id),
            Self::One(known) if known == id => Self::One(id),
            Self::One(known) => Self::Many(imbl::OrdSet::from_iter([known, id])),
            Self::Many(mut ids) => {
                ids.insert(id);
                Self::Many(ids)
            }
        };
    }

    pub(crate) fn remove(&mut self, id: u64) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::Empty,
            Self::One(known) if known == id => Self::Empty,
            Self::One(known) => Self::One(known),
            Self::Many(mut ids) => {
                ids.remove(&id);
                match (ids.len(), ids.get_min()) {
                    (1, Some(last)) => Self::One(*last),
                    _ => Self::Many(ids),
                }
            }
        };
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn first(&self) -> Option<u64> {
        self.iter().next()
    }

    /// Those that are not less than this, rising.
    fn from(&self, from: u64) -> impl Iterator<Item = u64> + '_ {
        let (one, many) = match self {
            Self::Empty => (None, None),
            Self::One(id) => (Some(*id).filter(|id| *id >= from), None),
            Self::Many(ids) => (None, Some(ids.range(from..))),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }

    /// All of them, rising.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let (one, many) = match self {
            Self::Empty => (None, None),
            Self::One(id) => (Some(*id), None),
            Self::Many(ids) => (None, Some(ids)),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }
}

/// Some of the four modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modes(u8);

impl Modes {
    pub(crate) fn add(&mut self, mode: Mode) {
        self.0 |= 1 << mode as u8;
    }

    /// All of them.
    pub(crate) const ALL: Self = Self(0b1111);

    /// Whether one of them conflicts with this mode.
    fn conflict_with(self, mode: Mode) -> bool {
        MODES.into_iter().any(|own| self.0 & (1 << own as u8) != 0 && !own.agrees_with(mode))
    }
}

/// Who stands at one resource.
#[derive(Clone, Debug, Default, PartialEq)]
struct Queue {
    held: [Ids; 4],
    waiting: [Ids; 4],
}

impl Queue {
    fn ids_mut(&mut self, lock: &LockSet, mode: Mode) -> &mut Ids {
        let side = if lock.granted.is_some() { &mut self.held } else { &mut self.waiting };
        &mut side[mode as usize]
    }

    fn is_empty(&self) -> bool {
        self.held.iter().chain(&self.waiting).all(Ids::is_empty)
    }

    /// Those of one side whose mode conflicts with this one.
    fn in_conflict(side: &[Ids; 4], mode: Mode) -> impl Iterator<Item = &Ids> {
        MODES.into_iter().zip(side).filter(move |(other, _)| !other.agrees_with(mode)).map(|(_, ids)| ids)
    }

    /// Whether a request of this mode waits here, if its place in the queue is `id`.
    fn blocks(&self, id: u64, mode: Mode) -> bool {
        Self::in_conflict(&self.held, mode).any(|ids| !ids.is_empty())
            || Self::in_conflict(&self.waiting, mode).any(|ids| ids.first().is_some_and(|first| first < id))
    }

    /// The first ones, rising, that such a request waits for here; at most this many.
    fn blockers(&self, id: u64, mode: Mode, most: usize) -> Vec<u64> {
        let mut found = Vec::new();
        for ids in Self::in_conflict(&self.held, mode) {
            found.extend(ids.iter().take(most));
        }
        for ids in Self::in_conflict(&self.waiting, mode) {
            found.extend(ids.iter().take_while(|other| *other < id).take(most));
        }
        found.sort_unstable();
        found.truncate(most);
        found
    }

    /// Waiters from `from` on that nothing holds up here any more, of the modes that what was freed held
    /// up. The first `most` at least, if there are so many.
    fn let_through(&self, freed: Modes, from: u64, most: usize) -> BTreeSet<u64> {
        let mut through = BTreeSet::new();
        for mode in MODES.into_iter().filter(|mode| freed.conflict_with(*mode)) {
            let mine = &self.waiting[mode as usize];
            if Self::in_conflict(&self.held, mode).any(|ids| !ids.is_empty()) {
                continue;
            }
            // The first waiter in conflict holds up all that came later; of a mode that excludes
            // itself that is the second one of this very queue.
            let others = MODES.into_iter().zip(&self.waiting).filter(|(other, _)| *other != mode);
            let barrier = others.filter(|(other, _)| !other.agrees_with(mode)).filter_map(|(_, ids)| ids.first()).min();
            let excludes_itself = !mode.agrees_with(mode);
            if excludes_itself && mine.first().is_some_and(|first| first < from) {
                // The only one of them that could go on was looked at.
                continue;
            }
            let most = if excludes_itself { 1 } else { most };
            through.extend(mine.from(from).take_while(|id| barrier.is_none_or(|first| *id < first)).take(most));
        }
        through
    }
}

/// All queues. A clone is O(1).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LockQueues {
    queues: imbl::OrdMap<Arc<Resource>, Arc<Queue>>,
}

impl LockQueues {
    /// Takes in a lock set as it is now; what it was before must have been removed.
    pub(crate) fn insert(&mut self, lock: &LockSet) {
        for (resource, mode) in &lock.resources {
            match self.queues.get_mut(resource) {
                Some(queue) => Arc::make_mut(queue).ids_mut(lock, *mode).insert(lock.id),
                None => {
                    let mut queue = Queue::default();
                    queue.ids_mut(lock, *mode).insert(lock.id);
                    self.queues.insert(Arc::new(resource.clone()), Arc::new(queue));
                }
            }
        }
    }

    /// Drops a lock set, given as it was taken in.
    pub(crate) fn remove(&mut self, lock: &LockSet) {
        for (resource, mode) in &lock.resources {
            let Some(queue) = self.queues.get_mut(resource) else { continue };
            let queue = Arc::make_mut(queue);
            queue.ids_mut(lock, *mode).remove(lock.id);
            if queue.is_empty() {
                self.queues.remove(resource);
            }
        }
    }

    /// Whether somebody holds this resource for itself alone.
    pub(crate) fn is_held_exclusively(&self, resource: &Resource) -> bool {
        self.queues.get(resource).is_some_and(|queue| !queue.held[Mode::Exclusive as usize].is_empty())
    }

    /// Whether this request has to wait.
    pub(crate) fn block(&self, asked: &LockSet) -> bool {
        asked
            .resources
            .iter()
            .any(|(resource, mode)| self.queues.get(resource).is_some_and(|queue| queue.blocks(asked.id, *mode)))
    }

    /// The lock sets that this one must wait for: holders, and earlier waiters, in conflict with it.
    /// At most this many, the first ones of each resource.
    pub(crate) fn blockers(&self, asked: &LockSet, most: usize) -> Vec<u64> {
        let mut found: Vec<u64> = Vec::new();
        for (resource, mode) in &asked.resources {
            let Some(queue) = self.queues.get(resource) else { continue };
            // What is known already may come again: so many more are asked for.
            for id in queue.blockers(asked.id, *mode, most + found.len()) {
                if found.len() < most && !found.contains(&id) {
                    found.push(id);
                }
            }
        }
        found
    }

    /// Everyone who stands at a resource.
    pub(crate) fn at(&self, resource: &Resource) -> Vec<u64> {
        let queue = self.queues.get(resource).into_iter();
        queue.flat_map(|queue| queue.held.iter().chain(&queue.waiting).flat_map(Ids::iter)).collect()
    }

    /// Those who wait before this waiting lock set for something in conflict with it, the first ones; at most this many
    /// of each resource.
    pub(crate) fn before(&self, asked: &LockSet, most: usize) -> BTreeSet<u64> {
        self.beside(asked, most, |id| id < asked.id)
    }

    /// Those who wait behind this lock set because of what it holds or wants, the first ones; at most this many of each
    /// resource.
    pub(crate) fn behind(&self, lock: &LockSet, most: usize) -> BTreeSet<u64> {
        self.beside(lock, most, |id| lock.granted.is_some() || id > lock.id)
    }

    fn beside(&self, lock: &LockSet, most: usize, counts: impl Fn(u64) -> bool + Copy) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        for (resource, mode) in &lock.resources {
            let Some(queue) = self.queues.get(resource) else { continue };
            for ids in Queue::in_conflict(&queue.waiting, *mode) {
                found.extend(ids.iter().filter(|id| counts(*id)).take(most));
            }
        }
        found
    }

    /// Everyone who waits for a resource of this lock set, by rising id.
    pub(crate) fn waiters(&self, released: &LockSet) -> BTreeSet<u64> {
        let queues = released.resources.keys().filter_map(|resource| self.queues.get(resource));
        queues.flat_map(|queue| queue.waiting.iter().flat_map(Ids::iter)).collect()
    }

    /// Waiters that a release of these modes lets through at this resource, by rising id from `from` on:
    /// the first `most`, and perhaps some more. Whoever is not among them waits as before.
    pub(crate) fn let_through(&self, resource: &Resource, freed: Modes, from: u64, most: usize) -> BTreeSet<u64> {
        self.queues.get(resource).map(|queue| queue.let_through(freed, from, most)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locks::Granted;
    use crate::locks::Owner;
    use proptest::prelude::*;
    use sdm_proto::token::Token;
    use std::collections::BTreeMap;

    fn lock(id: u64, resources: &[(&str, Mode)], held: bool) -> LockSet {
        LockSet {
            id,
            owner: Owner::Session(id),
            resources: resources.iter().map(|(name, mode)| (Resource::User((*name).to_owned()), *mode)).collect(),
            why: String::new(),
            asked_ms: 0,
            deadline_ms: 0,
            granted: held.then(|| Granted { token: Token::default(), at_ms: 0 }),
            txn: None,
        }
    }

    /// Of a release of all these, looked at in pieces.
    fn let_through(queues: &LockQueues, released: &[LockSet]) -> BTreeSet<u64> {
        let mut freed: BTreeMap<&Resource, Modes> = BTreeMap::new();
        for (resource, mode) in released.iter().flat_map(|lock| &lock.resources) {
            freed.entry(resource).or_default().add(*mode);
        }
        let mut through = BTreeSet::new();
        for (resource, modes) in freed {
            let mut from = 0;
            loop {
                let some = queues.let_through(resource, modes, from, 2);
                through.extend(some.iter().take(2));
                match some.iter().nth(1) {
                    Some(last) => from = last + 1,
                    None => break,
                }
            }
        }
        through
    }

    /// What is asked of the queues, answered by looking at every lock set.
    #[derive(Default)]
    struct Scan(BTreeMap<u64, LockSet>);

    impl Scan {
        fn blockers(&self, asked: &LockSet, most: usize) -> Vec<u64> {
            let mut found = Vec::new();
            for (resource, mode) in &asked.resources {
                for other in self.0.values().filter(|other| other.id != asked.id) {
                    let before = other.granted.is_some() || other.id < asked.id;
                    let conflicts = other.resources.get(resource).is_some_and(|have| !have.agrees_with(*mode));
                    if before && conflicts && !found.contains(&other.id) {
                        found.push(other.id);
                    }
                    if found.len() >= most {
                        return found;
                    }
                }
            }
            found
        }

        fn free(&self) -> Vec<u64> {
            let waiting = self.0.values().filter(|lock| lock.granted.is_none());
            waiting.filter(|lock| self.blockers(lock, 1).is_empty()).map(|lock| lock.id).collect()
        }
    }

    fn resources() -> impl Strategy<Value = Vec<(&'static str, Mode)>> {
        let one = (prop::sample::select(vec!["a", "b", "c"]), prop::sample::select(MODES.to_vec()));
        prop::collection::vec(one, 1..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn queues_answer_as_a_scan_of_the_whole_table_does(
            asked in prop::collection::vec(resources(), 1..24),
            released in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..4), 0..40),
        ) {
            let (mut queues, mut scan) = (LockQueues::default(), Scan::default());
            for (at, resources) in asked.iter().enumerate() {
                let mut new = lock(at as u64 + 1, resources, false);
                prop_assert_eq!(queues.blockers(&new, 8), scan.blockers(&new, 8));
                prop_assert_eq!(queues.blockers(&new, 2), scan.blockers(&new, 2));
                prop_assert_eq!(queues.block(&new), !scan.blockers(&new, 1).is_empty());
                if !queues.block(&new) {
                    new = lock(new.id, resources, true);
                }
                queues.insert(&new);
                scan.0.insert(new.id, new);
            }
            for picks in released {
                let mut gone = Vec::new();
                for pick in picks {
                    let Some(id) = scan.0.keys().nth(pick.index(scan.0.len().max(1))).copied() else { continue };
                    let lock = scan.0.remove(&id).unwrap();
                    queues.remove(&lock);
                    gone.push(lock);
                }
                let through = let_through(&queues, &gone);
                let free: Vec<u64> = through.into_iter().filter(|id| !queues.block(&scan.0[id])).collect();
                prop_assert_eq!(&free, &scan.free(), "exactly those that nothing holds up any more");
                for id in free {
                    let waiting = scan.0[&id].clone();
                    queues.remove(&waiting);
                    let held = LockSet { granted: Some(Granted { token: Token::default(), at_ms: 0 }), ..waiting };
                    queues.insert(&held);
                    scan.0.insert(id, held);
                }
            }
            for lock in scan.0.values() {
                queues.remove(lock);
            }
            prop_assert_eq!(queues, LockQueues::default(), "nothing is left of locks that are gone");
        }
    }

    #[test]
    fn of_a_queue_that_excludes_itself_one_waiter_is_looked_at() {
        let mut queues = LockQueues::default();
        for id in 2..10_000 {
            queues.insert(&lock(id, &[("r", Mode::Exclusive)], false));
        }
        let released = [lock(1, &[("r", Mode::Exclusive)], true)];
        assert_eq!(let_through(&queues, &released), BTreeSet::from([2]));
    }

    #[test]
    fn behind_a_waiter_that_excludes_them_nobody_is_looked_at() {
        let mut queues = LockQueues::default();
        queues.insert(&lock(2, &[("r", Mode::Exclusive)], false));
        for id in 3..10_000 {
            queues.insert(&lock(id, &[("r", Mode::Shared)], false));
        }
        let released = [lock(1, &[("r", Mode::Exclusive)], true)];
        assert_eq!(let_through(&queues, &released), BTreeSet::from([2]));
    }

    #[test]
    fn who_shares_with_what_was_released_was_not_held_up_by_it_and_is_not_looked_at() {
        let mut queues = LockQueues::default();
        queues.insert(&lock(1, &[("disk", Mode::Exclusive)], true));
        for id in 3..10_000 {
            let both = [("domain", Mode::IntentExclusive), ("disk", Mode::Exclusive)];
            queues.insert(&lock(id, &both, false));
        }
        let released = [lock(2, &[("domain", Mode::IntentExclusive)], true)];
        assert_eq!(let_through(&queues, &released), BTreeSet::new());
        assert!(!queues.block(&lock(10_001, &[("domain", Mode::IntentExclusive)], false)));
    }
}
