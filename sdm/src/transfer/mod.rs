//! Byte streams between this command and a worker: a file sent into an import, a volume read by an
//! export. The worker's address and ticket come with the transaction; when the attempt moves to
//! another worker, the stream begins anew there.

mod backup_file;
mod download;
mod exchange;
mod known_image;
mod logical_hash;
mod part_files;
mod source_file;
mod target_file;
mod upload;

pub use backup_file::BackupFile;
pub use download::Download;
pub use download::download;
pub use exchange::Exchange;
pub use exchange::TransferError;
pub use logical_hash::ContentHash;
pub use logical_hash::LogicalHash;
pub use part_files::PartFiles;
pub use source_file::SourceFile;
pub use target_file::TargetPath;
pub use upload::upload;

#[cfg(test)]
mod tests;
