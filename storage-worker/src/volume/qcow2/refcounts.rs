//! The refcount table and its blocks: what the image believes of its clusters, against what was counted.

use super::Header;
use super::Qcow2Error;
use super::be::u16_at;
use super::be::u32_at;
use super::be::u64_at;
use super::image::Image;
use super::image::each_entry;
use super::image::read_bytes;
use super::ledger::Ledger;
use crate::work::CancelFlag;

const RESERVED: u64 = 0x1FF;

/// A stop is looked for after so many refcounts: a millisecond's work.
const CANCEL_EVERY: usize = 1 << 16;

/// A block of refcounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RefcountBlock {
    /// Its index in the table.
    index: u64,
    offset: u64,
}

/// Claims the table and its blocks.
pub(super) fn claim_refcounts<I: Image + ?Sized>(
    image: &I,
    header: &Header,
    ledger: &mut Ledger,
) -> Result<Vec<RefcountBlock>, Qcow2Error> {
    let bytes = u64::from(header.refcount_table_clusters) << header.cluster_bits;
    ledger.claim("the refcount table", header.refcount_table_offset, bytes, 1)?;
    let per_block = refcounts_per_block(header);
    let mut blocks = Vec::new();
    each_entry(image, header.refcount_table_offset, bytes / 8, |index, offset| {
        if offset & RESERVED != 0 {
            return Err(Qcow2Error::Invalid(format!("the refcount table entry {offset:#x} has reserved bits set")));
        }
        header.table("a refcount block", offset, header.cluster_bytes(), image.bytes())?;
        // A block that counts no cluster of the file says nothing, but thousands of them would take hours to read.
        if index.saturating_mul(per_block as u64) >= ledger.references().len() as u64 {
            let text = format!("the refcount block at byte {offset} counts clusters beyond the end of the file");
            return Err(Qcow2Error::Invalid(text));
        }
        ledger.claim("a refcount block", offset, header.cluster_bytes(), 1)?;
        blocks.push(RefcountBlock { index, offset });
        Ok(())
    })?;
    Ok(blocks)
}

fn refcounts_per_block(header: &Header) -> usize {
    (usize::try_from(header.cluster_bytes()).unwrap_or(0) * 8) >> header.refcount_order
}

/// Compares each cluster's refcount with its references. Returns how many clusters are leaked.
pub(super) fn compare<I: Image + ?Sized>(
    image: &I,
    header: &Header,
    blocks: &[RefcountBlock],
    ledger: &Ledger,
    cancel: &CancelFlag,
) -> Result<u64, Qcow2Error> {
    let block_bytes = usize::try_from(header.cluster_bytes()).unwrap_or(0);
    let per_block = refcounts_per_block(header);
    let mut leaked = 0;
    let mut checked = 0;
    for block in blocks {
        let first = usize::try_from(block.index).ok().and_then(|index| index.checked_mul(per_block));
        let first = first.unwrap_or(usize::MAX).min(ledger.references().len());
        // What no block covers has a refcount of 0. Blocks come in rising order.
        require_unused(header, ledger, checked..first)?;
        let counts = read_bytes(image, block.offset, block_bytes)?;
        let references = ledger.references().get(first..).unwrap_or_default();
        for within in 0..per_block {
            if within % CANCEL_EVERY == 0 && cancel.is_set() {
                return Err(Qcow2Error::Cancelled);
            }
            let stored = refcount(&counts, within, header.refcount_order);
            let needed = references.get(within).copied().unwrap_or(0);
            if stored < u64::from(needed) {
                let offset = ((first + within) as u64) << header.cluster_bits;
                return Err(Qcow2Error::RefcountTooLow { offset, stored, needed: u64::from(needed) });
            }
            if stored > u64::from(needed) && needed != u16::MAX {
                leaked += 1;
            }
        }
        checked = first.saturating_add(per_block).min(ledger.references().len());
    }
    require_unused(header, ledger, checked..ledger.references().len())?;
    Ok(leaked)
}

fn require_unused(header: &Header, ledger: &Ledger, clusters: std::ops::Range<usize>) -> Result<(), Qcow2Error> {
    let references = ledger.references().get(clusters.clone()).unwrap_or_default();
    match references.iter().position(|needed| *needed > 0) {
        None => Ok(()),
        Some(within) => Err(Qcow2Error::RefcountTooLow {
            offset: ((clusters.start + within) as u64) << header.cluster_bits,
            stored: 0,
            needed: references.get(within).copied().map_or(0, u64::from),
        }),
    }
}

/// A refcount of 2^`order` bits. Narrow ones fill each byte from its lowest bit.
fn refcount(block: &[u8], index: usize, order: u32) -> u64 {
    let narrow = |bits: usize| {
        let per_byte = 8 / bits;
        let byte = block.get(index / per_byte).copied().unwrap_or(0);
        u64::from(byte >> (index % per_byte * bits)) & ((1 << bits) - 1)
    };
    match order {
        0 => narrow(1),
        1 => narrow(2),
        2 => narrow(4),
        3 => narrow(8),
        4 => u16_at(block, index * 2).map_or(0, u64::from),
        5 => u32_at(block, index * 4).map_or(0, u64::from),
        _ => u64_at(block, index * 8).unwrap_or(0),
    }
}

/// Sets a refcount of 2^`order` bits.
pub(super) fn set_refcount(block: &mut [u8], index: usize, order: u32, value: u64) {
    if order < 3 {
        let bits = 1_usize << order;
        let per_byte = 8 / bits;
        let (shift, mask) = (index % per_byte * bits, (1_u16 << bits) - 1);
        if let Some(byte) = block.get_mut(index / per_byte) {
            let kept = u16::from(*byte) & !(mask << shift);
            *byte = u8::try_from(kept | (u16::try_from(value).unwrap_or(u16::MAX) & mask) << shift).unwrap_or(*byte);
        }
        return;
    }
    let width = 1_usize << (order - 3);
    let bytes = value.to_be_bytes();
    if let Some(place) = block.get_mut(index * width..(index + 1) * width) {
        place.copy_from_slice(bytes.get(bytes.len() - width.min(8)..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refcount_that_was_set_is_read_back_and_its_neighbours_stay() {
        for order in 0..=6 {
            let mut block = vec![0xFF; 64];
            let neighbours = (refcount(&block, 2, order), refcount(&block, 4, order));
            for value in [0, 1] {
                set_refcount(&mut block, 3, order, value);
                assert_eq!(refcount(&block, 3, order), value, "order {order}");
                assert_eq!((refcount(&block, 2, order), refcount(&block, 4, order)), neighbours, "order {order}");
            }
        }
    }

    #[test]
    fn refcounts_of_every_width_are_read() {
        let block = [0b1110_0100, 0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE];
        assert_eq!((0..4).map(|index| refcount(&block, index, 0)).collect::<Vec<_>>(), [0, 0, 1, 0]);
        assert_eq!((0..4).map(|index| refcount(&block, index, 1)).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!((0..3).map(|index| refcount(&block, index, 2)).collect::<Vec<_>>(), [4, 14, 2]);
        assert_eq!(refcount(&block, 1, 3), 0x12);
        assert_eq!(refcount(&block, 1, 4), 0x3456);
        assert_eq!(refcount(&block, 1, 5), 0x789A_BCDE);
        assert_eq!(refcount(&block, 0, 6), 0xE412_3456_789A_BCDE);
        assert_eq!(refcount(&block, 9, 6), 0);
    }
}
