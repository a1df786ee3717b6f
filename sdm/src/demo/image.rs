//! The disk of the demo: a raw image with data and holes, the same bytes every time.

use crate::output::Failure;
use crate::transfer::LogicalHash;
use sdm_proto::refusal::Class;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of one stretch of data, and of the holes between them.
const STRETCH_BYTES: u64 = 16 << 20;

/// Every so many stretches one is a hole.
const HOLE_EVERY: u64 = 4;

/// Bytes made at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// BLAKE3 of it all.
    pub hash: blake3::Hash,
    /// Bytes that are no holes.
    pub data_bytes: u64,
}

/// Makes an image of this size. Blocks.
///
/// # Errors
/// It cannot be written.
pub fn make(path: &Path, size: u64) -> Result<Image, Failure> {
    write(path, size).map_err(|error| {
        let class = if error.kind() == io::ErrorKind::StorageFull { Class::Exhausted } else { Class::Precondition };
        Failure::new(class, "CANNOT_WRITE", format!("{} cannot be written: {error}", path.display()))
    })
}

fn write(path: &Path, size: u64) -> io::Result<Image> {
    let file = File::create_new(path)?;
    file.set_len(size)?;
    let mut hash = LogicalHash::default();
    let mut data_bytes = 0;
    // Noise that cannot be compressed, from a generator that gives the same on every machine.
    let mut noise = blake3::Hasher::new().update(b"sdm demo").finalize_xof();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < size {
        let is_hole = offset / STRETCH_BYTES % HOLE_EVERY == HOLE_EVERY - 1;
        let length = usize::try_from(size - offset).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        if !is_hole {
            let bytes = chunk.get_mut(..length).unwrap_or_default();
            noise.fill(bytes);
            file.write_all_at(bytes, offset)?;
            hash.data(offset, bytes).map_err(io::Error::other)?;
            data_bytes += length as u64;
        }
        offset += length as u64;
    }
    hash.hole_until(size).map_err(io::Error::other)?;
    file.sync_all()?;
    Ok(Image { hash: hash.finish(), data_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn an_image_has_data_and_holes_and_the_hash_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let size = 5 * STRETCH_BYTES + 4096;
        let image = make(&path, size).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(image.hash, blake3::hash(&bytes));
        assert_eq!(image.data_bytes, 4 * STRETCH_BYTES + 4096);
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < size);
    }
}
