//! Operations on disks as their users see them, each with what must be true before and after: a model
//! of disks and their content, the table of operations, and the proof that catalog and storage agree
//! with the model.

// Each test binary uses a part of it.
#![allow(dead_code, unused_imports)]

mod agreement;
mod expected;
mod guest;
mod kills;
mod spare;
mod table;
mod world;

pub use expected::Expected;
pub use expected::Frozen;
pub use kills::Kills;
pub use kills::VICTIMS;
pub use kills::Victim;
pub use kills::count_cases;
pub use kills::kill_after_each_entry;
pub use spare::SPARE;
pub use spare::Stands;
pub use table::OPERATIONS;
pub use table::Operation;
pub use table::operation;
pub use world::World;
