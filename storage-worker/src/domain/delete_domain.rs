//! Deleting a whole domain's folder that a creation made which did not win: by evidence, and never with a placement in it.

use crate::driver::DomainDriver;
use crate::driver::EntryKind;
use crate::driver::EntryPath;
use crate::driver::Storage;
use crate::driver::StorageErrorKind;
use crate::work::DeleteDomain;
use crate::work::DeletionReport;

use super::DomainError;
use super::DomainIdentity;
use super::DotName;
use super::aside::is_aside;
use super::create::EMPTY_FILES;
use super::names::CATALOG;
use super::names::DOMAIN_METADATA;
use super::names::MARK;
use super::names::NEXT_CATALOG;
use super::names::NEXT_MARK;
use super::names::is_catalog_piece;
use super::open::open_path;
use super::open::read_owner;
use super::open::require_mounting;

/// Files of ours in `dom_md` besides those that vdsm knows.
const OWN_FILES: [&str; 4] = [MARK, NEXT_MARK, CATALOG, NEXT_CATALOG];

/// Deletes; done already is done. The order of its steps is that of a placement's deletion, for the same reason.
///
/// # Errors
/// When the path is no mount point though one is required (what was made lies on storage that is not there now), the
/// folder was made by another token, holds a placement or anything unknown (nothing is touched then), or the
/// storage fails.
pub async fn delete_domain<S: Storage>(storage: &S, order: &DeleteDomain) -> Result<DeletionReport, DomainError> {
    let driver = open_path(storage, &order.domain.path).await?;
    require_mounting(&driver, &order.domain.path, order.mounting).await?;
    let dot = EntryPath::root().join(order.dot_name.parse::<DotName>()?.as_str())?;
    let aside = EntryPath::root().join(order.deletion_dot_name.parse::<DotName>()?.as_str())?;
    let published = EntryPath::root().join(&order.domain.domain.to_string())?;
    let mut files = remove_domain_folder(&driver, &aside).await?;
    for (folder, evidence) in [(dot, Evidence::TheName), (published, Evidence::TheMark)] {
        if driver.stat(&folder).await?.is_none() {
            continue;
        }
        require_origin(&driver, &folder, evidence, order).await?;
        refuse_unknown(&driver, &folder).await?;
        match driver.rename(&folder, &aside).await {
            // Published in the meantime, or done by a retransmission of this very call.
            Err(error) if error.is(StorageErrorKind::NotFound) => {}
            answer => answer?,
        }
        driver.sync_folder(&EntryPath::root()).await?;
        files = files.saturating_add(remove_domain_folder(&driver, &aside).await?);
    }
    driver.sync_folder(&EntryPath::root()).await?;
    Ok(DeletionReport { files, freed_bytes: 0 })
}

/// What proves that a folder is the token's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// A dot name is derived from its token; it may be half made.
    TheName,
    /// A published folder says who made it.
    TheMark,
}

async fn require_origin<D: DomainDriver>(
    driver: &D,
    folder: &EntryPath,
    evidence: Evidence,
    order: &DeleteDomain,
) -> Result<(), DomainError> {
    let identity = match read_owner(driver, folder).await {
        Ok(owner) => owner.and_then(|owner| owner.identity),
        Err(DomainError::Corrupt { .. }) if evidence == Evidence::TheName => None,
        Err(error) => return Err(error),
    };
    let is_ours = |identity: &DomainIdentity| {
        let root = &order.domain;
        identity.token == order.token && identity.domain == root.domain && identity.pool == root.pool
    };
    match identity {
        Some(identity) if is_ours(&identity) => Ok(()),
        None if evidence == Evidence::TheName => Ok(()),
        found => Err(DomainError::EvidenceMismatch {
            entry: folder.to_string(),
            expected: order.token.clone(),
            found: found.map_or_else(|| "no mark".to_owned(), |identity| identity.token),
        }),
    }
}

/// Looks at every name before any is touched: the files that a creation makes, and no placement.
async fn refuse_unknown<D: DomainDriver>(driver: &D, folder: &EntryPath) -> Result<(), DomainError> {
    for entry in driver.list(folder).await? {
        let path = folder.join(&entry.name)?;
        let is_known = |name: &str| match entry.name.as_str() {
            "dom_md" => {
                name == DOMAIN_METADATA
                    || is_aside(name, DOMAIN_METADATA)
                    || is_catalog_piece(name)
                    || OWN_FILES.contains(&name)
                    || EMPTY_FILES.iter().any(|(file, _)| *file == name)
            }
            _ => false,
        };
        if entry.kind != EntryKind::Folder || !matches!(entry.name.as_str(), "dom_md" | "images") {
            return Err(DomainError::UnexpectedEntry { entry: path.to_string(), kind: entry.kind });
        }
        for file in driver.list(&path).await? {
            if file.kind != EntryKind::File || !is_known(&file.name) {
                let entry = format!("{path}/{}", file.name);
                return Err(DomainError::UnexpectedEntry { entry, kind: file.kind });
            }
        }
    }
    Ok(())
}

/// Takes away a domain's folder that is ours and holds no placement; not there is fine. Returns how many files went.
pub(super) async fn remove_domain_folder<D: DomainDriver>(driver: &D, folder: &EntryPath) -> Result<u32, DomainError> {
    if driver.stat(folder).await?.is_none() {
        return Ok(0);
    }
    refuse_unknown(driver, folder).await?;
    let mut files = 0_u32;
    for part in ["dom_md", "images"] {
        let part = folder.join(part)?;
        if driver.stat(&part).await?.is_none() {
            continue;
        }
        for file in driver.list(&part).await? {
            driver.unlink(&part.join(&file.name)?).await?;
            files = files.saturating_add(1);
        }
        driver.remove_folder(&part).await?;
    }
    driver.remove_folder(folder).await?;
    Ok(files)
}
