//! The file that a backup becomes: written beside the wanted one, synced, read back, and named only
//! then. On any other end it is removed.

use super::PartFiles;
use super::target_file::cannot_write;
use super::target_file::exists;
use super::target_file::rename_to_free_name;
use crate::output::Failure;
use sdm_proto::refusal::Class;
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
    /// One stands there and is not to be replaced, or the folder takes none.
    pub fn create(path: &Path, force: bool, parts: &Arc<PartFiles>) -> Result<Self, Failure> {
        if path.file_name().is_none() || path.is_dir() {
            return Err(Failure::new(Class::Invalid, "NOT_A_FILE", format!("{} names no file", path.display())));
        }
        if !force && std::fs::symlink_metadata(path).is_ok() {
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
            std::fs::rename(&self.part, &self.path).map_err(trouble)?;
        } else {
            rename_to_free_name(&self.part, &self.path, "--force")?;
        }
        self.named = true;
        self.parts.forget(&self.part);
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(trouble)
    }
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
