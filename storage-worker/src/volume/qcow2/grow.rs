//! Growing an image in place: a larger virtual size, with a new L1 table where the old one is too short.
//!
//! ```text
//!  new L1 table, new refcount blocks (all behind the file's old end), refcounts of the new clusters ──► sync
//!  entries of the refcount table that lead to new blocks                                            ──► sync
//!  the header's first sector: size, L1 table, refcount table                                        ──► sync
//!  refcounts of what was replaced                                                                   ──► sync
//! ```
//! A power cut before the header's sector leaves the old image with clusters that are counted and not used; one after it
//! leaves the new image. Both are sound, and the same call goes on from either.

use super::Backing;
use super::FileImage;
use super::Header;
use super::Qcow2Error;
use super::be::u64_at;
use super::check::check_layer;
use super::header::L1_BYTES_MAX;
use super::header::REFCOUNT_TABLE_BYTES_MAX;
use super::image::read_bytes;
use super::refcounts::set_refcount;
use crate::driver::DomainFile;
use crate::volume::VOLUME_BYTES_MAX;
use crate::work::CancelFlag;

/// The header's first sector: what a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
const SIZE_AT: usize = 24;
const L1_ENTRIES_AT: usize = 36;
const L1_OFFSET_AT: usize = 40;
const REFCOUNT_TABLE_AT: usize = 48;
const REFCOUNT_TABLE_CLUSTERS_AT: usize = 56;

/// Tables are copied in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// Makes a guest see at least `virtual_bytes`; returns what it sees now. The caller bears no other user of the image.
///
/// # Errors
/// When the image is not sound, cannot grow, or the storage fails.
pub fn grow<F: DomainFile>(
    file: &F,
    backing: Backing<'_>,
    virtual_bytes: u64,
    cancel: &CancelFlag,
) -> Result<u64, Qcow2Error> {
    let image = FileImage::new(file)?;
    let (header, facts) = check_layer(&image, backing, cancel)?;
    if header.virtual_bytes >= virtual_bytes {
        // What an earlier call wrote may not be durable.
        file.sync()?;
        return Ok(header.virtual_bytes);
    }
    refuse(&header, facts.bitmaps, virtual_bytes)?;
    let needed = virtual_bytes.div_ceil(header.l2_covers());
    let mut changed = header.clone();
    changed.virtual_bytes = virtual_bytes;
    if needed > u64::from(header.l1_entries) {
        let plan = Plan::new(file, &header, needed)?;
        plan.write_new(file, &header)?;
        file.sync()?;
        plan.lead_to_blocks(file, &header)?;
        plan.enter(&mut changed);
    }
    file.sync()?;
    write_header(file, &changed)?;
    file.sync()?;
    free_replaced(file, &header, &changed)?;
    file.sync()?;
    Ok(virtual_bytes)
}

/// What cannot grow.
fn refuse(header: &Header, bitmaps: u32, virtual_bytes: u64) -> Result<(), Qcow2Error> {
    if virtual_bytes > VOLUME_BYTES_MAX {
        return Err(Qcow2Error::TooLarge { bytes: virtual_bytes, limit: VOLUME_BYTES_MAX });
    }
    if bitmaps > 0 {
        return Err(Qcow2Error::WouldBeLost {
            what: format!("{bitmaps} dirty bitmaps of its present size"),
            hint: "take them away with `qemu-img bitmap --remove FILE NAME` if no backup needs them",
        });
    }
    if header.version == 2 && header.snapshots > 0 {
        return Err(Qcow2Error::WouldBeLost {
            what: format!("{} internal snapshots in a version that cannot note their size", header.snapshots),
            hint: "make it version 3 first: `qemu-img amend -o compat=1.1 FILE`",
        });
    }
    let l1_bytes = virtual_bytes.div_ceil(header.l2_covers()).saturating_mul(8);
    if l1_bytes > L1_BYTES_MAX {
        let text = format!("an L1 table of {l1_bytes} bytes, which clusters of {} bytes need,", header.cluster_bytes());
        return Err(Qcow2Error::Unsupported(text));
    }
    Ok(())
}

/// What is added behind the file's old end.
#[derive(Debug)]
struct Plan {
    l1_offset: u64,
    l1_entries: u64,
    /// New refcount blocks: index and offset.
    blocks: Vec<(u64, u64)>,
    /// A new refcount table: offset and clusters.
    table: Option<(u64, u64)>,
    /// Clusters that are new.
    first: u64,
    end: u64,
    /// Refcounts of one block.
    per_block: u64,
    /// The refcount table as it is.
    old_table: Vec<u64>,
}

impl Plan {
    fn new<F: DomainFile>(file: &F, header: &Header, l1_entries: u64) -> Result<Self, Qcow2Error> {
        let cluster_bytes = header.cluster_bytes();
        let image = FileImage::new(file)?;
        let table_bytes = u64::from(header.refcount_table_clusters) << header.cluster_bits;
        let table = read_bytes(&image, header.refcount_table_offset, usize::try_from(table_bytes).unwrap_or(0))?;
        let old_table = table.chunks_exact(8).map(|entry| u64_at(entry, 0).unwrap_or(0)).collect();
        let first = file.stat()?.bytes.div_ceil(cluster_bytes);
        let mut plan = Self {
            l1_offset: first * cluster_bytes,
            l1_entries,
            blocks: Vec::new(),
            table: None,
            first,
            end: first + (l1_entries * 8).div_ceil(cluster_bytes),
            per_block: (cluster_bytes * 8) >> header.refcount_order,
            old_table,
        };
        // What is added to count clusters is counted itself.
        while plan.add_block(cluster_bytes) || plan.add_table(cluster_bytes)? {}
        Ok(plan)
    }

    fn block_indices(&self) -> std::ops::RangeInclusive<u64> {
        self.first / self.per_block..=self.end.saturating_sub(1) / self.per_block
    }

    /// Where a refcount block lies that was there before.
    fn old_block(&self, index: u64) -> Option<u64> {
        let entry = usize::try_from(index).ok().and_then(|index| self.old_table.get(index)).copied();
        entry.filter(|offset| *offset != 0)
    }

    fn add_block(&mut self, cluster_bytes: u64) -> bool {
        let missing = self
            .block_indices()
            .find(|index| self.old_block(*index).is_none() && self.blocks.iter().all(|(known, _)| known != index));
        let Some(index) = missing else { return false };
        self.blocks.push((index, self.end * cluster_bytes));
        self.end += 1;
        true
    }

    fn add_table(&mut self, cluster_bytes: u64) -> Result<bool, Qcow2Error> {
        let needed = self.block_indices().last().unwrap_or(0) + 1;
        let has = self.table.map_or(self.old_table.len() as u64, |(_, clusters)| clusters * cluster_bytes / 8);
        if needed <= has {
            return Ok(false);
        }
        let clusters = (needed * 8).div_ceil(cluster_bytes);
        if clusters * cluster_bytes > REFCOUNT_TABLE_BYTES_MAX {
            return Err(Qcow2Error::Unsupported("a refcount table of that size".to_owned()));
        }
        // One that was planned and proved too short stays behind as a counted gap of some clusters.
        self.table = Some((self.end * cluster_bytes, clusters));
        self.end += clusters;
        Ok(true)
    }

    /// Everything that nothing leads to yet, and the refcounts of it.
    fn write_new<F: DomainFile>(&self, file: &F, header: &Header) -> Result<(), Qcow2Error> {
        let cluster_bytes = header.cluster_bytes();
        file.extend_to(self.end * cluster_bytes)?;
        let image = FileImage::new(file)?;
        let old_bytes = u64::from(header.l1_entries) * 8;
        let mut at = 0;
        while at < old_bytes {
            let length = PIECE_BYTES.min(old_bytes - at);
            let piece = read_bytes(&image, header.l1_offset + at, usize::try_from(length).unwrap_or(0))?;
            file.write_at(&piece, self.l1_offset + at)?;
            at += length;
        }
        for index in self.block_indices() {
            let new = self.blocks.iter().find(|(known, _)| *known == index).map(|(_, offset)| *offset);
            let Some(offset) = new.or(self.old_block(index)) else { continue };
            let from = self.first.max(index * self.per_block) - index * self.per_block;
            let to = self.end.min((index + 1) * self.per_block) - index * self.per_block;
            set_refcounts(file, header, offset, from..to, 1)?;
        }
        if let Some((offset, clusters)) = self.table {
            let mut table = self.old_table.clone();
            table.resize(usize::try_from(clusters * cluster_bytes / 8).unwrap_or(0), 0);
            for (index, block) in &self.blocks {
                if let Some(entry) = usize::try_from(*index).ok().and_then(|index| table.get_mut(index)) {
                    *entry = *block;
                }
            }
            let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            file.write_at(&bytes, offset)?;
        }
        Ok(())
    }

    /// Enters new blocks into the refcount table that stays.
    fn lead_to_blocks<F: DomainFile>(&self, file: &F, header: &Header) -> Result<(), Qcow2Error> {
        if self.table.is_none() {
            for (index, offset) in &self.blocks {
                file.write_at(&offset.to_be_bytes(), header.refcount_table_offset + index * 8)?;
            }
        }
        Ok(())
    }

    fn enter(&self, header: &mut Header) {
        header.l1_offset = self.l1_offset;
        header.l1_entries = u32::try_from(self.l1_entries).unwrap_or(u32::MAX);
        if let Some((offset, clusters)) = self.table {
            header.refcount_table_offset = offset;
            header.refcount_table_clusters = u32::try_from(clusters).unwrap_or(u32::MAX);
        }
    }
}

/// Sets refcounts within one block, reading and writing only the bytes that hold them.
pub(super) fn set_refcounts<F: DomainFile>(
    file: &F,
    header: &Header,
    block: u64,
    range: std::ops::Range<u64>,
    value: u64,
) -> Result<(), Qcow2Error> {
    if range.is_empty() {
        return Ok(());
    }
    // The least that holds whole refcounts of every width.
    let bits = 1_u64 << header.refcount_order;
    let (start, end) = (range.start * bits / 64 * 8, (range.end * bits).div_ceil(64) * 8);
    let length = usize::try_from(end - start).unwrap_or(0);
    let mut bytes = read_bytes(&FileImage::new(file)?, block + start, length)?;
    let skipped = start * 8 / bits;
    for index in range {
        set_refcount(&mut bytes, usize::try_from(index - skipped).unwrap_or(usize::MAX), header.refcount_order, value);
    }
    Ok(file.write_at(&bytes, block + start)?)
}

/// One sector, so that the old header stands or the new one does.
pub(super) fn write_header<F: DomainFile>(file: &F, header: &Header) -> Result<(), Qcow2Error> {
    let mut sector = read_bytes(&FileImage::new(file)?, 0, SECTOR_BYTES)?;
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = sector.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(SIZE_AT, &header.virtual_bytes.to_be_bytes());
    put(L1_ENTRIES_AT, &header.l1_entries.to_be_bytes());
    put(L1_OFFSET_AT, &header.l1_offset.to_be_bytes());
    put(REFCOUNT_TABLE_AT, &header.refcount_table_offset.to_be_bytes());
    put(REFCOUNT_TABLE_CLUSTERS_AT, &header.refcount_table_clusters.to_be_bytes());
    Ok(file.write_at(&sector, 0)?)
}

/// Gives back what the new header no longer names.
pub(super) fn free_replaced<F: DomainFile>(file: &F, old: &Header, new: &Header) -> Result<(), Qcow2Error> {
    let cluster_bytes = old.cluster_bytes();
    let mut replaced = Vec::new();
    if old.l1_offset != new.l1_offset {
        replaced.push((old.l1_offset, (u64::from(old.l1_entries) * 8).div_ceil(cluster_bytes)));
    }
    if old.refcount_table_offset != new.refcount_table_offset {
        replaced.push((old.refcount_table_offset, u64::from(old.refcount_table_clusters)));
    }
    let per_block = (cluster_bytes * 8) >> old.refcount_order;
    let image = FileImage::new(file)?;
    for (offset, clusters) in replaced {
        let first = offset / cluster_bytes;
        for cluster in first..first + clusters {
            let entry = read_bytes(&image, new.refcount_table_offset + cluster / per_block * 8, 8)?;
            if let Some(block) = u64_at(&entry, 0).filter(|block| *block != 0) {
                let index = cluster % per_block;
                set_refcounts(file, old, block, index..index + 1, 0)?;
            }
        }
    }
    Ok(())
}
