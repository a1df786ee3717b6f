//! Snapshots: the whole state in one file, written aside, synced, then named; checked from end to
//! end before it is believed. The newest two stay. A snapshot is built from an O(1) clone of the
//! state, so `apply` goes on meanwhile, and it is sent from its immutable file.
//!
//! Nothing here knows when to take one ([`SnapshotTrigger`] says when it pays) or how it travels.

mod file;
mod folder;
mod format;
mod receiver;
mod transfers;
mod trigger;

pub use file::SnapshotFile;
pub use folder::SnapshotFolder;
pub use format::SnapshotError;
pub use receiver::SnapshotReceiver;
pub use trigger::SnapshotTrigger;
pub use trigger::drive_snapshots;

pub(crate) use folder::Loaded;
pub(crate) use folder::NotPublished;
pub(crate) use format::Header as SnapshotHeader;
pub(crate) use format::SnapshotReader;
pub(crate) use format::SnapshotWriter;
pub(crate) use trigger::GROWTH_BYTES_MIN;
