//! When a copy makes what it wrote durable in between, and tells.

use std::time::Duration;
use std::time::Instant;

use crate::driver::DomainFile;
use crate::driver::StorageError;

/// A lost attempt loses at most about so much work on fast storage ...
const CHECKPOINT_BYTES: u64 = 1 << 30;
/// ... and about so much time on slow storage.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);

/// Counts towards the next checkpoint.
#[derive(Debug)]
pub(super) struct Checkpoints {
    last_bytes: u64,
    last_time: Instant,
}

impl Checkpoints {
    pub fn new() -> Self {
        Self { last_bytes: 0, last_time: Instant::now() }
    }

    /// Everything below `done_bytes` was written. Syncs and tells when it is time.
    pub fn note<F: DomainFile>(
        &mut self,
        target: &F,
        done_bytes: u64,
        tell: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StorageError> {
        let is_due = done_bytes.saturating_sub(self.last_bytes) >= CHECKPOINT_BYTES
            || self.last_time.elapsed() >= CHECKPOINT_INTERVAL;
        if is_due {
            target.sync()?;
            tell(done_bytes);
            *self = Self { last_bytes: done_bytes, last_time: Instant::now() };
        }
        Ok(())
    }
}
