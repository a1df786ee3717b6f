//! One table of the state: a persistent map whose rows carry hashes, summed as rows come and go. A
//! clone is O(1), so a snapshot or a reader never stops `apply`; the sum lets members compare
//! their states without reading them.

use serde::Serialize;
use std::sync::Arc;

/// A sum of row hashes: the same whatever the order in which rows came.
pub type Sum = [u64; 4];

struct Row<V> {
    value: Arc<V>,
    hash: Sum,
}

impl<V> Clone for Row<V> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), hash: self.hash }
    }
}

/// A table from `K` to `V`.
pub struct Table<K, V> {
    rows: imbl::OrdMap<K, Row<V>>,
    sum: Sum,
}

impl<K: Ord + std::fmt::Debug, V: std::fmt::Debug> std::fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.rows.iter().map(|(key, row)| (key, &row.value))).finish()
    }
}

impl<K: Ord + Clone, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), sum: self.sum }
    }
}

impl<K: Ord + Clone, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: imbl::OrdMap::new(), sum: [0; 4] }
    }
}

fn hash_of<K: Serialize, V: Serialize>(key: &K, value: &V) -> Sum {
    // Encoding to memory fails only for types that cannot be encoded at all, which every snapshot
    // test would show; a constant keeps apply total even then.
    let bytes = rmp_serde::to_vec_named(&(key, value)).unwrap_or_default();
    let hash = blake3::hash(&bytes);
    let mut sum = [0; 4];
    for (lane, chunk) in sum.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
        *lane = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
    }
    sum
}

impl<K: Ord + Clone + Serialize, V: Serialize> Table<K, V> {
    /// The row, if there is one.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key).map(|row| row.value.as_ref())
    }

    /// Whether there is such a row.
    pub fn contains(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows by rising key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + '_ {
        self.rows.iter().map(|(key, row)| (key, row.value.as_ref()))
    }

    /// Rows with keys of at least this, rising.
    pub fn from_key<'a>(&'a self, first: &K) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        self.rows.range(first.clone()..).map(|(key, row)| (key, row.value.as_ref()))
    }

    /// All values by rising key.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + '_ {
        self.rows.iter().map(|(_, row)| row.value.as_ref())
    }

    /// The sum of the rows' hashes.
    pub fn sum(&self) -> Sum {
        self.sum
    }

    pub(crate) fn put(&mut self, key: K, value: V) {
        let hash = hash_of(&key, &value);
        let old = self.rows.insert(key, Row { value: Arc::new(value), hash });
        for (lane, part) in hash.iter().enumerate() {
            let gone = old.as_ref().map_or(0, |row| row.hash[lane]);
            self.sum[lane] = self.sum[lane].wrapping_add(*part).wrapping_sub(gone);
        }
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(row) = self.rows.remove(key) {
            for (lane, part) in row.hash.iter().enumerate() {
                self.sum[lane] = self.sum[lane].wrapping_sub(*part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn the_sum_depends_on_the_rows_alone(steps in prop::collection::vec((0u8..8, prop::option::of(0u16..4)), 0..60)) {
            let mut table = Table::default();
            let mut model = BTreeMap::new();
            for (key, value) in steps {
                match value {
                    Some(value) => { table.put(key, value); model.insert(key, value); }
                    None => { table.remove(&key); model.remove(&key); }
                }
            }
            let mut fresh = Table::default();
            for (key, value) in model.iter().rev() {
                fresh.put(*key, *value);
            }
            prop_assert_eq!(table.sum(), fresh.sum());
            prop_assert_eq!(table.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_changed_value_changes_the_sum() {
        let mut a = Table::default();
        a.put(1u8, "x");
        let mut b = a.clone();
        b.put(1, "y");
        assert_ne!(a.sum(), b.sum());
        assert_eq!(a.get(&1), Some(&"x"));
    }
}
