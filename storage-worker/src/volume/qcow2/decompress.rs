//! Compressed clusters. The bytes are a guest's or a stranger's: whatever they are, a cluster comes out or an error.

use std::io::Read;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::DecompressorOxide;
use miniz_oxide::inflate::core::decompress as inflate;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use ruzstd::decoding::StreamingDecoder;

use super::Compression;

const ZSTD_MAGIC: u32 = 0xFD2F_B528;

/// Largest window of a zstd frame that is taken: what zstd's own decoder takes without being asked.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

/// Fills `cluster` from compressed bytes, behind which anything may follow. `false`: they are no such cluster.
#[must_use]
pub fn decompress(compression: Compression, stored: &[u8], cluster: &mut [u8]) -> bool {
    match compression {
        Compression::Zlib => {
            let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            let (status, _, written) = inflate(&mut DecompressorOxide::new(), stored, cluster, 0, flags);
            // QEMU too takes a stream that goes on behind the cluster.
            matches!(status, TINFLStatus::Done | TINFLStatus::HasMoreOutput) && written == cluster.len()
        }
        Compression::Zstd => {
            if zstd_window(stored).is_none_or(|window| window > ZSTD_WINDOW_BYTES_MAX) {
                return false;
            }
            StreamingDecoder::new(stored).is_ok_and(|mut decoder| decoder.read_exact(cluster).is_ok())
        }
    }
}

/// How much a frame wants its decoder to hold, as its header states; `None` when it is no header.
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let (magic, rest) = frame.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*magic) != ZSTD_MAGIC {
        return None;
    }
    let (descriptor, rest) = rest.split_first()?;
    let is_single_segment = descriptor >> 5 & 1 == 1;
    if !is_single_segment {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let dictionary_bytes = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?;
    let content = rest.get(dictionary_bytes..)?;
    let number = |width: usize| {
        let bytes = content.get(..width)?;
        Some(bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    match descriptor >> 6 {
        0 => number(1),
        1 => Some(number(2)? + 256),
        2 => number(4),
        _ => number(8),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..600), zstd in any::<bool>()) {
            let mut cluster = vec![0; 4096];
            let mut stored = if zstd { ZSTD_MAGIC.to_le_bytes().to_vec() } else { Vec::new() };
            stored.extend(bytes);
            let compression = if zstd { Compression::Zstd } else { Compression::Zlib };
            let _ = decompress(compression, &stored, &mut cluster);
        }
    }

    #[test]
    fn a_frame_that_wants_gigabytes_is_refused_before_it_gets_them() {
        let mut frame = ZSTD_MAGIC.to_le_bytes().to_vec();
        frame.extend([0, 0xF8, 1, 0, 0]);
        assert!(zstd_window(&frame).is_some_and(|window| window > 1 << 40));
        assert!(!decompress(Compression::Zstd, &frame, &mut [0; 512]));
    }
}
