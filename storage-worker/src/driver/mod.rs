//! The domain driver: the one seam through which a domain's storage is touched.
//!
//! A driver is opened on one folder (a domain's path or the domain's own folder) and reaches everything else
//! beneath it, by names that [`EntryPath`] has checked; it never follows a link out. It knows nothing of
//! domains, placements or formats: that is `domain/` and `volume/`. The real side is [`FileDriver`] (a folder,
//! local or NFS), the simulated one [`SimulatedStorage`], which forgets what was not synced.
//!
//! Contract of every driver:
//! * A call that returned `Ok` took effect; it is durable only after `sync` of the file, or `sync_folder` of
//!   each folder whose names it changed.
//! * After a failed `sync` nothing written through that file since the last good one may be believed.
//! * Only regular files are opened and only folders are walked. Anything else is `UnexpectedEntry`, and is not
//!   opened at all: a FIFO must not block, and opening a device may already do something to it.
//! * Calls may block for as long as the storage likes. They belong into a process that may hang.

mod clone_range;
mod entry_path;
mod error;
mod file;
mod file_handle;
mod image_lock;
mod shared_sync;
mod simulated;
mod simulated_tree;

use std::future::Future;
use std::ops::Range;
use std::path::Path;

pub use entry_path::EntryPath;
pub use entry_path::InvalidEntryPath;
pub use error::StorageError;
pub use error::StorageErrorKind;
pub use error::chain;
pub use file::FileDriver;
pub use file::FileStorage;
pub use file_handle::FileHandle;
pub use simulated::SimulatedDriver;
pub use simulated::SimulatedFile;
pub use simulated::SimulatedStorage;

/// Alignment of offset, length and memory with which O_DIRECT works on every file system in use.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// Where roots come from: the host's file systems, or a simulated one.
pub trait Storage: Send + Sync + 'static {
    /// What its roots are reached through.
    type Driver: DomainDriver;

    /// Opens a folder as the root of a driver. Symbolic links in `path` itself are followed: the operator named it.
    ///
    /// # Errors
    /// `NotFound`, `NotAFolder`, `AccessDenied` and whatever else the storage answers.
    fn open_root(&self, path: &Path) -> impl Future<Output = Result<Self::Driver, StorageError>> + Send;
}

/// A root folder and all that is reached beneath it. Every error names the call and the entry.
pub trait DomainDriver: Send + Sync + 'static {
    /// An open regular file.
    type File: DomainFile;

    /// Opens or creates a regular file.
    fn open(&self, path: &EntryPath, how: OpenHow) -> impl Future<Output = Result<Self::File, StorageError>> + Send;

    /// Opens a folder beneath as a root of its own.
    fn beneath(&self, path: &EntryPath) -> impl Future<Output = Result<Self, StorageError>> + Send
    where
        Self: Sized;

    /// Creates a folder with exactly this mode.
    fn make_folder(&self, path: &EntryPath, mode: u32) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Renames. A folder never replaces one that has content.
    fn rename(&self, from: &EntryPath, to: &EntryPath) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Gives a regular file a second name.
    fn link(&self, from: &EntryPath, to: &EntryPath) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Removes a file's name.
    fn unlink(&self, path: &EntryPath) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Removes an empty folder.
    fn remove_folder(&self, path: &EntryPath) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Lists a folder, sorted by name, without `.` and `..`. Past a limit it is refused.
    fn list(&self, path: &EntryPath) -> impl Future<Output = Result<Vec<Entry>, StorageError>> + Send;

    /// What lies under a name; links are not followed. `None` when nothing does.
    fn stat(&self, path: &EntryPath) -> impl Future<Output = Result<Option<EntryStat>, StorageError>> + Send;

    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &EntryPath) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Room and traits of the root's file system.
    fn space(&self) -> impl Future<Output = Result<Space, StorageError>> + Send;

    /// Is the root the top of a mounted file system?
    fn is_mount_point(&self) -> impl Future<Output = Result<bool, StorageError>> + Send;

    /// How many threads the copy engine may use on its files: 1 keeps everything on the calling thread.
    fn io_threads(&self) -> usize;
}

/// An open regular file, used by several threads at once, by position.
pub trait DomainFile: Send + Sync + 'static {
    /// Its name, for messages.
    fn entry(&self) -> &str;

    /// Its size and its blocks as they are now.
    ///
    /// # Errors
    /// What the storage answers.
    fn stat(&self) -> Result<EntryStat, StorageError>;

    /// Reads until the buffer is full or the file ends; returns how much it read.
    ///
    /// # Errors
    /// What the storage answers.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the storage answers.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError>;

    /// Makes the file at least so long; never cuts.
    ///
    /// # Errors
    /// What the storage answers.
    fn extend_to(&self, bytes: u64) -> Result<(), StorageError>;

    /// Reserves blocks inside the file's size where the storage can; does nothing where it cannot.
    ///
    /// # Errors
    /// `NoSpace` and whatever else the storage answers.
    fn allocate(&self, range: Range<u64>) -> Result<(), StorageError>;

    /// Makes the file at least so long, its blocks reserved, and can never cut it, however late the call takes effect.
    /// `false`: the file system cannot do that, and nothing was done.
    ///
    /// # Errors
    /// `NoSpace` and whatever else the storage answers; the file may then be longer than before.
    fn grow(&self, range: Range<u64>) -> Result<bool, StorageError>;

    /// Shares blocks of another file instead of copying them: `length` bytes from `from` in `source` to `to` in this one.
    /// `false`: the file system cannot, or not there; nothing was done.
    ///
    /// # Errors
    /// `NoSpace` and whatever else the storage answers.
    fn clone_from(&self, source: &Self, from: u64, length: u64, to: u64) -> Result<bool, StorageError>;

    /// Lets the system begin to write out what was written, so that a `sync` soon after has little to wait for. No
    /// promise, no error.
    fn begin_sync(&self);

    /// Makes everything written through this handle durable, with the file's size.
    ///
    /// # Errors
    /// What the storage answers; see the contract above.
    fn sync(&self) -> Result<(), StorageError>;

    /// The first run of data at or after `offset`; `None` when only a hole follows. Sync the file before asking.
    ///
    /// # Errors
    /// What the storage answers.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StorageError>;

    /// Finds the smallest block that direct writes may have, 512 or 4096, by writing zeros over the file's beginning:
    /// only for a new file. `None` where the file system has no direct I/O.
    ///
    /// # Errors
    /// What the storage answers.
    fn probe_block_bytes(&self) -> Result<Option<u32>, StorageError>;

    /// Takes the locks with which QEMU marks a reader that bears no writer beside it. Held until the file is closed.
    ///
    /// # Errors
    /// `InUse` when another process uses the image in a way that excludes this.
    fn lock_against_writers(&self) -> Result<(), StorageError>;

    /// Takes the locks with which QEMU marks a writer that bears no writer and no reader of a changing size beside it.
    /// Held until the file is closed.
    ///
    /// # Errors
    /// `InUse` when another process uses the image.
    fn lock_as_writer(&self) -> Result<(), StorageError>;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenHow {
    /// What for.
    pub access: Access,
    /// Past the page cache or through it.
    pub caching: Caching,
}

impl OpenHow {
    /// Read through the page cache: for small files.
    pub const READ: Self = Self { access: Access::Read, caching: Caching::Buffered };
    /// Read a volume's bytes.
    pub const READ_VOLUME: Self = Self { access: Access::Read, caching: Caching::DirectIfPossible };

    /// Change a volume in place by small writes.
    pub const CHANGE_VOLUME: Self = Self { access: Access::Change, caching: Caching::ReadPastCache };

    /// Create a small file.
    pub fn create(mode: u32) -> Self {
        Self { access: Access::Create { mode }, caching: Caching::Buffered }
    }

    /// Create a volume's file.
    pub fn create_volume(mode: u32) -> Self {
        Self { access: Access::Create { mode }, caching: Caching::DirectIfPossible }
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading an existing file.
    Read,
    /// Reading and writing an existing file.
    Change,
    /// Reading and writing a new file with exactly this mode; an existing one is `AlreadyExists`.
    Create {
        /// Permission bits, unaffected by the umask.
        mode: u32,
    },
}

/// Whether aligned reads and writes bypass the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// They do not.
    Buffered,
    /// They do where the file system can. A range must not be used both aligned and unaligned without a sync.
    DirectIfPossible,
    /// Writes go through the page cache; reads see what the storage has, where the file system can, and a sync lets go of
    /// what the cache holds. A sync that failed may have left bytes there that look written: a later one says Ok.
    ReadPastCache,
}

/// What kind of thing lies under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    SymbolicLink,
    /// A FIFO.
    Fifo,
    /// A block or character device.
    Device,
    /// A socket.
    Socket,
    /// The top of another file system, or a way out of the root.
    OtherFileSystem,
    /// Something else.
    Unknown,
}

impl std::fmt::Display for EntryKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File => "a regular file",
            Self::Folder => "a folder",
            Self::SymbolicLink => "a symbolic link",
            Self::Fifo => "a FIFO",
            Self::Device => "a device",
            Self::Socket => "a socket",
            Self::OtherFileSystem => "a way into another file system",
            Self::Unknown => "neither a file nor a folder",
        })
    }
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name; bytes that are no UTF-8 are replaced, so such a name matches nothing of ours.
    pub name: String,
    /// What it names.
    pub kind: EntryKind,
}

/// What is known of an entry without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryStat {
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes.
    pub bytes: u64,
    /// What it takes on the file system.
    pub allocated_bytes: u64,
    /// How many names it has.
    pub links: u64,
}

/// Room and traits of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub total_bytes: u64,
    /// What is left for an unprivileged writer.
    pub free_bytes: u64,
    /// Same text, same file system.
    pub file_system: String,
    /// Its allocation unit.
    pub block_bytes: u32,
}
