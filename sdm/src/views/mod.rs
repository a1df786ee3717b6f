//! The nouns as they are printed: structs of our own, so that the JSON is a promise of the command
//! line and not of the wire. Keys in snake_case, 64-bit values as numbers, bytes as hex, what is
//! absent as null, no field ever omitted.

mod attachment;
mod disk;
mod disk_tree;
mod domain;
mod dry_run;
mod event;
mod explanation;
mod garbage;
mod job;
mod list;
mod lock;
mod member;
mod snapshot;
mod status;
mod transaction;
mod transaction_story;
mod volume;
mod worker;

pub use attachment::AttachmentView;
pub use disk::DiskView;
pub use disk_tree::DiskTree;
pub use domain::DomainView;
pub use dry_run::DryRunView;
pub use event::ClusterEventView;
pub use explanation::ExplanationView;
pub use garbage::GarbageView;
pub use job::JobView;
pub use list::Fields;
pub use list::List;
pub use list::Row;
pub use list::Shown;
pub use list::fields_text;
pub use lock::BlockerView;
pub use lock::LockView;
pub use member::MemberView;
pub use member::Votes;
pub use snapshot::SnapshotView;
pub use status::StatusView;
pub use transaction::TransactionView;
pub use transaction_story::TransactionStory;
pub use volume::VolumeStory;
pub use worker::WorkerView;

/// Bytes as lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
