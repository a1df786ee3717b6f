//! A piece of a volume's bytes on its way between two processes.
//!
//! The rules of a stream, checked by whoever receives it: for each volume in the order's order one `Open`, then
//! `Data` and `Hole` in rising offsets without overlap (what lies between them is a hole too), then one `End`.

use bytes::Bytes;

use super::FileHash;

/// Most bytes that one `Data` carries: large enough for O_DIRECT to run at full speed, small enough to hold a few
/// of them for each stream and to stay well below gRPC's 4 MiB messages.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// One element of a stream of volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A volume's bytes begin.
    Open {
        /// Index into the order's list of volumes.
        ordinal: u32,
        /// How many bytes the volume has; known first so that the file's size is set before its data.
        bytes: u64,
    },
    /// Bytes at an offset. Never empty, at most [`PIECE_BYTES_MAX`].
    Data {
        /// Where they belong, counted from the volume's beginning.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// A run of zeros that need no storage. Never empty.
    Hole {
        /// Where it begins.
        offset: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// The volume is complete.
    End {
        /// As in `Open`.
        bytes: u64,
        /// BLAKE3 of those bytes, holes as zeros, as the sender read them.
        hash: FileHash,
    },
}
