//! Clusters added to an image in place, in batches. What is there already is never written into, but for the tables'
//! own entries.
//!
//! ```text
//!  data behind the last cluster in use, new L2 tables, refcounts of both ──► sync
//!  entries of the L2 tables that are there, of the L1 table ──► durable with the next sync
//! ```
//! A power cut in between leaves clusters that are counted and not used; they lie behind the last one in use, so
//! whoever begins again takes them first.

use std::collections::BTreeMap;

use super::Backing;
use super::FileImage;
use super::Header;
use super::Qcow2Error;
use super::be::u64_at;
use super::check::count_layer;
use super::image::read_bytes;
use super::ledger::Ledger;
use super::room::Room;
use super::tables::ALL_ZERO;
use super::tables::COPIED;
use super::tables::OFFSET_MASK;
use crate::driver::DomainFile;
use crate::work::CancelFlag;
use crate::work::Qcow2Facts;

/// The only width of refcounts in images of our own making: 16 bits.
const REFCOUNT_ORDER: u32 = 4;

/// What a batch adds to one L2 table.
#[derive(Debug, Default)]
struct TableChange {
    /// Where a new table will lie.
    new: Option<u64>,
    /// Index and value; indices rise.
    entries: Vec<(usize, u64)>,
}

/// An image that clusters are added to. Guest addresses rise from call to call. The caller bears no other user.
#[derive(Debug)]
pub struct Additions<'f, F> {
    file: &'f F,
    room: Room,
    l1: Vec<u64>,
    /// The L2 table that was asked last: its index and what it held then.
    asked: Option<(u64, Vec<u8>)>,
    /// The cluster that is taken next.
    next: u64,
    /// Clusters from here on are taken and not counted yet.
    uncounted: u64,
    changes: BTreeMap<u64, TableChange>,
}

impl<'f, F: DomainFile> Additions<'f, F> {
    /// Of an image that is sound and of our own making.
    ///
    /// # Errors
    /// When it is neither, or the storage fails.
    pub fn new(file: &'f F, backing: Backing<'_>, cancel: &CancelFlag) -> Result<Self, Qcow2Error> {
        let image = FileImage::new(file)?;
        let (header, facts, ledger) = count_layer(&image, backing, cancel)?;
        refuse(&header, &facts)?;
        let l1_bytes = usize::try_from(u64::from(header.l1_entries) * 8).unwrap_or(0);
        let l1 = read_bytes(&image, header.l1_offset, l1_bytes)?;
        let l1: Vec<u64> = l1.chunks_exact(8).filter_map(|entry| u64_at(entry, 0)).collect();
        require_own_tables(&l1, &ledger)?;
        let in_use = ledger.references().iter().rposition(|references| *references > 0);
        let next = in_use.map_or(0, |last| last as u64 + 1);
        let room = Room::of(file, header)?;
        Ok(Self { file, room, l1, asked: None, next, uncounted: next, changes: BTreeMap::new() })
    }

    /// What a guest sees, in bytes.
    pub fn virtual_bytes(&self) -> u64 {
        self.room.header().virtual_bytes
    }

    /// Size of its clusters.
    pub fn cluster_bytes(&self) -> u64 {
        self.room.header().cluster_bytes()
    }

    /// Which L2 table a guest address belongs to.
    pub fn table_of(&self, guest: u64) -> u64 {
        guest / self.room.header().l2_covers()
    }

    /// Whether there is that L2 table.
    pub fn has_table(&self, table: u64) -> bool {
        self.table_at(table) != 0
    }

    fn table_at(&self, table: u64) -> u64 {
        let entry = usize::try_from(table).ok().and_then(|index| self.l1.get(index));
        entry.map_or(0, |entry| entry & OFFSET_MASK)
    }

    fn entry_index(&self, guest: u64) -> usize {
        let header = self.room.header();
        usize::try_from(guest % header.l2_covers() / header.cluster_bytes()).unwrap_or(usize::MAX)
    }

    /// Whether the cluster at a guest address hides what lies beneath it, as of before this batch.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn holds(&mut self, guest: u64) -> Result<bool, Qcow2Error> {
        let table = self.table_of(guest);
        if self.asked.as_ref().is_none_or(|(asked, _)| *asked != table) {
            let bytes = match self.table_at(table) {
                0 => Vec::new(),
                offset => {
                    let length = usize::try_from(self.cluster_bytes()).unwrap_or(0);
                    read_bytes(&FileImage::new(self.file)?, offset, length)?
                }
            };
            self.asked = Some((table, bytes));
        }
        let at = self.entry_index(guest).saturating_mul(8);
        let entry = self.asked.as_ref().and_then(|(_, bytes)| u64_at(bytes, at)).unwrap_or(0);
        Ok(entry & !COPIED != 0)
    }

    /// What so many clusters take at most, with their refcounts.
    pub fn bytes_for(&self, clusters: u64) -> u64 {
        self.room.bytes_for(self.next, clusters)
    }

    /// Up to the end of the last cluster in use.
    pub fn bytes_in_use(&self) -> u64 {
        self.next.saturating_mul(self.cluster_bytes())
    }

    /// Makes sure that so many clusters can be counted. Called once, before anything is added.
    ///
    /// # Errors
    /// When the image would be too large, or the storage fails.
    pub fn make_room(&mut self, clusters: u64) -> Result<(), Qcow2Error> {
        self.next = self.room.make(self.file, self.next, clusters)?;
        self.uncounted = self.next;
        Ok(())
    }

    fn take(&mut self) -> Result<u64, Qcow2Error> {
        if self.next >= self.room.end() {
            return Err(Qcow2Error::Invalid("more clusters were to be added than room was made for".to_owned()));
        }
        let offset = self.next * self.cluster_bytes();
        self.next += 1;
        Ok(offset)
    }

    /// Writes a cluster of data; returns where it lies.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn put(&mut self, guest: u64, bytes: &[u8]) -> Result<u64, Qcow2Error> {
        let offset = self.take()?;
        self.file.write_at(bytes, offset)?;
        self.change(guest, offset | COPIED)?;
        Ok(offset)
    }

    /// Has a cluster read as zeros.
    ///
    /// # Errors
    /// When there is no room for its table.
    pub fn zero(&mut self, guest: u64) -> Result<(), Qcow2Error> {
        self.change(guest, ALL_ZERO)
    }

    fn change(&mut self, guest: u64, entry: u64) -> Result<(), Qcow2Error> {
        let (table, index) = (self.table_of(guest), self.entry_index(guest));
        if !self.changes.contains_key(&table) {
            let new = if self.has_table(table) { None } else { Some(self.take()?) };
            self.changes.insert(table, TableChange { new, entries: Vec::new() });
        }
        if let Some(change) = self.changes.get_mut(&table) {
            change.entries.push((index, entry));
        }
        Ok(())
    }

    /// Makes what this batch added durable and counted; nothing leads to it yet.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn settle(&mut self) -> Result<(), Qcow2Error> {
        let length = usize::try_from(self.cluster_bytes()).unwrap_or(0);
        for change in self.changes.values() {
            let Some(offset) = change.new else { continue };
            let mut table = vec![0; length];
            for (index, entry) in &change.entries {
                if let Some(place) = table.get_mut(index * 8..index * 8 + 8) {
                    place.copy_from_slice(&entry.to_be_bytes());
                }
            }
            self.file.write_at(&table, offset)?;
        }
        self.room.set(self.file, self.uncounted..self.next, 1)?;
        self.uncounted = self.next;
        Ok(self.file.sync()?)
    }

    /// Leads to what was settled. Durable with the next sync.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn enter(&mut self) -> Result<(), Qcow2Error> {
        let l1_offset = self.room.header().l1_offset;
        for (table, change) in std::mem::take(&mut self.changes) {
            if let Some(offset) = change.new {
                let entry = offset | COPIED;
                self.file.write_at(&entry.to_be_bytes(), l1_offset + table * 8)?;
                if let Some(place) = usize::try_from(table).ok().and_then(|index| self.l1.get_mut(index)) {
                    *place = entry;
                }
                continue;
            }
            let offset = self.table_at(table);
            for run in change.entries.chunk_by(|(index, _), (next, _)| index + 1 == *next) {
                let Some((first, _)) = run.first() else { continue };
                let bytes: Vec<u8> = run.iter().flat_map(|(_, entry)| entry.to_be_bytes()).collect();
                self.file.write_at(&bytes, offset + *first as u64 * 8)?;
            }
        }
        Ok(())
    }

    /// Makes all of it durable, and gives back what was counted behind the last cluster in use.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn finish(self) -> Result<(), Qcow2Error> {
        self.file.sync()?;
        let clusters = self.file.stat()?.bytes.div_ceil(self.cluster_bytes());
        self.room.set(self.file, self.next..clusters, 0)?;
        Ok(self.file.sync()?)
    }
}

/// What is not of our own making.
fn refuse(header: &Header, facts: &Qcow2Facts) -> Result<(), Qcow2Error> {
    let what = if header.version != 3 {
        format!("version {}", header.version)
    } else if header.refcount_order != REFCOUNT_ORDER {
        format!("refcounts of {} bits", 1_u64 << header.refcount_order)
    } else if header.extended_l2 {
        "subclusters".to_owned()
    } else if header.snapshots > 0 {
        format!("{} internal snapshots", header.snapshots)
    } else if facts.bitmaps > 0 {
        format!("{} dirty bitmaps", facts.bitmaps)
    } else {
        return Ok(());
    };
    Err(Qcow2Error::Unsupported(format!("writing in place into an image with {what}")))
}

/// A table that two entries lead to would change in two places.
fn require_own_tables(l1: &[u64], ledger: &Ledger) -> Result<(), Qcow2Error> {
    let shared = l1.iter().map(|entry| entry & OFFSET_MASK).find(|at| *at != 0 && ledger.references_at(*at) != 1);
    match shared {
        None => Ok(()),
        Some(offset) => {
            let text = format!("writing in place into an image whose L2 table at byte {offset} is used twice");
            Err(Qcow2Error::Unsupported(text))
        }
    }
}
