//! Backups: the state of a cluster after one entry, in one file, that a new cluster can be made of.
//!
//! ```text
//! file    := MAGIC · length u32 · crc32c(header) u32 · header · snapshot · trailer
//! header  := JSON: format, cluster, pool, epoch, index, hash of the state, who made it and when
//! snapshot := a snapshot file as the snapshots' folder holds them
//! trailer := END · length of the snapshot u64 · BLAKE3 of all bytes before this hash
//! ```
//!
//! Everything is checked before any of it is believed. What a restored cluster may do is the
//! state's affair; taking the storage over is the workers'.

mod check;
mod header;
mod restore;
mod write;

pub use check::Backup;
pub use check::BackupError;
pub use check::check_backup;
pub use header::BackupHeader;
pub use restore::RestoreError;
pub use restore::RestorePlan;
pub use restore::RestoredFolder;
pub use restore::restore_backup;
pub use write::BackupFacts;
pub use write::WrittenBackup;
pub use write::write_backup;

const MAGIC: &[u8; 8] = b"sdmback\x01";
const END: &[u8; 8] = b"sdmbend\x01";

/// Format that this build writes, and the highest it reads.
const FORMAT: u32 = 1;

/// Magic, length of the snapshot and hash.
const TRAILER_BYTES: u64 = 8 + 8 + 32;

/// A longer header is not ours.
const HEADER_BYTES_MAX: usize = 64 << 10;
