//! BLAKE3 of a file's logical content: all bytes from 0 to its size, holes as zeros, whatever the
//! pieces are in which it comes.

/// Zeros to hash for holes. Large enough that the call's overhead does not count.
const ZEROS: &[u8] = &[0; 64 << 10];

/// The hash so far.
#[derive(Default)]
pub struct LogicalHash {
    hasher: blake3::Hasher,
    position: u64,
}

/// Raw volumes are stored as multiples of this.
const STORED_MULTIPLE_BYTES: u64 = 4096;

/// Hashes of a whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHash {
    /// Its length in bytes.
    pub bytes: u64,
    /// Of its bytes.
    pub file: blake3::Hash,
    /// Of its bytes and the zeros up to a multiple of 4 KiB: a raw volume is stored so.
    pub padded: blake3::Hash,
}

impl ContentHash {
    /// Whether a volume whose file has this hash, in hexadecimal digits, holds this content.
    #[must_use]
    pub fn is_stored_as(&self, blake3: &str) -> bool {
        [self.file, self.padded].iter().any(|hash| hash.to_hex().as_str() == blake3)
    }
}

/// A piece began before the end of the one before it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a piece at {offset} came after everything up to {position} had been sent")]
pub struct NotRising {
    offset: u64,
    position: u64,
}

impl LogicalHash {
    /// Takes the bytes at this offset; what lies between is a hole.
    ///
    /// # Errors
    /// The offset lies before what was taken already.
    pub fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), NotRising> {
        self.hole_until(offset)?;
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Takes zeros up to this offset.
    ///
    /// # Errors
    /// The offset lies before what was taken already.
    pub fn hole_until(&mut self, offset: u64) -> Result<(), NotRising> {
        let position = self.position;
        let mut left = offset.checked_sub(position).ok_or(NotRising { offset, position })?;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            self.hasher.update(ZEROS.get(..part).unwrap_or(ZEROS));
            left -= part as u64;
        }
        self.position = offset;
        Ok(())
    }

    /// How far it is.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The hashes of all that was taken, which was the whole.
    ///
    /// # Errors
    /// Padded, it would be too long for a file.
    pub fn finish_content(mut self) -> Result<ContentHash, NotRising> {
        let (bytes, file) = (self.position, self.finish());
        self.hole_until(bytes.checked_next_multiple_of(STORED_MULTIPLE_BYTES).unwrap_or(bytes))?;
        Ok(ContentHash { bytes, file, padded: self.finish() })
    }

    /// The hash of all that was taken.
    #[must_use]
    pub fn finish(&self) -> blake3::Hash {
        self.hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_count_as_zeros_however_the_content_is_cut() {
        let mut content = vec![0_u8; 200_000];
        content[5..8].copy_from_slice(b"abc");
        content[150_000..150_002].copy_from_slice(b"xy");
        let mut hash = LogicalHash::default();
        hash.data(5, b"ab").unwrap();
        hash.data(7, b"c").unwrap();
        hash.hole_until(100_000).unwrap();
        hash.data(150_000, b"xy").unwrap();
        hash.hole_until(200_000).unwrap();
        assert_eq!(hash.position(), 200_000);
        assert_eq!(hash.finish(), blake3::hash(&content));
    }

    #[test]
    fn a_content_of_odd_length_has_a_second_hash_with_its_padding() {
        let mut hash = LogicalHash::default();
        hash.data(0, &[7; 5000]).unwrap();
        let content = hash.finish_content().unwrap();
        let padded: Vec<u8> = [vec![7; 5000], vec![0; 3192]].concat();
        assert_eq!(
            (content.bytes, content.file, content.padded),
            (5000, blake3::hash(&[7; 5000]), blake3::hash(&padded))
        );
        assert!(content.is_stored_as(content.padded.to_hex().as_str()) && !content.is_stored_as(""));
    }

    #[test]
    fn a_piece_that_goes_back_is_refused() {
        let mut hash = LogicalHash::default();
        hash.data(0, b"abc").unwrap();
        assert_eq!(hash.data(2, b"x"), Err(NotRising { offset: 2, position: 3 }));
        assert!(hash.hole_until(1).is_err());
    }
}
