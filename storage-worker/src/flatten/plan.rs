//! What is to be read for one unit of the guest's address space, found from the tables alone.

use std::ops::Range;

use crate::copy::UNIT_BYTES;
use crate::driver::DomainFile;

use super::Chain;
use super::FlattenError;
use super::chain::Piece;

/// Granularity of the target: its clusters, and the least that becomes a hole in a raw one.
pub(super) const GRAIN_BYTES: usize = 64 * 1024;

/// Grains of a unit.
pub(super) const GRAINS: usize = UNIT_BYTES / GRAIN_BYTES;

/// What a grain of the target becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// Nothing: what lies beneath the target shows, or zeros.
    Unallocated,
    /// Zeros over whatever lies beneath.
    Zero,
    /// Bytes, as far as they turn out not to be zeros.
    Data,
}

/// A unit of the guest's address space.
#[derive(Debug)]
pub(super) struct UnitPlan {
    /// Where it begins; a multiple of the unit.
    pub start: u64,
    /// Its length; shorter only at the end.
    pub length: usize,
    pub grains: [Grain; GRAINS],
    /// What to read where, counted from `start`, rising, without overlap. The rest of its data grains is zeros.
    pub reads: Vec<(Range<usize>, Piece)>,
}

/// Walks the guest's address space.
#[derive(Debug)]
pub(super) struct Planner<F> {
    chain: Chain<F>,
    virtual_bytes: u64,
    next: u64,
}

impl<F: DomainFile> Planner<F> {
    /// Over a target with this virtual size.
    pub fn new(chain: Chain<F>, virtual_bytes: u64) -> Self {
        Self { chain, virtual_bytes, next: 0 }
    }

    /// Where the walk is.
    pub fn position(&self) -> u64 {
        self.next.min(self.virtual_bytes)
    }

    /// The next unit that holds anything; `None` after the last. Long stretches of nothing cost nothing.
    pub fn next(&mut self) -> Result<Option<UnitPlan>, FlattenError> {
        while self.next < self.virtual_bytes {
            let start = self.next;
            let left = self.virtual_bytes - start;
            let unit = left.min(UNIT_BYTES as u64);
            if self.chain.content_at(start, unit)? == (Piece::Unallocated, unit) {
                let (_, length) = self.chain.content_at(start, left)?;
                self.next = start + (length - length % UNIT_BYTES as u64).max(unit);
                continue;
            }
            self.next = start + UNIT_BYTES as u64;
            let plan = self.unit(start)?;
            if plan.grains.iter().any(|grain| *grain != Grain::Unallocated) {
                return Ok(Some(plan));
            }
        }
        Ok(None)
    }

    /// The unit at `start`, whatever it holds.
    pub fn unit(&mut self, start: u64) -> Result<UnitPlan, FlattenError> {
        let length = usize::try_from(self.virtual_bytes - start).unwrap_or(UNIT_BYTES).min(UNIT_BYTES);
        let mut plan = UnitPlan { start, length, grains: [Grain::Unallocated; GRAINS], reads: Vec::new() };
        let mut at = 0;
        while at < length {
            let end = (at - at % GRAIN_BYTES + GRAIN_BYTES).min(length);
            let grain = self.grain(start, at..end)?;
            if grain == Grain::Data {
                self.read(&mut plan, at..end)?;
            }
            if let Some(place) = plan.grains.get_mut(at / GRAIN_BYTES) {
                *place = grain;
            }
            at = end;
        }
        Ok(plan)
    }

    fn grain(&mut self, start: u64, grain: Range<usize>) -> Result<Grain, FlattenError> {
        self.chain.grain(start + grain.start as u64..start + grain.end as u64)
    }

    fn read(&mut self, plan: &mut UnitPlan, grain: Range<usize>) -> Result<(), FlattenError> {
        let mut at = grain.start;
        while at < grain.end {
            let (piece, length) = self.chain.view_at(plan.start + at as u64, (grain.end - at) as u64)?;
            let length = usize::try_from(length).unwrap_or(UNIT_BYTES).clamp(1, grain.end - at);
            match (piece, plan.reads.last_mut()) {
                (Piece::Unallocated | Piece::Zero, _) => {}
                (piece, Some((range, last))) if range.end == at && goes_on(*last, piece, range.len()) => {
                    range.end += length;
                }
                (piece, _) => plan.reads.push((at..at + length, piece)),
            }
            at += length;
        }
        Ok(())
    }
}

/// Whether a piece begins in the same file where the one before ends.
fn goes_on(last: Piece, piece: Piece, length: usize) -> bool {
    match (last, piece) {
        (Piece::Data { layer, offset }, Piece::Data { layer: same, offset: next }) => {
            layer == same && offset + length as u64 == next
        }
        _ => false,
    }
}
