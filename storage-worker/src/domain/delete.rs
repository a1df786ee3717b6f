//! Deleting what one token made: the dot name first, then the published name.
//!
//! A late writer of that token may still publish while this runs. It renames its dot folder away either before the
//! first half looks (then the second half finds the published name) or after (then its rename finds nothing).
//! Each folder is renamed to a dot name of the deletion's own before anything in it is unlinked, so nobody ever
//! sees half a placement under a name that means a whole one.

use crate::driver::DomainDriver;
use crate::driver::EntryKind;
use crate::driver::EntryPath;
use crate::driver::StorageErrorKind;
use crate::work::DeletePlacement;
use crate::work::DeletionReport;

use super::Domain;
use super::DomainError;
use super::DotName;
use super::attempt::read_mark;
use super::attempt::require_origin;
use super::names::MARK;
use super::names::PlacementFile;
use super::open::images;

/// Deletes; done already is done.
///
/// # Errors
/// When a folder's mark names another token, something unknown lies in it (neither is touched then), a deleted file
/// is still open on an NFS client, or the storage fails.
pub async fn delete_placement<D: DomainDriver>(
    domain: &Domain<D>,
    order: &DeletePlacement,
) -> Result<DeletionReport, DomainError> {
    let dot = domain.image(order.dot_name.parse::<DotName>()?.as_str())?;
    let aside = domain.image(order.deletion_dot_name.parse::<DotName>()?.as_str())?;
    let published = order.placement.map(|placement| domain.image(&placement.to_string())).transpose()?;
    let mut report = DeletionReport::default();
    // What an interrupted run of this deletion had renamed already.
    remove_folder(domain, &aside, &mut report).await?;
    let folders = [Some((dot, Evidence::TheName)), published.map(|folder| (folder, Evidence::TheMark))];
    for (folder, evidence) in folders.into_iter().flatten() {
        if take_aside(domain, &folder, evidence, order, &aside).await? {
            remove_folder(domain, &aside, &mut report).await?;
        }
    }
    domain.driver().sync_folder(&images()).await?;
    Ok(report)
}

/// What proves that a folder is the token's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// A dot name is derived from its token; a mark, if one is there yet, must agree.
    TheName,
    /// A published folder always has a mark.
    TheMark,
}

/// Renames a folder to the deletion's own name once it proved to be what the order means. `false`: it is not there.
async fn take_aside<D: DomainDriver>(
    domain: &Domain<D>,
    folder: &EntryPath,
    evidence: Evidence,
    order: &DeletePlacement,
    aside: &EntryPath,
) -> Result<bool, DomainError> {
    let driver = domain.driver();
    let Some(found) = driver.stat(folder).await? else { return Ok(false) };
    if found.kind != EntryKind::Folder {
        return Err(DomainError::UnexpectedEntry { entry: folder.to_string(), kind: found.kind });
    }
    refuse_unknown(driver, folder).await?;
    match read_mark(domain, folder).await {
        Ok(Some(mark)) => {
            require_origin(folder, &mark, order.placement.unwrap_or(mark.placement), &order.token)?;
        }
        // Gone or unfinished since.
        Ok(None) | Err(DomainError::Corrupt { .. }) if evidence == Evidence::TheName => {}
        Err(error) if evidence == Evidence::TheName && error.is_storage(StorageErrorKind::NotFound) => {}
        Ok(None) => return Ok(false),
        Err(DomainError::Corrupt { reason, .. }) => return Err(mismatch(folder, &order.token, reason)),
        Err(error) if error.is_storage(StorageErrorKind::NotFound) => {
            return Err(mismatch(folder, &order.token, format!("no `{MARK}` in it")));
        }
        Err(error) => return Err(error),
    }
    match driver.rename(folder, aside).await {
        // Published or removed in the meantime, or done by a retransmission of this very call.
        Err(error) if error.is(StorageErrorKind::NotFound) => {}
        answer => answer?,
    }
    driver.sync_folder(&images()).await?;
    Ok(true)
}

fn mismatch(folder: &EntryPath, token: &str, found: String) -> DomainError {
    DomainError::EvidenceMismatch { entry: folder.to_string(), expected: token.to_owned(), found }
}

/// Removes a folder that is ours, with its files; not there is fine.
async fn remove_folder<D: DomainDriver>(
    domain: &Domain<D>,
    folder: &EntryPath,
    report: &mut DeletionReport,
) -> Result<(), DomainError> {
    let driver = domain.driver();
    if driver.stat(folder).await?.is_none() {
        return Ok(());
    }
    let removed = remove_contents(driver, folder).await?;
    report.files = report.files.saturating_add(removed.files);
    report.freed_bytes = report.freed_bytes.saturating_add(removed.freed_bytes);
    match driver.remove_folder(folder).await {
        Err(error) if error.is(StorageErrorKind::NotFound) => Ok(()),
        // The NFS client keeps what is still open under a name of its own.
        Err(error) if error.is(StorageErrorKind::NotEmpty) => {
            refuse_unknown(driver, folder).await?;
            Err(error.into())
        }
        answer => Ok(answer?),
    }
}

/// Looks at every name before any is touched.
async fn refuse_unknown<D: DomainDriver>(driver: &D, folder: &EntryPath) -> Result<Vec<String>, DomainError> {
    let mut names = Vec::new();
    for found in driver.list(folder).await? {
        let entry = format!("{folder}/{}", found.name);
        match (found.kind, PlacementFile::of(&found.name)) {
            (EntryKind::File, Some(PlacementFile::StillOpen)) => return Err(DomainError::StillOpen { entry }),
            (EntryKind::File, Some(_)) => names.push(found.name),
            (kind, _) => return Err(DomainError::UnexpectedEntry { entry, kind }),
        }
    }
    Ok(names)
}

/// Unlinks the files of a folder that is ours. Unlinks only: a file with another name elsewhere stays whole there.
pub(super) async fn remove_contents<D: DomainDriver>(
    driver: &D,
    folder: &EntryPath,
) -> Result<DeletionReport, DomainError> {
    let mut report = DeletionReport::default();
    for name in refuse_unknown(driver, folder).await? {
        let path = folder.join(&name)?;
        let found = driver.stat(&path).await?;
        match driver.unlink(&path).await {
            Err(error) if error.is(StorageErrorKind::NotFound) => continue,
            answer => answer?,
        }
        report.files = report.files.saturating_add(1);
        if let Some(only) = found.filter(|found| found.links == 1) {
            report.freed_bytes = report.freed_bytes.saturating_add(only.allocated_bytes);
        }
    }
    Ok(report)
}
