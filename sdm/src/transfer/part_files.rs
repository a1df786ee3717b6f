//! The temporary files of the exports in this process: their names, and their removal when the process
//! is told to end, which no `Drop` sees. What an earlier command of the same request left is removed
//! by the next one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Longest part of the wanted name in the temporary one: file names end at 255 bytes, and a mark, a
/// request id and a random number follow.
const NAME_PART_BYTES_MAX: usize = 180;

/// Stands between the wanted name and the request id.
const MARK: &str = ".sdm-part-";

/// See the file's first lines.
#[derive(Debug, Default)]
pub struct PartFiles {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    paths: BTreeSet<PathBuf>,
    closed: bool,
}

impl PartFiles {
    /// Makes an empty one beside the wanted file and holds its lock, by which a later command of the
    /// same request knows that somebody still writes.
    ///
    /// # Errors
    /// The folder takes none, or the process is ending.
    pub(super) fn create(&self, wanted: &Path, folder: &Path, request_id: &str) -> io::Result<(File, PathBuf)> {
        let path = folder.join(part_name(wanted, request_id));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.closed {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the command is ending"));
        }
        let file = File::options().write(true).read(true).create_new(true).open(&path)?;
        // Without locks on that file system, only the removal of leftovers is less careful.
        _ = file.try_lock();
        open.paths.insert(path.clone());
        Ok((file, path))
    }

    /// Forgets one that has got its name, or is gone.
    pub(super) fn forget(&self, path: &Path) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).paths.remove(path);
    }

    /// Removes all that have no name yet; none is made after it.
    pub fn remove_all(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.closed = true;
        for path in std::mem::take(&mut open.paths) {
            // What cannot be removed is recognizable by its name, and the process ends.
            _ = std::fs::remove_file(path);
        }
    }
}

/// Removes what earlier commands of this request left in the folder, unless one still writes there.
pub(super) fn remove_leftovers(folder: &Path, request_id: &str) {
    let mark = format!("{MARK}{request_id}-");
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let is_part = name.as_bytes().starts_with(b".") && contains(name.as_bytes(), mark.as_bytes());
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_part && is_file && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            // Left as it is otherwise: it takes space, and nobody reads it.
            _ = std::fs::remove_file(entry.path());
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn part_name(wanted: &Path, request_id: &str) -> OsString {
    let name = wanted.file_name().unwrap_or_default();
    let kept = name.as_bytes().get(..NAME_PART_BYTES_MAX).unwrap_or(name.as_bytes());
    let random: u64 = rand::random();
    let mut part = OsString::from(".");
    part.push(OsStr::from_bytes(kept));
    part.push(format!("{MARK}{request_id}-{random:016x}"));
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f0f0f0f-1111-4222-8333-444444444444";

    fn made(parts: &PartFiles, folder: &Path, request_id: &str) -> (File, PathBuf) {
        parts.create(&folder.join("out.img"), folder, request_id).unwrap()
    }

    #[test]
    fn an_ending_process_removes_its_files_and_makes_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let parts = PartFiles::default();
        let (_file, path) = made(&parts, folder.path(), ID);
        let (_, published) = made(&parts, folder.path(), ID);
        parts.forget(&published);
        parts.remove_all();
        assert_eq!((path.exists(), published.exists()), (false, true));
        assert!(parts.create(&folder.path().join("out.img"), folder.path(), ID).is_err());
    }

    #[test]
    fn leftovers_of_the_same_request_go_and_all_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let parts = PartFiles::default();
        let (left, own) = made(&parts, folder.path(), ID);
        drop(left);
        let (_writing, in_use) = made(&parts, folder.path(), ID);
        let (other, others) = made(&parts, folder.path(), "0f0f0f0f-1111-4222-8333-555555555555");
        drop(other);
        remove_leftovers(folder.path(), ID);
        assert_eq!((own.exists(), in_use.exists(), others.exists()), (false, true, true));
    }
}
