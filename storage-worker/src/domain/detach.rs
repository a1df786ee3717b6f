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
use crate::work::DomainRoot;
use crate::work::ReadCatalog;
use crate::work::WriteCatalog;

use super::Domain;
use super::DomainError;
use super::DomainIdentity;
use super::adopt::create_next;
use super::names::CATALOG;
use super::names::MARK;
use super::names::NEXT_MARK;
use super::names::catalog_piece;
use super::open::Owner;
use super::rename::change_metadata;
use super::small_file::read_text_up_to;
use super::small_file::replace;

/// Longest piece that is read: as long as its frame on the way back may be.
const PIECE_BYTES_MAX: u64 = 200 << 10;

/// Gives a domain up; given up already is given up. What an earlier detach of this cluster left half done is finished,
/// with the catalog of this one.
///
/// # Errors
/// When the domain is not ours and was not, or the storage fails.
pub async fn detach_domain<S: Storage>(storage: &S, order: &DetachDomain) -> Result<(), DomainError> {
    let (domain, owner) = Domain::find(storage, &order.domain).await?;
    let (driver, root) = (domain.driver(), &order.domain);
    let catalog_blake3 = hash_of(&order.catalog);
    let identity = ours(&owner, root)?;
    if !identity.released || identity.catalog_blake3 != catalog_blake3 {
        write_catalog(driver, CATALOG, &order.catalog).await?;
        write_mark(driver, &DomainIdentity { released: true, catalog_blake3, ..identity.clone() }).await?;
    }
    change_metadata(driver, &[("POOL_UUID", String::new())], &order.attempt).await
}

/// Writes a piece of a catalog whose head comes last. Until then it says nothing to anybody.
///
/// # Errors
/// When the domain is not ours and was not, or the storage fails.
pub async fn write_catalog_piece<S: Storage>(storage: &S, order: &WriteCatalog) -> Result<(), DomainError> {
    let (domain, owner) = Domain::find(storage, &order.domain).await?;
    ours(&owner, &order.domain)?;
    write_catalog(domain.driver(), &catalog_piece(order.piece), &order.catalog).await
}

/// Reads a piece of the catalog of a domain that was taken.
///
/// # Errors
/// When the domain is not ours, has no such piece, or cannot be read.
pub async fn read_catalog_piece<S: Storage>(storage: &S, order: &ReadCatalog) -> Result<String, DomainError> {
    let domain = Domain::open(storage, &order.domain).await?;
    let path = EntryPath::root().join("dom_md")?.join(&catalog_piece(order.piece))?;
    match read_text_up_to(domain.driver(), &path, PIECE_BYTES_MAX).await {
        Err(error) if error.is_storage(StorageErrorKind::NotFound) => Err(DomainError::Corrupt {
            entry: path.to_string(),
            reason: "the catalog names it, and it is missing".into(),
        }),
        text => text,
    }
}

/// The mark of a domain that is ours, or was and is given up by a detach that did not come to its end.
fn ours<'a>(owner: &'a Owner, root: &DomainRoot) -> Result<&'a DomainIdentity, DomainError> {
    let was_ours = |identity: &&DomainIdentity| {
        identity.released
            && identity.pool == root.pool
            && identity.cluster == root.cluster
            && identity.domain == root.domain
            && owner.metadata.domain == root.domain
    };
    if let Some(released) = owner.identity.as_ref().filter(was_ours) {
        return Ok(released);
    }
    owner.require(root)?;
    owner.require_pool(root)
}

/// What a mark says of a catalog.
fn hash_of(catalog: &str) -> String {
    if catalog.is_empty() { String::new() } else { blake3::hash(catalog.as_bytes()).to_hex().to_string() }
}

async fn write_catalog<D: DomainDriver>(driver: &D, name: &str, catalog: &str) -> Result<(), DomainError> {
    let dom_md = EntryPath::root().join("dom_md")?;
    let path = dom_md.join(name)?;
    if !catalog.is_empty() {
        replace(driver, &path, &dom_md.join(&format!("{name}.new"))?, catalog.as_bytes()).await?;
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
