//! Buffers of one unit, aligned for O_DIRECT, touched once and used again and again: first touches of fresh memory
//! are slower than the disk.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::driver::DIRECT_ALIGNMENT;

use super::UNIT_BYTES;

/// Where buffers come from and go back to. A clone is the same pool.
#[derive(Debug, Clone, Default)]
pub(crate) struct BufferPool(Arc<Mutex<Vec<Vec<u8>>>>);

/// One unit's worth of aligned memory, returned to its pool when dropped. Its content is whatever was there before.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    skew: usize,
    pool: BufferPool,
}

impl BufferPool {
    /// A buffer; a new one only when all are in use. Whoever bounds the units in flight bounds the memory.
    pub fn take(&self) -> Buffer {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = idle.unwrap_or_else(|| {
            let mut memory = vec![0; UNIT_BYTES + DIRECT_ALIGNMENT];
            // `vec![0; _]` maps zero pages; only a write makes them ours.
            memory.iter_mut().step_by(DIRECT_ALIGNMENT).for_each(|byte| *byte = std::hint::black_box(0));
            memory
        });
        let misalignment = memory.as_ptr().addr() % DIRECT_ALIGNMENT;
        let skew = if misalignment == 0 { 0 } else { DIRECT_ALIGNMENT - misalignment };
        Buffer { memory, skew, pool: self.clone() }
    }
}

impl Buffer {
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.skew..self.skew + UNIT_BYTES).unwrap_or_default()
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.skew..self.skew + UNIT_BYTES).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_used_again() {
        let pool = BufferPool::default();
        let first = pool.take();
        assert_eq!(first.bytes().len(), UNIT_BYTES);
        assert_eq!(first.bytes().as_ptr().addr() % DIRECT_ALIGNMENT, 0);
        let address = first.bytes().as_ptr().addr();
        drop(first);
        assert_eq!(pool.take().bytes().as_ptr().addr(), address);
    }
}
