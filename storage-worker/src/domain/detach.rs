//! Giving a domain up: its mark says released, its metadata names no pool. Its disks stay in it, and what the cluster
//! knows of them may be written beside.
//!
//! The mark comes first: from then on no worker of this cluster opens the domain any more, and whoever goes on with a
//! detach that was interrupted finds from the mark that it is one.

use crate::driver::DomainDriver;
use crate::driver::EntryPath;
use crate::driver::Storage;
use crate::driver::StorageErrorKind;
use crate::work::DetachDomain;

use super::Domain;
use super::DomainError;
use super::DomainIdentity;
use super::adopt::create_next;
use super::names::CATALOG;
use super::names::MARK;
use super::names::NEXT_CATALOG;
use super::names::NEXT_MARK;
use super::rename::change_metadata;
use super::small_file::replace;

/// Gives a domain up; given up already is given up. What an earlier detach of this cluster left half done is finished,
/// with the catalog of this one.
///
/// # Errors
/// When the domain is not ours and was not, or the storage fails.
pub async fn detach_domain<S: Storage>(storage: &S, order: &DetachDomain) -> Result<(), DomainError> {
    let (domain, owner) = Domain::find(storage, &order.domain).await?;
    let (driver, root) = (domain.driver(), &order.domain);
    let catalog_blake3 = hash_of(&order.catalog);
    let was_ours = |identity: &&DomainIdentity| {
        identity.released
            && identity.pool == root.pool
            && identity.cluster == root.cluster
            && identity.domain == root.domain
            && owner.metadata.domain == root.domain
    };
    let released = owner.identity.as_ref().filter(was_ours);
    if released.is_none_or(|identity| identity.catalog_blake3 != catalog_blake3) {
        let identity = match released {
            Some(identity) => identity,
            None => {
                owner.require(root)?;
                owner.require_pool(root)?
            }
        };
        write_catalog(driver, &order.catalog).await?;
        write_mark(driver, &DomainIdentity { released: true, catalog_blake3, ..identity.clone() }).await?;
    }
    change_metadata(driver, &[("POOL_UUID", String::new())]).await
}

/// What a mark says of a catalog.
fn hash_of(catalog: &str) -> String {
    if catalog.is_empty() { String::new() } else { blake3::hash(catalog.as_bytes()).to_hex().to_string() }
}

async fn write_catalog<D: DomainDriver>(driver: &D, catalog: &str) -> Result<(), DomainError> {
    let dom_md = EntryPath::root().join("dom_md")?;
    let path = dom_md.join(CATALOG)?;
    if !catalog.is_empty() {
        replace(driver, &path, &dom_md.join(NEXT_CATALOG)?, catalog.as_bytes()).await?;
        return Ok(driver.sync_folder(&dom_md).await?);
    }
    // One of an earlier detach says nothing of now.
    match driver.unlink(&path).await {
        Err(error) if error.is(StorageErrorKind::NotFound) => Ok(()),
        answer => Ok(answer?),
    }
}

/// Replaces the domain's mark, durably. Only one can at a time.
pub(super) async fn write_mark<D: DomainDriver>(driver: &D, identity: &DomainIdentity) -> Result<(), DomainError> {
    let dom_md = EntryPath::root().join("dom_md")?;
    let next = dom_md.join(NEXT_MARK)?;
    let bytes = serde_json::to_vec(identity)
        .map_err(|error| DomainError::Corrupt { entry: NEXT_MARK.to_owned(), reason: error.to_string() })?;
    create_next(driver, &next, &bytes, |cluster| cluster == identity.cluster).await?;
    driver.rename(&next, &dom_md.join(MARK)?).await?;
    Ok(driver.sync_folder(&dom_md).await?)
}
