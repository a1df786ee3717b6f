//! Hashes of the state, taken and collected. What follows from them is derived by each member (see
//! `crate::hashes`): a state that is wrong cannot be trusted to judge itself in `apply`.

use crate::hashes::HASHES_KEPT;
use crate::hashes::Hash;
use crate::hashes::HashPoint;
use crate::reply::Reply;
use crate::state::State;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// Level from which on states are compared.
const COMPARED_FROM: u32 = 2;

impl State {
    /// Keeps the state's hash when this entry is the first one past a multiple of the interval. By
    /// index alone, which nothing in the rows can falsify: also states that have parted take theirs
    /// at the same entries.
    pub(super) fn take_hash(&mut self, previous_index: u64) {
        let every = self.meta.settings.state_hash_every;
        let index = self.meta.applied_index;
        let due = every > 0 && previous_index / every < index / every;
        if self.meta.feature_level < COMPARED_FROM || !due {
            return;
        }
        let own = self.hash();
        self.put_hash_point(HashPoint { index, own, reports: Default::default() });
        while self.hashes.len() > HASHES_KEPT {
            let Some(oldest) = self.hashes.iter().next().map(|(index, _)| *index) else { return };
            self.remove_hash_point(oldest);
        }
    }

    pub(super) fn report_state_hash(&mut self, member: u64, index: u64, hash: Hash) -> Result<Reply, Refusal> {
        if !self.members.contains(&member) {
            return Err(Refusal::new(Class::NotFound, "MEMBER_NOT_FOUND", format!("there is no member {member}")));
        }
        // Of an entry that is too long ago, or was none to take a hash at: nothing to compare with.
        let Some(mut point) = self.hashes.get(&index).cloned() else { return Ok(Reply::Done) };
        if point.reports.insert(member, hash) != Some(hash) {
            self.put_hash_point(point);
        }
        Ok(Reply::Done)
    }
}
