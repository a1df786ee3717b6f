//! Layers written as a raw volume: the guest's bytes at their places, zeros left out.

use std::sync::Arc;

use crate::copy::BufferPool;
use crate::copy::CopyError;
use crate::copy::Pipeline;
use crate::copy::TreeHash;
use crate::copy::UNIT_BYTES;
use crate::copy::UnitHash;
use crate::copy::hash_unit;
use crate::copy::unit_count;
use crate::driver::DomainFile;

use super::Chain;
use super::FlattenError;
use super::FlattenPorts;
use super::Flattened;
use super::chain::LayerBytes;
use super::plan::GRAIN_BYTES;
use super::plan::Grain;
use super::plan::Planner;
use super::stream::Sharing;
use super::stream::write_run;
use super::units::Origin;
use super::units::UnitRead;
use super::units::Zeros;
use super::units::read_unit;

/// Writes what a guest sees through all layers to `target`, a new and empty file of `bytes` bytes.
///
/// # Errors
/// See [`FlattenError`]. No thread touches any of the files after it returned.
pub async fn flatten_to_raw<F: DomainFile>(
    chain: Chain<F>,
    target: Arc<F>,
    bytes: u64,
    threads: usize,
    ports: FlattenPorts<'_>,
) -> Result<Flattened, FlattenError> {
    if chain.has_beneath() {
        return Err(FlattenError::Order("a raw volume cannot lie over another one".to_owned()));
    }
    target.extend_to(bytes).map_err(|error| FlattenError::target(error, bytes))?;
    let (layers, sharing) = (chain.bytes(), Sharing::default());
    let mut writing = Writing {
        planner: Planner::new(chain, bytes),
        pipeline: Pipeline::new(threads),
        tree: TreeHash::new(bytes),
        hashed: 0,
        bytes,
        ports,
    };
    let pool = BufferPool::default();
    loop {
        if ports.cancel.is_set() {
            return Err(CopyError::Cancelled.into());
        }
        let Some(plan) = writing.planner.next()? else { break };
        writing.hash_holes(plan.start / UNIT_BYTES as u64).await?;
        writing.make_room().await?;
        let (layers, target, pool, sharing) = (layers.clone(), target.clone(), pool.clone(), sharing.clone());
        writing.hashed += 1;
        writing.pipeline.push(move || {
            let read = read_unit(&layers, &pool, plan, Zeros::Unallocated)?;
            write_unit(target.as_ref(), &layers, &read, &sharing)
                .map_err(|error| FlattenError::target(error, bytes.saturating_sub(read.plan.start)))?;
            let index = read.plan.start / UNIT_BYTES as u64;
            Ok((index, hash_unit(read.buffer.bytes().get(..read.plan.length).unwrap_or_default(), index, bytes)))
        });
    }
    writing.hash_holes(unit_count(bytes)).await?;
    while writing.take_result().await? {}
    let Writing { pipeline, tree, .. } = writing;
    drop(pipeline);
    target.sync().map_err(|error| FlattenError::target(error, 0))?;
    Ok(Flattened { file_bytes: bytes, hash: tree.finish().ok_or(CopyError::ThreadLost)? })
}

struct Writing<'p, F> {
    planner: Planner<F>,
    pipeline: Pipeline<Result<(u64, UnitHash), FlattenError>>,
    tree: TreeHash,
    /// Units below were handed on.
    hashed: u64,
    bytes: u64,
    ports: FlattenPorts<'p>,
}

impl<F: DomainFile> Writing<'_, F> {
    /// Hands the units below `index` on that hold nothing: the hash counts their zeros too.
    async fn hash_holes(&mut self, index: u64) -> Result<(), FlattenError> {
        while self.hashed < index {
            if self.ports.cancel.is_set() {
                return Err(CopyError::Cancelled.into());
            }
            self.make_room().await?;
            let (unit, bytes) = (self.hashed, self.bytes);
            self.pipeline.push(move || Ok((unit, hash_unit(&[], unit, bytes))));
            self.hashed += 1;
        }
        Ok(())
    }

    async fn make_room(&mut self) -> Result<(), FlattenError> {
        while self.pipeline.is_full() {
            self.take_result().await?;
        }
        Ok(())
    }

    /// `false`: there was none.
    async fn take_result(&mut self) -> Result<bool, FlattenError> {
        let Some(result) = self.pipeline.next().await? else { return Ok(false) };
        let (index, hash) = result?;
        self.tree.add(index, hash);
        let done = ((index + 1) * UNIT_BYTES as u64).min(self.bytes);
        (self.ports.progress)(done, self.bytes);
        Ok(true)
    }
}

/// Writes the grains that hold data, or has their blocks shared.
fn write_unit<F: DomainFile>(
    target: &F,
    layers: &[LayerBytes<F>],
    read: &UnitRead,
    sharing: &Sharing,
) -> Result<(), crate::driver::StorageError> {
    let origins: Vec<Origin> = read.origins().collect();
    let bytes = read.buffer.bytes().get(..read.plan.length).unwrap_or_default();
    let mut start = None;
    for (number, at) in (0..=read.plan.length.div_ceil(GRAIN_BYTES)).map(|number| (number, number * GRAIN_BYTES)) {
        let is_data = at < read.plan.length && read.plan.grains.get(number) == Some(&Grain::Data);
        match (is_data, start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                let run = from..at.min(read.plan.length);
                write_run(target, layers, bytes, run, read.plan.start, &origins, sharing)?;
                start = None;
            }
            _ => {}
        }
    }
    Ok(())
}
