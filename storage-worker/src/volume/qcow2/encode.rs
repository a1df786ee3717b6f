//! The bytes of a version 3 header, with its backing file's name and format where it has one.

/// Size of the clusters of every image that is made here: QEMU's default, and enough for 16 TiB in a small L1 table.
pub(super) const CLUSTER_BITS: u32 = 16;
pub(super) const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
/// Bytes of guest data that one of its L2 tables maps.
pub(super) const L2_COVERS: u64 = CLUSTER_BYTES / 8 * CLUSTER_BYTES;
/// Refcounts in one of its refcount blocks, of 16 bits each.
pub(super) const REFCOUNTS_PER_BLOCK: u64 = CLUSTER_BYTES / 2;

const MAGIC: u64 = 0x5146_49FB;
const HEADER_BYTES: u64 = 112;
/// 16 bits.
const REFCOUNT_ORDER: u64 = 4;
pub(super) const BACKING_FORMAT: u64 = 0xE279_2ACA;

/// The layer beneath an image, as its header names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingFile {
    /// Its bare file name: it lies in the same folder.
    pub name: String,
    /// `raw` or `qcow2`, so that nobody ever probes it.
    pub format: &'static str,
}

/// What a header says of an image's tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    pub virtual_bytes: u64,
    pub l1_offset: u64,
    pub l1_entries: u64,
    pub refcount_table: u64,
    pub refcount_table_clusters: u64,
}

/// The header, its extensions and the backing file's name, one after the other.
pub(super) fn header(tables: Tables, backing: Option<&BackingFile>) -> Vec<u8> {
    let extension = backing.map_or(0, |backing| 8 + backing.format.len().next_multiple_of(8) as u64);
    let name_at = HEADER_BYTES + extension + 8;
    let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
    let mut number = |width: usize, value: u64| {
        let value = value.to_be_bytes();
        bytes.extend(value.iter().skip(value.len() - width));
    };
    number(4, MAGIC);
    number(4, 3);
    number(8, backing.map_or(0, |_| name_at));
    number(4, backing.map_or(0, |backing| backing.name.len() as u64));
    number(4, u64::from(CLUSTER_BITS));
    number(8, tables.virtual_bytes);
    number(4, 0); // no encryption
    number(4, tables.l1_entries);
    number(8, tables.l1_offset);
    number(8, tables.refcount_table);
    number(4, tables.refcount_table_clusters);
    number(4, 0); // no snapshots
    number(8, 0);
    number(8, 0); // incompatible, compatible, autoclear features
    number(8, 0);
    number(8, 0);
    number(4, REFCOUNT_ORDER);
    number(4, HEADER_BYTES);
    number(8, 0); // zlib, and padding
    if let Some(backing) = backing {
        number(4, BACKING_FORMAT);
        number(4, backing.format.len() as u64);
        bytes.extend(backing.format.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes.extend([0; 8]); // no more extensions
    if let Some(backing) = backing {
        bytes.extend(backing.name.as_bytes());
    }
    bytes
}
