//! BLAKE3 of a file, put together from its units' subtrees, which any thread hashes in any order.
//!
//! The result equals plain BLAKE3 of the bytes. BLAKE3 counts its chunks, so a run of zeros has another value at each
//! offset and cannot be looked up: holes are hashed from one small block of zeros that stays in the cache.

use std::collections::HashMap;

use blake3::Hasher;
use blake3::hazmat::ChainingValue;
use blake3::hazmat::HasherExt;
use blake3::hazmat::Mode;
use blake3::hazmat::merge_subtrees_non_root;
use blake3::hazmat::merge_subtrees_root;

use crate::work::FileHash;

use super::UNIT_BYTES;

/// Zeros that holes are hashed from.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The hash of one unit: a subtree's chaining value, or, for a file of one unit, the hash itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitHash(ChainingValue);

/// Collects the hashes of a file's units. Memory stays small while units come roughly in order.
#[derive(Debug)]
pub struct TreeHash {
    units: u64,
    /// Complete subtrees by (level, index within the level), merged as soon as both halves are there.
    subtrees: HashMap<(u32, u64), ChainingValue>,
}

/// How many units a file of so many bytes has. An empty file has one, empty, unit.
pub fn unit_count(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT_BYTES as u64).max(1)
}

/// Hashes unit `index` of a file of `bytes` bytes. `data` begins at the unit's beginning; zeros follow it.
pub fn hash_unit(data: &[u8], index: u64, bytes: u64) -> UnitHash {
    let start = index.saturating_mul(UNIT_BYTES as u64);
    let length = usize::try_from(bytes.saturating_sub(start)).unwrap_or(UNIT_BYTES).min(UNIT_BYTES);
    let is_root = unit_count(bytes) == 1;
    let mut hasher = Hasher::new();
    if !is_root {
        hasher.set_input_offset(start);
    }
    let data = data.get(..length).unwrap_or(data);
    hasher.update(data);
    let mut zeros = length - data.len();
    while zeros > 0 {
        let part = zeros.min(ZEROS.len());
        hasher.update(ZEROS.get(..part).unwrap_or(&ZEROS));
        zeros -= part;
    }
    UnitHash(if is_root { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() })
}

impl TreeHash {
    /// For a file of so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self { units: unit_count(bytes), subtrees: HashMap::new() }
    }

    /// The size, where it was not known before: the tree was made for a longer file, and no unit of it but those was
    /// added that are surely not merged last, which is all but the first.
    pub(crate) fn set_bytes(&mut self, bytes: u64) {
        self.units = unit_count(bytes);
    }

    /// Adds a unit's hash; each unit once.
    pub fn add(&mut self, index: u64, hash: UnitHash) {
        let (mut level, mut index, mut value) = (0_u32, index, hash.0);
        // The topmost merge is the root's and done last.
        while 1_u64.checked_shl(level + 1).is_some_and(|span| span < self.units) {
            let Some(sibling) = self.subtrees.remove(&(level, index ^ 1)) else { break };
            let (left, right) = if index.is_multiple_of(2) { (value, sibling) } else { (sibling, value) };
            value = merge_subtrees_non_root(&left, &right, Mode::Hash);
            level += 1;
            index /= 2;
        }
        self.subtrees.insert((level, index), value);
    }

    /// The file's hash; `None` when a unit is missing.
    pub fn finish(self) -> Option<FileHash> {
        // What is left are the peaks of a left-balanced tree: subtrees of falling size from left to right.
        let mut peaks: Vec<(u64, u64, ChainingValue)> = Vec::new();
        for ((level, index), value) in self.subtrees {
            let span = 1_u64.checked_shl(level)?;
            peaks.push((index.checked_mul(span)?, span, value));
        }
        peaks.sort_unstable_by_key(|(start, ..)| *start);
        let mut next = 0;
        for (start, span, _) in &peaks {
            if *start != next {
                return None;
            }
            next = start + span;
        }
        if next != self.units {
            return None;
        }
        let (_, _, mut right) = peaks.pop()?;
        let Some((_, _, first)) = peaks.first().copied() else { return Some(FileHash(right)) };
        for (_, _, left) in peaks.iter().skip(1).rev() {
            right = merge_subtrees_non_root(left, &right, Mode::Hash);
        }
        Some(merge_subtrees_root(&first, &right, Mode::Hash).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(bytes: &[u8], order: impl Fn(&mut Vec<u64>)) -> Option<FileHash> {
        let size = bytes.len() as u64;
        let mut tree = TreeHash::new(size);
        let mut indices: Vec<u64> = (0..unit_count(size)).collect();
        order(&mut indices);
        for index in indices {
            let start = usize::try_from(index).expect("a small index") * UNIT_BYTES;
            let unit = &bytes[start..bytes.len().min(start + UNIT_BYTES)];
            // Trailing zeros need not be given.
            let data = &unit[..unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)];
            tree.add(index, hash_unit(data, index, size));
        }
        tree.finish()
    }

    #[test]
    fn a_tree_of_units_hashes_as_plain_blake3_does() {
        let unit = UNIT_BYTES;
        let sizes =
            [0, 1, 1023, 1024, 4096, unit - 1, unit, unit + 1, 2 * unit, 3 * unit, 4 * unit + 5, 7 * unit, 8 * unit];
        for size in sizes {
            let mut bytes = vec![0_u8; size];
            for (position, byte) in bytes.iter_mut().enumerate().filter(|(position, _)| position % (3 * unit) < unit) {
                *byte = (position * 31 % 251) as u8;
            }
            let plain = FileHash::from(blake3::hash(&bytes));
            assert_eq!(tree(&bytes, |_| {}), Some(plain), "{size} bytes in order");
            assert_eq!(tree(&bytes, |indices| indices.reverse()), Some(plain), "{size} bytes backwards");
            assert_eq!(tree(&bytes, |indices| indices.sort_by_key(|i| i * 5 % 7)), Some(plain), "{size} bytes mixed");
        }
    }

    #[test]
    fn a_missing_unit_gives_no_hash() {
        let bytes = vec![1_u8; 3 * UNIT_BYTES];
        assert_eq!(tree(&bytes, |indices| indices.retain(|index| *index != 1)), None);
        assert_eq!(tree(&bytes, |indices| indices.truncate(2)), None);
    }
}
