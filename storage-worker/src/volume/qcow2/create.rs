//! An empty image: version 3, 64 KiB clusters, 16-bit refcounts. Its header is written last.

use crate::driver::DomainFile;
use crate::driver::StorageError;

use super::encode::BackingFile;
use super::encode::CLUSTER_BYTES;
use super::encode::L2_COVERS;
use super::encode::Tables;
use super::encode::header;

const REFCOUNT_TABLE: u64 = CLUSTER_BYTES;
const REFCOUNT_BLOCK: u64 = 2 * CLUSTER_BYTES;
const L1_TABLE: u64 = 3 * CLUSTER_BYTES;

/// Makes a new file an empty image over `backing`. One refcount block covers it: its L1 table has at most a few
/// clusters. It is durable when the caller has synced it; nobody is shown the file before.
///
/// # Errors
/// What the storage answers.
pub fn create_empty<F: DomainFile>(
    file: &F,
    virtual_bytes: u64,
    backing: Option<&BackingFile>,
) -> Result<(), StorageError> {
    let l1_entries = virtual_bytes.div_ceil(L2_COVERS);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER_BYTES);
    let clusters = L1_TABLE / CLUSTER_BYTES + l1_clusters;
    file.extend_to(clusters * CLUSTER_BYTES)?;
    file.write_at(&REFCOUNT_TABLE_ENTRY.to_be_bytes(), REFCOUNT_TABLE)?;
    let used: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_at(&used, REFCOUNT_BLOCK)?;
    let tables = Tables {
        virtual_bytes,
        l1_offset: L1_TABLE,
        l1_entries,
        refcount_table: REFCOUNT_TABLE,
        refcount_table_clusters: 1,
    };
    file.write_at(&header(tables, backing), 0)
}

/// The only entry of the refcount table.
const REFCOUNT_TABLE_ENTRY: u64 = REFCOUNT_BLOCK;
