//! A small file's new content on its way: written under a name of the attempt's own beside the file, then renamed over
//! it. No other attempt uses that name, so none can rename what another one wrote.
//!
//! A rename that hangs can still come late, after a newer attempt's. Nothing here prevents that: whoever assigns
//! attempts has the file written once more when a late one can come no more.

use crate::driver::DomainDriver;
use crate::driver::EntryKind;
use crate::driver::EntryPath;
use crate::driver::StorageErrorKind;

use super::DomainError;
use super::DotName;
use super::small_file::write_new;

/// What follows a file's name while its new content lies aside; vdsm uses the same for its own.
const SUFFIX: &str = ".new";

/// Whether the name is one under which some attempt writes this file anew.
pub(super) fn is_aside(name: &str, of: &str) -> bool {
    let rest = name.strip_prefix(of).and_then(|rest| rest.strip_prefix(SUFFIX));
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(|token| dot_name(token).is_ok()))
}

/// An attempt's token is what a dot name carries: a few letters, digits and dashes.
fn dot_name(token: &str) -> Result<DotName, DomainError> {
    Ok(format!(".sdm-{token}").parse()?)
}

/// A file that an attempt writes anew.
#[derive(Debug)]
pub(super) struct Aside {
    path: EntryPath,
    target: EntryPath,
}

impl Aside {
    /// Of this file, for this attempt.
    ///
    /// # Errors
    /// The token or the name is none.
    pub fn of(folder: &EntryPath, name: &str, attempt: &str) -> Result<Self, DomainError> {
        dot_name(attempt)?;
        Ok(Self { path: folder.join(&format!("{name}{SUFFIX}-{attempt}"))?, target: folder.join(name)? })
    }

    /// Writes it; what an interrupted run of the same attempt left gives way.
    ///
    /// # Errors
    /// What the storage answers.
    pub async fn write<D: DomainDriver>(&self, driver: &D, bytes: &[u8]) -> Result<(), DomainError> {
        let written = match write_new(driver, &self.path, bytes).await {
            Err(error) if error.is(StorageErrorKind::AlreadyExists) => {
                driver.unlink(&self.path).await?;
                write_new(driver, &self.path, bytes).await
            }
            written => written,
        };
        Ok(written?)
    }

    /// Renames it over the file if what was asked just now still allows it; else takes it away. The folder is the
    /// caller's to sync.
    ///
    /// # Errors
    /// Why not, or what the storage answers.
    pub async fn publish<D: DomainDriver>(
        &self,
        driver: &D,
        allowed: Result<(), DomainError>,
    ) -> Result<(), DomainError> {
        if let Err(refusal) = allowed {
            if let Err(error) = driver.unlink(&self.path).await {
                tracing::debug!(%error, "what was written aside stays for the next attempt");
            }
            return Err(refusal);
        }
        Ok(driver.rename(&self.path, &self.target).await?)
    }
}

/// Takes away what other attempts left aside in a folder: those are over, or are to find nothing to rename.
///
/// # Errors
/// What the storage answers.
pub(super) async fn clear<D: DomainDriver>(
    driver: &D,
    folder: &EntryPath,
    is_left: impl Fn(&str) -> bool,
) -> Result<(), DomainError> {
    for entry in driver.list(folder).await? {
        if entry.kind != EntryKind::File || !is_left(&entry.name) {
            continue;
        }
        match driver.unlink(&folder.join(&entry.name)?).await {
            Err(error) if error.is(StorageErrorKind::NotFound) => {}
            answer => answer?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_a_name_of_its_own_beside_the_file_and_nothing_else_is_one() {
        let folder = EntryPath::root();
        let aside = |attempt: &str| Aside::of(&folder, "metadata", attempt).map(|aside| aside.path.to_string());
        assert_eq!(aside("1-7-0").ok().as_deref(), Some("metadata.new-1-7-0"));
        assert_ne!(aside("1-7-0").ok(), aside("1-8-0").ok());
        for bad in ["", "..", "1/2", "1 2", &"1".repeat(65)] {
            assert!(aside(bad).is_err(), "{bad:?}");
            assert!(bad.is_empty() || !is_aside(&format!("metadata.new-{bad}"), "metadata"), "{bad:?}");
        }
        assert!(is_aside("metadata.new", "metadata") && is_aside("metadata.new-1-7-0", "metadata"));
        assert!(!is_aside("metadata", "metadata") && !is_aside("metadata.newer", "metadata"));
    }
}
