//! Taking a domain over from an earlier cluster of the pool, after a restore from a backup.
//!
//! The new mark is written under a name that only one can create, and renamed over the old one. In between the old
//! one is read again: nobody else can have replaced it, because replacing needs that name. So of two clusters that
//! were restored from one backup and take the domain at the same moment, one gets it, and the other finds the
//! first one's mark and is refused.

use uuid::Uuid;

use crate::driver::DomainDriver;
use crate::driver::EntryPath;
use crate::driver::Storage;
use crate::driver::StorageErrorKind;
use crate::work::AdoptDomain;

use super::Domain;
use super::DomainError;
use super::DomainIdentity;
use super::names::MARK;
use super::names::NEXT_MARK;
use super::open::read_owner;
use super::small_file::read_text;
use super::small_file::write_new;

/// Takes the domain; taken already is taken.
///
/// # Errors
/// When it is another cluster's than the order allows, or another cluster is taking it; nothing is changed then. When
/// it is not there, or the storage fails.
pub async fn adopt_domain<S: Storage>(storage: &S, order: &AdoptDomain) -> Result<(), DomainError> {
    let (domain, owner) = Domain::find(storage, &order.domain).await?;
    let driver = domain.driver();
    let dom_md = EntryPath::root().join("dom_md")?;
    if is_taken(owner.require_pool(&order.domain)?, order)? {
        return Ok(driver.sync_folder(&dom_md).await?);
    }
    let next = dom_md.join(NEXT_MARK)?;
    let adopted = adopted(owner.require_pool(&order.domain)?, order)?;
    let gives_way = |cluster| cluster == order.domain.cluster || order.from.contains(&cluster);
    create_next(driver, &next, &adopted, gives_way).await?;
    // From here on nobody else replaces the mark.
    let now = read_owner(driver, &EntryPath::root()).await?;
    let missing = || DomainError::DomainMissing { path: order.domain.path.clone(), domain: order.domain.domain };
    let taken = now.ok_or_else(missing).and_then(|now| is_taken(now.require_pool(&order.domain)?, order));
    match taken {
        Ok(false) => driver.rename(&next, &dom_md.join(MARK)?).await?,
        other => {
            driver.unlink(&next).await?;
            other?;
        }
    }
    driver.sync_folder(&dom_md).await?;
    match read_owner(driver, &EntryPath::root()).await? {
        Some(owner) => owner.require(&order.domain),
        None => Err(missing()),
    }
}

/// Whether it carries the order's cluster and epoch already; refused unless it may be taken.
fn is_taken(identity: &DomainIdentity, order: &AdoptDomain) -> Result<bool, DomainError> {
    let root = &order.domain;
    let ours = identity.cluster == root.cluster;
    if ours && identity.epoch == root.epoch {
        return Ok(true);
    }
    if (ours || order.from.contains(&identity.cluster)) && identity.epoch < root.epoch {
        return Ok(false);
    }
    let (cluster, epoch) = (identity.cluster, identity.epoch);
    Err(DomainError::OtherCluster { domain: root.domain, cluster, epoch })
}

fn adopted(identity: &DomainIdentity, order: &AdoptDomain) -> Result<Vec<u8>, DomainError> {
    let (cluster, epoch) = (order.domain.cluster, order.domain.epoch);
    let identity = DomainIdentity { cluster, epoch, ..identity.clone() };
    serde_json::to_vec(&identity)
        .map_err(|error| DomainError::Corrupt { entry: NEXT_MARK.to_owned(), reason: error.to_string() })
}

/// Creates the new mark, which only one can; what an earlier try of a cluster that may be ignored left gives way.
pub(super) async fn create_next<D: DomainDriver>(
    driver: &D,
    next: &EntryPath,
    bytes: &[u8],
    gives_way: impl Fn(Uuid) -> bool,
) -> Result<(), DomainError> {
    let mut created = write_new(driver, next, bytes).await;
    if created.as_ref().is_err_and(|error| error.is(StorageErrorKind::AlreadyExists)) {
        let text = match read_text(driver, next).await {
            Err(error) if error.is_storage(StorageErrorKind::NotFound) => String::new(),
            text => text?,
        };
        let taker = serde_json::from_str::<DomainIdentity>(&text).ok().map(|identity| identity.cluster);
        if !taker.is_some_and(gives_way) {
            let taker = taker.map_or("another cluster".to_owned(), |cluster| format!("cluster {cluster}"));
            return Err(DomainError::BeingAdopted { entry: next.to_string(), taker });
        }
        driver.unlink(next).await?;
        created = write_new(driver, next, bytes).await;
    }
    Ok(created?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::create_domain;
    use crate::domain::inspect_domain;
    use crate::driver::FileStorage;
    use crate::work::CreateDomain;
    use crate::work::DomainRoot;
    use crate::work::InspectDomain;
    use crate::work::Mounting;
    use std::path::Path;

    const OLD: u128 = 0xB;

    fn root(path: &Path, cluster: u128, epoch: u64) -> DomainRoot {
        let id = Uuid::from_u128;
        DomainRoot { path: path.to_owned(), domain: id(7), pool: id(0xA), cluster: id(cluster), epoch }
    }

    async fn made() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let order = CreateDomain {
            domain: root(folder.path(), OLD, 1),
            token: "1-5-0".to_owned(),
            dot_name: ".sdm-1-5-0".to_owned(),
            mounting: Mounting::Local,
            description: "fast".to_owned(),
        };
        create_domain(&FileStorage, &order).await.expect("made");
        folder
    }

    async fn adopt(folder: &tempfile::TempDir, cluster: u128, epoch: u64, from: &[u128]) -> Result<(), DomainError> {
        let from = from.iter().map(|id| Uuid::from_u128(*id)).collect();
        adopt_domain(&FileStorage, &AdoptDomain { domain: root(folder.path(), cluster, epoch), from }).await
    }

    async fn owner(folder: &tempfile::TempDir) -> (u128, u64) {
        let order = InspectDomain {
            domain: root(folder.path(), 0xFFFF, 9),
            after: String::new(),
            free_too: false,
            volumes: false,
        };
        let page = inspect_domain(&FileStorage, &order).await.expect("readable");
        (page.cluster.as_u128(), page.epoch)
    }

    #[tokio::test]
    async fn of_two_clusters_from_one_backup_the_first_gets_the_domain_and_the_second_is_told_who() {
        let folder = made().await;
        adopt(&folder, 1, 2, &[OLD]).await.expect("taken");
        adopt(&folder, 1, 2, &[OLD]).await.expect("a repetition changes nothing");
        for epoch in [2, 3] {
            let refused = adopt(&folder, 2, epoch, &[OLD]).await.expect_err("it is the twin's");
            assert!(
                matches!(refused, DomainError::OtherCluster { cluster, .. } if cluster.as_u128() == 1),
                "{refused}"
            );
        }
        assert_eq!(owner(&folder).await, (1, 2));
        // The old cluster's worker finds itself shut out.
        let opened = Domain::open(&FileStorage, &root(folder.path(), OLD, 1)).await;
        assert!(matches!(opened, Err(DomainError::OtherCluster { .. })));
        assert!(Domain::open(&FileStorage, &root(folder.path(), 1, 2)).await.is_ok());
        // Named by the operator, the twin gives it up, to a higher epoch only.
        assert!(adopt(&folder, 2, 2, &[OLD, 1]).await.is_err());
        adopt(&folder, 2, 3, &[OLD, 1]).await.expect("taken from the twin");
        assert_eq!(owner(&folder).await, (2, 3));
    }

    #[tokio::test]
    async fn who_finds_another_at_it_changes_nothing_and_ones_own_remains_give_way() {
        let folder = made().await;
        let next = folder.path().join(Uuid::from_u128(7).to_string()).join("dom_md").join(NEXT_MARK);
        let twin = DomainIdentity {
            pool: Uuid::from_u128(0xA),
            cluster: Uuid::from_u128(2),
            epoch: 2,
            domain: Uuid::from_u128(7),
            token: "1-5-0".to_owned(),
            released: false,
            former_pools: Vec::new(),
            catalog_blake3: String::new(),
        };
        for left in [serde_json::to_string(&twin).expect("text"), "{\"po".to_owned(), String::new()] {
            std::fs::write(&next, left).expect("written");
            let refused = adopt(&folder, 1, 2, &[OLD]).await.expect_err("somebody is at it");
            assert!(matches!(refused, DomainError::BeingAdopted { .. }), "{refused}");
            assert_eq!(owner(&folder).await, (OLD, 1));
        }
        let own = DomainIdentity { cluster: Uuid::from_u128(1), ..twin };
        std::fs::write(&next, serde_json::to_string(&own).expect("text")).expect("written");
        adopt(&folder, 1, 2, &[OLD]).await.expect("what an earlier try left gives way");
        assert!(!next.exists());
        assert_eq!(owner(&folder).await, (1, 2));
    }

    #[tokio::test]
    async fn another_pools_domain_is_neither_read_nor_taken() {
        let folder = made().await;
        let domain = DomainRoot { pool: Uuid::from_u128(0xC), ..root(folder.path(), 1, 2) };
        let order = AdoptDomain { domain, from: vec![Uuid::from_u128(OLD)] };
        let refused = adopt_domain(&FileStorage, &order).await.expect_err("another pool's");
        assert!(matches!(refused, DomainError::OtherPool { .. }), "{refused}");
        let order = InspectDomain { domain: order.domain, after: String::new(), free_too: false, volumes: false };
        assert!(inspect_domain(&FileStorage, &order).await.is_err());
    }
}
