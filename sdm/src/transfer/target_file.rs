//! The file that an export writes: under a name of its own beside the wanted one, sparse, and renamed
//! when it is whole and checked. On any other end it is removed.

use super::LogicalHash;
use super::PartFiles;
use super::part_files::remove_leftovers;
use crate::output::Failure;
use rustix::fs::Access;
use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// What lets an export take the place of a file.
const OVERWRITE: &str = "--overwrite";

/// Where the export shall stand at the end.
#[derive(Clone, Debug)]
pub struct TargetPath {
    path: PathBuf,
    folder: PathBuf,
    overwrite: bool,
    request_id: String,
    parts: Arc<PartFiles>,
}

impl TargetPath {
    /// Looks whether a file can stand there. Temporary files carry the request's id in their names and
    /// are noted among the process's.
    ///
    /// # Errors
    /// One stands there already and is not to be overwritten, what stands there is no file, or the folder
    /// is not there or not writable.
    pub fn new(path: &Path, overwrite: bool, request_id: &str, parts: &Arc<PartFiles>) -> Result<Self, Failure> {
        if path.file_name().is_none() {
            return Err(Failure::new(Class::Invalid, "NOT_A_FILE", format!("{} names no file", path.display())));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Found out now rather than when a worker waits for somebody to take its bytes.
        rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| cannot_write(path, &error.into()))?;
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot_write(path, &error)),
            Ok(_) if !overwrite => return Err(exists(path, OVERWRITE)),
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => {
                let message = format!("{} is no regular file, and only those are overwritten", path.display());
                return Err(Failure::new(Class::Invalid, "NOT_A_FILE", message));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            folder: folder.to_owned(),
            overwrite,
            request_id: request_id.to_owned(),
            parts: Arc::clone(parts),
        })
    }

    /// Removes what an earlier command of the same request left beside it. Blocks.
    pub fn remove_leftovers(&self) {
        remove_leftovers(&self.folder, &self.request_id);
    }

    /// Makes the file under its own name, as long as the content will be.
    ///
    /// # Errors
    /// The folder is not there, not writable, or on a file system that is full.
    pub fn create(&self, size: u64) -> Result<PartFile, Failure> {
        let trouble = |error: io::Error| cannot_write(&self.path, &error);
        let (file, part) = self.parts.create(&self.path, &self.folder, &self.request_id).map_err(trouble)?;
        let part = PartFile { file, part, target: self.clone(), size, hash: LogicalHash::default(), named: false };
        // Before the data: then what is never written is a hole, also at the end.
        part.file.set_len(size).map_err(trouble)?;
        Ok(part)
    }
}

/// An export in the making. Dropped before it has its name, it is gone.
pub struct PartFile {
    file: File,
    part: PathBuf,
    target: TargetPath,
    size: u64,
    hash: LogicalHash,
    named: bool,
}

impl PartFile {
    /// Writes bytes at an offset at or after the end of the last ones. Blocks.
    ///
    /// # Errors
    /// They go back, or beyond the size; or the storage takes no more.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.within(offset, bytes.len() as u64)?;
        self.hash.data(offset, bytes).map_err(|error| out_of_order(&error.to_string()))?;
        self.file.write_all_at(bytes, offset).map_err(|error| cannot_write(&self.target.path, &error))
    }

    /// Leaves a hole.
    ///
    /// # Errors
    /// It goes back, or beyond the size.
    pub fn hole(&mut self, offset: u64, length: u64) -> Result<(), Failure> {
        self.within(offset, length)?;
        self.hash.hole_until(offset + length).map_err(|error| out_of_order(&error.to_string()))
    }

    /// How far it is.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.hash.position()
    }

    /// Checks size and hash against the sender's and makes the bytes durable. Blocks.
    ///
    /// # Errors
    /// They differ, or the storage failed.
    pub fn check(&mut self, size: u64, blake3: &[u8]) -> Result<blake3::Hash, Failure> {
        if size != self.size {
            let message = format!("the worker announced {} bytes and sent {size}", self.size);
            return Err(Failure::new(Class::Internal, "TRANSFER_DAMAGED", message));
        }
        self.hash.hole_until(size).map_err(|error| out_of_order(&error.to_string()))?;
        let hash = self.hash.finish();
        if hash.as_bytes().as_slice() != blake3 {
            let message = format!("what arrived has BLAKE3 {}, what was sent has another", hash.to_hex());
            return Err(Failure::new(Class::Internal, "TRANSFER_DAMAGED", message));
        }
        self.file.sync_all().map_err(|error| cannot_write(&self.target.path, &error))?;
        Ok(hash)
    }

    /// Gives it its name, durably. Blocks.
    ///
    /// # Errors
    /// Another file has taken the name meanwhile, or the storage failed.
    pub fn publish(mut self) -> Result<(), Failure> {
        let trouble = |error: io::Error| cannot_write(&self.target.path, &error);
        let named = if self.target.overwrite {
            std::fs::rename(&self.part, &self.target.path).map_err(trouble)
        } else {
            rename_to_free_name(&self.part, &self.target.path, OVERWRITE)
        };
        named?;
        self.named = true;
        self.target.parts.forget(&self.part);
        File::open(&self.target.folder).and_then(|folder| folder.sync_all()).map_err(trouble)
    }

    fn within(&self, offset: u64, length: u64) -> Result<(), Failure> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(out_of_order(&format!("{length} bytes at {offset} lie beyond the size of {}", self.size))),
        }
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.named {
            // What cannot be removed now is recognizable by its name; there is nobody to tell here.
            _ = std::fs::remove_file(&self.part);
            self.target.parts.forget(&self.part);
        }
    }
}

pub(super) fn rename_to_free_name(from: &Path, to: &Path, option: &str) -> Result<(), Failure> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(exists(to, option)),
        // File systems without that flag have links, which never replace either.
        Err(Errno::INVAL | Errno::NOSYS) => match std::fs::hard_link(from, to) {
            Ok(()) => std::fs::remove_file(from).map_err(|error| cannot_write(from, &error)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(to, option)),
            Err(error) => Err(cannot_write(to, &error)),
        },
        Err(error) => Err(cannot_write(to, &error.into())),
    }
}

/// `option` is what the user would have to add.
pub(super) fn exists(path: &Path, option: &str) -> Failure {
    let message = format!("{} exists already", path.display());
    Refusal::new(Class::Conflict, "FILE_EXISTS", message).hint(format!("give another FILE, or {option}")).into()
}

fn out_of_order(what: &str) -> Failure {
    Failure::new(Class::Internal, "TRANSFER_DAMAGED", format!("the worker's stream makes no sense: {what}"))
}

pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let (class, reason, hint) = match error.kind() {
        io::ErrorKind::NotFound => (Class::NotFound, "FOLDER_NOT_FOUND", "make the folder, or give another FILE"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (Class::Denied, "FILE_NOT_WRITABLE", "see the folder's owner, mode and mount, or give another FILE")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            (Class::Exhausted, "NO_SPACE", "free space there (df), or give a FILE on another file system")
        }
        _ => (Class::Precondition, "FILE_NOT_WRITABLE", "see the folder and its disk, or give another FILE"),
    };
    Refusal::new(class, reason, format!("{} cannot be written: {error}", path.display())).hint(hint).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const SIZE: u64 = 8 << 20;

    fn at(path: &Path, overwrite: bool) -> Result<TargetPath, Failure> {
        TargetPath::new(path, overwrite, "0f0f0f0f-1111-4222-8333-444444444444", &Arc::default())
    }

    fn filled(target: &TargetPath) -> (PartFile, Vec<u8>) {
        let mut part = target.create(SIZE).unwrap();
        part.hole(0, 1 << 20).unwrap();
        part.write(1 << 20, b"content").unwrap();
        let mut content = vec![0; usize::try_from(SIZE).unwrap()];
        content[1 << 20..][..7].copy_from_slice(b"content");
        (part, content)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    fn reason(result: Result<impl Sized, Failure>) -> String {
        result.err().map(|failure| failure.refusal.reason.clone()).unwrap_or_default()
    }

    #[test]
    fn a_whole_file_appears_under_its_name_sparse_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = at(&folder.path().join("out.img"), false).unwrap();
        let (mut part, content) = filled(&target);
        part.check(SIZE, blake3::hash(&content).as_bytes()).unwrap();
        part.publish().unwrap();
        assert_eq!(names(folder.path()), ["out.img"]);
        assert_eq!(std::fs::read(&target.path).unwrap(), content);
        assert!(std::fs::metadata(&target.path).unwrap().blocks() * 512 < SIZE, "holes were filled");
    }

    #[test]
    fn what_does_not_match_is_refused_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let target = at(&folder.path().join("out.img"), false).unwrap();
        let (mut part, content) = filled(&target);
        assert_eq!(reason(part.check(SIZE, &[0; 32])), "TRANSFER_DAMAGED");
        assert_eq!(reason(part.check(SIZE - 1, blake3::hash(&content).as_bytes())), "TRANSFER_DAMAGED");
        assert_eq!(reason(part.write(SIZE - 1, b"xy")), "TRANSFER_DAMAGED");
        assert_eq!(reason(part.write(0, b"x")), "TRANSFER_DAMAGED");
        drop(part);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn an_existing_file_is_kept_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.img");
        let target = at(&path, false).unwrap();
        let (part, _) = filled(&target);
        std::fs::write(&path, "somebody's").unwrap();
        assert_eq!(reason(at(&path, false)), "FILE_EXISTS");
        assert_eq!(reason(part.publish()), "FILE_EXISTS");
        assert_eq!(names(folder.path()), ["out.img"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's");

        let (part, content) = filled(&at(&path, true).unwrap());
        part.publish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }

    #[test]
    fn a_folder_a_missing_folder_and_an_empty_name_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(reason(at(folder.path(), true)), "NOT_A_FILE");
        assert_eq!(reason(at(Path::new("/"), true)), "NOT_A_FILE");
        assert_eq!(reason(at(&folder.path().join("none/out.img"), false)), "FOLDER_NOT_FOUND");
    }

    #[test]
    fn the_longest_name_leaves_room_for_the_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = at(&folder.path().join("n".repeat(255)), false).unwrap();
        let (part, _) = filled(&target);
        part.publish().unwrap();
        assert_eq!(names(folder.path()), ["n".repeat(255)]);
    }
}
