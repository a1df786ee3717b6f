//! Persistent bitmaps: a directory, a table for each, and clusters of bits.

use super::Header;
use super::Qcow2Error;
use super::be::u16_at;
use super::be::u32_at;
use super::be::u64_at;
use super::extensions::BitmapsExtension;
use super::image::Image;
use super::image::each_entry;
use super::image::read_bytes;
use super::ledger::Ledger;

const ENTRY_BYTES: usize = 24;
/// QEMU's limits.
const BITMAPS_MAX: u32 = 65535;
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;
const TABLE_ENTRIES_MAX: u32 = 0x800_0000;

const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;
const ALL_ONES: u64 = 1;

/// Claims everything that bitmaps use.
pub(super) fn claim_bitmaps<I: Image + ?Sized>(
    image: &I,
    header: &Header,
    bitmaps: &BitmapsExtension,
    ledger: &mut Ledger,
) -> Result<(), Qcow2Error> {
    let (offset, length) = (bitmaps.directory_offset, bitmaps.directory_bytes);
    if bitmaps.count > BITMAPS_MAX || length > DIRECTORY_BYTES_MAX {
        return Err(Qcow2Error::Unsupported(format!("a directory of {} bitmaps", bitmaps.count)));
    }
    header.table("the bitmap directory", offset, length, image.bytes())?;
    ledger.claim("the bitmap directory", offset, length, 1)?;
    let directory = read_bytes(image, offset, usize::try_from(length).unwrap_or(0))?;
    let mut rest = directory.as_slice();
    for _ in 0..bitmaps.count {
        let cut = || Qcow2Error::Invalid("the bitmap directory is shorter than its entries".to_owned());
        let table_offset = u64_at(rest, 0).ok_or_else(cut)?;
        let entries = u32_at(rest, 8).ok_or_else(cut)?;
        let name_bytes = usize::from(u16_at(rest, 18).ok_or_else(cut)?);
        let extra_bytes = usize::try_from(u32_at(rest, 20).ok_or_else(cut)?).unwrap_or(usize::MAX);
        let length = ENTRY_BYTES.saturating_add(name_bytes).saturating_add(extra_bytes);
        rest = length.checked_next_multiple_of(8).and_then(|length| rest.get(length..)).ok_or_else(cut)?;
        claim_table(image, header, table_offset, entries, ledger)?;
    }
    Ok(())
}

fn claim_table<I: Image + ?Sized>(
    image: &I,
    header: &Header,
    offset: u64,
    entries: u32,
    ledger: &mut Ledger,
) -> Result<(), Qcow2Error> {
    if entries == 0 {
        return Ok(());
    }
    if entries > TABLE_ENTRIES_MAX {
        return Err(Qcow2Error::Unsupported(format!("a bitmap table of {entries} entries")));
    }
    header.table("a bitmap table", offset, u64::from(entries) * 8, image.bytes())?;
    ledger.claim("a bitmap table", offset, u64::from(entries) * 8, 1)?;
    each_entry(image, offset, u64::from(entries), |_, entry| {
        let cluster = entry & OFFSET_MASK;
        let reserved = entry & !OFFSET_MASK;
        if reserved & !ALL_ONES != 0 || (cluster != 0 && reserved != 0) {
            return Err(Qcow2Error::Invalid(format!("the bitmap entry {entry:#x} has reserved bits set")));
        }
        if cluster == 0 { Ok(()) } else { ledger.claim("a bitmap's cluster", cluster, header.cluster_bytes(), 1) }
    })
}
