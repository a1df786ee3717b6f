//! For tests: an entry in the log of a simulated disk is exchanged for another one, with checksums
//! that are right. It is what a bit leaves behind that flipped in memory before the checksum was
//! made, or what another build would have written; no checksum can find it.

use super::keys;
use super::record;
use crate::disk::SimulatedDisk;

impl SimulatedDisk {
    /// Changes the command of an entry, its envelope included. False if there is none at this index,
    /// or one that is too large for a single record.
    pub fn forge_log_entry(&self, index: u64, change: impl FnOnce(&mut [u8])) -> bool {
        let key = keys::entry(index);
        let Some(value) = self.log_value(&key) else { return false };
        let Ok([1, 0, frame @ ..]) = record::unseal(&key, &value) else { return false };
        let Some(frame) = record::forged(index, frame, change) else { return false };
        for (key, value) in record::pieces(index, &frame) {
            self.put_log_value(&key, &value);
        }
        true
    }
}
