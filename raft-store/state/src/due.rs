//! What falls due by the passing of time: derived from rows, so that the leader knows when to
//! propose a Tick and `apply` finds what is due without a scan.

use crate::catalog::Domain;
use crate::catalog::DomainState;
use crate::garbage::Garbage;
use crate::garbage::Kind;
use crate::locks::LockSet;
use crate::settings::Settings;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::Work;
use sdm_proto::ids::DomainId;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;

/// Something with a due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Due {
    /// A wait for locks ends.
    LockWait(u64),
    /// Work is to be looked at: a retry, a missing worker, a missing other end.
    Work(Owner),
    /// More of a domain's rows are to leave the catalog.
    Leaving(DomainId),
}

/// When a domain is due: at once, as long as it is leaving.
pub(crate) fn of_domain(domain: &Domain) -> Option<(u64, Due)> {
    match &domain.state {
        DomainState::Leaving(leaving) => Some((leaving.since_ms, Due::Leaving(domain.id))),
        DomainState::Active | DomainState::Maintenance(_) | DomainState::Arriving { .. } => None,
    }
}

/// When a lock set is due.
pub(crate) fn of_lock(lock: &LockSet) -> Vec<(u64, Due)> {
    if lock.granted.is_some() { Vec::new() } else { vec![(lock.deadline_ms, Due::LockWait(lock.id))] }
}

/// When work is due. Deletions without an attempt are not: collectors look for those themselves.
pub(crate) fn of_work(owner: Owner, work: &Work, settings: &Settings) -> Vec<(u64, Due)> {
    let mut times = Vec::new();
    match &work.attempt {
        Some(attempt) => {
            if attempt.peer_deadline_ms > 0 {
                times.push(attempt.peer_deadline_ms);
            }
            // Time alone does not prove that nobody writes in place any more.
            if let Some(at) = hang_deadline_ms(owner, attempt, settings).filter(|_| !work.in_place) {
                times.push(at);
            }
        }
        None if matches!(owner, Owner::Deletion(_)) => {}
        None if matches!(owner, Owner::Describe(_) | Owner::Projection(_)) => {
            // Nobody waits for it, so it is never given up.
            if work.retry_at_ms > 0 {
                times.push(work.retry_at_ms);
            }
        }
        None => {
            if work.retry_at_ms > 0 {
                times.push(work.retry_at_ms);
            }
            // Time alone does not prove that a host has written out what it began.
            if work.pinned.is_none() {
                times.push(work.unassigned_since_ms.saturating_add(settings.unassigned_max_ms));
            }
        }
    }
    times.into_iter().map(|at| (at, Due::Work(owner))).collect()
}

/// When an attempt is given up because nothing more is to be expected of it: storage that stays unreachable, or a step
/// that takes longer than any step does.
pub(crate) fn hang_deadline_ms(owner: Owner, attempt: &Attempt, settings: &Settings) -> Option<u64> {
    let unreachable = (attempt.unreachable_since_ms > 0)
        .then(|| attempt.unreachable_since_ms.saturating_add(settings.unreachable_max_ms));
    let step = (!matches!(owner, Owner::Job(_))).then(|| attempt.assigned_ms.saturating_add(settings.step_max_ms));
    unreachable.into_iter().chain(step).min()
}

/// Where garbage lies: in a domain, or (None) in the folder of one that never came to be.
pub type GarbagePlace = Option<DomainId>;

/// Garbage that no attempt is deleting, by place and by the time from which it may be deleted: a
/// collector finds what is due where somebody can delete it without a look at all the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WaitingGarbage {
    all: imbl::OrdSet<(GarbagePlace, u64, Token)>,
    /// The same by kind, for who asks for one of them in a heap of others.
    by_kind: imbl::OrdSet<(Kind, GarbagePlace, u64, Token)>,
}

impl WaitingGarbage {
    fn key(garbage: &Garbage) -> (GarbagePlace, u64, Token) {
        let place = (!garbage.place.whole_domain).then_some(garbage.place.domain);
        (place, garbage.due_ms.max(garbage.work.retry_at_ms), garbage.id)
    }

    pub(crate) fn insert(&mut self, garbage: &Garbage) {
        if garbage.work.attempt.is_none() && garbage.held.is_none() {
            let (place, from_ms, id) = Self::key(garbage);
            self.all.insert((place, from_ms, id));
            self.by_kind.insert((garbage.kind, place, from_ms, id));
        }
    }

    pub(crate) fn remove(&mut self, garbage: &Garbage) {
        let (place, from_ms, id) = Self::key(garbage);
        self.all.remove(&(place, from_ms, id));
        self.by_kind.remove(&(garbage.kind, place, from_ms, id));
    }

    /// The places at which there is some.
    pub fn places(&self) -> impl Iterator<Item = GarbagePlace> + '_ {
        let last = Token { epoch: u64::MAX, index: u64::MAX, ordinal: u32::MAX };
        let first = self.all.get_min().map(|(place, _, _)| *place);
        std::iter::successors(first, move |place| {
            let after = (*place, u64::MAX, last);
            self.all.range(after..).find(|(next, _, _)| next != place).map(|(next, _, _)| *next)
        })
    }

    /// What lies at this place: from when it may be deleted, on the cluster's clock, and which; in
    /// the order of these times.
    pub fn at(&self, place: GarbagePlace) -> impl Iterator<Item = (u64, Token)> + '_ {
        self.from(place, 0)
    }

    /// The same without what may be deleted before this.
    pub fn from(&self, place: GarbagePlace, from_ms: u64) -> impl Iterator<Item = (u64, Token)> + '_ {
        let from = (place, from_ms, Token::default());
        self.all.range(from..).take_while(move |(at, _, _)| *at == place).map(|(_, from_ms, id)| (*from_ms, *id))
    }

    /// The same of one kind; of all without one.
    pub(crate) fn of_kind(
        &self,
        kind: Option<Kind>,
        place: GarbagePlace,
        from_ms: u64,
    ) -> impl Iterator<Item = (u64, Token)> + '_ {
        let of = kind.map(|kind| {
            let from = (kind, place, from_ms, Token::default());
            self.by_kind.range(from..).take_while(move |row| (row.0, row.1) == (kind, place)).map(|row| (row.2, row.3))
        });
        let all = kind.is_none().then(|| self.from(place, from_ms));
        of.into_iter().flatten().chain(all.into_iter().flatten())
    }
}
