//! The table of internal snapshots: each brings an L1 table of its own.

use super::Header;
use super::Qcow2Error;
use super::be::u16_at;
use super::be::u32_at;
use super::be::u64_at;
use super::header::outside;
use super::image::Image;
use super::image::read_bytes;
use super::ledger::Ledger;
use super::tables::L1Table;

const ENTRY_BYTES: usize = 40;
/// QEMU's limits for an entry's extra data and for the whole table.
const EXTRA_BYTES_MAX: u32 = 1024;
const TABLE_BYTES_MAX: u64 = 64 << 20;
const L1_BYTES_MAX: u64 = 32 << 20;

/// Claims the table and every snapshot's L1 table; returns those.
pub(super) fn claim_snapshots<I: Image + ?Sized>(
    image: &I,
    header: &Header,
    ledger: &mut Ledger,
) -> Result<Vec<L1Table>, Qcow2Error> {
    let mut tables = Vec::new();
    let mut at = header.snapshots_offset;
    for _ in 0..header.snapshots {
        outside("a snapshot's entry", at, ENTRY_BYTES as u64, image.bytes())?;
        let entry = read_bytes(image, at, ENTRY_BYTES)?;
        let (offset, entries) = (u64_at(&entry, 0).unwrap_or(0), u32_at(&entry, 8).unwrap_or(0));
        let id_bytes = u64::from(u16_at(&entry, 12).unwrap_or(0));
        let name_bytes = u64::from(u16_at(&entry, 14).unwrap_or(0));
        let extra_bytes = u32_at(&entry, 36).unwrap_or(0);
        let l1_bytes = u64::from(entries) * 8;
        if extra_bytes > EXTRA_BYTES_MAX || l1_bytes > L1_BYTES_MAX {
            return Err(Qcow2Error::Unsupported("a snapshot of that size".to_owned()));
        }
        let length = ENTRY_BYTES as u64 + u64::from(extra_bytes) + id_bytes + name_bytes;
        outside("a snapshot's entry", at, length, image.bytes())?;
        at = at.saturating_add(length.next_multiple_of(8));
        if at - header.snapshots_offset > TABLE_BYTES_MAX {
            return Err(Qcow2Error::Unsupported("a snapshot table of that size".to_owned()));
        }
        if entries > 0 {
            header.table("a snapshot's L1 table", offset, l1_bytes, image.bytes())?;
            ledger.claim("a snapshot's L1 table", offset, l1_bytes, 1)?;
            tables.push(L1Table { offset, entries });
        }
    }
    if header.snapshots > 0 {
        // The last entry's padding need not be in the file.
        let length = at.min(image.bytes()) - header.snapshots_offset;
        ledger.claim("the snapshot table", header.snapshots_offset, length, 1)?;
    }
    Ok(tables)
}
