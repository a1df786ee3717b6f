//! Several layers of a chain read as one and written anew: the engine of merges, collapses and changes of format.
//!
//! ```text
//!  layers ──► plan a MiB of the guest ──┬► read, decompress, find zeros ─┐      ┌► hash, write ─┐
//!  (tables)   (one thread)              └► read, decompress, find zeros ─┴► pack└► hash, write ─┴─► header last
//! ```
//! A cluster that any layer holds, as data or as zeros, hides what lies beneath it; the uppermost wins. What no layer
//! holds stays unallocated over what lies beneath the target, and reads as zeros where nothing does. Explicit zeros over
//! something stay explicit zeros. Memory is bounded by the units in flight, whatever the image says.
//!
//! Who gives the layers, and where the target lies, is `work/`'s business; nothing here follows a name.

mod chain;
mod error;
mod plan;
mod qcow2_target;
mod raw_target;
mod sender;
mod stream;
mod units;
mod view;

pub use chain::Chain;
pub use chain::ChainBuilder;
pub use chain::LayerFormat;
pub use error::FlattenError;
pub(crate) use plan::Grain;
pub use qcow2_target::flatten_to_qcow2;
pub use raw_target::flatten_to_raw;
pub use sender::send_flattened;

use crate::work::CancelFlag;
use crate::work::FileHash;

/// What a flatten speaks through.
#[derive(Clone, Copy)]
pub struct FlattenPorts<'p> {
    /// Bytes of the guest's address space that are done, and all of them.
    pub progress: &'p (dyn Fn(u64, u64) + Send + Sync),
    /// Looked at before each unit.
    pub cancel: &'p CancelFlag,
}

/// A finished target: written, durable except for its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flattened {
    /// Size of its file.
    pub file_bytes: u64,
    /// Hash of its file.
    pub hash: FileHash,
}
