//! A chain looked at piece by piece: what some of its guest's addresses become, and what a guest reads there.

use std::ops::Range;

use crate::driver::DomainFile;

use super::Chain;
use super::FlattenError;
use super::Grain;
use super::chain::Piece;
use super::units::read_layer;

impl<F: DomainFile> Chain<F> {
    /// How far, from `offset` on, no flattened layer holds anything; 0: one does. At most `limit`.
    pub(crate) fn unheld(&mut self, offset: u64, limit: u64) -> Result<u64, FlattenError> {
        let (piece, length) = self.content_at(offset, limit)?;
        Ok(if piece == Piece::Unallocated { length } else { 0 })
    }

    /// What becomes of a range that is written as one. Where layers have smaller clusters, part of it may be held and part
    /// not: then all of it is written, with what shows from beneath.
    pub(crate) fn grain(&mut self, range: Range<u64>) -> Result<Grain, FlattenError> {
        let (mut at, mut has_zero, mut has_nothing) = (range.start, false, false);
        while at < range.end {
            let (piece, length) = self.content_at(at, range.end - at)?;
            match piece {
                Piece::Unallocated => has_nothing = true,
                Piece::Zero => has_zero = true,
                Piece::Data { .. } | Piece::Compressed { .. } => return Ok(Grain::Data),
            }
            at += length.max(1);
        }
        Ok(match (has_zero, has_nothing) {
            // Without anything beneath, nothing and zeros are the same.
            (true, _) if !self.has_beneath() => Grain::Unallocated,
            (true, true) => Grain::Data,
            (true, false) => Grain::Zero,
            (false, _) => Grain::Unallocated,
        })
    }

    /// Fills `buffer` with what a guest reads through all layers from `offset` on.
    pub(crate) fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), FlattenError> {
        let layers = self.bytes();
        let layer_of = |number: usize| {
            layers.get(number).ok_or_else(|| FlattenError::Order(format!("there is no layer {number}")))
        };
        let mut done = 0;
        while done < buffer.len() {
            let left = buffer.len() - done;
            let (piece, length) = self.view_at(offset + done as u64, left as u64)?;
            let length = usize::try_from(length).unwrap_or(left).clamp(1, left);
            let part = buffer.get_mut(done..done + length).unwrap_or_default();
            match piece {
                Piece::Unallocated | Piece::Zero => part.fill(0),
                Piece::Data { layer, offset } => read_layer(layer_of(layer)?, part, offset)?,
                Piece::Compressed { layer, host, stored, within } => {
                    layer_of(layer)?.decompress(part, host, stored, within)?;
                }
            }
            done += length;
        }
        Ok(())
    }
}
