//! From rows of the state to the messages of the public contract: complete, in words where people
//! read, and with nothing decided. Secrets stay behind, except the ticket of a transfer, which is
//! for the command that reads it.

mod attachment;
mod disk;
mod domain;
mod dry_run;
mod garbage;
mod job;
mod lock;
mod reason;
mod standing;
mod transaction;
mod volume;
mod worker;

pub(crate) use attachment::attachment;
pub(crate) use disk::disk;
pub(crate) use domain::domain;
pub(crate) use dry_run::dry_run;
pub(crate) use garbage::blocked_by as garbage_obstacle;
pub(crate) use garbage::collection_plan;
pub(crate) use garbage::garbage;
pub(crate) use garbage::state_word as garbage_state;
pub(crate) use job::job;
pub(crate) use lock::holder;
pub(crate) use lock::lock;
pub(crate) use lock::state_word;
pub(crate) use standing::aborted_later;
pub(crate) use standing::standing;
pub(crate) use transaction::current_work;
pub(crate) use transaction::transaction;
pub(crate) use transaction::without_history;
pub(crate) use volume::places;
pub(crate) use volume::snapshot;
pub(crate) use volume::snapshots;
pub(crate) use volume::volume;
pub(crate) use worker::worker;

use sdm_proto::ids::DomainId;
use sdm_state::State;

/// A hash in hex; empty when there is none.
fn hex(hash: Option<[u8; 32]>) -> String {
    hash.map(|bytes| blake3::Hash::from_bytes(bytes).to_hex().to_string()).unwrap_or_default()
}

/// A domain's name; its id while it has none.
fn domain_word(state: &State, id: DomainId) -> String {
    state.domains.get(&id).map_or_else(|| id.to_string(), |domain| domain.name.to_string())
}

/// Whole seconds until then, at least 1: "in 0 s" reads as if it had happened.
fn seconds_until(state: &State, at_ms: u64) -> u64 {
    at_ms.saturating_sub(state.meta.clock_ms).div_ceil(1000).max(1)
}
