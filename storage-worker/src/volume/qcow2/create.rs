//! An empty image: version 3, 64 KiB clusters, 16-bit refcounts. Its header is written last.

use crate::driver::DomainFile;
use crate::driver::StorageError;

const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
const HEADER_BYTES: u32 = 112;
/// 16 bits.
const REFCOUNT_ORDER: u32 = 4;

const REFCOUNT_TABLE: u64 = CLUSTER_BYTES;
const REFCOUNT_BLOCK: u64 = 2 * CLUSTER_BYTES;
const L1_TABLE: u64 = 3 * CLUSTER_BYTES;

/// Makes a new file an empty image, durable. One refcount block covers it: its L1 table has at most a few clusters.
///
/// # Errors
/// What the storage answers.
pub fn create_empty<F: DomainFile>(file: &F, virtual_bytes: u64) -> Result<(), StorageError> {
    let l2_covers = CLUSTER_BYTES / 8 * CLUSTER_BYTES;
    let l1_entries = virtual_bytes.div_ceil(l2_covers);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER_BYTES);
    let clusters = L1_TABLE / CLUSTER_BYTES + l1_clusters;
    file.extend_to(clusters * CLUSTER_BYTES)?;
    file.write_at(&REFCOUNT_BLOCK.to_be_bytes(), REFCOUNT_TABLE)?;
    let used: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_at(&used, REFCOUNT_BLOCK)?;
    // Whoever finds a header finds everything that it names.
    file.sync()?;
    file.write_at(&header(virtual_bytes, l1_entries), 0)?;
    file.sync()
}

fn header(virtual_bytes: u64, l1_entries: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    let mut number = |width: usize, value: u64| {
        let bytes = value.to_be_bytes();
        header.extend(bytes.iter().skip(bytes.len() - width));
    };
    number(4, 0x5146_49FB);
    number(4, 3);
    number(8, 0); // no backing file
    number(4, 0);
    number(4, u64::from(CLUSTER_BITS));
    number(8, virtual_bytes);
    number(4, 0); // no encryption
    number(4, l1_entries);
    number(8, L1_TABLE);
    number(8, REFCOUNT_TABLE);
    number(4, 1);
    number(4, 0); // no snapshots
    number(8, 0);
    number(8, 0); // incompatible, compatible, autoclear features
    number(8, 0);
    number(8, 0);
    number(4, u64::from(REFCOUNT_ORDER));
    number(4, u64::from(HEADER_BYTES));
    number(8, 0); // zlib, and padding
    number(8, 0); // no extensions
    header
}
