//! A copy with both ends on this host.

use std::sync::Arc;

use crate::driver::DomainFile;
use crate::work::FileHash;

use super::CopyError;
use super::CopyPorts;
use super::TreeHash;
use super::buffer::BufferPool;
use super::checkpoint::Checkpoints;
use super::is_zero;
use super::pipeline::Pipeline;
use super::tree_hash::UnitHash;
use super::tree_hash::hash_unit;
use super::units::Unit;
use super::units::Units;
use super::units::UnitsError;
use super::units::data_bytes;

/// A finished copy: durable, except for the target's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Size of both files.
    pub bytes: u64,
    /// Bytes of data that were read; the rest is holes.
    pub data_bytes: u64,
    /// Hash of what was read.
    pub hash: FileHash,
}

/// Copies `source` to `target`, a new and empty file. Holes stay holes; zeros may become holes.
///
/// # Errors
/// See [`CopyError`]. No thread touches either file after it returned.
pub async fn copy_file<S: DomainFile, T: DomainFile>(
    source: Arc<S>,
    target: Arc<T>,
    expected: Option<FileHash>,
    threads: usize,
    ports: CopyPorts<'_>,
) -> Result<Copied, CopyError> {
    // The hole map is only right for what is on storage.
    source.sync().map_err(CopyError::Source)?;
    let bytes = source.stat().map_err(CopyError::Source)?.bytes;
    let data_total = data_bytes(source.as_ref()).map_err(CopyError::Source)?;
    // Writes that extend a file wait for each other; so the size comes first.
    target.extend_to(bytes).map_err(|error| CopyError::target(error, data_total))?;
    let mut units = Units::new(source.clone(), bytes).map_err(CopyError::Source)?;
    let mut tree = TreeHash::new(bytes);
    let mut checkpoints = Checkpoints::new(ports);
    let mut data_done = 0_u64;
    let mut pipeline = Pipeline::new(threads);
    let pool = BufferPool::default();
    let mut is_fed = false;
    loop {
        while !is_fed && !pipeline.is_full() {
            if ports.cancel.is_set() {
                return Err(CopyError::Cancelled);
            }
            let unit = units.next(|run| target.allocate(run.clone())).map_err(|error| match error {
                UnitsError::Map(error) => CopyError::Source(error),
                UnitsError::OnRun(error) => CopyError::target(error, data_total.saturating_sub(data_done)),
            })?;
            let Some(unit) = unit else {
                is_fed = true;
                break;
            };
            let (source, target, pool) = (source.clone(), target.clone(), pool.clone());
            pipeline.push(move || copy_unit(source.as_ref(), target.as_ref(), &pool, unit, bytes));
        }
        let Some(result) = pipeline.next().await? else { break };
        let (unit, hash) = result.map_err(|failed| failed.into_error(data_total.saturating_sub(data_done)))?;
        tree.add(unit.index, hash);
        data_done = data_done.saturating_add(unit.data.iter().map(|run| run.len() as u64).sum());
        let done = unit.start + unit.length as u64;
        (ports.progress)(done, bytes);
        checkpoints.note(target.as_ref(), done).map_err(CopyError::Target)?;
    }
    drop(pipeline);
    target.sync().map_err(|error| CopyError::target(error, 0))?;
    let hash = tree.finish().ok_or(CopyError::ThreadLost)?;
    match expected {
        Some(expected) if expected != hash => Err(CopyError::HashMismatch { expected, found: hash }),
        _ => Ok(Copied { bytes, data_bytes: data_done, hash }),
    }
}

/// Why a unit failed; how much was missing is known only where results come together.
#[derive(Debug)]
pub(super) enum UnitFailed {
    Read(CopyError),
    Write(crate::driver::StorageError),
}

impl UnitFailed {
    pub fn into_error(self, missing_bytes: u64) -> CopyError {
        match self {
            Self::Read(error) => error,
            Self::Write(error) => CopyError::target(error, missing_bytes),
        }
    }
}

fn copy_unit<S: DomainFile, T: DomainFile>(
    source: &S,
    target: &T,
    pool: &BufferPool,
    unit: Unit,
    bytes: u64,
) -> Result<(Unit, UnitHash), UnitFailed> {
    if unit.data.is_empty() {
        let hash = hash_unit(&[], unit.index, bytes);
        return Ok((unit, hash));
    }
    let mut buffer = pool.take();
    read_unit(source, buffer.bytes_mut(), &unit).map_err(UnitFailed::Read)?;
    let data = buffer.bytes().get(..unit.length).unwrap_or_default();
    for run in &unit.data {
        let run_bytes = data.get(run.clone()).unwrap_or_default();
        // The target is new: what is not written reads as zeros.
        if !is_zero(run_bytes) {
            target.write_at(run_bytes, unit.start + run.start as u64).map_err(UnitFailed::Write)?;
        }
    }
    let hash = hash_unit(data, unit.index, bytes);
    Ok((unit, hash))
}

/// Fills a buffer with a unit: its data read, its holes zeros.
pub(super) fn read_unit<S: DomainFile>(source: &S, buffer: &mut [u8], unit: &Unit) -> Result<(), CopyError> {
    let mut filled = 0;
    for run in &unit.data {
        buffer.get_mut(filled..run.start).unwrap_or_default().fill(0);
        let offset = unit.start + run.start as u64;
        let part = buffer.get_mut(run.clone()).unwrap_or_default();
        let wanted = part.len();
        let read = source.read_at(part, offset).map_err(CopyError::Source)?;
        if read < wanted {
            return Err(CopyError::SourceCut { entry: source.entry().to_owned(), at: offset + read as u64 });
        }
        filled = run.end;
    }
    buffer.get_mut(filled..unit.length).unwrap_or_default().fill(0);
    Ok(())
}
