//! The real driver: a folder of a mounted file system, held open, everything else reached beneath it by `openat2`.
//!
//! Blocks inside its futures. What a descriptor then does is `file_handle.rs`.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Stat;
use rustix::fs::StatxAttributes;
use rustix::fs::StatxFlags;
use rustix::io::Errno;
use sdm_proto::failpoint;

use super::Access;
use super::Caching;
use super::DomainDriver;
use super::Entry;
use super::EntryKind;
use super::EntryPath;
use super::EntryStat;
use super::FileHandle;
use super::OpenHow;
use super::Space;
use super::Storage;
use super::StorageError;
use super::StorageErrorKind;
use super::shared_sync;

/// Nothing beneath a root leads out of it: no links of any kind, no other mounts.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// `openat2` answers EAGAIN when a rename elsewhere raced with its check; it settles at once.
const OPEN_TRIES: usize = 16;

/// Most names that a folder may hold: far above what one domain has placements, and it bounds the memory of a list.
const ENTRIES_MAX: usize = 1_000_000;

/// Threads for the copies of one order: with two the disk is already busy, four hide the hashing.
const IO_THREADS: usize = 4;

/// The host's mounted file systems.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileStorage;

impl Storage for FileStorage {
    type Driver = FileDriver;

    async fn open_root(&self, path: &Path) -> Result<FileDriver, StorageError> {
        let display = path.display().to_string();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = call("storage.open", &display, || rustix::fs::open(path, flags, Mode::empty()))?;
        Ok(FileDriver { root: Arc::new(root), display })
    }
}

/// A folder held open.
#[derive(Debug, Clone)]
pub struct FileDriver {
    root: Arc<OwnedFd>,
    display: String,
}

/// Runs one system call: its failpoint first, its error sorted and named after it.
///
/// `point` is `storage.<call>`; what stands behind the dot names the call in messages.
pub(super) fn call<T>(
    point: &'static str,
    entry: &str,
    system_call: impl FnMut() -> rustix::io::Result<T>,
) -> Result<T, StorageError> {
    let operation = point.strip_prefix("storage.").unwrap_or(point);
    failpoint::hit(point).map_err(|error| StorageError::new(operation, entry, error))?;
    rustix::io::retry_on_intr(system_call).map_err(|errno| StorageError::new(operation, entry, errno.into()))
}

pub(super) fn kind_of(stat: &Stat) -> EntryKind {
    kind_of_type(FileType::from_raw_mode(stat.st_mode))
}

fn kind_of_type(file_type: FileType) -> EntryKind {
    match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Folder,
        FileType::Symlink => EntryKind::SymbolicLink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::BlockDevice | FileType::CharacterDevice => EntryKind::Device,
        FileType::Socket => EntryKind::Socket,
        FileType::Unknown => EntryKind::Unknown,
    }
}

pub(super) fn entry_stat(stat: &Stat) -> EntryStat {
    EntryStat {
        kind: kind_of(stat),
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        // st_blocks counts 512-byte units whatever the file system's block is.
        allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
        links: stat.st_nlink,
    }
}

impl FileDriver {
    fn name(&self, path: &EntryPath) -> String {
        if path.as_str().is_empty() { self.display.clone() } else { format!("{}/{path}", self.display) }
    }

    fn open_beneath(&self, path: &EntryPath, flags: OFlags, mode: Mode) -> Result<OwnedFd, StorageError> {
        let name = self.name(path);
        let text = if path.as_str().is_empty() { "." } else { path.as_str() };
        let mut tries = OPEN_TRIES;
        let opened = call("storage.open", &name, || {
            loop {
                tries = tries.saturating_sub(1);
                match rustix::fs::openat2(self.root.as_fd(), text, flags | OFlags::CLOEXEC, mode, BENEATH) {
                    Err(Errno::AGAIN) if tries > 0 => {}
                    answer => return answer,
                }
            }
        });
        opened.map_err(|mut error| {
            if error.is(StorageErrorKind::OtherFileSystem) {
                error.kind = StorageErrorKind::UnexpectedEntry(EntryKind::OtherFileSystem);
            }
            error
        })
    }

    fn open_folder(&self, path: &EntryPath) -> Result<OwnedFd, StorageError> {
        self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
    }

    /// The folder that holds an entry, opened, and the entry's name there.
    fn parent<'p>(&self, path: &'p EntryPath) -> Result<(OwnedFd, &'p str), StorageError> {
        let (folder, name) =
            path.split_last().ok_or_else(|| StorageError::of_kind("open", self.name(path), StorageErrorKind::Other))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        Ok((self.open_beneath(&folder, flags, Mode::empty())?, name))
    }

    /// A descriptor that can do nothing but be asked what it is: refuses all but regular files.
    fn require_regular_file(&self, path: &EntryPath) -> Result<Stat, StorageError> {
        let probe = self.open_beneath(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        self.stat_regular(probe.as_fd(), path)
    }

    fn stat_regular(&self, file: BorrowedFd<'_>, path: &EntryPath) -> Result<Stat, StorageError> {
        let name = self.name(path);
        let stat = call("storage.stat", &name, || rustix::fs::fstat(file))?;
        match kind_of(&stat) {
            EntryKind::File => Ok(stat),
            kind => Err(StorageError::of_kind("open", name, StorageErrorKind::UnexpectedEntry(kind))),
        }
    }

    fn open_file(&self, path: &EntryPath, access: Access) -> Result<OwnedFd, StorageError> {
        // O_NONBLOCK means nothing to a regular file, and keeps anything else from blocking the open.
        let common = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        match access {
            Access::Read | Access::Change => {
                let expected = self.require_regular_file(path)?;
                let direction = if access == Access::Read { OFlags::RDONLY } else { OFlags::RDWR };
                let file = self.open_beneath(path, common | direction, Mode::empty())?;
                self.require_same(&expected, file.as_fd(), path)?;
                Ok(file)
            }
            Access::Create { mode } => {
                let mode = Mode::from_raw_mode(mode);
                let file = self.open_beneath(path, common | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, mode)?;
                // The umask may have taken bits away.
                call("storage.chmod", &self.name(path), || rustix::fs::fchmod(&file, mode))?;
                Ok(file)
            }
        }
    }

    /// A second descriptor that bypasses the page cache; `None` where the file system has no such thing.
    fn open_direct(
        &self,
        path: &EntryPath,
        access: Access,
        first: BorrowedFd<'_>,
    ) -> Result<Option<OwnedFd>, StorageError> {
        let expected = self.stat_regular(first, path)?;
        let mode = if matches!(access, Access::Read) { OFlags::RDONLY } else { OFlags::RDWR };
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::DIRECT | mode;
        let direct = match self.open_beneath(path, flags, Mode::empty()) {
            Ok(direct) => direct,
            Err(error) if error.source.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.require_same(&expected, direct.as_fd(), path)?;
        Ok(Some(direct))
    }

    /// Somebody who swaps the entry between two opens gets an error, not two different files under one handle.
    fn require_same(&self, expected: &Stat, file: BorrowedFd<'_>, path: &EntryPath) -> Result<(), StorageError> {
        let found = self.stat_regular(file, path)?;
        if (found.st_dev, found.st_ino) == (expected.st_dev, expected.st_ino) {
            return Ok(());
        }
        let source = io::Error::other("it was replaced while it was opened");
        Err(StorageError::new("open", self.name(path), source))
    }
}

impl DomainDriver for FileDriver {
    type File = FileHandle;

    async fn open(&self, path: &EntryPath, how: OpenHow) -> Result<FileHandle, StorageError> {
        let buffered = self.open_file(path, how.access)?;
        let direct = match how.caching {
            Caching::Buffered => None,
            Caching::DirectIfPossible | Caching::ReadPastCache => {
                self.open_direct(path, how.access, buffered.as_fd())?
            }
        };
        Ok(FileHandle::new(self.name(path), buffered, direct, how.caching))
    }

    async fn beneath(&self, path: &EntryPath) -> Result<Self, StorageError> {
        Ok(Self { root: Arc::new(self.open_folder(path)?), display: self.name(path) })
    }

    async fn make_folder(&self, path: &EntryPath, mode: u32) -> Result<(), StorageError> {
        let (parent, name) = self.parent(path)?;
        let display = self.name(path);
        let mode = Mode::from_raw_mode(mode);
        call("storage.mkdir", &display, || rustix::fs::mkdirat(&parent, name, mode))?;
        let folder = self.open_folder(path)?;
        // The umask may have taken bits away.
        call("storage.chmod", &display, || rustix::fs::fchmod(&folder, mode))
    }

    async fn rename(&self, from: &EntryPath, to: &EntryPath) -> Result<(), StorageError> {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        let display = format!("{}` to `{}", self.name(from), self.name(to));
        call("storage.rename", &display, || rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name))
    }

    async fn link(&self, from: &EntryPath, to: &EntryPath) -> Result<(), StorageError> {
        self.require_regular_file(from)?;
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        let display = format!("{}` as `{}", self.name(from), self.name(to));
        call("storage.link", &display, || {
            rustix::fs::linkat(&from_parent, from_name, &to_parent, to_name, AtFlags::empty())
        })
    }

    async fn unlink(&self, path: &EntryPath) -> Result<(), StorageError> {
        let (parent, name) = self.parent(path)?;
        call("storage.unlink", &self.name(path), || rustix::fs::unlinkat(&parent, name, AtFlags::empty()))
    }

    async fn remove_folder(&self, path: &EntryPath) -> Result<(), StorageError> {
        let (parent, name) = self.parent(path)?;
        call("storage.rmdir", &self.name(path), || rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR))
    }

    async fn list(&self, path: &EntryPath) -> Result<Vec<Entry>, StorageError> {
        let folder = self.open_folder(path)?;
        let name = self.name(path);
        let mut reader = call("storage.list", &name, || rustix::fs::Dir::read_from(&folder))?;
        let mut entries = Vec::new();
        loop {
            failpoint::hit("storage.readdir").map_err(|error| StorageError::new("list", &name, error))?;
            let Some(item) = reader.read() else { break };
            let item = item.map_err(|errno| StorageError::new("list", &name, errno.into()))?;
            let file_name = item.file_name();
            if file_name == c"." || file_name == c".." {
                continue;
            }
            if entries.len() >= ENTRIES_MAX {
                return Err(StorageError::of_kind("list", name, StorageErrorKind::TooManyEntries));
            }
            let kind = match kind_of_type(item.file_type()) {
                // Not every file system says what an entry is while it lists.
                EntryKind::Unknown => {
                    let stat = || rustix::fs::statat(&folder, file_name, AtFlags::SYMLINK_NOFOLLOW);
                    match call("storage.stat", &name, stat) {
                        Ok(stat) => kind_of(&stat),
                        Err(error) if error.is(StorageErrorKind::NotFound) => continue,
                        Err(error) => return Err(error),
                    }
                }
                kind => kind,
            };
            entries.push(Entry { name: file_name.to_string_lossy().into_owned(), kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    async fn stat(&self, path: &EntryPath) -> Result<Option<EntryStat>, StorageError> {
        let probe = match self.open_beneath(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(probe) => probe,
            Err(error) if error.is(StorageErrorKind::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = call("storage.stat", &self.name(path), || rustix::fs::fstat(&probe))?;
        Ok(Some(entry_stat(&stat)))
    }

    async fn sync_folder(&self, path: &EntryPath) -> Result<(), StorageError> {
        let folder = self.open_folder(path)?;
        let name = self.name(path);
        let stat = call("storage.stat", &name, || rustix::fs::fstat(&folder))?;
        let sync = || call("storage.fsync", &name, || rustix::fs::fsync(&folder));
        shared_sync::sync((stat.st_dev, stat.st_ino), &name, sync)
    }

    async fn space(&self) -> Result<Space, StorageError> {
        let found = call("storage.statvfs", &self.display, || rustix::fs::fstatvfs(&self.root))?;
        let stat = call("storage.stat", &self.display, || rustix::fs::fstat(&self.root))?;
        let unit = if found.f_frsize == 0 { found.f_bsize } else { found.f_frsize };
        Ok(Space {
            total_bytes: found.f_blocks.saturating_mul(unit),
            free_bytes: found.f_bavail.saturating_mul(unit),
            file_system: format!("{:x}-{:x}", stat.st_dev, found.f_fsid),
            block_bytes: u32::try_from(unit).unwrap_or(u32::MAX),
        })
    }

    async fn is_mount_point(&self) -> Result<bool, StorageError> {
        let statx = call("storage.stat", &self.display, || {
            rustix::fs::statx(&self.root, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        })?;
        if statx.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
            return Ok(statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        }
        // Kernels before 5.8 do not say; then another device than the parent's means a mount, and so does `/`.
        let here = call("storage.stat", &self.display, || rustix::fs::fstat(&self.root))?;
        let above =
            call("storage.stat", &self.display, || rustix::fs::statat(&self.root, "..", AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(here.st_dev != above.st_dev || here.st_ino == above.st_ino)
    }

    fn io_threads(&self) -> usize {
        IO_THREADS
    }
}
