//! A planned unit, read: its bytes, decompressed where they were compressed, and which grains are only zeros.

use std::ops::Range;
use std::sync::Arc;

use crate::copy::Buffer;
use crate::copy::BufferPool;
use crate::copy::is_zero;
use crate::driver::DIRECT_ALIGNMENT;
use crate::driver::DomainFile;

use super::FlattenError;
use super::chain::LayerBytes;
use super::chain::Piece;
use super::plan::GRAIN_BYTES;
use super::plan::Grain;
use super::plan::UnitPlan;

/// Bytes of a unit that lie in a layer's file just so: their blocks can be shared instead of written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// Counted from the unit's start.
    pub range: Range<usize>,
    pub layer: usize,
    pub offset: u64,
}

/// A unit that was read.
#[derive(Debug)]
pub(super) struct UnitRead {
    pub plan: UnitPlan,
    pub buffer: Buffer,
}

impl UnitRead {
    /// The bytes of one grain; the last one of the guest's address space may be shorter.
    pub fn grain(&self, number: usize) -> &[u8] {
        let end = ((number + 1) * GRAIN_BYTES).min(self.plan.length);
        self.buffer.bytes().get(number * GRAIN_BYTES..end).unwrap_or_default()
    }

    /// Which parts lie in a layer's file just so.
    pub fn origins(&self) -> impl Iterator<Item = Origin> + '_ {
        self.plan.reads.iter().filter_map(|(range, piece)| match piece {
            Piece::Data { layer, offset } => Some(Origin { range: range.clone(), layer: *layer, offset: *offset }),
            _ => None,
        })
    }
}

/// What grains that hold only zeros become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zeros {
    /// Nothing: without anything beneath it reads as zeros.
    Unallocated,
    /// Zeros, explicitly.
    Zero,
}

/// Reads a unit. Runs on any thread.
pub(super) fn read_unit<F: DomainFile>(
    layers: &Arc<Vec<LayerBytes<F>>>,
    pool: &BufferPool,
    mut plan: UnitPlan,
    zeros: Zeros,
) -> Result<UnitRead, FlattenError> {
    let mut buffer = pool.take();
    let bytes = buffer.bytes_mut();
    let mut filled = 0;
    for (range, piece) in &plan.reads {
        bytes.get_mut(filled..range.start).unwrap_or_default().fill(0);
        filled = range.end;
        let part = bytes.get_mut(range.clone()).unwrap_or_default();
        match *piece {
            Piece::Data { layer, offset } => read_data(layers, layer, part, offset)?,
            Piece::Compressed { layer, host, stored, within } => {
                layer_of(layers, layer)?.decompress(part, host, stored, within)?;
            }
            Piece::Unallocated | Piece::Zero => part.fill(0),
        }
    }
    bytes.get_mut(filled..).unwrap_or_default().fill(0);
    for (number, grain) in plan.grains.iter_mut().enumerate().filter(|(_, grain)| **grain == Grain::Data) {
        let end = ((number + 1) * GRAIN_BYTES).min(plan.length);
        if is_zero(bytes.get(number * GRAIN_BYTES..end).unwrap_or_default()) {
            *grain = if zeros == Zeros::Zero { Grain::Zero } else { Grain::Unallocated };
        }
    }
    Ok(UnitRead { plan, buffer })
}

fn layer_of<F>(layers: &Arc<Vec<LayerBytes<F>>>, number: usize) -> Result<&LayerBytes<F>, FlattenError> {
    layers.get(number).ok_or_else(|| FlattenError::Order(format!("there is no layer {number}")))
}

/// The end of a raw file need not be aligned; reading a little less than the buffer is then no error of the source.
fn read_data<F: DomainFile>(
    layers: &Arc<Vec<LayerBytes<F>>>,
    layer: usize,
    part: &mut [u8],
    offset: u64,
) -> Result<(), FlattenError> {
    read_layer(layer_of(layers, layer)?, part, offset)
}

/// The same of one layer.
pub(super) fn read_layer<F: DomainFile>(
    layer: &LayerBytes<F>,
    part: &mut [u8],
    offset: u64,
) -> Result<(), FlattenError> {
    let aligned = part.len() - part.len() % DIRECT_ALIGNMENT;
    let (head, tail) = part.split_at_mut(aligned);
    layer.read(head, offset)?;
    if tail.is_empty() { Ok(()) } else { layer.read(tail, offset + aligned as u64) }
}
