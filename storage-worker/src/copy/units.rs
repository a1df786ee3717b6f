//! A file cut into units of 1 MiB, each with the runs of data that the hole map shows in it.

use std::ops::Range;
use std::sync::Arc;

use crate::driver::DIRECT_ALIGNMENT;
use crate::driver::DomainFile;
use crate::driver::StorageError;

use super::UNIT_BYTES;
use super::tree_hash::unit_count;

/// One unit of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub index: u64,
    /// Where it begins in the file.
    pub start: u64,
    /// Its length: a whole unit, except for the file's last.
    pub length: usize,
    /// Runs of data, counted from `start`, rising, without overlap. None: it is all hole.
    pub data: Vec<Range<usize>>,
}

/// Walks a file unit by unit. Sync the file first: some file systems do not map what is still in the cache.
#[derive(Debug)]
pub(super) struct Units<F> {
    file: Arc<F>,
    bytes: u64,
    next: u64,
    /// The run of data that the walk is in or before; `None` past the last one.
    run: Option<Range<u64>>,
}

/// Bytes of data that a file's hole map shows.
pub(super) fn data_bytes<F: DomainFile>(file: &F) -> Result<u64, StorageError> {
    let (mut at, mut total) = (0, 0_u64);
    while let Some(run) = file.next_data(at)? {
        total = total.saturating_add(run.end - run.start);
        at = run.end;
    }
    Ok(total)
}

impl<F: DomainFile> Units<F> {
    pub fn new(file: Arc<F>, bytes: u64) -> Result<Self, StorageError> {
        let mut units = Self { file, bytes, next: 0, run: None };
        units.run = units.run_from(0)?;
        Ok(units)
    }

    /// The next run of data, widened to what O_DIRECT can do: only the file's end stays unaligned.
    fn run_from(&self, offset: u64) -> Result<Option<Range<u64>>, StorageError> {
        let alignment = DIRECT_ALIGNMENT as u64;
        let Some(run) = self.file.next_data(offset)? else { return Ok(None) };
        let start = run.start - run.start % alignment;
        let end = run.end.next_multiple_of(alignment).min(self.bytes);
        Ok(Some(start.max(offset)..end).filter(|run| !run.is_empty()))
    }

    /// The next unit; `None` after the last. A run of data that begins in it is handed to `on_run` whole.
    pub fn next(
        &mut self,
        mut on_run: impl FnMut(&Range<u64>) -> Result<(), StorageError>,
    ) -> Result<Option<Unit>, UnitsError> {
        if self.next >= unit_count(self.bytes) {
            return Ok(None);
        }
        let index = self.next;
        let start = index * UNIT_BYTES as u64;
        let end = (start + UNIT_BYTES as u64).min(self.bytes);
        let mut data = Vec::new();
        while let Some(run) = self.run.clone().filter(|run| run.start < end) {
            if run.start >= start {
                on_run(&run).map_err(UnitsError::OnRun)?;
            }
            let part = run.start.max(start)..run.end.min(end);
            data.push(to_usize(part.start - start)..to_usize(part.end - start));
            if run.end > end {
                break;
            }
            self.run = self.run_from(run.end).map_err(UnitsError::Map)?;
        }
        self.next += 1;
        Ok(Some(Unit { index, start, length: to_usize(end - start), data }))
    }
}

/// Which side failed.
#[derive(Debug)]
pub(super) enum UnitsError {
    /// The hole map could not be read.
    Map(StorageError),
    /// `on_run` failed.
    OnRun(StorageError),
}

/// Offsets within a unit fit.
fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(UNIT_BYTES)
}
