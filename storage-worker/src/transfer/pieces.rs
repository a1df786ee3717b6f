//! Pieces on the wire and pieces between processes. Bytes are shared, never copied. The rules of a
//! whole stream are checked by whoever builds from it; here each message is looked at alone.

use crate::work::FileHash;
use crate::work::PIECE_BYTES_MAX;
use crate::work::Piece;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;

/// A refusal of what came over a stream.
pub(super) fn invalid(problem: impl std::fmt::Display) -> Refusal {
    Refusal::new(Class::Invalid, "STREAM_INVALID", format!("the stream of pieces breaks its rules: {problem}"))
        .hint("use the same version of sdm on both ends")
}

/// Reads a piece of data or a hole.
///
/// # Errors
/// It is neither, both, or too large.
pub(super) fn piece(piece: v1::Piece) -> Result<Piece, Refusal> {
    let v1::Piece { offset, data, hole_bytes } = piece;
    match (data.len(), hole_bytes) {
        (0, 0) => Err(invalid("a piece is empty")),
        (0, length) => Ok(Piece::Hole { offset, length }),
        (bytes, 0) if bytes <= PIECE_BYTES_MAX => Ok(Piece::Data { offset, bytes: data }),
        (bytes, 0) => Err(invalid(format!("a piece has {bytes} bytes, {PIECE_BYTES_MAX} are allowed"))),
        _ => Err(invalid("a piece is data and a hole at once")),
    }
}

/// Reads the end of a volume.
///
/// # Errors
/// Its hash is none.
pub(super) fn end(end: &v1::TransferEnd) -> Result<Piece, Refusal> {
    let hash = <[u8; 32]>::try_from(end.blake3.as_ref())
        .map_err(|_| invalid(format!("the hash has {} bytes instead of 32", end.blake3.len())))?;
    Ok(Piece::End { bytes: end.file_size, hash: FileHash(hash) })
}

/// A piece of data or a hole, and the end of a volume, for the wire.
pub(super) enum OnWire {
    Open { ordinal: u32, bytes: u64 },
    Piece(v1::Piece),
    End(v1::TransferEnd),
}

/// Writes a piece.
pub(super) fn on_wire(piece: Piece) -> OnWire {
    match piece {
        Piece::Open { ordinal, bytes } => OnWire::Open { ordinal, bytes },
        Piece::Data { offset, bytes } => OnWire::Piece(v1::Piece { offset, data: bytes, hole_bytes: 0 }),
        Piece::Hole { offset, length } => {
            OnWire::Piece(v1::Piece { offset, hole_bytes: length, ..v1::Piece::default() })
        }
        Piece::End { bytes, hash } => OnWire::End(v1::TransferEnd { file_size: bytes, blake3: hash.0.to_vec().into() }),
    }
}

/// Cuts data into pieces of the size that streams are best at; everything else stays as it is.
pub(crate) fn split(piece: Piece) -> impl Iterator<Item = Piece> {
    let mut rest = Some(piece);
    std::iter::from_fn(move || match rest.take()? {
        Piece::Data { offset, mut bytes } if bytes.len() > limits::PIECE_BYTES => {
            let first = bytes.split_to(limits::PIECE_BYTES);
            rest = Some(Piece::Data { offset: offset + first.len() as u64, bytes });
            Some(Piece::Data { offset, bytes: first })
        }
        piece => Some(piece),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn split_data_is_the_same_data_at_the_same_places() {
        let bytes: Vec<u8> = (0..limits::PIECE_BYTES * 2 + 5).map(|n| (n % 251) as u8).collect();
        let mut expected = 4096;
        let mut joined = Vec::new();
        for piece in split(Piece::Data { offset: 4096, bytes: Bytes::from(bytes.clone()) }) {
            let Piece::Data { offset, bytes } = piece else { panic!("data becomes data") };
            assert_eq!(offset, expected);
            assert!(!bytes.is_empty() && bytes.len() <= limits::PIECE_BYTES);
            expected += bytes.len() as u64;
            joined.extend_from_slice(&bytes);
        }
        assert_eq!(joined, bytes);
    }

    #[test]
    fn a_message_that_is_no_piece_is_refused() {
        let message = |data: &'static [u8], hole_bytes| v1::Piece { offset: 0, data: data.into(), hole_bytes };
        assert!(piece(message(b"x", 0)).is_ok());
        assert!(piece(message(b"", 7)).is_ok());
        assert!(piece(message(b"", 0)).is_err());
        assert!(piece(message(b"x", 7)).is_err());
        let large = v1::Piece { offset: 0, data: vec![0; PIECE_BYTES_MAX + 1].into(), hole_bytes: 0 };
        assert!(piece(large).is_err());
        assert!(end(&v1::TransferEnd { file_size: 1, blake3: Bytes::from_static(b"short") }).is_err());
    }
}
