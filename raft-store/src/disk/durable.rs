//! Making a file durable, and knowing that it is.
//!
//! A sync that is under way while its file system shuts itself down, because it cannot write its journal, may return
//! without an error although what it was for is lost. On XFS the shutdown takes the checkpoint that the call waits for
//! off a list, and what is not on the list counts as written; on ext4 it was seen, and its cause is not known. Every later
//! call fails, but by then a member has acknowledged.
//!
//! The shutdown is known to the file system before it lets go of anything, and from then on it refuses: XFS an fstat,
//! ext4 a write of no bytes. So both are asked for after each sync; together they cost some microseconds, the sync a
//! hundred. `chaos-tests sync-race` shows all of this (docs/adr/0011). A folder cannot be asked so: a shutdown during
//! its sync is known by the next sync of a file, before which nothing is acknowledged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Makes a file's bytes durable, and its length. When it returns without an error, they are. The file must be open for
/// writing.
///
/// # Errors
/// The disk's; the file cannot be trusted from then on.
pub fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()?;
    still_served(file)
}

/// Makes all of a file durable, as [`sync_data`] does.
///
/// # Errors
/// As there.
pub(super) fn sync_all(file: &File) -> io::Result<()> {
    file.sync_all()?;
    still_served(file)
}

/// Whether the file system had not given up by the end of what was asked of it last.
fn still_served(file: &File) -> io::Result<()> {
    file.metadata()?;
    file.write_at(&[], 0).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_ends_with_a_question_that_only_a_serving_file_system_answers() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        let file = File::create(&path).expect("made");
        sync_data(&file).expect("served");
        sync_all(&file).expect("served");
        // What cannot be written is synced without an error, and refuses the question after it.
        let refusing = File::open(&path).expect("opened");
        assert!(refusing.sync_data().is_ok());
        assert!(sync_data(&refusing).is_err());
        assert!(sync_all(&refusing).is_err());
    }
}
