//! Taking over a domain that no pool has: one that was detached, or one that others made and gave up.
//!
//! As with an adoption after a restore, the new mark is created under a name that only one can create; so of two
//! clusters that attach one domain at the same moment, one gets it.

use crate::driver::Storage;
use crate::work::AttachDomain;
use crate::work::DomainRoot;

use super::Domain;
use super::DomainError;
use super::DomainIdentity;
use super::detach::write_mark;
use super::metadata::value;
use super::open::Owner;
use super::rename::change_metadata;
use super::small_file::read_text;
use crate::driver::EntryPath;

/// Takes the domain; taken already is taken.
///
/// # Errors
/// When a pool has it, it is of a kind that cannot be taken, or the storage fails.
pub async fn attach_domain<S: Storage>(storage: &S, order: &AttachDomain) -> Result<(), DomainError> {
    let root = &order.domain;
    let (domain, owner) = Domain::find(storage, root).await?;
    if owner.metadata.domain != root.domain {
        return Err(corrupt(root, "its metadata names another domain than its folder".to_owned()));
    }
    // Half taken or given up: what the cluster is about to believe of it must be what its last detach wrote.
    let named = owner.identity.as_ref().map(|identity| identity.catalog_blake3.as_str()).unwrap_or_default();
    let ours = is_ours(&owner, root);
    let released = owner.identity.as_ref().is_some_and(|identity| identity.released);
    if (ours || released) && named != order.catalog_blake3 {
        return Err(DomainError::CatalogChanged { domain: root.domain });
    }
    if !ours {
        let former_pools = takeable(&owner, order)?;
        if owner.identity.is_none() {
            let metadata = EntryPath::parse("dom_md/metadata")?;
            require_kind(root, &read_text(domain.driver(), &metadata).await?)?;
        }
        let identity = DomainIdentity {
            pool: root.pool,
            cluster: root.cluster,
            epoch: root.epoch,
            domain: root.domain,
            token: order.token.clone(),
            released: false,
            former_pools,
            catalog_blake3: order.catalog_blake3.clone(),
        };
        write_mark(domain.driver(), &identity).await?;
    }
    let changes = [
        ("POOL_UUID", root.pool.to_string()),
        ("DESCRIPTION", order.description.clone()),
        ("REMOTE_PATH", root.path.display().to_string()),
    ];
    change_metadata(domain.driver(), &changes, &order.token).await?;
    // Somebody else's mark may have come in between.
    Domain::open(storage, root).await.map(|_| ())
}

/// An earlier try took it already, whichever attempt that was: the cluster has it.
fn is_ours(owner: &Owner, root: &DomainRoot) -> bool {
    owner.identity.as_ref().is_some_and(|identity| {
        !identity.released
            && identity.pool == root.pool
            && identity.cluster == root.cluster
            && identity.epoch == root.epoch
            && identity.domain == root.domain
    })
}

/// Whether nobody has it; returns the pools that had it before.
fn takeable(owner: &Owner, order: &AttachDomain) -> Result<Vec<uuid::Uuid>, DomainError> {
    let root = &order.domain;
    match &owner.identity {
        Some(identity) if identity.released => {
            let mut pools = identity.former_pools.clone();
            pools.push(identity.pool);
            pools.retain(|pool| *pool != root.pool);
            pools.dedup();
            Ok(pools)
        }
        Some(identity) => Err(DomainError::Taken { domain: root.domain, pool: identity.pool.to_string() }),
        None => match owner.metadata.pool {
            Some(pool) if !pool.is_nil() => Err(DomainError::Taken { domain: root.domain, pool: pool.to_string() }),
            _ if order.foreign => Ok(Vec::new()),
            _ => Err(DomainError::Foreign { path: root.path.clone(), domain: root.domain.to_string() }),
        },
    }
}

/// Of the domains of others, those can be taken that need no leases of theirs.
fn require_kind(root: &DomainRoot, metadata: &str) -> Result<(), DomainError> {
    for (key, wanted) in [("VERSION", "5"), ("CLASS", "Data"), ("TYPE", "LOCALFS")] {
        let found = value(metadata, key);
        if found != wanted {
            return Err(corrupt(
                root,
                format!("{key} is `{}`, and only `{wanted}` can be taken", found.escape_debug()),
            ));
        }
    }
    Ok(())
}

fn corrupt(root: &DomainRoot, reason: String) -> DomainError {
    DomainError::Corrupt { entry: format!("{}/{}/dom_md/metadata", root.path.display(), root.domain), reason }
}
