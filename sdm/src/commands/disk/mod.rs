//! `sdm disk`: disks of virtual machines. What they have in common with templates and snapshots is
//! lent to those.

mod attach;
mod changes;
mod copies;
mod create;
mod export;
mod format;
mod import;
mod moves;
mod result;
mod shown;
mod verbs;

pub use export::ExportDisk;
pub use format::DiskFormat;
pub use import::ImportDisk;
pub use result::DiskResult;
pub use result::Verb;
pub use shown::disk_of;
pub use verbs::DiskCommand;
