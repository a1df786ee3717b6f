//! Where the guest's bytes of one image lie: stretches of the guest's address space and what is behind them.
//!
//! Only for an image that passed the full check and is not written meanwhile: then every offset in its tables lies
//! inside the file and apart from them. Of each level of tables only one window is held in memory.

use super::Header;
use super::Qcow2Error;
use super::be::u64_at;
use super::image::Image;
use super::image::read_bytes;
use super::tables::ALL_ZERO;
use super::tables::COMPRESSED;
use super::tables::OFFSET_MASK;
use super::tables::compressed_place;

/// Part of a table that is read at once: the largest that any table of the usual images has.
const WINDOW_BYTES: u64 = 64 * 1024;

/// Subclusters of a cluster with extended L2 entries.
const SUBCLUSTERS: u64 = 32;

/// What lies behind a stretch of the guest's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapped {
    /// Nothing in this image: whatever lies beneath it shows.
    Unallocated,
    /// Zeros, whatever lies beneath.
    Zero,
    /// The file's bytes from this offset on.
    Data {
        /// Where in the file.
        offset: u64,
    },
    /// A part of a compressed cluster.
    Compressed {
        /// Where its compressed bytes begin.
        host: u64,
        /// How many they are at most: they are counted in sectors.
        stored: u64,
        /// Where the stretch begins in the decompressed cluster.
        within: u64,
    },
}

impl Mapped {
    /// Does `next`, `length` bytes later, go on where this one ends?
    fn goes_on_as(self, next: Self, length: u64) -> bool {
        match (self, next) {
            (Self::Unallocated, Self::Unallocated) | (Self::Zero, Self::Zero) => true,
            (Self::Data { offset }, Self::Data { offset: next }) => offset.checked_add(length) == Some(next),
            _ => false,
        }
    }
}

/// A part of a table, held in memory.
#[derive(Debug, Default)]
struct Window {
    start: Option<u64>,
    bytes: Vec<u8>,
}

impl Window {
    /// The 64-bit number at `at` in the table of `length` bytes at `base`.
    fn number<I: Image + ?Sized>(&mut self, image: &I, base: u64, length: u64, at: u64) -> Result<u64, Qcow2Error> {
        let skip = at - at % WINDOW_BYTES;
        let start = base.saturating_add(skip);
        if self.start != Some(start) {
            let bytes = WINDOW_BYTES.min(length.saturating_sub(skip));
            self.bytes = read_bytes(image, start, usize::try_from(bytes).unwrap_or(0))?;
            self.start = Some(start);
        }
        let within = usize::try_from(at - skip).unwrap_or(usize::MAX);
        u64_at(&self.bytes, within).ok_or_else(|| Qcow2Error::Invalid("a table is shorter than its entries".to_owned()))
    }
}

/// Walks an image's tables.
#[derive(Debug)]
pub struct Map {
    header: Header,
    l1: Window,
    l2: Window,
}

impl Map {
    /// Of an image with this header.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self { header, l1: Window::default(), l2: Window::default() }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What lies at `offset`, and how far that goes, up to `limit` bytes. Both lie within the virtual size.
    ///
    /// # Errors
    /// What the storage answers, and a table that contradicts the check before.
    pub fn run_at<I: Image + ?Sized>(
        &mut self,
        image: &I,
        offset: u64,
        limit: u64,
    ) -> Result<(Mapped, u64), Qcow2Error> {
        let covers = self.header.l2_covers();
        let mut index = offset / covers;
        let table = self.l2_table(image, index)?;
        if table == 0 {
            let end = offset.saturating_add(limit);
            while (index + 1).saturating_mul(covers) < end && self.l2_table(image, index + 1)? == 0 {
                index += 1;
            }
            return Ok((Mapped::Unallocated, ((index + 1).saturating_mul(covers) - offset).min(limit)));
        }
        let limit = limit.min(covers - offset % covers);
        let (first, mut length) = self.piece_at(image, table, offset % covers)?;
        while length < limit {
            let (next, more) = self.piece_at(image, table, offset % covers + length)?;
            if !first.goes_on_as(next, length) {
                break;
            }
            length += more;
        }
        Ok((first, length.min(limit)))
    }

    /// Where the L2 table of an L1 entry lies; 0: there is none.
    fn l2_table<I: Image + ?Sized>(&mut self, image: &I, index: u64) -> Result<u64, Qcow2Error> {
        let length = u64::from(self.header.l1_entries) * 8;
        Ok(self.l1.number(image, self.header.l1_offset, length, index * 8)? & OFFSET_MASK)
    }

    /// What lies at an offset of what one L2 table maps, to the end of its cluster or subcluster.
    fn piece_at<I: Image + ?Sized>(&mut self, image: &I, table: u64, offset: u64) -> Result<(Mapped, u64), Qcow2Error> {
        let cluster_bytes = self.header.cluster_bytes();
        let entry_bytes = self.header.l2_entry_bytes();
        let (index, within) = (offset / cluster_bytes, offset % cluster_bytes);
        let entry = self.l2.number(image, table, cluster_bytes, index * entry_bytes)?;
        let left = cluster_bytes - within;
        if entry & COMPRESSED != 0 {
            let (host, stored) = compressed_place(entry, self.header.cluster_bits);
            return Ok((Mapped::Compressed { host, stored, within }, left));
        }
        let host = entry & OFFSET_MASK;
        let data = Mapped::Data { offset: host + within };
        if !self.header.extended_l2 {
            let is_zero = self.header.version == 3 && entry & ALL_ZERO != 0;
            let mapped = match host {
                _ if is_zero => Mapped::Zero,
                0 => Mapped::Unallocated,
                _ => data,
            };
            return Ok((mapped, left));
        }
        let bits = self.l2.number(image, table, cluster_bytes, index * entry_bytes + 8)?;
        let subcluster_bytes = cluster_bytes / SUBCLUSTERS;
        let number = within / subcluster_bytes;
        let mapped = match (bits >> number & 1, bits >> (number + SUBCLUSTERS) & 1) {
            (_, 1) => Mapped::Zero,
            (1, _) => data,
            _ => Mapped::Unallocated,
        };
        Ok((mapped, subcluster_bytes - within % subcluster_bytes))
    }
}
