//! What must hold of a history, whoever recorded it. A linear look at tokens, repeated requests and revisions comes
//! first (`oracles`); then a search for one order of the operations that explains every answer (`wgl`), for each lock by
//! itself (`lock_model`, `lock_history`) and for the disks that renames connect (`catalog_model`, `catalog_history`).
//! `judge` does all of it, `command` on a file, `sample` makes histories to measure it with.

mod catalog_history;
mod catalog_model;
mod command;
mod intervals;
mod judge;
mod leases;
mod lock_history;
mod lock_model;
mod oracles;
mod sample;
mod trial;
mod wgl;

#[cfg(test)]
mod brute_force;
#[cfg(test)]
mod literature;
#[cfg(test)]
mod random_histories;

pub use command::check_file;
pub use judge::judge;
pub use sample::Sample;
pub use trial::STEPS_MAX;
