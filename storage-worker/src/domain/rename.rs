//! Changing what `dom_md/metadata` says: a name, or the pool.

use crate::driver::DomainDriver;
use crate::driver::EntryPath;
use crate::driver::Storage;
use crate::work::RenameDomain;

use super::Domain;
use super::DomainError;
use super::aside::Aside;
use super::aside::clear;
use super::aside::is_aside;
use super::metadata::edited;
use super::names::DOMAIN_METADATA;
use super::small_file::read_text;

/// Writes a domain's name; written already is written.
///
/// # Errors
/// When the domain is not ours, or the storage fails.
pub async fn rename_domain<S: Storage>(storage: &S, order: &RenameDomain) -> Result<(), DomainError> {
    let domain = Domain::open(storage, &order.domain).await?;
    let changes = [("DESCRIPTION", order.description.clone())];
    let Some(aside) = write_aside(domain.driver(), &changes, &order.attempt).await? else {
        return synced(domain.driver()).await;
    };
    // What was read may be that of a domain which somebody gave up or took over meanwhile.
    aside.publish(domain.driver(), domain.require_ours().await).await?;
    synced(domain.driver()).await
}

/// Replaces the metadata file by one with these keys changed, durably. For an attempt beside which there is no other.
pub(super) async fn change_metadata<D: DomainDriver>(
    driver: &D,
    changes: &[(&str, String)],
    attempt: &str,
) -> Result<(), DomainError> {
    if let Some(aside) = write_aside(driver, changes, attempt).await? {
        aside.publish(driver, Ok(())).await?;
    }
    synced(driver).await
}

/// Writes the metadata file with these keys changed aside; none when it says so already.
async fn write_aside<D: DomainDriver>(
    driver: &D,
    changes: &[(&str, String)],
    attempt: &str,
) -> Result<Option<Aside>, DomainError> {
    let dom_md = EntryPath::root().join("dom_md")?;
    let path = dom_md.join(DOMAIN_METADATA)?;
    clear(driver, &dom_md, |name| is_aside(name, DOMAIN_METADATA)).await?;
    let text = read_text(driver, &path).await?;
    let changed = edited(&text, changes)
        .map_err(|error| DomainError::Corrupt { entry: path.to_string(), reason: error.to_string() })?;
    if changed == text {
        return Ok(None);
    }
    let aside = Aside::of(&dom_md, DOMAIN_METADATA, attempt)?;
    aside.write(driver, changed.as_bytes()).await?;
    Ok(Some(aside))
}

/// Also when nothing was to be written: what was found may have been renamed by a call that did not live to sync.
async fn synced<D: DomainDriver>(driver: &D) -> Result<(), DomainError> {
    Ok(driver.sync_folder(&EntryPath::root().join("dom_md")?).await?)
}
