//! Who refers to which cluster: one counter and one metadata bit for each cluster of the file.

use super::Qcow2Error;
use super::header::outside;

/// Largest number of clusters that is checked: a counter takes 2 bytes, so this bounds the memory to 512 MiB, of which
/// only what is counted is ever touched. It is 16 TiB with the usual 64 KiB clusters.
const CLUSTERS_MAX: u64 = 1 << 28;

/// References counted so far.
#[derive(Debug)]
pub(super) struct Ledger {
    cluster_bits: u32,
    file_bytes: u64,
    /// Saturates at its largest value, which then means "at least".
    references: Vec<u16>,
    metadata: Vec<u64>,
    has_shared: bool,
}

impl Ledger {
    pub fn new(file_bytes: u64, cluster_bits: u32) -> Result<Self, Qcow2Error> {
        let clusters = file_bytes.div_ceil(1 << cluster_bits);
        let too_many = || Qcow2Error::Unsupported(format!("a file of {clusters} clusters, more than {CLUSTERS_MAX},"));
        let count = usize::try_from(clusters).ok().filter(|_| clusters <= CLUSTERS_MAX).ok_or_else(too_many)?;
        Ok(Self {
            cluster_bits,
            file_bytes,
            references: vec![0; count],
            metadata: vec![0; count.div_ceil(64)],
            has_shared: false,
        })
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Counted references, cluster by cluster.
    pub fn references(&self) -> &[u16] {
        &self.references
    }

    /// Is any cluster of guest data referred to more than once?
    pub fn has_shared(&self) -> bool {
        self.has_shared
    }

    fn is_metadata(&self, cluster: usize) -> bool {
        self.metadata.get(cluster / 64).is_some_and(|word| word >> (cluster % 64) & 1 == 1)
    }

    fn clusters_of(&self, offset: u64, length: u64) -> std::ops::Range<usize> {
        let first = offset >> self.cluster_bits;
        let last = offset.saturating_add(length.saturating_sub(1)) >> self.cluster_bits;
        let index = |cluster| usize::try_from(cluster).unwrap_or(usize::MAX);
        index(first)..index(last).saturating_add(1).min(self.references.len())
    }

    /// A table: aligned, inside the file, in clusters that nothing else uses. `times`: how often it is referred to.
    pub fn claim(&mut self, what: &'static str, offset: u64, length: u64, times: u16) -> Result<(), Qcow2Error> {
        if !offset.is_multiple_of(1 << self.cluster_bits) {
            return Err(Qcow2Error::Misaligned { what, offset });
        }
        if length == 0 {
            return Ok(());
        }
        outside(what, offset, length, self.file_bytes)?;
        for cluster in self.clusters_of(offset, length) {
            if self.is_metadata(cluster) {
                let offset = (cluster as u64) << self.cluster_bits;
                return Err(Qcow2Error::Overlap { what, offset });
            }
            if let Some(word) = self.metadata.get_mut(cluster / 64) {
                *word |= 1 << (cluster % 64);
            }
            self.count(cluster, times);
        }
        Ok(())
    }

    /// Guest data that must lie inside the file and apart from all tables. All tables were claimed before.
    pub fn refer(&mut self, what: &'static str, offset: u64, length: u64, times: u16) -> Result<(), Qcow2Error> {
        outside(what, offset, length, self.file_bytes)?;
        for cluster in self.clusters_of(offset, length) {
            if self.is_metadata(cluster) {
                return Err(Qcow2Error::Overlap { what, offset });
            }
            let counted = self.count(cluster, times);
            self.has_shared |= counted > 1;
        }
        Ok(())
    }

    fn count(&mut self, cluster: usize, times: u16) -> u16 {
        match self.references.get_mut(cluster) {
            Some(count) => {
                *count = count.saturating_add(times);
                *count
            }
            None => 0,
        }
    }

    /// How often the cluster at an offset is referred to.
    pub fn references_at(&self, offset: u64) -> u16 {
        let cluster = usize::try_from(offset >> self.cluster_bits).unwrap_or(usize::MAX);
        self.references.get(cluster).copied().unwrap_or(0)
    }
}
