//! The full check of an image that passed, or did not pass, the header gate.

use super::Backing;
use super::Header;
use super::Qcow2Error;
use super::bitmaps::claim_bitmaps;
use super::image::Image;
use super::ledger::Ledger;
use super::refcounts::claim_refcounts;
use super::refcounts::compare;
use super::snapshots::claim_snapshots;
use super::tables::L1Table;
use super::tables::L2Tables;
use super::tables::check_copied;
use super::tables::collect_l2_tables;
use super::tables::refer_l2_table;
use crate::work::CancelFlag;
use crate::work::Qcow2Facts;

/// Checks an image that must stand alone, from its header to its last refcount.
///
/// # Errors
/// The first rule that it breaks; leaks are no error and are reported.
pub fn check<I: Image + ?Sized>(image: &I, cancel: &CancelFlag) -> Result<Qcow2Facts, Qcow2Error> {
    check_layer(image, Backing::None, cancel).map(|(_, facts)| facts)
}

/// Checks one layer of a chain from its header to its last refcount. What lies beneath it is not looked at.
///
/// # Errors
/// The first rule that it breaks; leaks are no error and are reported.
pub fn check_layer<I: Image + ?Sized>(
    image: &I,
    backing: Backing<'_>,
    cancel: &CancelFlag,
) -> Result<(Header, Qcow2Facts), Qcow2Error> {
    count_layer(image, backing, cancel).map(|(header, facts, _)| (header, facts))
}

/// The same, and who refers to which cluster.
pub(super) fn count_layer<I: Image + ?Sized>(
    image: &I,
    backing: Backing<'_>,
    cancel: &CancelFlag,
) -> Result<(Header, Qcow2Facts, Ledger), Qcow2Error> {
    let header = Header::read_layer(image, backing)?;
    let mut ledger = Ledger::new(image.bytes(), header.cluster_bits)?;
    ledger.claim("the header", 0, header.cluster_bytes().min(image.bytes()), 1)?;
    let blocks = claim_refcounts(image, &header, &mut ledger)?;
    let active = L1Table { offset: header.l1_offset, entries: header.l1_entries };
    ledger.claim("the L1 table", active.offset, u64::from(active.entries) * 8, 1)?;
    let snapshots = claim_snapshots(image, &header, &mut ledger)?;
    if let Some(bitmaps) = &header.bitmaps {
        claim_bitmaps(image, &header, bitmaps, &mut ledger)?;
    }
    let mut l2_tables = L2Tables::new();
    for l1 in snapshots.iter().chain([&active]) {
        if cancel.is_set() {
            return Err(Qcow2Error::Cancelled);
        }
        collect_l2_tables(image, &header, *l1, &mut l2_tables)?;
    }
    for (offset, times) in &l2_tables {
        ledger.claim("an L2 table", *offset, header.cluster_bytes(), *times)?;
    }
    let mut data_clusters = 0_u64;
    for (offset, times) in &l2_tables {
        if cancel.is_set() {
            return Err(Qcow2Error::Cancelled);
        }
        let clusters = refer_l2_table(image, &header, *offset, *times, &mut ledger)?;
        data_clusters = data_clusters.saturating_add(clusters);
    }
    let leaked_clusters = compare(image, &header, &blocks, &ledger, cancel)?;
    // Only where something is shared can a wrong mark do harm.
    if ledger.has_shared() || l2_tables.values().any(|times| *times > 1) {
        check_copied(image, &header, active, &ledger, cancel)?;
    }
    let facts = facts(&header, leaked_clusters, data_clusters);
    Ok((header, facts, ledger))
}

fn facts(header: &Header, leaked_clusters: u64, data_clusters: u64) -> Qcow2Facts {
    let bitmaps = header.bitmaps.as_ref().map_or(0, |bitmaps| bitmaps.count);
    let features = [
        ("extended-l2", header.extended_l2),
        ("lazy-refcounts", header.lazy_refcounts),
        ("bitmaps", bitmaps > 0),
        ("snapshots", header.snapshots > 0),
    ];
    Qcow2Facts {
        version: header.version,
        virtual_bytes: header.virtual_bytes,
        cluster_bytes: header.cluster_bytes(),
        compression: header.compression.as_str().to_owned(),
        features: features.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (*name).to_owned()).collect(),
        snapshots: header.snapshots,
        bitmaps,
        leaked_clusters,
        data_clusters,
    }
}
