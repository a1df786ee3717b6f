//! The files that a test's file system holds: text, programs, a sparse file, many small files, names
//! and links as people make them.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Small files.
const SMALL_FILES: usize = 2_000;

/// Bytes taken of the program under test, which is a real binary of any size.
const PROGRAM_BYTES: u64 = 96 << 20;

/// Length of the sparse file, and where it has data.
const SPARSE_BYTES: u64 = 160 << 20;
const SPARSE_STEP: u64 = 13 << 20;

/// Makes the tree in an empty folder.
///
/// # Errors
/// It cannot be written.
pub fn make(root: &Path) -> io::Result<()> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    copy_sources(sources, &root.join("sources"), 6)?;
    std::fs::create_dir_all(root.join("bin"))?;
    let mut program = File::open(env!("CARGO_BIN_EXE_sdm"))?.take(PROGRAM_BYTES);
    io::copy(&mut program, &mut File::create(root.join("bin/sdm"))?)?;
    make_sparse(&root.join("sparse.dat"))?;
    for number in 0..SMALL_FILES {
        let folder = root.join(format!("small/{:02}", number % 50));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{number}.txt")), format!("{number}\n").repeat(number % 90))?;
    }
    std::fs::write(root.join("Ä name with ünïcode and spaces"), "text\n")?;
    symlink("bin/sdm", root.join("link"))?;
    std::fs::hard_link(root.join("small/00/0.txt"), root.join("second name"))
}

/// Text files of this very package.
fn copy_sources(from: &Path, to: &Path, depth: usize) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if kind.is_dir() && depth > 0 && name != "target" {
            copy_sources(&entry.path(), &to.join(&name), depth - 1)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}

fn make_sparse(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(SPARSE_BYTES)?;
    let mut noise = blake3::Hasher::new().update(b"a sparse file").finalize_xof();
    let mut bytes = vec![0; 70_000];
    for offset in (0..SPARSE_BYTES - SPARSE_STEP).step_by(usize::try_from(SPARSE_STEP).unwrap_or(1)) {
        noise.fill(&mut bytes);
        file.write_all_at(&bytes, offset)?;
    }
    Ok(())
}
