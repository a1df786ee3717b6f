//! The file that a backup becomes: written beside the wanted one, synced, read back, and named only
//! then. On any other end it is removed.

use super::PartFiles;
use super::target_file::cannot_write;
use super::target_file::exists;
use super::target_file::rename_to_free_name;
use crate::output::Failure;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// Stands in the temporary name where exports have their request's id.
const PART: &str = "backup";

/// A backup in the making. Dropped before it has its name, it is gone.
pub struct BackupFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
    folder: PathBuf,
    force: bool,
    parts: Arc<PartFiles>,
    named: bool,
}

impl BackupFile {
    /// Makes an empty one beside the wanted file. Blocks.
    ///
    /// # Errors
    /// One stands there and is not to be replaced, what stands there is no regular file, or the folder takes none.
    pub fn create(path: &Path, force: bool, parts: &Arc<PartFiles>) -> Result<Self, Failure> {
        if path.file_name().is_none() {
            return Err(Failure::new(Class::Invalid, "NOT_A_FILE", format!("{} names no file", path.display())));
        }
        if replaceable(path)? && !force {
            return Err(exists(path, "--force"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let created = parts.create(path, folder, PART).map_err(|error| cannot_write(path, &error));
        let (file, part) = created?;
        let (path, folder, parts) = (path.to_owned(), folder.to_owned(), Arc::clone(parts));
        Ok(Self { file, part, path, folder, force, parts, named: false })
    }

    /// Where it is until it has its name.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Appends bytes. Blocks.
    ///
    /// # Errors
    /// The storage takes no more.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| cannot_write(&self.path, &error))
    }

    /// Makes its bytes durable. Blocks.
    ///
    /// # Errors
    /// The storage failed.
    pub fn sync(&mut self) -> Result<(), Failure> {
        self.file.sync_all().map_err(|error| cannot_write(&self.path, &error))
    }

    /// Gives it its name, durably. Blocks.
    ///
    /// # Errors
    /// Another file has taken the name meanwhile, or the storage failed.
    pub fn publish(mut self) -> Result<(), Failure> {
        let trouble = |error| cannot_write(&self.path, &error);
        if self.force {
            // Once more: a backup takes a while, and a name can be given to something else meanwhile.
            replaceable(&self.path)?;
            std::fs::rename(&self.part, &self.path).map_err(trouble)?;
        } else {
            rename_to_free_name(&self.part, &self.path, "--force")?;
        }
        self.named = true;
        self.parts.forget(&self.part);
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(trouble)
    }
}

/// Whether a regular file stands there, which a backup may take the place of. A symbolic link is refused
/// wherever it leads: the rename would replace the link, not its target.
fn replaceable(path: &Path) -> Result<bool, Failure> {
    // What cannot be looked at shows when the file is made.
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(false) };
    if metadata.is_file() {
        return Ok(true);
    }
    let (what, hint) = if metadata.is_dir() {
        ("a folder", "give the path of a file in it")
    } else if metadata.is_symlink() {
        ("a symbolic link", "give the path that it leads to, or another one")
    } else {
        ("a device, a FIFO or a socket", "give the path of a file: a backup is read back, and cannot be piped")
    };
    let message = format!("{} is {what}, and only regular files are replaced", path.display());
    Err(Refusal::new(Class::Invalid, "NOT_A_FILE", message).hint(hint).into())
}

impl Drop for BackupFile {
    fn drop(&mut self) {
        if !self.named {
            // What cannot be removed now is recognizable by its name; there is nobody to tell here.
            _ = std::fs::remove_file(&self.part);
            self.parts.forget(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_regular_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "old").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let parts = Arc::new(PartFiles::default());
        for name in ["link", "dangling", "folder", "socket"] {
            for force in [false, true] {
                let refused = BackupFile::create(&at(name), force, &parts).map(|_| ()).unwrap_err().refusal;
                assert_eq!((refused.reason.as_str(), refused.hint.is_empty()), ("NOT_A_FILE", false), "{name}");
            }
        }
        // Looked at only.
        assert_eq!(replaceable(Path::new("/dev/null")).unwrap_err().refusal.reason, "NOT_A_FILE");
        assert_eq!(
            BackupFile::create(&at("file"), false, &parts).map(|_| ()).unwrap_err().refusal.reason,
            "FILE_EXISTS"
        );

        let mut backup = BackupFile::create(&at("file"), true, &parts).unwrap();
        backup.append(b"new").unwrap();
        backup.publish().unwrap();
        assert_eq!(std::fs::read(at("file")).unwrap(), b"new");
    }

    #[test]
    fn what_took_the_name_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let backup = BackupFile::create(&path, true, &Arc::new(PartFiles::default())).unwrap();
        symlink("nowhere", &path).unwrap();
        assert_eq!(backup.publish().unwrap_err().refusal.reason, "NOT_A_FILE");
        assert!(path.is_symlink() && std::fs::read_dir(folder.path()).unwrap().count() == 1);
    }
}
