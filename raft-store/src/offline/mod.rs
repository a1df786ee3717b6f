//! Looking into the folder of a stopped member without changing a byte of it.
//!
//! Opening the log's database writes to it, so the folder is locked against a running member, then
//! everything but the snapshots is copied aside, and what a member does when it starts is done with
//! the copy. The snapshots, which are only read, are reached through links.

mod folder;
mod replay;
mod survey;
mod tables;
mod verify;

pub use folder::StoppedError;
pub use folder::StoppedFolder;
pub use replay::ReplayError;
pub use replay::Replayed;
pub use survey::LogRange;
pub use survey::SnapshotSurvey;
pub use survey::Survey;
pub use tables::TABLES;
pub use tables::rows_of;
pub use tables::table_counts;
pub use verify::Verdict;
