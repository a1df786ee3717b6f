//! Room for refcounts: the blocks that count clusters which an image in place is to get, and a longer table where the
//! old one is too short.
//!
//! ```text
//!  the file made longer; new blocks and a new table behind the last cluster in use, counted ──► sync
//!  one new block: its entry in the table; more: the header's first sector, to the new table  ──► sync
//!  refcounts of the old table
//! ```
//! Blocks count each other. Where more than one is new, all become valid by one sector, so that none is ever in use
//! without being counted.

use std::ops::Range;

use super::FileImage;
use super::Header;
use super::Qcow2Error;
use super::be::u64_at;
use super::grow::free_replaced;
use super::grow::set_refcounts;
use super::grow::write_header;
use super::header::REFCOUNT_TABLE_BYTES_MAX;
use super::image::read_bytes;
use super::refcounts::set_refcount;
use crate::driver::DIRECT_ALIGNMENT;
use crate::driver::DomainFile;

/// The refcounts of an image in place.
#[derive(Debug)]
pub(super) struct Room {
    header: Header,
    /// Where each block lies; 0: there is none.
    blocks: Vec<u64>,
    /// Clusters before this can be counted.
    end: u64,
}

/// What is to be added.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    table_clusters: u64,
    /// Indices of blocks.
    missing: Vec<u64>,
    end: u64,
}

impl Room {
    /// As it is.
    pub fn of<F: DomainFile>(file: &F, header: Header) -> Result<Self, Qcow2Error> {
        let bytes = u64::from(header.refcount_table_clusters) << header.cluster_bits;
        let table =
            read_bytes(&FileImage::new(file)?, header.refcount_table_offset, usize::try_from(bytes).unwrap_or(0))?;
        let blocks = table.chunks_exact(8).filter_map(|entry| u64_at(entry, 0)).collect();
        Ok(Self { header, blocks, end: 0 })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    fn per_block(&self) -> u64 {
        (self.header.cluster_bytes() * 8) >> self.header.refcount_order
    }

    fn block(&self, index: u64) -> Option<u64> {
        let block = usize::try_from(index).ok().and_then(|index| self.blocks.get(index)).copied();
        block.filter(|offset| *offset != 0)
    }

    /// What has to be added so that `clusters` from `first` on, behind what is added itself, can be counted.
    fn plan(&self, first: u64, clusters: u64) -> Result<Plan, Qcow2Error> {
        let (cluster_bytes, per_block) = (self.header.cluster_bytes(), self.per_block());
        let mut plan = Plan::default();
        loop {
            let end = first + plan.table_clusters + plan.missing.len() as u64 + clusters;
            let last = end.saturating_sub(1) / per_block;
            let missing: Vec<u64> = (first / per_block..=last).filter(|index| self.block(*index).is_none()).collect();
            let has = self.blocks.len() as u64;
            let table_clusters = if missing.len() > 1 || last >= has {
                ((last + 1).max(has) * 8).div_ceil(cluster_bytes).max(plan.table_clusters)
            } else {
                plan.table_clusters
            };
            if table_clusters * cluster_bytes > REFCOUNT_TABLE_BYTES_MAX {
                return Err(Qcow2Error::Unsupported("a refcount table of that size".to_owned()));
            }
            let next = Plan { table_clusters, missing, end };
            if next == plan {
                return Ok(plan);
            }
            plan = next;
        }
    }

    /// What so many clusters behind `first` take, with what has to be added to count them.
    pub fn bytes_for(&self, first: u64, clusters: u64) -> u64 {
        let end = self.plan(first, clusters).map_or(first.saturating_add(clusters), |plan| plan.end);
        end.saturating_sub(first).saturating_mul(self.header.cluster_bytes())
    }

    /// Makes room for so many clusters behind `first`, the first one that nothing uses; returns the first one after what
    /// was added for that.
    pub fn make<F: DomainFile>(&mut self, file: &F, first: u64, clusters: u64) -> Result<u64, Qcow2Error> {
        let plan = self.plan(first, clusters)?;
        lengthen(file, plan.end * self.header.cluster_bytes())?;
        let added = first..first + plan.table_clusters + plan.missing.len() as u64;
        if !added.is_empty() {
            self.add(file, &plan, &added)?;
        }
        self.end = plan.end;
        Ok(added.end)
    }

    fn add<F: DomainFile>(&mut self, file: &F, plan: &Plan, added: &Range<u64>) -> Result<(), Qcow2Error> {
        let (cluster_bytes, per_block) = (self.header.cluster_bytes(), self.per_block());
        let old = self.header.clone();
        let table_entries = (plan.table_clusters * cluster_bytes / 8).max(self.blocks.len() as u64);
        // What is there already first: afterwards the new blocks are known, too.
        self.set(file, added.clone(), 1)?;
        self.blocks.resize(usize::try_from(table_entries).unwrap_or(0), 0);
        for (number, index) in (0..).zip(&plan.missing) {
            let offset = (added.start + plan.table_clusters + number) * cluster_bytes;
            let mut counts = vec![0; usize::try_from(cluster_bytes).unwrap_or(0)];
            for cluster in added.clone().filter(|cluster| cluster / per_block == *index) {
                let within = usize::try_from(cluster % per_block).unwrap_or(usize::MAX);
                set_refcount(&mut counts, within, old.refcount_order, 1);
            }
            file.write_at(&counts, offset)?;
            if let Some(place) = usize::try_from(*index).ok().and_then(|index| self.blocks.get_mut(index)) {
                *place = offset;
            }
        }
        if plan.table_clusters == 0 {
            file.sync()?;
            for index in &plan.missing {
                let offset = self.block(*index).unwrap_or(0);
                file.write_at(&offset.to_be_bytes(), old.refcount_table_offset + index * 8)?;
            }
            return Ok(file.sync()?);
        }
        let table: Vec<u8> = self.blocks.iter().flat_map(|offset| offset.to_be_bytes()).collect();
        self.header.refcount_table_offset = added.start * cluster_bytes;
        self.header.refcount_table_clusters = u32::try_from(plan.table_clusters).unwrap_or(u32::MAX);
        file.write_at(&table, self.header.refcount_table_offset)?;
        file.sync()?;
        write_header(file, &self.header)?;
        file.sync()?;
        free_replaced(file, &old, &self.header)
    }

    /// Sets refcounts where there are blocks for them.
    pub fn set<F: DomainFile>(&self, file: &F, clusters: Range<u64>, value: u64) -> Result<(), Qcow2Error> {
        let per_block = self.per_block();
        let mut at = clusters.start;
        while at < clusters.end {
            let (index, end) = (at / per_block, clusters.end.min((at / per_block + 1) * per_block));
            if let Some(block) = self.block(index) {
                let base = index * per_block;
                set_refcounts(file, &self.header, block, at - base..end - base, value)?;
            }
            at = end;
        }
        Ok(())
    }
}

/// Makes the file at least so long, where possible by a call that cannot cut it however late it takes effect.
fn lengthen<F: DomainFile>(file: &F, bytes: u64) -> Result<(), Qcow2Error> {
    let present = file.stat()?.bytes;
    if present >= bytes {
        return Ok(());
    }
    let last = bytes.saturating_sub(DIRECT_ALIGNMENT as u64).max(present);
    if !file.grow(last..bytes)? {
        file.extend_to(bytes)?;
    }
    Ok(())
}
