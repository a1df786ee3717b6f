//! An existing domain, opened: its path walked once, its identity checked through that descriptor.

use std::path::Path;

use uuid::Uuid;

use crate::driver::DomainDriver;
use crate::driver::EntryPath;
use crate::driver::Storage;
use crate::driver::StorageError;
use crate::driver::StorageErrorKind;
use crate::work::DomainReport;
use crate::work::DomainRoot;
use crate::work::Mounting;

use super::DomainError;
use super::DomainIdentity;
use super::DomainMetadata;
use super::names::MARK;
use super::small_file::read_text;

/// A domain that proved to be the one meant. Everything is reached beneath its own folder.
#[derive(Debug)]
pub struct Domain<D> {
    driver: D,
    root: DomainRoot,
    former_pools: Vec<Uuid>,
}

impl<D: DomainDriver> Domain<D> {
    /// Opens the domain's folder and checks who it belongs to.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is not this pool's, this cluster's and this epoch's.
    pub async fn open<S>(storage: &S, root: &DomainRoot) -> Result<Self, DomainError>
    where
        S: Storage<Driver = D>,
    {
        let (domain, owner) = Self::find(storage, root).await?;
        owner.require(root)?;
        Ok(domain)
    }

    /// Opens the domain's folder and reads whose it is, whoever that may be.
    pub(super) async fn find<S>(storage: &S, root: &DomainRoot) -> Result<(Self, Owner), DomainError>
    where
        S: Storage<Driver = D>,
    {
        let path = open_path(storage, &root.path).await?;
        let missing = || DomainError::DomainMissing { path: root.path.clone(), domain: root.domain };
        let folder = EntryPath::root().join(&root.domain.to_string())?;
        let driver = match path.beneath(&folder).await {
            Err(error) if error.is(StorageErrorKind::NotFound) => return Err(missing()),
            answer => answer?,
        };
        let owner = read_owner(&driver, &EntryPath::root()).await?.ok_or_else(missing)?;
        let former_pools = owner.identity.as_ref().map(|identity| identity.former_pools.clone()).unwrap_or_default();
        Ok((Self { driver, root: root.clone(), former_pools }, owner))
    }

    /// The driver, rooted at the domain's own folder.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// Who the domain is.
    pub fn root(&self) -> &DomainRoot {
        &self.root
    }

    /// Whether it still is this cluster's, as its own files say now.
    ///
    /// # Errors
    /// It is not, or cannot be read.
    pub(super) async fn require_ours(&self) -> Result<(), DomainError> {
        let missing = || DomainError::DomainMissing { path: self.root.path.clone(), domain: self.root.domain };
        read_owner(&self.driver, &EntryPath::root()).await?.ok_or_else(missing)?.require(&self.root)
    }

    /// Whether placements of this pool belong into it: those of its own, and of those that had it before.
    pub(super) fn knows_pool(&self, pool: Uuid) -> bool {
        pool == self.root.pool || self.former_pools.contains(&pool)
    }

    /// Its room and traits.
    ///
    /// # Errors
    /// What the storage answers.
    pub async fn report(&self) -> Result<DomainReport, DomainError> {
        report(&self.driver).await
    }

    /// A name under `images/`.
    pub(crate) fn image(&self, name: &str) -> Result<EntryPath, DomainError> {
        Ok(images().join(name)?)
    }
}

/// The folder of all placements.
pub(super) fn images() -> EntryPath {
    // One plain name is always a path.
    EntryPath::parse("images").unwrap_or_default()
}

pub(super) async fn report<D: DomainDriver>(driver: &D) -> Result<DomainReport, DomainError> {
    let space = driver.space().await?;
    Ok(DomainReport {
        total_bytes: space.total_bytes,
        free_bytes: space.free_bytes,
        file_system: space.file_system,
        block_bytes: space.block_bytes,
    })
}

/// Opens a domain's path, with what can be wrong with it told apart.
pub(super) async fn open_path<S: Storage>(storage: &S, path: &Path) -> Result<S::Driver, DomainError> {
    storage.open_root(path).await.map_err(|source: StorageError| match source.kind {
        StorageErrorKind::NotFound => DomainError::PathMissing(path.to_owned()),
        StorageErrorKind::NotAFolder => DomainError::NotADirectory(path.to_owned()),
        StorageErrorKind::AccessDenied => DomainError::NotWritable { path: path.to_owned(), source },
        _ => DomainError::Storage(source),
    })
}

/// Whether the storage that was meant is there: without it the path is a plain folder, in which nothing says anything.
pub(super) async fn require_mounting<D: DomainDriver>(
    driver: &D,
    path: &Path,
    mounting: Mounting,
) -> Result<(), DomainError> {
    if mounting == Mounting::Required && !driver.is_mount_point().await? {
        return Err(DomainError::NotAMountPoint(path.to_owned()));
    }
    Ok(())
}

/// What a domain's folder says of itself.
#[derive(Debug)]
pub(super) struct Owner {
    pub metadata: DomainMetadata,
    /// Absent in a domain that this project did not make.
    pub identity: Option<DomainIdentity>,
}

/// Reads who a folder belongs to; `None` when it is no domain.
pub(super) async fn read_owner<D: DomainDriver>(driver: &D, folder: &EntryPath) -> Result<Option<Owner>, DomainError> {
    let dom_md = folder.join("dom_md")?;
    let file = dom_md.join("metadata")?;
    let text = match read_text(driver, &file).await {
        Err(error) if is_absent(&error) => return Ok(None),
        answer => answer?,
    };
    let corrupt = |entry: &EntryPath, reason: String| DomainError::Corrupt { entry: entry.to_string(), reason };
    let metadata = DomainMetadata::decode(&text).map_err(|error| corrupt(&file, error.to_string()))?;
    let mark = dom_md.join(MARK)?;
    let identity = match read_text(driver, &mark).await {
        Ok(text) => Some(serde_json::from_str(&text).map_err(|error| corrupt(&mark, error.to_string()))?),
        Err(error) if is_absent(&error) => None,
        Err(error) => return Err(error),
    };
    Ok(Some(Owner { metadata, identity }))
}

fn is_absent(error: &DomainError) -> bool {
    error.is_storage(StorageErrorKind::NotFound) || error.is_storage(StorageErrorKind::NotAFolder)
}

impl Owner {
    /// Is it the domain meant, in the hands of this cluster and epoch?
    pub fn require(&self, root: &DomainRoot) -> Result<(), DomainError> {
        let identity = self.require_pool(root)?;
        if identity.cluster != root.cluster || identity.epoch != root.epoch {
            let (cluster, epoch) = (identity.cluster, identity.epoch);
            return Err(DomainError::OtherCluster { domain: root.domain, cluster, epoch });
        }
        Ok(())
    }

    /// Is it the domain meant, of this pool, whichever of its clusters has it?
    pub fn require_pool(&self, root: &DomainRoot) -> Result<&DomainIdentity, DomainError> {
        let domain = self.metadata.domain.to_string();
        let path = root.path.clone();
        let Some(identity) = &self.identity else {
            return Err(DomainError::Foreign { path, domain });
        };
        if identity.released {
            return Err(DomainError::Released { domain: root.domain });
        }
        if identity.pool != root.pool {
            return Err(DomainError::OtherPool { path, domain, pool: identity.pool });
        }
        if self.metadata.pool != Some(root.pool)
            || self.metadata.domain != root.domain
            || identity.domain != root.domain
        {
            return Err(DomainError::Corrupt {
                entry: format!("{}/{}/dom_md", path.display(), root.domain),
                reason: "its files name another domain or pool than its folder".to_owned(),
            });
        }
        Ok(identity)
    }
}
