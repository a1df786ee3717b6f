//! The receiving half: a stream of pieces becomes a file, and is believed only when size and hash agree at its end.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::driver::DIRECT_ALIGNMENT;
use crate::driver::DomainFile;
use crate::work::FileHash;
use crate::work::PIECE_BYTES_MAX;
use crate::work::Piece;

use super::CopyError;
use super::CopyPorts;
use super::TreeHash;
use super::UNIT_BYTES;
use super::buffer::Buffer;
use super::buffer::BufferPool;
use super::checkpoint::Checkpoints;
use super::local::UnitFailed;
use super::nonzero_runs;
use super::pipeline::Pipeline;
use super::tree_hash::UnitHash;
use super::tree_hash::hash_unit;

/// A look at a stream's first bytes, so that what is not wanted is refused before all of it was sent.
#[derive(Clone, Copy)]
pub struct HeadGate<'g> {
    /// How many bytes it needs to see; fewer when the volume has fewer.
    pub bytes: usize,
    /// Gets these bytes and the volume's size; answers whether the rest is wanted.
    pub is_wanted: &'g (dyn Fn(&[u8], u64) -> bool + Send + Sync),
}

impl std::fmt::Debug for HeadGate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeadGate").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The first bytes of a stream until its gate has seen them.
struct Head<'g> {
    gate: HeadGate<'g>,
    bytes: Vec<u8>,
    /// How many it takes.
    wanted: usize,
}

impl<'g> Head<'g> {
    fn new(gate: HeadGate<'g>, volume_bytes: u64) -> Self {
        let wanted = usize::try_from(volume_bytes).unwrap_or(usize::MAX).min(gate.bytes);
        Self { gate, bytes: Vec::new(), wanted }
    }

    /// Takes a part of the stream; what lies between two parts is zeros.
    fn add(&mut self, offset: u64, part: &[u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.wanted);
        self.bytes.resize(start.max(self.bytes.len()), 0);
        let room = self.wanted.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
    }

    /// Whether the rest is wanted; `None` as long as too little was received.
    fn judge(&mut self, received: u64, volume_bytes: u64) -> Option<bool> {
        if received < self.wanted as u64 {
            return None;
        }
        self.bytes.resize(self.wanted, 0);
        Some((self.gate.is_wanted)(&self.bytes, volume_bytes))
    }
}

/// What is expected of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Receiving<'g> {
    /// Index of the volume in the order's list.
    pub ordinal: u32,
    /// The file's size is rounded up to a multiple of this with zeros; 1 keeps it.
    pub round_to: u64,
    /// Largest volume that is taken.
    pub bytes_max: u64,
    /// The only size that is taken, where one was agreed.
    pub bytes: Option<u64>,
    /// Who looks at the first bytes.
    pub head: Option<HeadGate<'g>>,
    /// The hash that the whole file must have.
    pub expected: Option<FileHash>,
    /// Threads that hash and write.
    pub threads: usize,
}

/// A volume that was received; durable, except for its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Size as announced.
    pub bytes: u64,
    /// Size of the file, after rounding.
    pub file_bytes: u64,
    /// Hash of the whole file.
    pub hash: FileHash,
}

/// Writes the next volume of a stream to `target`, a new and empty file.
///
/// # Errors
/// See [`CopyError`]. No thread touches the file after it returned.
pub async fn receive_file<T: DomainFile>(
    target: Arc<T>,
    receiving: Receiving<'_>,
    incoming: &mut mpsc::Receiver<Piece>,
    ports: CopyPorts<'_>,
) -> Result<Received, CopyError> {
    let bytes = open(receiving, incoming, ports).await?;
    let file_bytes = bytes.next_multiple_of(receiving.round_to.max(1));
    target.extend_to(file_bytes).map_err(|error| CopyError::target(error, bytes))?;
    let mut writing = Writing {
        target,
        ports,
        bytes,
        file_bytes,
        received: 0,
        unit: 0,
        filling: None,
        pipeline: Pipeline::new(receiving.threads),
        pool: BufferPool::default(),
        stream_tree: TreeHash::new(bytes),
        file_tree: TreeHash::new(file_bytes),
        checkpoints: Checkpoints::new(ports),
        head: receiving.head.map(|gate| Head::new(gate, bytes)),
    };
    let stated = loop {
        if ports.cancel.is_set() {
            return Err(CopyError::Cancelled);
        }
        let piece = incoming.recv().await.ok_or_else(|| gone(ports, writing.received, bytes))?;
        match piece {
            Piece::Data { offset, bytes } => {
                writing.data(offset, &bytes).await?;
                writing.look_at_head(offset, &bytes)?;
            }
            Piece::Hole { offset, length } => {
                writing.hole(offset, length).await?;
                writing.look_at_head(offset, &[])?;
            }
            Piece::End { bytes: stated, hash } if stated == bytes => break hash,
            Piece::End { bytes: stated, .. } => {
                return Err(CopyError::Stream(format!("{bytes} bytes were announced, {stated} are stated at the end")));
            }
            Piece::Open { .. } => {
                return Err(CopyError::Stream("a volume begins before the last one ended".to_owned()));
            }
        }
    };
    writing.finish(stated, receiving.expected).await
}

/// A closed channel is a lost sender, unless it was closed to wake us for a stop.
fn gone(ports: CopyPorts<'_>, at: u64, bytes: u64) -> CopyError {
    if ports.cancel.is_set() { CopyError::Cancelled } else { CopyError::SenderGone { at, bytes } }
}

async fn open(
    receiving: Receiving<'_>,
    incoming: &mut mpsc::Receiver<Piece>,
    ports: CopyPorts<'_>,
) -> Result<u64, CopyError> {
    match incoming.recv().await {
        None => Err(gone(ports, 0, 0)),
        Some(Piece::Open { ordinal, .. }) if ordinal != receiving.ordinal => {
            Err(CopyError::Stream(format!("volume {ordinal} came where volume {} is due", receiving.ordinal)))
        }
        Some(Piece::Open { bytes: 0, .. }) => Err(CopyError::Empty),
        Some(Piece::Open { bytes, .. }) if bytes > receiving.bytes_max => {
            Err(CopyError::TooLarge { bytes, limit: receiving.bytes_max })
        }
        Some(Piece::Open { bytes, .. }) => match receiving.bytes {
            Some(expected) if expected != bytes => Err(CopyError::OtherSize { expected, found: bytes }),
            _ => Ok(bytes),
        },
        Some(_) => Err(CopyError::Stream("a piece came before its volume was opened".to_owned())),
    }
}

/// A unit that is being filled from pieces.
struct Filling {
    buffer: Buffer,
    /// What of the buffer is data so far; the rest is stale until `hash_and_write` zeroes it.
    data: Vec<Range<usize>>,
}

struct Written {
    index: u64,
    stream_hash: UnitHash,
    file_hash: UnitHash,
}

struct Writing<'p, T> {
    target: Arc<T>,
    ports: CopyPorts<'p>,
    bytes: u64,
    file_bytes: u64,
    /// Everything below came in, as data or hole.
    received: u64,
    /// The unit being filled; all below were handed on.
    unit: u64,
    filling: Option<Filling>,
    pipeline: Pipeline<Result<Written, UnitFailed>>,
    pool: BufferPool,
    stream_tree: TreeHash,
    file_tree: TreeHash,
    checkpoints: Checkpoints<'p>,
    /// Until the gate has seen it.
    head: Option<Head<'p>>,
}

impl<T: DomainFile> Writing<'_, T> {
    /// Shows the gate, if there is one, what it waits for.
    fn look_at_head(&mut self, offset: u64, part: &[u8]) -> Result<(), CopyError> {
        let Some(head) = &mut self.head else { return Ok(()) };
        head.add(offset, part);
        match head.judge(self.received, self.bytes) {
            None => Ok(()),
            Some(true) => {
                self.head = None;
                Ok(())
            }
            Some(false) => Err(CopyError::HeadRefused),
        }
    }

    /// Where a piece ends, once it proved to be in order and in range.
    fn end_of(&self, offset: u64, length: u64) -> Result<u64, CopyError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.bytes && length > 0);
        match end {
            Some(end) if offset >= self.received => Ok(end),
            Some(_) => Err(CopyError::Stream(format!("byte {offset} came again after byte {}", self.received))),
            None => Err(CopyError::Stream(format!(
                "a piece of {length} bytes at {offset} does not fit into a volume of {} bytes",
                self.bytes
            ))),
        }
    }

    async fn hole(&mut self, offset: u64, length: u64) -> Result<(), CopyError> {
        let end = self.end_of(offset, length)?;
        self.advance_to(end / UNIT_BYTES as u64).await?;
        self.received = end;
        Ok(())
    }

    async fn data(&mut self, offset: u64, piece: &[u8]) -> Result<(), CopyError> {
        self.end_of(offset, piece.len() as u64)?;
        if piece.len() > PIECE_BYTES_MAX {
            return Err(CopyError::Stream(format!("a piece of {} bytes is too large", piece.len())));
        }
        let (mut at, mut rest) = (offset, piece);
        while !rest.is_empty() {
            let index = at / UNIT_BYTES as u64;
            self.advance_to(index).await?;
            let start = usize::try_from(at % UNIT_BYTES as u64).unwrap_or(0);
            let (part, after) = rest.split_at(rest.len().min(UNIT_BYTES - start));
            let pool = &self.pool;
            let filling = self.filling.get_or_insert_with(|| Filling { buffer: pool.take(), data: Vec::new() });
            if let Some(room) = filling.buffer.bytes_mut().get_mut(start..start + part.len()) {
                room.copy_from_slice(part);
            }
            match filling.data.last_mut() {
                Some(last) if last.end == start => last.end += part.len(),
                _ => filling.data.push(start..start + part.len()),
            }
            at += part.len() as u64;
            rest = after;
        }
        self.received = at;
        Ok(())
    }

    /// Hands on all units below `index`.
    async fn advance_to(&mut self, index: u64) -> Result<(), CopyError> {
        while self.unit < index {
            self.hand_on().await?;
        }
        Ok(())
    }

    async fn hand_on(&mut self) -> Result<(), CopyError> {
        if self.ports.cancel.is_set() {
            return Err(CopyError::Cancelled);
        }
        while self.pipeline.is_full() {
            self.take_result().await?;
        }
        let (target, filling, index) = (self.target.clone(), self.filling.take(), self.unit);
        let (bytes, file_bytes) = (self.bytes, self.file_bytes);
        self.pipeline.push(move || hash_and_write(target.as_ref(), filling, index, bytes, file_bytes));
        self.unit += 1;
        Ok(())
    }

    /// `false`: there was none.
    async fn take_result(&mut self) -> Result<bool, CopyError> {
        let Some(result) = self.pipeline.next().await? else { return Ok(false) };
        let missing = self.bytes.saturating_sub(self.received);
        let written = result.map_err(|failed| failed.into_error(missing))?;
        self.stream_tree.add(written.index, written.stream_hash);
        self.file_tree.add(written.index, written.file_hash);
        let done = ((written.index + 1) * UNIT_BYTES as u64).min(self.bytes);
        (self.ports.progress)(done, self.bytes);
        self.checkpoints.note(self.target.as_ref(), done).map_err(CopyError::Target)?;
        Ok(true)
    }

    async fn finish(mut self, stated: FileHash, expected: Option<FileHash>) -> Result<Received, CopyError> {
        self.advance_to(super::tree_hash::unit_count(self.file_bytes)).await?;
        while self.take_result().await? {}
        let Self { target, pipeline, stream_tree, file_tree, bytes, file_bytes, .. } = self;
        drop(pipeline);
        let found = stream_tree.finish().ok_or(CopyError::ThreadLost)?;
        if found != stated {
            return Err(CopyError::HashMismatch { expected: stated, found });
        }
        let hash = file_tree.finish().ok_or(CopyError::ThreadLost)?;
        if let Some(expected) = expected.filter(|expected| *expected != hash) {
            return Err(CopyError::HashMismatch { expected, found: hash });
        }
        target.sync().map_err(|error| CopyError::target(error, 0))?;
        Ok(Received { bytes, file_bytes, hash })
    }
}

fn hash_and_write<T: DomainFile>(
    target: &T,
    filling: Option<Filling>,
    index: u64,
    bytes: u64,
    file_bytes: u64,
) -> Result<Written, UnitFailed> {
    let start = index * UNIT_BYTES as u64;
    let length = usize::try_from(file_bytes.saturating_sub(start)).unwrap_or(UNIT_BYTES).min(UNIT_BYTES);
    let hashes = |data: &[u8]| {
        let stream_hash = hash_unit(data, index, bytes);
        let file_hash = if bytes == file_bytes { stream_hash } else { hash_unit(data, index, file_bytes) };
        Written { index, stream_hash, file_hash }
    };
    let Some(Filling { mut buffer, data }) = filling else { return Ok(hashes(&[])) };
    let mut filled = 0;
    for run in &data {
        buffer.bytes_mut().get_mut(filled..run.start).unwrap_or_default().fill(0);
        filled = run.end;
    }
    buffer.bytes_mut().get_mut(filled..).unwrap_or_default().fill(0);
    let unit = buffer.bytes().get(..length).unwrap_or_default();
    for run in aligned(&data, length).into_iter().flat_map(|run| nonzero_runs(unit, run)) {
        let offset = start + run.start as u64;
        target.write_at(unit.get(run).unwrap_or_default(), offset).map_err(UnitFailed::Write)?;
    }
    Ok(hashes(unit))
}

/// Widens runs to what O_DIRECT can do and joins what then touches; around them the buffer holds zeros.
fn aligned(data: &[Range<usize>], length: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::with_capacity(data.len());
    for run in data {
        let start = run.start - run.start % DIRECT_ALIGNMENT;
        let end = run.end.next_multiple_of(DIRECT_ALIGNMENT).min(length);
        match runs.last_mut() {
            Some(last) if last.end >= start => last.end = last.end.max(end),
            _ => runs.push(start..end),
        }
    }
    runs
}
