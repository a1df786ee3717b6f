//! Deleting a whole domain in which nothing is published any more.
//!
//! An empty folder where a domain should be is no proof that it is gone: its storage may not be mounted. So the domain
//! proves who it is before anything is done, or the deletion's own dot name proves that an earlier run had seen it; and
//! that name, an empty folder in the end, stays until the cluster has written down that the domain was emptied. Only then
//! is it taken away, by another order.

use crate::driver::DomainDriver;
use crate::driver::Entry;
use crate::driver::EntryKind;
use crate::driver::EntryPath;
use crate::driver::Storage;
use crate::driver::StorageErrorKind;
use crate::work::DeletionReport;
use crate::work::FormatDomain;

use super::Domain;
use super::DomainError;
use super::DotName;
use super::open::images;
use super::open::open_path;
use super::open::require_mounting;

/// Folders within folders that are gone into: a domain has three levels, and what others leave is rarely deeper.
const DEPTH_MAX: usize = 16;

/// Names that a refusal names: enough to find them.
const EXAMPLES_MAX: usize = 4;

/// Empties the domain: it goes away at once, by a rename; its files after that, and last the empty folder, once the order
/// says that the emptying is on record. Done already is done, as far as something there proves it.
///
/// # Errors
/// When the domain is not there, is not ours, holds published names (nothing is touched then, unless it was told to take
/// them too), or the storage fails.
pub async fn format_domain<S: Storage>(storage: &S, order: &FormatDomain) -> Result<DeletionReport, DomainError> {
    let aside = EntryPath::root().join(order.dot_name.parse::<DotName>()?.as_str())?;
    let published = EntryPath::root().join(&order.domain.domain.to_string())?;
    let path = open_path(storage, &order.domain.path).await?;
    require_mounting(&path, &order.domain.path, order.mounting).await?;
    let mut report = DeletionReport::default();
    // What an interrupted run had renamed already.
    let begun = path.stat(&aside).await?.is_some();
    empty_tree(&path, &aside, &mut report).await?;
    if path.stat(&published).await?.is_some() {
        let domain = Domain::open(storage, &order.domain).await?;
        if !order.unknown_names_too {
            refuse_unknown(&domain).await?;
        }
        match path.rename(&published, &aside).await {
            // Done by a retransmission of this very call.
            Err(error) if error.is(StorageErrorKind::NotFound) => {}
            answer => answer?,
        }
        path.sync_folder(&EntryPath::root()).await?;
        empty_tree(&path, &aside, &mut report).await?;
    } else if !begun && !order.emptied {
        let (path, domain) = (order.domain.path.clone(), order.domain.domain);
        return Err(DomainError::DomainMissing { path, domain });
    }
    if order.emptied {
        remove_empty(&path, &aside).await?;
    }
    path.sync_folder(&EntryPath::root()).await?;
    Ok(report)
}

/// The catalog has nothing in a domain that is deleted. So whatever is published there is somebody's of whom it does not
/// know, another cluster's of the pool perhaps; only dot names, which nobody ever reads, may go.
async fn refuse_unknown<D: DomainDriver>(domain: &Domain<D>) -> Result<(), DomainError> {
    let is_rest = |entry: &Entry| entry.kind == EntryKind::Folder && entry.name.parse::<DotName>().is_ok();
    let names = domain.driver().list(&images()).await?;
    let unknown: Vec<String> = names.into_iter().filter(|entry| !is_rest(entry)).map(|entry| entry.name).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let examples: Vec<String> = unknown.iter().take(EXAMPLES_MAX).map(|name| name.escape_debug().to_string()).collect();
    Err(DomainError::UnknownNames { count: unknown.len() as u64, examples: examples.join("`, `") })
}

/// Unlinks everything beneath a folder, and leaves that empty; not there is fine. Nothing is followed.
async fn empty_tree<D: DomainDriver>(
    driver: &D,
    top: &EntryPath,
    report: &mut DeletionReport,
) -> Result<(), DomainError> {
    if driver.stat(top).await?.is_none() {
        return Ok(());
    }
    // Folders to be listed, and, once they were, to be removed.
    let mut folders = vec![(top.clone(), Seen::No)];
    while let Some((folder, seen)) = folders.pop() {
        if seen == Seen::Yes {
            if folder != *top {
                remove_empty(driver, &folder).await?;
            }
            continue;
        }
        if folder.as_str().split('/').count() > DEPTH_MAX {
            return Err(DomainError::UnexpectedEntry { entry: folder.to_string(), kind: EntryKind::Folder });
        }
        folders.push((folder.clone(), Seen::Yes));
        for entry in driver.list(&folder).await? {
            let path = folder.join(&entry.name)?;
            if entry.kind == EntryKind::Folder {
                folders.push((path, Seen::No));
                continue;
            }
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
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    Yes,
}

async fn remove_empty<D: DomainDriver>(driver: &D, folder: &EntryPath) -> Result<(), DomainError> {
    match driver.remove_folder(folder).await {
        Err(error) if error.is(StorageErrorKind::NotFound) => Ok(()),
        // The NFS client keeps what is still open under a name of its own.
        Err(error) if error.is(StorageErrorKind::NotEmpty) => {
            let left = driver.list(folder).await?.into_iter().find(|entry| entry.name.starts_with(".nfs"));
            match left {
                Some(left) => Err(DomainError::StillOpen { entry: format!("{folder}/{}", left.name) }),
                None => Err(error.into()),
            }
        }
        answer => Ok(answer?),
    }
}
