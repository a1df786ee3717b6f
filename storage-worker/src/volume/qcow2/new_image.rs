//! The tables of an image that is written from its beginning to its end. Which bytes lie where is told by whoever writes
//! it; only one L2 table and the L1 table are held in memory.

use super::encode::BackingFile;
use super::encode::CLUSTER_BYTES;
use super::encode::L2_COVERS;
use super::encode::REFCOUNTS_PER_BLOCK;
use super::encode::Tables;
use super::encode::header;
use super::tables::ALL_ZERO;
use super::tables::COPIED;

/// Entries of an L2 table.
const L2_ENTRIES: usize = (CLUSTER_BYTES / 8) as usize;

/// Tables of a new image.
#[derive(Debug)]
pub struct NewImage {
    virtual_bytes: u64,
    l1: Vec<u64>,
    /// The L2 table that is being filled, and its index.
    l2: Option<(u64, Vec<u64>)>,
}

impl NewImage {
    /// Of an image that holds nothing yet.
    #[must_use]
    pub fn new(virtual_bytes: u64) -> Self {
        let entries = usize::try_from(virtual_bytes.div_ceil(L2_COVERS)).unwrap_or(0);
        Self { virtual_bytes, l1: vec![0; entries], l2: None }
    }

    /// Goes to the table of a guest address; addresses rise. Returns the table that was left, to be written.
    pub fn enter(&mut self, guest: u64) -> Option<(u64, Vec<u64>)> {
        let index = guest / L2_COVERS;
        if self.l2.as_ref().is_some_and(|(current, _)| *current == index) {
            return None;
        }
        self.l2.replace((index, vec![0; L2_ENTRIES]))
    }

    /// Leaves the last table.
    pub fn leave(&mut self) -> Option<(u64, Vec<u64>)> {
        self.l2.take()
    }

    /// An L2 table was written.
    pub fn place_l2(&mut self, index: u64, offset: u64) {
        if let Some(entry) = usize::try_from(index).ok().and_then(|index| self.l1.get_mut(index)) {
            *entry = offset | COPIED;
        }
    }

    /// A cluster of data was written.
    pub fn data(&mut self, guest: u64, offset: u64) {
        self.set(guest, offset | COPIED);
    }

    /// A cluster reads as zeros, whatever lies beneath.
    pub fn zero(&mut self, guest: u64) {
        self.set(guest, ALL_ZERO);
    }

    fn set(&mut self, guest: u64, entry: u64) {
        let index = usize::try_from(guest % L2_COVERS / CLUSTER_BYTES).unwrap_or(usize::MAX);
        if let Some(place) = self.l2.as_mut().and_then(|(_, table)| table.get_mut(index)) {
            *place = entry;
        }
    }

    /// The L1 table, to be written when every L2 table was.
    #[must_use]
    pub fn l1(&self) -> Vec<u64> {
        self.l1.clone()
    }

    /// Refcounts of a file in which every cluster up to `end` is used once, and that goes on with just these refcounts:
    /// first the blocks, then the table.
    #[must_use]
    pub fn refcounts(end: u64) -> NewRefcounts {
        let used = end / CLUSTER_BYTES;
        let (mut blocks, mut table_clusters) = (1, 1);
        loop {
            let clusters = used + blocks + table_clusters;
            let (more, table) = (clusters.div_ceil(REFCOUNTS_PER_BLOCK), (blocks * 8).div_ceil(CLUSTER_BYTES));
            if more == blocks && table == table_clusters {
                let table = (0..blocks).map(|block| end + block * CLUSTER_BYTES).collect();
                return NewRefcounts { clusters, table, table_clusters };
            }
            (blocks, table_clusters) = (more, table);
        }
    }

    /// The header, when everything else is durable.
    #[must_use]
    pub fn header(
        &self,
        l1_offset: u64,
        refcount_table: u64,
        refcount_table_clusters: u64,
        backing: Option<&BackingFile>,
    ) -> Vec<u8> {
        let tables = Tables {
            virtual_bytes: self.virtual_bytes,
            l1_offset,
            l1_entries: self.l1.len() as u64,
            refcount_table,
            refcount_table_clusters,
        };
        header(tables, backing)
    }
}

/// Refcounts of a file that was written without gaps.
#[derive(Debug)]
pub struct NewRefcounts {
    clusters: u64,
    table: Vec<u64>,
    table_clusters: u64,
}

impl NewRefcounts {
    /// The blocks, one cluster each.
    pub fn blocks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        (0..self.table.len() as u64).map(|block| {
            let used = self.clusters.saturating_sub(block * REFCOUNTS_PER_BLOCK).min(REFCOUNTS_PER_BLOCK);
            (0..used).flat_map(|_| 1_u16.to_be_bytes()).collect()
        })
    }

    /// The table's entries.
    #[must_use]
    pub fn table(&self) -> &[u64] {
        &self.table
    }

    /// Clusters that the table takes.
    #[must_use]
    pub fn table_clusters(&self) -> u64 {
        self.table_clusters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refcounts_count_themselves() {
        for clusters in [1, 2, 1000, 32765, 32766, 32767, 32768, 65533, 65534, 1 << 24] {
            let refcounts = NewImage::refcounts(clusters * CLUSTER_BYTES);
            let all = clusters + refcounts.table.len() as u64 + refcounts.table_clusters;
            assert_eq!(refcounts.clusters, all);
            assert_eq!(refcounts.table.len() as u64, all.div_ceil(REFCOUNTS_PER_BLOCK), "{clusters}");
            if clusters < 1 << 20 {
                assert_eq!(refcounts.blocks().map(|block| block.len() as u64 / 2).sum::<u64>(), all);
            }
        }
    }
}
