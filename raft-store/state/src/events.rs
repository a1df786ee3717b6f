//! What happened in the cluster, for whoever watches it: a ring of the last so many events. Most of them follow
//! from a row that came, went or changed, and are told where rows are put, whichever command changed them; what no
//! row shows (a broken lock, a lost session) is told by the command itself.
//!
//! Nothing is told of locks beneath `user/`, of noops, of checkpoints and of renewals: those come by the thousand,
//! and nobody wants to read them.

use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::catalog::Placement;
use crate::garbage::Garbage;
use crate::members::Member;
use crate::state::State;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Owner;
use crate::work::Work;
use crate::workers::Worker;
use sdm_proto::ids::TxnId;
use serde::Deserialize;
use serde::Serialize;

/// Bytes of an event's words: a refusal can be longer, and stands in its transaction.
const TEXT_BYTES_MAX: usize = 400;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A transaction began.
    TxnBegun,
    /// A transaction has its outcome.
    TxnFinished,
    /// A worker got an attempt.
    AttemptAssigned,
    /// An attempt failed.
    AttemptFailed,
    /// A domain is there.
    DomainMade,
    /// A domain is another than before.
    DomainChanged,
    /// A domain is there no more.
    DomainGone,
    /// A disk is there.
    DiskMade,
    /// A disk is another than before.
    DiskChanged,
    /// A disk is there no more.
    DiskGone,
    /// A placement is the place of a disk.
    PlacementMade,
    /// A placement is none any more.
    PlacementGone,
    /// A host may use a disk.
    Attached,
    /// A host may use a disk no more, or holds it unfenced.
    Detached,
    /// Something lost its place.
    GarbageMade,
    /// Garbage changed hands: held, restored, purged.
    GarbageChanged,
    /// Garbage is gone from the storage.
    GarbageCollected,
    /// A worker has a session.
    WorkerLive,
    /// A worker has none any more.
    WorkerLost,
    /// A worker is being emptied, confirmed down, removed.
    WorkerChanged,
    /// A client's session ended before its client closed it.
    SessionLost,
    /// An operator broke a lock.
    LockBroken,
    /// A member was added.
    MemberAdded,
    /// A member was removed.
    MemberRemoved,
    /// The cluster's feature level rose.
    FeatureLevel,
}

impl Kind {
    /// As users read it: the noun, a dash, what happened to it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::TxnBegun => "txn-begun",
            Self::TxnFinished => "txn-finished",
            Self::AttemptAssigned => "attempt-assigned",
            Self::AttemptFailed => "attempt-failed",
            Self::DomainMade => "domain-made",
            Self::DomainChanged => "domain-changed",
            Self::DomainGone => "domain-gone",
            Self::DiskMade => "disk-made",
            Self::DiskChanged => "disk-changed",
            Self::DiskGone => "disk-gone",
            Self::PlacementMade => "placement-made",
            Self::PlacementGone => "placement-gone",
            Self::Attached => "attachment-made",
            Self::Detached => "attachment-ended",
            Self::GarbageMade => "garbage-made",
            Self::GarbageChanged => "garbage-changed",
            Self::GarbageCollected => "garbage-collected",
            Self::WorkerLive => "worker-live",
            Self::WorkerLost => "worker-lost",
            Self::WorkerChanged => "worker-changed",
            Self::SessionLost => "session-lost",
            Self::LockBroken => "lock-broken",
            Self::MemberAdded => "member-added",
            Self::MemberRemoved => "member-removed",
            Self::FeatureLevel => "cluster-feature-level",
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Index of the entry in which it happened.
    pub index: u64,
    /// Its number within that entry, from 0.
    pub ordinal: u32,
    /// On the cluster's clock.
    pub at_ms: u64,
    /// What kind of thing.
    pub kind: Kind,
    /// To what, in words that `sdm explain` takes ("disk/web-01", "garbage/1-812-0").
    pub object: String,
    /// Of which transaction, where it is one's doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<TxnId>,
    /// In words.
    pub text: String,
}

/// Its place in the order of events.
pub type EventKey = (u64, u32);

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let mut end = TEXT_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

fn named(noun: &str, id: impl std::fmt::Display) -> String {
    format!("{noun}/{id}")
}

impl State {
    /// Tells that something happened. Nothing is told below the level that knows events, nor outside an entry (a state
    /// that is read back has its events as rows).
    pub(crate) fn tell(&mut self, kind: Kind, object: String, txn: Option<TxnId>, text: impl Into<String>) {
        let Some(ordinal) = self.index.telling else { return };
        self.index.telling = Some(ordinal.saturating_add(1));
        let (index, at_ms) = (self.meta.applied_index, self.meta.clock_ms);
        self.put_event(Event { index, ordinal, at_ms, kind, object, txn, text: cut(text.into()) });
    }

    /// Tells that the level is another than it was when the entry came.
    pub(crate) fn tell_level(&mut self, before: u32) {
        let level = self.meta.feature_level;
        if level != before {
            self.index.telling = self.index.telling.or((level >= 2).then_some(0));
            self.tell(Kind::FeatureLevel, "cluster".to_owned(), None, format!("the feature level is {level}"));
        }
    }

    pub(crate) fn put_event(&mut self, event: Event) {
        self.events.put((event.index, event.ordinal), event);
    }

    /// From now until `end_telling` changes of rows are told.
    pub(crate) fn begin_telling(&mut self) {
        self.index.telling = (self.meta.feature_level >= 2).then_some(0);
    }

    /// The entry is applied: the oldest events give way to its own.
    pub(crate) fn end_telling(&mut self) {
        self.index.telling = None;
        while self.events.len() as u64 > self.meta.settings.events_max {
            let Some(oldest) = self.events.iter().next().map(|(key, _)| *key) else { return };
            self.events.remove(&oldest);
            self.meta.events_floor = oldest.0;
        }
    }

    /// Events after this entry, in their order.
    pub fn events_after(&self, index: u64) -> impl Iterator<Item = &Event> + '_ {
        self.events.from_key(&(index.saturating_add(1), 0)).map(|(_, event)| event)
    }

    /// The last entry of which an event gave way: whoever has seen all up to it, or more, misses nothing.
    #[must_use]
    pub fn events_floor(&self) -> u64 {
        self.meta.events_floor
    }

    /// How a disk is called now: its id where it is gone.
    #[must_use]
    pub fn disk_word(&self, id: sdm_proto::ids::DiskId) -> String {
        self.disks.get(&id).map_or_else(|| named("disk", id), |disk| named("disk", &disk.name))
    }

    pub(crate) fn tell_txn(&mut self, txn: &Txn) {
        if self.index.telling.is_none() || matches!(txn.spec, Spec::Noop { .. }) {
            return;
        }
        let old = self.txns.get(&txn.id).map(|old| old.phase.is_final());
        let by = if txn.initiator.is_empty() { String::new() } else { format!(", by {}", txn.initiator) };
        let (kind, text) = match (&txn.phase, old) {
            (Phase::Committed(_), None | Some(false)) => (Kind::TxnFinished, format!("committed: {}", txn.summary)),
            (Phase::Aborted(refusal) | Phase::Refused(refusal), None | Some(false)) => {
                let message =
                    format!("{}: {}: {} [{}]", txn.phase.word(), txn.summary, refusal.message, refusal.reason);
                (Kind::TxnFinished, message)
            }
            (Phase::Waiting { .. }, None) => (Kind::TxnBegun, format!("{}{by}: waits for its locks", txn.summary)),
            (_, None) => (Kind::TxnBegun, format!("{}{by}", txn.summary)),
            _ => return,
        };
        self.tell(kind, named("txn", txn.id), Some(txn.id), text);
    }

    /// Told while the row of a step's transaction is still the old one.
    pub(crate) fn tell_work(&mut self, owner: Owner, old: Option<&Work>, new: &Work) {
        if self.index.telling.is_none() || self.is_noop(owner) {
            return;
        }
        let token = |work: &Work| work.attempt.as_ref().map(|attempt| attempt.token);
        let object = match owner {
            Owner::Step(id) => named("txn", id),
            Owner::Job(id) => named("job", id),
            Owner::Deletion(id) => named("garbage", id),
            Owner::Projection(id) => named("placement", id),
            Owner::Describe(id) => named("domain", id),
        };
        let txn = self.txn_of(owner);
        if let Some(attempt) = new.attempt.as_ref().filter(|attempt| old.and_then(token) != Some(attempt.token)) {
            let (number, token) = (attempt.number, attempt.token);
            let text = format!("attempt {number} ({token}) assigned to worker {}", self.worker_word(attempt.worker));
            self.tell(Kind::AttemptAssigned, object, txn, text);
        } else if let Some(error) = new.last_error.as_ref()
            && old.and_then(|old| old.last_error.as_ref()) != Some(error)
        {
            self.tell(Kind::AttemptFailed, object, txn, error.clone());
        }
    }

    fn is_noop(&self, owner: Owner) -> bool {
        let Owner::Step(id) = owner else { return false };
        self.txns.get(&id).is_some_and(|txn| matches!(txn.spec, Spec::Noop { .. }))
    }

    pub(crate) fn tell_domain(&mut self, domain: &Domain) {
        if self.index.telling.is_none() {
            return;
        }
        let (kind, text) = match self.domains.get(&domain.id) {
            None => (Kind::DomainMade, format!("made at {}", domain.path)),
            Some(old) if old == domain => return,
            Some(old) if old.name != domain.name => (Kind::DomainChanged, format!("renamed from {}", old.name)),
            Some(_) => (Kind::DomainChanged, "changed".to_owned()),
        };
        self.tell(kind, named("domain", &domain.name), None, text);
    }

    pub(crate) fn tell_disk(&mut self, disk: &Disk) {
        if self.index.telling.is_none() {
            return;
        }
        let (kind, text) = match self.disks.get(&disk.id) {
            None => (Kind::DiskMade, format!("made, id {}", disk.id)),
            Some(old) if old == disk => return,
            Some(old) if old.name != disk.name => (Kind::DiskChanged, format!("renamed from {}", old.name)),
            Some(old) if old.placement != disk.placement => {
                (Kind::DiskChanged, format!("lies in placement {} now", disk.placement))
            }
            Some(_) => (Kind::DiskChanged, "changed".to_owned()),
        };
        self.tell(kind, named("disk", &disk.name), None, text);
    }

    pub(crate) fn tell_disk_gone(&mut self, name: &sdm_proto::names::Name, id: sdm_proto::ids::DiskId) {
        self.tell(Kind::DiskGone, named("disk", name), None, format!("gone, id {id}"));
    }

    pub(crate) fn tell_placement(&mut self, placement: &Placement, made: bool) {
        if self.index.telling.is_none() || (made && self.placements.contains(&placement.id)) {
            return;
        }
        let kind = if made { Kind::PlacementMade } else { Kind::PlacementGone };
        let domain = self.domains.get(&placement.domain).map(|domain| domain.name.to_string());
        let place = domain.unwrap_or_else(|| placement.domain.to_string());
        let text = format!("of {} in {place}", self.disk_word(placement.disk));
        self.tell(kind, named("placement", placement.id), Some(placement.txn), text);
    }

    pub(crate) fn tell_garbage(&mut self, garbage: &Garbage) {
        if self.index.telling.is_none() || self.garbage.contains(&garbage.id) {
            return;
        }
        let text = format!("{}: {}", garbage.kind.word(), garbage.evidence);
        self.tell(Kind::GarbageMade, named("garbage", garbage.id), Some(garbage.txn), text);
    }

    pub(crate) fn tell_worker(&mut self, worker: &Worker) {
        if self.index.telling.is_none() {
            return;
        }
        let before = self.workers.get(&worker.identity.id).and_then(|old| old.session);
        let (kind, text) = match (before, worker.session) {
            (old, Some(now)) if old != Some(now) => {
                (Kind::WorkerLive, format!("live at {}, session {now}", worker.identity.address))
            }
            (Some(old), None) => (Kind::WorkerLost, format!("lost: session {old} is over")),
            _ => return,
        };
        self.tell(kind, named("worker", &worker.identity.name), None, text);
    }

    pub(crate) fn tell_member(&mut self, member: &Member) {
        if self.index.telling.is_some() && !self.members.contains(&member.id) {
            let text = format!("added, id {}, at {}", member.id, member.address);
            self.tell(Kind::MemberAdded, named("member", &member.name), None, text);
        }
    }
}
