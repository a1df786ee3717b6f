//! Collection: members propose what they see due, and here it is checked again. From the moment a
//! deletion is assigned nothing restores what it names.

use crate::apply::Turn;
use crate::garbage::Garbage;
use crate::reply::Reply;
use crate::state::State;
use crate::work::Owner;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;

impl State {
    /// Whether a collector may have it deleted now: due, not being deleted, and not in a pause
    /// after a failure.
    #[must_use]
    pub fn is_collectable(&self, garbage: &Garbage) -> bool {
        let now = self.meta.clock_ms;
        garbage.due_ms <= now && garbage.work.attempt.is_none() && garbage.work.retry_at_ms <= now
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
            let collectable = self.garbage.get(id).is_some_and(|row| self.is_collectable(row));
            if collectable && self.assign(turn, Owner::Deletion(*id)) {
                assigned.push(*id);
            }
        }
        Ok(Reply::Collected(assigned))
    }
}
