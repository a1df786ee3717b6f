//! A new domain: built aside under a dot name, published by one rename.

use crate::driver::DomainDriver;
use crate::driver::DomainFile;
use crate::driver::EntryKind;
use crate::driver::EntryPath;
use crate::driver::OpenHow;
use crate::driver::Storage;
use crate::driver::StorageErrorKind;
use crate::work::CreateDomain;
use crate::work::DomainReport;
use crate::work::DomainRoot;

use super::DomainError;
use super::DomainIdentity;
use super::DomainMetadata;
use super::DotName;
use super::FILE_MODE;
use super::FOLDER_MODE;
use super::delete_domain::remove_domain_folder;
use super::metadata::DEFAULT_BLOCK_BYTES;
use super::names::MARK;
use super::open::Owner;
use super::open::open_path;
use super::open::read_owner;
use super::open::report;
use super::open::require_mounting;
use super::small_file::write_new;

/// vdsm's mailbox files: 4 KiB for each of 4096 hosts.
const MAILBOX_BYTES: u64 = 16 * 1024 * 1024;

/// Files of `dom_md` besides `metadata` and the mark, with their sizes. A LOCALFS domain's `ids` and `leases` stay empty.
pub(super) const EMPTY_FILES: [(&str, u64); 4] =
    [("ids", 0), ("leases", 0), ("inbox", MAILBOX_BYTES), ("outbox", MAILBOX_BYTES)];

/// Makes a domain. A repetition with the same token finds it made and answers the same.
///
/// # Errors
/// When the path is missing, no folder, not writable, no mount point though one is required, or holds another domain.
pub async fn create_domain<S: Storage>(storage: &S, order: &CreateDomain) -> Result<DomainReport, DomainError> {
    let root = &order.domain;
    let dot: DotName = order.dot_name.parse()?;
    if root.path.to_str().is_none_or(|path| path.chars().any(char::is_control)) {
        return Err(DomainError::PathUnprintable(root.path.clone()));
    }
    let driver = open_path(storage, &root.path).await?;
    require_mounting(&driver, &root.path, order.mounting).await?;
    let is_made = refuse_other_domains(&driver, order).await?;
    if !is_made {
        let aside = EntryPath::root().join(dot.as_str())?;
        build(&driver, &aside, order).await?;
        publish(&driver, &aside, order).await?;
    }
    driver.sync_folder(&EntryPath::root()).await?;
    report(&driver).await
}

/// Gives the domain its name, and looks once more: another creation may have come in between, whose path to this very
/// folder is spelled in another way, on this host or another. Of two that both published, each that looks after the
/// other's rename sees it and withdraws; so at most one stays, and perhaps none. Which token is the smaller one cannot
/// decide: the other may have looked before our rename, and be believed already.
async fn publish<D: DomainDriver>(driver: &D, aside: &EntryPath, order: &CreateDomain) -> Result<(), DomainError> {
    let published = EntryPath::root().join(&order.domain.domain.to_string())?;
    driver.rename(aside, &published).await?;
    driver.sync_folder(&EntryPath::root()).await?;
    let Err(rival) = refuse_other_domains(driver, order).await else { return Ok(()) };
    driver.rename(&published, aside).await?;
    driver.sync_folder(&EntryPath::root()).await?;
    // What stays of it under its dot name is garbage that nobody takes for a domain.
    if let Err(error) = remove_domain_folder(driver, aside).await {
        tracing::debug!(error = %error, "a withdrawn domain's folder stays for the collector");
    }
    Err(rival)
}

/// Looks at everything that lies at the path. Returns whether this very step made the domain already.
async fn refuse_other_domains<D: DomainDriver>(driver: &D, order: &CreateDomain) -> Result<bool, DomainError> {
    let mut is_made = false;
    for entry in driver.list(&EntryPath::root()).await? {
        if entry.kind != EntryKind::Folder || entry.name == order.dot_name {
            continue;
        }
        let Ok(folder) = EntryPath::root().join(&entry.name) else { continue };
        let owner = match read_owner(driver, &folder).await {
            Ok(Some(owner)) => owner,
            Ok(None) => continue,
            // A folder of somebody else's (`lost+found`), or another mount: no domain on this file system.
            Err(error) if error.is_storage(StorageErrorKind::AccessDenied) => continue,
            Err(DomainError::Storage(error)) if matches!(error.kind, StorageErrorKind::UnexpectedEntry(_)) => continue,
            Err(DomainError::Corrupt { .. }) => {
                return Err(DomainError::Foreign { path: order.domain.path.clone(), domain: entry.name });
            }
            Err(error) => return Err(error),
        };
        if is_ours(&owner, order) && entry.name == order.domain.domain.to_string() {
            is_made = true;
        } else if !entry.name.starts_with('.') || !is_of_pool(&owner, &order.domain) {
            return Err(in_use(&owner, &order.domain));
        }
    }
    Ok(is_made)
}

fn is_ours(owner: &Owner, order: &CreateDomain) -> bool {
    owner.require(&order.domain).is_ok()
        && owner.identity.as_ref().is_some_and(|identity| identity.token == order.token)
}

fn is_of_pool(owner: &Owner, root: &DomainRoot) -> bool {
    owner.identity.as_ref().is_some_and(|identity| identity.pool == root.pool)
}

fn in_use(owner: &Owner, root: &DomainRoot) -> DomainError {
    let (path, domain) = (root.path.clone(), owner.metadata.domain.to_string());
    match &owner.identity {
        None => DomainError::Foreign { path, domain },
        Some(identity) if identity.pool == root.pool => DomainError::PathInUse { path, domain },
        Some(identity) => DomainError::OtherPool { path, domain, pool: identity.pool },
    }
}

async fn build<D: DomainDriver>(driver: &D, aside: &EntryPath, order: &CreateDomain) -> Result<(), DomainError> {
    // What an interrupted try of this very step left.
    remove_domain_folder(driver, aside).await?;
    let root = &order.domain;
    driver.make_folder(aside, FOLDER_MODE).await.map_err(|source| match source.kind {
        StorageErrorKind::AccessDenied | StorageErrorKind::ReadOnly => {
            DomainError::NotWritable { path: root.path.clone(), source }
        }
        _ => DomainError::Storage(source),
    })?;
    let dom_md = aside.join("dom_md")?;
    driver.make_folder(&dom_md, FOLDER_MODE).await?;
    driver.make_folder(&aside.join("images")?, FOLDER_MODE).await?;
    let mut block_bytes = DEFAULT_BLOCK_BYTES;
    for (name, bytes) in EMPTY_FILES {
        let file = driver.open(&dom_md.join(name)?, OpenHow::create_volume(FILE_MODE)).await?;
        if bytes > 0 {
            file.extend_to(bytes)?;
            block_bytes = file.probe_block_bytes()?.unwrap_or(block_bytes);
        }
        file.sync()?;
    }
    let metadata = DomainMetadata {
        domain: root.domain,
        pool: Some(root.pool),
        description: order.description.clone(),
        remote_path: root.path.display().to_string(),
        block_bytes,
    };
    write_new(driver, &dom_md.join("metadata")?, metadata.encode().as_bytes()).await?;
    let identity = DomainIdentity {
        pool: root.pool,
        cluster: root.cluster,
        epoch: root.epoch,
        domain: root.domain,
        token: order.token.clone(),
        released: false,
        former_pools: Vec::new(),
        catalog_blake3: String::new(),
    };
    let identity = serde_json::to_vec(&identity)
        .map_err(|error| DomainError::Corrupt { entry: MARK.to_owned(), reason: error.to_string() })?;
    write_new(driver, &dom_md.join(MARK)?, &identity).await?;
    for folder in [aside.join("images")?, dom_md, aside.clone()] {
        driver.sync_folder(&folder).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::FileStorage;
    use crate::work::Mounting;
    use std::path::Path;
    use uuid::Uuid;

    fn order(path: &Path, number: u128) -> CreateDomain {
        let id = Uuid::from_u128;
        CreateDomain {
            domain: DomainRoot { path: path.to_owned(), domain: id(number), pool: id(0xA), cluster: id(0xB), epoch: 1 },
            token: format!("1-{number}-0"),
            dot_name: format!(".sdm-1-{number}-0"),
            mounting: Mounting::Local,
            description: "fast".to_owned(),
        }
    }

    /// Two creations that both looked before either published, by two spellings of one folder.
    #[tokio::test]
    async fn of_two_creations_in_one_folder_the_second_withdraws_whatever_its_token() {
        for (first, second) in [(1, 2), (2, 1)] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let (path, other) = (folder.path().join("a"), folder.path().join("b"));
            std::fs::create_dir(&path).expect("a folder");
            std::os::unix::fs::symlink(&path, &other).expect("a link");
            let (first, second) = (order(&path, first), order(&other, second));
            let mut prepared = Vec::new();
            for order in [&first, &second] {
                let driver = open_path(&FileStorage, &order.domain.path).await.expect("it opens");
                assert!(!refuse_other_domains(&driver, order).await.expect("nobody is there yet"));
                let aside = EntryPath::root().join(&order.dot_name).expect("a name");
                build(&driver, &aside, order).await.expect("it is built");
                prepared.push((driver, aside));
            }
            let [(driver, aside), (other_driver, other_aside)] = &prepared[..] else { unreachable!() };
            publish(driver, aside, &first).await.expect("it comes first");
            let refused = publish(other_driver, other_aside, &second).await.expect_err("the folder is taken");
            assert!(matches!(refused, DomainError::PathInUse { .. }), "{refused}");
            let left: Vec<_> =
                std::fs::read_dir(&path).expect("a folder").map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, [first.domain.domain.to_string().as_str()]);
        }
    }
}
