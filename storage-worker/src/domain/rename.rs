//! Changing what `dom_md/metadata` says: a name, or the pool.

use crate::driver::DomainDriver;
use crate::driver::EntryPath;
use crate::driver::Storage;
use crate::work::RenameDomain;

use super::Domain;
use super::DomainError;
use super::metadata::edited;
use super::names::NEXT_DOMAIN_METADATA;
use super::small_file::read_text;
use super::small_file::replace;

/// Writes a domain's name; written already is written.
///
/// # Errors
/// When the domain is not ours, or the storage fails.
pub async fn rename_domain<S: Storage>(storage: &S, order: &RenameDomain) -> Result<(), DomainError> {
    let domain = Domain::open(storage, &order.domain).await?;
    change_metadata(domain.driver(), &[("DESCRIPTION", order.description.clone())]).await
}

/// Replaces the metadata file by one with these keys changed, durably.
pub(super) async fn change_metadata<D: DomainDriver>(
    driver: &D,
    changes: &[(&str, String)],
) -> Result<(), DomainError> {
    let dom_md = EntryPath::root().join("dom_md")?;
    let path = dom_md.join("metadata")?;
    let text = read_text(driver, &path).await?;
    let changed = edited(&text, changes)
        .map_err(|error| DomainError::Corrupt { entry: path.to_string(), reason: error.to_string() })?;
    if changed != text {
        replace(driver, &path, &dom_md.join(NEXT_DOMAIN_METADATA)?, changed.as_bytes()).await?;
    }
    // Also when nothing was to be written: what was found may have been renamed by a call that did not live to sync.
    Ok(driver.sync_folder(&dom_md).await?)
}
