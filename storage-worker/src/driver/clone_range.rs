//! Two system calls that `rustix` does not have: shared blocks (`FICLONERANGE`) and an early beginning of write-back.

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// `struct file_clone_range` of <linux/fs.h>.
#[repr(C)]
struct CloneRange {
    source: i64,
    source_offset: u64,
    length: u64,
    target_offset: u64,
}

/// `_IOW(0x94, 13, struct file_clone_range)`.
const FICLONERANGE: u32 = 0x4020_940D;

/// Makes a range of `target` share the blocks of a range of `source`.
pub(super) fn clone_range(
    target: BorrowedFd<'_>,
    source: BorrowedFd<'_>,
    source_offset: u64,
    length: u64,
    target_offset: u64,
) -> Result<(), Errno> {
    let range = CloneRange { source: i64::from(source.as_raw_fd()), source_offset, length, target_offset };
    // SAFETY: both descriptors are open as long as they are borrowed; the call reads one `file_clone_range` from the
    // pointer, which `range` is, and writes nothing to it.
    let answer = unsafe { libc::ioctl(target.as_raw_fd(), FICLONERANGE as _, &raw const range) };
    if answer == -1 { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) } else { Ok(()) }
}

/// Begins to write a file's dirty pages out, without waiting for them.
pub(super) fn begin_writing_out(file: BorrowedFd<'_>) {
    // SAFETY: the descriptor is open as long as it is borrowed, and the call takes numbers only. What it answers is of
    // no use: whoever needs the bytes on storage syncs.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}
