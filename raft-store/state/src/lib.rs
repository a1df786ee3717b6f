//! The replicated state of sdm: every decision of the cluster is made here, inside `State::apply`,
//! a pure function of the state and one log entry. No clock, no randomness, no I/O, no async, no
//! hash order, no panic; a refusal is a value. What members send to workers, show to operators and
//! propose next is derived from the state by anybody who has it.
//!
//! One table a file; `apply/` holds one file for each family of commands.

#![forbid(unsafe_code)]

mod apply;
pub mod assignments;
pub mod attachments;
mod attempts;
mod blueprint;
pub mod catalog;
mod chain_rules;
mod changes;
pub mod command;
mod contents;
pub mod domain_catalog;
pub mod domain_change;
pub mod dry_run;
mod due;
pub mod envelope;
pub mod events;
pub mod feature_level;
pub mod fill;
mod flattened_chain;
pub mod forgotten;
pub mod garbage;
pub mod garbage_order;
pub mod gc_plans;
pub mod hashes;
mod index;
pub mod invariants;
pub mod jobs;
mod lock_queues;
pub mod locks;
pub mod members;
mod placing;
mod plan;
pub mod projections;
pub mod reply;
mod rows;
pub mod sessions;
pub mod settings;
mod shape;
mod state;
pub mod suspension;
mod table;
mod touched;
pub mod txns;
mod volume_users;
pub mod work;
pub mod workers;

pub use apply::RestoreAs;
pub use command::Command;
pub use command::Entry;
pub use due::GarbagePlace;
pub use due::WaitingGarbage;
pub use reply::Reply;
pub use state::Meta;
pub use state::State;
pub use table::Table;
pub use touched::Touched;
pub use volume_users::VolumeUser;
