//! When a copy makes what it wrote durable in between, and tells.

use crate::driver::DomainFile;
use crate::driver::StorageError;

use super::CopyPorts;

/// A lost attempt loses at most about so much work on fast storage ...
const CHECKPOINT_BYTES: u64 = 1 << 30;
/// ... and about so much time on slow storage.
const CHECKPOINT_INTERVAL_MS: u64 = 30_000;

/// Counts towards the next checkpoint.
pub(super) struct Checkpoints<'p> {
    ports: CopyPorts<'p>,
    last_bytes: u64,
    last_ms: u64,
}

impl<'p> Checkpoints<'p> {
    pub fn new(ports: CopyPorts<'p>) -> Self {
        Self { ports, last_bytes: 0, last_ms: (ports.now_ms)() }
    }

    /// Everything below `done_bytes` was written. Syncs and tells when it is time.
    pub fn note<F: DomainFile>(&mut self, target: &F, done_bytes: u64) -> Result<(), StorageError> {
        let now_ms = (self.ports.now_ms)();
        let is_due = done_bytes.saturating_sub(self.last_bytes) >= CHECKPOINT_BYTES
            || now_ms.saturating_sub(self.last_ms) >= CHECKPOINT_INTERVAL_MS;
        if is_due {
            target.sync()?;
            (self.ports.checkpoint)(done_bytes);
            self.last_bytes = done_bytes;
            // The sync itself may have taken its time.
            self.last_ms = (self.ports.now_ms)();
        }
        Ok(())
    }
}
