//! Files that cannot be compressed, made fast.

use crate::host::text;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

const MIB: u64 = 1 << 20;

/// A new file of so many MiB; its bytes depend on its name.
///
/// # Panics
/// It cannot be made.
pub fn noise(folder: &Path, name: &str, mib: u64) -> PathBuf {
    write(folder, name, mib, 1)
}

/// The same where every other MiB is a hole: a copy takes space for one stretch after the other.
///
/// # Panics
/// It cannot be made.
pub fn noise_with_holes(folder: &Path, name: &str, mib: u64) -> PathBuf {
    write(folder, name, mib, 2)
}

fn write(folder: &Path, name: &str, mib: u64, step: usize) -> PathBuf {
    let path = folder.join(name);
    let file = File::create_new(&path).unwrap_or_else(|error| panic!("{}: {error}", text(&path)));
    file.set_len(mib * MIB).expect("it gets its size");
    let mut noise = blake3::Hasher::new().update(name.as_bytes()).finalize_xof();
    let mut piece = vec![0; 1 << 20];
    for number in (0..mib).step_by(step) {
        noise.fill(&mut piece);
        file.write_all_at(&piece, number * MIB).expect("it is written");
    }
    path
}
