//! A new file written from its beginning to its end: what comes is packed into units of 1 MiB, which are hashed and
//! written on several threads. The first unit is kept back, because the header in it is known last.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::copy::Buffer;
use crate::copy::BufferPool;
use crate::copy::CopyError;
use crate::copy::Pipeline;
use crate::copy::TreeHash;
use crate::copy::UNIT_BYTES;
use crate::copy::UnitHash;
use crate::copy::hash_unit;
use crate::driver::DIRECT_ALIGNMENT;
use crate::driver::DomainFile;
use crate::driver::StorageError;

use super::FlattenError;
use super::Flattened;
use super::chain::LayerBytes;
use super::plan::GRAIN_BYTES;
use super::units::Origin;

/// Size of a file whose end is not known yet, for the hash of units that are surely not the last.
const ENDLESS: u64 = u64::MAX / 2;

/// Whether blocks can be shared between these files: assumed until the file system says no. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Sharing(Arc<AtomicBool>);

impl Sharing {
    fn is_refused(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn refuse(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes a part of a unit that begins at `base` of the target: what lies in a layer just so shares its blocks where that
/// is possible, the rest is written.
pub(super) fn write_run<F: DomainFile>(
    target: &F,
    layers: &[LayerBytes<F>],
    unit: &[u8],
    run: Range<usize>,
    base: u64,
    origins: &[Origin],
    sharing: &Sharing,
) -> Result<(), StorageError> {
    let mut at = run.start;
    for origin in origins {
        if sharing.is_refused() {
            break;
        }
        let Some(shared) = shareable(origin, at..run.end, base) else { continue };
        let offset = origin.offset + (shared.start - origin.range.start) as u64;
        let Some(layer) = layers.get(origin.layer) else { continue };
        if !target.clone_from(&layer.file, offset, shared.len() as u64, base + shared.start as u64)? {
            sharing.refuse();
            break;
        }
        write_plain(target, unit, at..shared.start, base)?;
        at = shared.end;
    }
    write_plain(target, unit, at..run.end, base)
}

/// The whole blocks of an origin within a run.
fn shareable(origin: &Origin, run: Range<usize>, base: u64) -> Option<Range<usize>> {
    let block = DIRECT_ALIGNMENT;
    let start = origin.range.start.max(run.start).next_multiple_of(block);
    let end = origin.range.end.min(run.end);
    let end = end - end % block;
    let offset = origin.offset.checked_add(start.checked_sub(origin.range.start)? as u64)?;
    let is_aligned = offset.is_multiple_of(block as u64) && base.is_multiple_of(block as u64);
    // Smaller pieces cost more calls than they save writes.
    (is_aligned && end >= start + GRAIN_BYTES).then_some(start..end)
}

fn write_plain<F: DomainFile>(target: &F, unit: &[u8], run: Range<usize>, base: u64) -> Result<(), StorageError> {
    if run.is_empty() {
        return Ok(());
    }
    target.write_at(unit.get(run.clone()).unwrap_or_default(), base + run.start as u64)
}

/// A unit of the file that is being filled.
struct Filling {
    buffer: Buffer,
    filled: usize,
    origins: Vec<Origin>,
}

/// A new file, written from its beginning on.
pub(super) struct Stream<F> {
    target: Arc<F>,
    layers: Arc<Vec<LayerBytes<F>>>,
    sharing: Sharing,
    pool: BufferPool,
    pipeline: Pipeline<Result<(u64, UnitHash), StorageError>>,
    tree: TreeHash,
    /// Units before this one were handed on; the first one is kept.
    index: u64,
    filling: Filling,
    first: Option<Filling>,
}

impl<F: DomainFile> Stream<F> {
    /// Begins with nothing.
    pub fn new(target: Arc<F>, layers: Arc<Vec<LayerBytes<F>>>, threads: usize) -> Self {
        let pool = BufferPool::default();
        let filling = Filling { buffer: pool.take(), filled: 0, origins: Vec::new() };
        Self {
            target,
            layers,
            sharing: Sharing::default(),
            pool,
            pipeline: Pipeline::new(threads),
            tree: TreeHash::new(ENDLESS),
            index: 0,
            filling,
            first: None,
        }
    }

    /// Where the next bytes go.
    pub fn position(&self) -> u64 {
        self.index * UNIT_BYTES as u64 + self.filling.filled as u64
    }

    /// Appends a whole grain, filled up with zeros; returns where it lies. `from`: the layer and the offset where all
    /// these bytes lie just so.
    pub async fn append(&mut self, bytes: &[u8], from: Option<(usize, u64)>) -> Result<u64, FlattenError> {
        if self.filling.filled >= UNIT_BYTES {
            self.hand_on().await?;
        }
        let offset = self.position();
        let start = self.filling.filled;
        let place = self.filling.buffer.bytes_mut().get_mut(start..start + GRAIN_BYTES).unwrap_or_default();
        let (head, tail) = place.split_at_mut(bytes.len().min(place.len()));
        head.copy_from_slice(bytes.get(..head.len()).unwrap_or_default());
        tail.fill(0);
        if let Some((layer, offset)) = from.filter(|_| bytes.len() == GRAIN_BYTES) {
            let origins = &mut self.filling.origins;
            match origins.last_mut() {
                Some(last)
                    if last.range.end == start
                        && last.layer == layer
                        && last.offset + last.range.len() as u64 == offset =>
                {
                    last.range.end += GRAIN_BYTES;
                }
                _ => origins.push(Origin { range: start..start + GRAIN_BYTES, layer, offset }),
            }
        }
        self.filling.filled += GRAIN_BYTES;
        Ok(offset)
    }

    /// Appends numbers, big-endian, as whole grains.
    pub async fn append_table(&mut self, table: &[u64]) -> Result<u64, FlattenError> {
        let mut first = None;
        for part in table.chunks(GRAIN_BYTES / 8) {
            let bytes: Vec<u8> = part.iter().flat_map(|number| number.to_be_bytes()).collect();
            let offset = self.append(&bytes, None).await?;
            first.get_or_insert(offset);
        }
        Ok(first.unwrap_or_else(|| self.position()))
    }

    async fn hand_on(&mut self) -> Result<(), FlattenError> {
        let next = Filling { buffer: self.pool.take(), filled: 0, origins: Vec::new() };
        let filling = std::mem::replace(&mut self.filling, next);
        let index = self.index;
        self.index += 1;
        if index == 0 {
            self.first = Some(filling);
            return Ok(());
        }
        while self.pipeline.is_full() {
            self.take_result().await?;
        }
        self.push(index, filling, ENDLESS);
        Ok(())
    }

    fn push(&mut self, index: u64, filling: Filling, file_bytes: u64) {
        let (target, layers, sharing) = (self.target.clone(), self.layers.clone(), self.sharing.clone());
        self.pipeline.push(move || {
            let Filling { buffer, filled, origins } = filling;
            let unit = buffer.bytes().get(..filled).unwrap_or_default();
            let base = index * UNIT_BYTES as u64;
            write_run(target.as_ref(), &layers, unit, 0..filled, base, &origins, &sharing)?;
            Ok((index, hash_unit(unit, index, file_bytes)))
        });
    }

    /// `false`: there was none.
    async fn take_result(&mut self) -> Result<bool, FlattenError> {
        let Some(result) = self.pipeline.next().await? else { return Ok(false) };
        let (index, hash) = result.map_err(|error| FlattenError::target(error, UNIT_BYTES as u64))?;
        self.tree.add(index, hash);
        Ok(true)
    }

    /// Writes the rest, and, when all else is durable, the header at the file's beginning.
    pub async fn finish(mut self, header: &[u8]) -> Result<Flattened, FlattenError> {
        let file_bytes = self.position();
        let empty = Filling { buffer: self.pool.take(), filled: 0, origins: Vec::new() };
        let last = std::mem::replace(&mut self.filling, empty);
        let (index, mut first) = match self.first.take() {
            Some(first) => {
                // The hash of a file's last unit depends on the file's size.
                self.push(self.index, last, file_bytes);
                (self.index, first)
            }
            None => (0, last),
        };
        while self.take_result().await? {}
        let head = first.buffer.bytes_mut().get_mut(..header.len()).unwrap_or_default();
        head.copy_from_slice(header.get(..head.len()).unwrap_or_default());
        let Self { target, mut tree, layers, sharing, pipeline, .. } = self;
        drop(pipeline);
        let failed = |error| FlattenError::target(error, 0);
        let unit = first.buffer.bytes().get(..first.filled).unwrap_or_default();
        write_run(target.as_ref(), &layers, unit, GRAIN_BYTES..first.filled, 0, &first.origins, &sharing)
            .map_err(failed)?;
        target.sync().map_err(failed)?;
        target.write_at(unit.get(..GRAIN_BYTES).unwrap_or_default(), 0).map_err(failed)?;
        target.sync().map_err(failed)?;
        // Which merge is the hash's last is known now; the first unit takes part in it.
        tree.set_bytes(file_bytes);
        tree.add(0, hash_unit(unit, 0, file_bytes));
        debug_assert!(index == 0 || file_bytes > UNIT_BYTES as u64);
        Ok(Flattened { file_bytes, hash: tree.finish().ok_or(CopyError::ThreadLost)? })
    }
}
