//! The byte-range locks with which QEMU tells who uses an image, as its `file-posix` driver takes them.
//!
//! For each permission that a user holds, the byte `100 + bit` is locked; for each that it does not bear in
//! others, the byte `200 + bit`. All locks are shared ones; a conflict is found by asking whether the other
//! byte could be locked exclusively. They are open-file-description locks: they belong to the descriptor and
//! go with it.

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use sdm_proto::failpoint;

const HELD_BASE: i64 = 100;
const REFUSED_BASE: i64 = 200;

/// BLK_PERM_CONSISTENT_READ.
const CONSISTENT_READ: i64 = 0;
/// BLK_PERM_WRITE.
const WRITE: i64 = 1;
/// BLK_PERM_RESIZE.
const RESIZE: i64 = 3;

/// Marks the descriptor's owner as a reader that bears neither writers nor resizers beside it.
///
/// # Errors
/// EAGAIN when another open file description holds what excludes that.
pub(super) fn lock_against_writers(file: BorrowedFd<'_>) -> io::Result<()> {
    for byte in [HELD_BASE + CONSISTENT_READ, REFUSED_BASE + WRITE, REFUSED_BASE + RESIZE] {
        fcntl_lock(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte)?;
    }
    for byte in [REFUSED_BASE + CONSISTENT_READ, HELD_BASE + WRITE, HELD_BASE + RESIZE] {
        let found = fcntl_lock(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
        if found != libc::F_UNLCK {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
    }
    Ok(())
}

/// Marks the descriptor's owner as a writer that changes the size too and bears no other writer beside it.
///
/// # Errors
/// EAGAIN when another open file description holds what excludes that, or bears no writer.
pub(super) fn lock_as_writer(file: BorrowedFd<'_>) -> io::Result<()> {
    let held = [CONSISTENT_READ, WRITE, RESIZE];
    let refused = [WRITE, RESIZE];
    for byte in held.iter().map(|bit| HELD_BASE + bit).chain(refused.iter().map(|bit| REFUSED_BASE + bit)) {
        fcntl_lock(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte)?;
    }
    for byte in held.iter().map(|bit| REFUSED_BASE + bit).chain(refused.iter().map(|bit| HELD_BASE + bit)) {
        let found = fcntl_lock(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
        if found != libc::F_UNLCK {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
    }
    Ok(())
}

/// One call for one byte; returns the lock type that the kernel left in the structure.
fn fcntl_lock(file: BorrowedFd<'_>, command: i32, lock_type: i32, byte: i64) -> io::Result<i32> {
    failpoint::hit("storage.lock")?;
    let mut lock = libc::flock {
        l_type: lock_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open as long as it is borrowed, both commands take a pointer to a `flock`, and
    // `lock` lives and is not otherwise used during the call.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(i32::from(lock.l_type)) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn two_descriptors() -> (tempfile::TempDir, std::fs::File, std::fs::File) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("image");
        std::fs::write(&path, b"x").expect("a file");
        let open = || std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("it opens");
        let (a, b) = (open(), open());
        (folder, a, b)
    }

    #[test]
    fn two_readers_bear_each_other() {
        let (_folder, a, b) = two_descriptors();
        lock_against_writers(a.as_fd()).expect("the first reader");
        lock_against_writers(b.as_fd()).expect("the second reader");
    }

    #[test]
    fn a_writer_bears_neither_readers_nor_writers_beside_it() {
        let (_folder, a, b) = two_descriptors();
        lock_as_writer(a.as_fd()).expect("the writer");
        assert!(lock_against_writers(b.as_fd()).is_err(), "a reader beside a writer");
        let (_folder, a, b) = two_descriptors();
        lock_against_writers(a.as_fd()).expect("the reader");
        assert!(lock_as_writer(b.as_fd()).is_err(), "a writer beside a reader");
    }

    #[test]
    fn a_reader_is_refused_beside_a_writer_until_it_closes() {
        let (_folder, writer, reader) = two_descriptors();
        fcntl_lock(writer.as_fd(), libc::F_OFD_SETLK, libc::F_RDLCK, HELD_BASE + WRITE).expect("marks a writer");
        let refused = lock_against_writers(reader.as_fd()).expect_err("a writer is there");
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
        drop(writer);
        lock_against_writers(reader.as_fd()).expect("the writer is gone");
    }
}
