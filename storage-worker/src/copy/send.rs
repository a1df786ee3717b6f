//! The sending half: a file as a stream of pieces.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::driver::DomainFile;
use crate::work::CancelFlag;
use crate::work::FileHash;
use crate::work::Piece;

use super::CopyError;
use super::CopyPorts;
use super::TreeHash;
use super::buffer::BufferPool;
use super::is_zero;
use super::local::read_unit;
use super::pipeline::Pipeline;
use super::tree_hash::UnitHash;
use super::tree_hash::hash_unit;
use super::units::Unit;
use super::units::Units;
use super::units::UnitsError;

/// A raw volume's size is rounded up to this; so much at most may be cut off when it is sent.
const ROUNDING_BYTES: u64 = 4096;

/// What to send, and how.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// Index into the order's list of volumes.
    pub ordinal: u32,
    /// Send only so many bytes: the size of a raw volume before it was rounded up.
    pub true_bytes: Option<u64>,
    /// The hash that the whole file must have.
    pub expected: Option<FileHash>,
    /// Threads that read.
    pub threads: usize,
}

/// A volume that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Size of the file.
    pub file_bytes: u64,
    /// Hash of the whole file.
    pub hash: FileHash,
}

/// Sends a file through a bounded channel, which holds the reading back when the receiver is slow.
///
/// # Errors
/// See [`CopyError`]. A hash other than the expected one is told before `End`, so the receiver never sees a good end.
pub async fn send_file<S: DomainFile>(
    source: Arc<S>,
    sending: Sending,
    outgoing: &mpsc::Sender<Piece>,
    ports: CopyPorts<'_>,
) -> Result<Sent, CopyError> {
    source.sync().map_err(CopyError::Source)?;
    let file_bytes = source.stat().map_err(CopyError::Source)?.bytes;
    let bytes = sending.true_bytes.unwrap_or(file_bytes);
    if bytes > file_bytes || file_bytes - bytes >= ROUNDING_BYTES {
        return Err(CopyError::Stream(format!("{bytes} bytes are wanted of a file of {file_bytes} bytes")));
    }
    let mut units = Units::new(source.clone(), file_bytes).map_err(CopyError::Source)?;
    let mut pipeline = Pipeline::new(sending.threads);
    let pool = BufferPool::default();
    let mut stream = PieceStream::open(outgoing, ports.cancel, sending.ordinal, bytes, file_bytes).await?;
    let mut is_fed = false;
    loop {
        while !is_fed && !pipeline.is_full() {
            if ports.cancel.is_set() {
                return Err(CopyError::Cancelled);
            }
            let unit = units.next(|_| Ok(())).map_err(|error| match error {
                UnitsError::Map(error) | UnitsError::OnRun(error) => CopyError::Source(error),
            })?;
            let Some(unit) = unit else {
                is_fed = true;
                break;
            };
            let (source, pool) = (source.clone(), pool.clone());
            pipeline.push(move || read_piece(source.as_ref(), &pool, unit, bytes, file_bytes));
        }
        let Some(read) = pipeline.next().await? else { break };
        let read = read?;
        let done = (read.start + read.length as u64).min(bytes);
        stream.send_unit(read).await?;
        (ports.progress)(done, bytes);
    }
    let sent = stream.finish(file_bytes, sending.expected).await?;
    Ok(sent)
}

/// A unit that was read. `bytes` is empty for one that is all hole.
pub(crate) struct ReadUnit {
    pub index: u64,
    /// Where it begins in the file.
    pub start: u64,
    pub length: usize,
    pub bytes: Bytes,
    /// What of it is sent, rising; the rest is hole.
    pub data: Vec<Range<usize>>,
    pub sent_hash: UnitHash,
    pub file_hash: UnitHash,
}

fn read_piece<S: DomainFile>(
    source: &S,
    pool: &BufferPool,
    unit: Unit,
    bytes: u64,
    file_bytes: u64,
) -> Result<ReadUnit, CopyError> {
    if unit.data.is_empty() {
        let sent_hash = hash_unit(&[], unit.index, bytes);
        let file_hash = if bytes == file_bytes { sent_hash } else { hash_unit(&[], unit.index, file_bytes) };
        let Unit { index, start, length, .. } = unit;
        return Ok(ReadUnit { index, start, length, bytes: Bytes::new(), data: Vec::new(), sent_hash, file_hash });
    }
    let mut buffer = pool.take();
    read_unit(source, buffer.bytes_mut(), &unit)?;
    let all = buffer.bytes().get(..unit.length).unwrap_or_default();
    let sent_hash = hash_unit(all, unit.index, bytes);
    let file_hash = if bytes == file_bytes { sent_hash } else { hash_unit(all, unit.index, file_bytes) };
    let is_data = |run: &Range<usize>| !is_zero(all.get(run.clone()).unwrap_or_default());
    let data = unit.data.iter().filter(|run| is_data(run)).cloned().collect();
    let Unit { index, start, length, .. } = unit;
    Ok(ReadUnit { index, start, length, bytes: Bytes::from_owner(buffer), data, sent_hash, file_hash })
}

/// A file's pieces on their way, in order.
pub(crate) struct PieceStream<'s> {
    outgoing: &'s mpsc::Sender<Piece>,
    cancel: &'s CancelFlag,
    bytes: u64,
    /// A hole that may go on in the next unit.
    hole: Option<Range<u64>>,
    sent_tree: TreeHash,
    file_tree: TreeHash,
}

impl<'s> PieceStream<'s> {
    /// Opens it: `bytes` are sent of a file of `file_bytes`.
    pub async fn open(
        outgoing: &'s mpsc::Sender<Piece>,
        cancel: &'s CancelFlag,
        ordinal: u32,
        bytes: u64,
        file_bytes: u64,
    ) -> Result<Self, CopyError> {
        let (sent_tree, file_tree) = (TreeHash::new(bytes), TreeHash::new(file_bytes));
        let stream = Self { outgoing, cancel, bytes, hole: None, sent_tree, file_tree };
        stream.put(Piece::Open { ordinal, bytes }).await?;
        Ok(stream)
    }

    async fn put(&self, piece: Piece) -> Result<(), CopyError> {
        // A channel may also have been closed to wake us for a stop.
        let gone = || if self.cancel.is_set() { CopyError::Cancelled } else { CopyError::ReceiverGone };
        self.outgoing.send(piece).await.map_err(|_| gone())
    }

    fn widen_hole(&mut self, to: u64) {
        let to = to.min(self.bytes);
        let from = self.hole.as_ref().map_or(to, |hole| hole.start);
        self.hole = Some(from..to);
    }

    async fn put_hole(&mut self) -> Result<(), CopyError> {
        match self.hole.take().filter(|hole| !hole.is_empty()) {
            Some(hole) => self.put(Piece::Hole { offset: hole.start, length: hole.end - hole.start }).await,
            None => Ok(()),
        }
    }

    /// Sends the next unit; each is sent, from the first on.
    pub async fn send_unit(&mut self, read: ReadUnit) -> Result<(), CopyError> {
        self.sent_tree.add(read.index, read.sent_hash);
        self.file_tree.add(read.index, read.file_hash);
        let start = read.start;
        // A hole begins here, unless one of the unit before goes on.
        self.hole.get_or_insert(start..start);
        for run in read.data {
            let limit = usize::try_from(self.bytes.saturating_sub(start)).unwrap_or(usize::MAX);
            let run = run.start.min(limit)..run.end.min(limit);
            if run.is_empty() {
                continue;
            }
            let offset = start + run.start as u64;
            self.widen_hole(offset);
            self.put_hole().await?;
            self.hole = Some(offset + run.len() as u64..offset + run.len() as u64);
            self.put(Piece::Data { offset, bytes: read.bytes.slice(run) }).await?;
        }
        self.widen_hole(start + read.length as u64);
        Ok(())
    }

    /// Closes it, when the file's hash is the expected one.
    pub async fn finish(mut self, file_bytes: u64, expected: Option<FileHash>) -> Result<Sent, CopyError> {
        self.put_hole().await?;
        let take =
            |tree: &mut TreeHash| std::mem::replace(tree, TreeHash::new(0)).finish().ok_or(CopyError::ThreadLost);
        let (sent_hash, hash) = (take(&mut self.sent_tree)?, take(&mut self.file_tree)?);
        if let Some(expected) = expected.filter(|expected| *expected != hash) {
            return Err(CopyError::HashMismatch { expected, found: hash });
        }
        self.put(Piece::End { bytes: self.bytes, hash: sent_hash }).await?;
        Ok(Sent { file_bytes, hash })
    }
}
