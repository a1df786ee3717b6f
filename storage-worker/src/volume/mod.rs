//! Formats of a volume's file: raw, and qcow2 as far as it must be checked and made.
//!
//! What comes from outside is checked here before anything believes it. Bytes of a volume are never converted or
//! probed here: its format is what the catalog says.

pub mod qcow2;
mod raw;

pub use raw::create_raw;
pub use raw::create_raw_preallocated;

/// Largest volume, in bytes of its file and of what a guest sees: what the cluster takes at most, and about the most that
/// ext4 holds in one file.
pub const VOLUME_BYTES_MAX: u64 = 16 << 40;

/// A raw volume's size is a multiple of this: guests with 4 KiB sectors see all of it.
pub const RAW_ALIGNMENT: u64 = 4096;
