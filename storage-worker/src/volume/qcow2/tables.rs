//! L1 and L2 tables: where guest data lies.

use std::collections::BTreeMap;

use super::Header;
use super::Qcow2Error;
use super::be::u64_at;
use super::image::Image;
use super::image::each_entry;
use super::ledger::Ledger;
use crate::work::CancelFlag;

pub(super) const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;
pub(super) const COPIED: u64 = 1 << 63;
pub(super) const COMPRESSED: u64 = 1 << 62;
pub(super) const ALL_ZERO: u64 = 1;
const SECTOR_BYTES: u64 = 512;

/// Most L2 tables that are checked: at least 16 TiB of guest data with the usual clusters, and a bound for the memory.
const L2_TABLES_MAX: usize = 1 << 23;

/// An L1 table that was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct L1Table {
    pub offset: u64,
    pub entries: u32,
}

/// Each L2 table by its offset, and how many L1 entries lead to it.
pub(super) type L2Tables = BTreeMap<u64, u16>;

/// Collects the L2 tables of an L1 table.
pub(super) fn collect_l2_tables<I: Image + ?Sized>(
    image: &I,
    header: &Header,
    l1: L1Table,
    tables: &mut L2Tables,
) -> Result<(), Qcow2Error> {
    each_entry(image, l1.offset, u64::from(l1.entries), |_, entry| {
        if entry & !(OFFSET_MASK | COPIED) != 0 {
            return Err(Qcow2Error::Invalid(format!("the L1 entry {entry:#x} has reserved bits set")));
        }
        let offset = entry & OFFSET_MASK;
        if offset == 0 {
            return Ok(());
        }
        header.table("an L2 table", offset, header.cluster_bytes(), image.bytes())?;
        let count = tables.entry(offset).or_insert(0);
        *count = count.saturating_add(1);
        if tables.len() > L2_TABLES_MAX {
            return Err(Qcow2Error::Unsupported(format!("an image with more than {L2_TABLES_MAX} L2 tables")));
        }
        Ok(())
    })
}

/// Counts what one L2 table refers to. Returns how many clusters of data it maps.
pub(super) fn refer_l2_table<I: Image + ?Sized>(
    image: &I,
    header: &Header,
    offset: u64,
    times: u16,
    ledger: &mut Ledger,
) -> Result<u64, Qcow2Error> {
    let mut clusters = 0;
    each_l2_entry(image, header, offset, |entry, subclusters| {
        if entry & COMPRESSED != 0 {
            if entry & COPIED != 0 || subclusters.unwrap_or(0) != 0 {
                return Err(Qcow2Error::Invalid(format!("the compressed L2 entry {entry:#x} has wrong bits set")));
            }
            refer_compressed(entry, header, times, ledger)?;
        } else {
            let zero_bit = if header.version == 3 && !header.extended_l2 { ALL_ZERO } else { 0 };
            if entry & !(OFFSET_MASK | COPIED | zero_bit) != 0 {
                return Err(Qcow2Error::Invalid(format!("the L2 entry {entry:#x} has reserved bits set")));
            }
            let host = entry & OFFSET_MASK;
            check_subclusters(subclusters, host)?;
            if host == 0 {
                return Ok(());
            }
            if !host.is_multiple_of(header.cluster_bytes()) {
                return Err(Qcow2Error::Misaligned { what: "a cluster of data", offset: host });
            }
            ledger.refer("a cluster of data", host, used_bytes(header, subclusters), times)?;
        }
        clusters += 1;
        Ok(())
    })?;
    Ok(clusters)
}

/// An entry marked as unshared must be: QEMU would write into it in place.
pub(super) fn check_copied<I: Image + ?Sized>(
    image: &I,
    header: &Header,
    l1: L1Table,
    ledger: &Ledger,
    cancel: &CancelFlag,
) -> Result<(), Qcow2Error> {
    let check = |entry: u64| {
        let (offset, needed) = (entry & OFFSET_MASK, ledger.references_at(entry & OFFSET_MASK));
        if entry & COPIED != 0 && offset != 0 && needed > 1 {
            return Err(Qcow2Error::SharedButCopied { offset, needed: u64::from(needed) });
        }
        Ok(())
    };
    each_entry(image, l1.offset, u64::from(l1.entries), |_, l1_entry| {
        check(l1_entry)?;
        if cancel.is_set() {
            return Err(Qcow2Error::Cancelled);
        }
        if l1_entry & OFFSET_MASK == 0 {
            return Ok(());
        }
        each_l2_entry(image, header, l1_entry & OFFSET_MASK, |entry, _| {
            if entry & COMPRESSED == 0 { check(entry) } else { Ok(()) }
        })
    })
}

/// Walks the entries of an L2 table; with subclusters, `each` gets an entry's second half too.
fn each_l2_entry<I: Image + ?Sized>(
    image: &I,
    header: &Header,
    offset: u64,
    mut each: impl FnMut(u64, Option<u64>) -> Result<(), Qcow2Error>,
) -> Result<(), Qcow2Error> {
    if !header.extended_l2 {
        return each_entry(image, offset, header.cluster_bytes() / 8, |_, entry| each(entry, None));
    }
    let table = super::image::read_bytes(image, offset, usize::try_from(header.cluster_bytes()).unwrap_or(0))?;
    for entry in table.chunks_exact(16) {
        let (first, second) = (u64_at(entry, 0).unwrap_or(0), u64_at(entry, 8).unwrap_or(0));
        if first != 0 || second != 0 {
            each(first, Some(second))?;
        }
    }
    Ok(())
}

fn check_subclusters(subclusters: Option<u64>, host: u64) -> Result<(), Qcow2Error> {
    let Some(bits) = subclusters else { return Ok(()) };
    let (allocated, zero) = (bits & 0xFFFF_FFFF, bits >> 32);
    if allocated & zero != 0 || (host == 0 && allocated != 0) {
        return Err(Qcow2Error::Invalid(format!("the subcluster bits {bits:#x} contradict each other")));
    }
    Ok(())
}

/// How much of a cluster must be in the file: all of it, or up to its last allocated subcluster.
fn used_bytes(header: &Header, subclusters: Option<u64>) -> u64 {
    match subclusters {
        None => header.cluster_bytes(),
        Some(bits) => {
            let used = u64::from(32 - u32::try_from(bits & 0xFFFF_FFFF).unwrap_or(u32::MAX).leading_zeros());
            // A cluster without allocated subclusters still has its place.
            (header.cluster_bytes() / 32 * used).max(1)
        }
    }
}

/// Where a compressed cluster's bytes lie, and how many they are at most.
pub(super) fn compressed_place(entry: u64, cluster_bits: u32) -> (u64, u64) {
    let offset_bits = 62 - (cluster_bits - 8);
    let host = entry & ((1 << offset_bits) - 1);
    let sectors = (entry & (COMPRESSED - 1)) >> offset_bits;
    (host, (sectors + 1) * SECTOR_BYTES - host % SECTOR_BYTES)
}

fn refer_compressed(entry: u64, header: &Header, times: u16, ledger: &mut Ledger) -> Result<(), Qcow2Error> {
    let (host, stored) = compressed_place(entry, header.cluster_bits);
    // The size is stated in sectors, and the file may end within the last one.
    let stored = match ledger.file_bytes().checked_sub(host) {
        Some(left) if left < stored && stored - left < SECTOR_BYTES => left,
        _ => stored,
    };
    ledger.refer("a compressed cluster", host, stored, times)
}
