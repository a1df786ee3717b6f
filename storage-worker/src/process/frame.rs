//! Frames between a supervisor and its I/O process: two lengths, a header (MessagePack), and the raw
//! bytes of a piece, which are never copied into or out of the header. Both ends are one program, so
//! the form needs no versions; lengths are checked all the same.

use crate::work::Checkpoint;
use crate::work::FileHash;
use crate::work::Order;
use crate::work::Outcome;
use crate::work::PIECE_BYTES_MAX;
use crate::work::Piece;
use crate::work::Progress;
use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// Largest header: an order with the longest chain takes some tens of kilobytes.
const HEADER_BYTES_MAX: usize = 256 << 10;

/// Two lengths of four bytes each.
const PREFIX_BYTES: usize = 8;

/// Names an order within one child.
pub(super) type OrderId = u64;

/// How far a running order is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderState {
    /// Bytes dealt with, of how many.
    pub done_bytes: u64,
    /// As far as known.
    pub total_bytes: u64,
    /// Durable bytes of each volume.
    pub durable: BTreeMap<Uuid, u64>,
}

impl OrderState {
    pub(super) fn advance(&mut self, progress: Progress) {
        self.done_bytes = progress.done_bytes;
        self.total_bytes = progress.total_bytes;
    }

    pub(super) fn record(&mut self, checkpoint: Checkpoint) {
        let durable = self.durable.entry(checkpoint.volume).or_default();
        *durable = (*durable).max(checkpoint.durable_bytes);
    }

    /// Durable bytes of all volumes together.
    #[must_use]
    pub fn durable_bytes(&self) -> u64 {
        self.durable.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// A piece without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PieceHeader {
    Open { ordinal: u32, bytes: u64 },
    Data { offset: u64 },
    Hole { offset: u64, length: u64 },
    End { bytes: u64, hash: FileHash },
}

/// What a supervisor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToChild {
    Order {
        id: OrderId,
        order: Box<Order>,
    },
    Piece {
        id: OrderId,
        piece: PieceHeader,
    },
    /// No further pieces come.
    PiecesEnd {
        id: OrderId,
    },
    Cancel {
        id: OrderId,
    },
}

/// What a child says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromChild {
    State {
        id: OrderId,
        state: OrderState,
    },
    Piece {
        id: OrderId,
        piece: PieceHeader,
    },
    /// The last word on an order.
    Ended {
        id: OrderId,
        outcome: Box<Outcome>,
    },
}

/// Parts a piece into what stands in the header and its bytes.
pub(super) fn part(piece: Piece) -> (PieceHeader, Bytes) {
    match piece {
        Piece::Open { ordinal, bytes } => (PieceHeader::Open { ordinal, bytes }, Bytes::new()),
        Piece::Data { offset, bytes } => (PieceHeader::Data { offset }, bytes),
        Piece::Hole { offset, length } => (PieceHeader::Hole { offset, length }, Bytes::new()),
        Piece::End { bytes, hash } => (PieceHeader::End { bytes, hash }, Bytes::new()),
    }
}

/// The piece of a header and its bytes.
pub(super) fn join(header: PieceHeader, payload: Bytes) -> Piece {
    match header {
        PieceHeader::Open { ordinal, bytes } => Piece::Open { ordinal, bytes },
        PieceHeader::Data { offset } => Piece::Data { offset, bytes: payload },
        PieceHeader::Hole { offset, length } => Piece::Hole { offset, length },
        PieceHeader::End { bytes, hash } => Piece::End { bytes, hash },
    }
}

fn broken(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn checked(header: usize, payload: usize) -> io::Result<()> {
    if header > HEADER_BYTES_MAX || payload > PIECE_BYTES_MAX {
        return Err(broken(format!("a frame of {header} + {payload} bytes is past the limit")));
    }
    Ok(())
}

/// Writes one frame.
///
/// # Errors
/// The other end is gone, or the frame is past the limits.
pub(super) async fn write<W, H>(writer: &mut W, header: &H, payload: Bytes) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
    H: Serialize,
{
    let mut head = vec![0; PREFIX_BYTES];
    rmp_serde::encode::write(&mut head, header)
        .map_err(|error| broken(format!("a frame cannot be encoded: {error}")))?;
    let header_bytes = head.len() - PREFIX_BYTES;
    checked(header_bytes, payload.len())?;
    let lengths = [header_bytes, payload.len()].map(|n| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    for (place, byte) in head.iter_mut().zip(lengths.as_flattened()) {
        *place = *byte;
    }
    writer.write_all_buf(&mut Bytes::from(head).chain(payload)).await
}

/// Reads one frame; `None` at the stream's end between two frames.
///
/// # Errors
/// The stream broke inside a frame, or what came is no frame.
pub(super) async fn read<R, H>(reader: &mut R) -> io::Result<Option<(H, Bytes)>>
where
    R: AsyncRead + Unpin,
    H: DeserializeOwned,
{
    let header_bytes = match reader.read_u32_le().await {
        Ok(bytes) => bytes as usize,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let payload_bytes = reader.read_u32_le().await? as usize;
    checked(header_bytes, payload_bytes)?;
    let header = exactly(reader, header_bytes).await?;
    let header = rmp_serde::from_slice(&header).map_err(|error| broken(format!("a frame cannot be read: {error}")))?;
    Ok(Some((header, exactly(reader, payload_bytes).await?)))
}

async fn exactly<R: AsyncRead + Unpin>(reader: &mut R, bytes: usize) -> io::Result<Bytes> {
    let mut buffer = BytesMut::with_capacity(bytes);
    let mut limited = reader.take(bytes as u64);
    while buffer.len() < bytes {
        if limited.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(frames: Vec<(ToChild, Bytes)>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut stream = Vec::new();
            for (header, payload) in &frames {
                write(&mut stream, header, payload.clone()).await.unwrap();
            }
            let mut reader = stream.as_slice();
            for frame in frames {
                assert_eq!(read::<_, ToChild>(&mut reader).await.unwrap(), Some(frame));
            }
            assert_eq!(read::<_, ToChild>(&mut reader).await.unwrap(), None);
        });
    }

    proptest! {
        #[test]
        fn pieces_come_out_of_a_stream_as_they_went_in(
            frames in prop::collection::vec((any::<u64>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..5000)), 0..8),
        ) {
            check(
                frames
                    .into_iter()
                    .map(|(id, offset, bytes)| (ToChild::Piece { id, piece: PieceHeader::Data { offset } }, bytes.into()))
                    .collect(),
            );
        }

        #[test]
        fn random_bytes_are_no_frame_and_take_no_memory(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut reader = bytes.as_slice();
            // Whatever comes out, it comes back; a frame of random bytes that decodes is a matter of luck.
            let _ = runtime.block_on(read::<_, ToChild>(&mut reader));
        }
    }

    #[tokio::test]
    async fn a_stream_that_breaks_inside_a_frame_is_an_error_and_not_an_end() {
        let mut stream = Vec::new();
        write(&mut stream, &ToChild::Cancel { id: 7 }, Bytes::new()).await.unwrap();
        stream.pop();
        assert!(read::<_, ToChild>(&mut stream.as_slice()).await.is_err());
    }

    #[tokio::test]
    async fn a_piece_past_the_limit_is_refused_by_the_writer() {
        let piece = ToChild::Piece { id: 1, piece: PieceHeader::Data { offset: 0 } };
        let payload = Bytes::from(vec![0; PIECE_BYTES_MAX + 1]);
        assert!(write(&mut Vec::new(), &piece, payload).await.is_err());
    }
}
