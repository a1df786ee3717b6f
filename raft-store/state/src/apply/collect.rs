//! Collection: members propose what they see due, and here it is checked again. From the moment a
//! deletion is assigned nothing restores what it names.

use crate::apply::Turn;
use crate::garbage::Doomed;
use crate::garbage::Garbage;
use crate::locks::Resource;
use crate::reply::Reply;
use crate::state::State;
use crate::work::Owner;
use sdm_proto::ids::DomainId;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;

impl State {
    /// Whether a collector may have it deleted now: due, not being deleted, not in a pause after a failure,
    /// not held, and in a domain that nobody has for himself.
    ///
    /// A domain in maintenance is no obstacle: its garbage has to go before it can be detached or deleted.
    #[must_use]
    pub fn is_collectable(&self, garbage: &Garbage) -> bool {
        let now = self.meta.clock_ms;
        garbage.due_ms <= now
            && garbage.work.attempt.is_none()
            && garbage.work.retry_at_ms <= now
            && garbage.held.is_none()
            && (garbage.place.whole_domain || !self.is_domain_locked(garbage.place.domain))
    }

    /// Whether somebody holds the domain for itself alone: what deletes it, or takes it away.
    #[must_use]
    pub fn is_domain_locked(&self, domain: DomainId) -> bool {
        // Nobody of the first level locks a domain that way.
        self.index.lock_queues.is_held_exclusively(&Resource::Domain(domain))
    }

    pub(super) fn collect(&mut self, turn: &mut Turn, garbage: &[Token]) -> Result<Reply, Refusal> {
        if self.is_suspended() {
            return Ok(Reply::Collected(Vec::new()));
        }
        let most = usize::try_from(self.meta.settings.work_per_entry).unwrap_or(usize::MAX);
        let mut assigned = Vec::new();
        for id in garbage.iter().take(most) {
            // What another member had collected first, or what is not due, is simply not ours to
            // do: members propose from views of different age.
            if self.collect_one(turn, *id) {
                assigned.push(*id);
            }
        }
        Ok(Reply::Collected(assigned))
    }

    /// Assigns the deletion if it may be and somebody can do it.
    pub(super) fn collect_one(&mut self, turn: &mut Turn, id: Token) -> bool {
        let collectable = self.garbage.get(&id).is_some_and(|row| self.is_collectable(row));
        if !collectable || !self.assign(turn, Owner::Deletion(id)) {
            return false;
        }
        self.mark_doomed(id);
        true
    }

    /// A deleted domain's folder goes in two attempts, so that between the last file and the report there is always
    /// something on the storage that proves it was there. True after the first one.
    pub(super) fn was_emptied(&mut self, turn: &mut Turn, id: Token) -> bool {
        let emptied = |row: &&Garbage| self.meta.feature_level >= 2 && row.is_deleted_domain() && !row.emptied;
        let Some(mut row) = self.garbage.get(&id).filter(emptied).cloned() else { return false };
        row.emptied = true;
        row.work.attempt = None;
        self.put_garbage(row);
        self.collect_one(turn, id);
        true
    }

    /// Remembers the first deletion: whoever asks for the disk later is told since when it is too late.
    fn mark_doomed(&mut self, id: Token) {
        if self.meta.feature_level < 2 {
            return;
        }
        let Some(row) = self.garbage.get(&id).filter(|row| row.doomed.is_none() && row.trash.is_some()) else { return };
        let Some(worker) = row.work.attempt.as_ref().map(|attempt| attempt.worker) else { return };
        let doomed = Some(Doomed { at_ms: self.meta.clock_ms, worker });
        let row = Garbage { doomed, ..row.clone() };
        self.put_garbage(row);
    }
}
