//! What a detached domain carries along: the rows of the catalog that lie in it, so that a cluster that
//! attaches it knows its disks. Written to the domain before the rows leave the catalog.

use crate::domain_change::DomainContents;
use crate::state::State;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PoolId;
use sdm_proto::names::Name;
use serde::Deserialize;
use serde::Serialize;

/// Form of the catalog; another one is refused by whoever reads it.
pub const DOMAIN_CATALOG_VERSION: u32 = 1;

/// What a detached domain says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainCatalog {
    /// Its form.
    pub version: u32,
    /// The pool that gave the domain up.
    pub pool: PoolId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its epoch then.
    pub epoch: u64,
    /// The domain.
    pub domain: DomainId,
    /// The entry that began its detach: no two detaches write the same catalog, all attempts of one do.
    #[serde(default)]
    pub detached_at: u64,
    /// Its name then.
    pub name: Name,
    /// What lies in it.
    pub contents: DomainContents,
}

impl State {
    /// The catalog of a domain as it is now, for the detach that began with this entry.
    pub(crate) fn domain_catalog(&self, id: DomainId, detached_at: u64) -> Option<DomainCatalog> {
        let domain = self.domains.get(&id)?;
        Some(DomainCatalog {
            version: DOMAIN_CATALOG_VERSION,
            pool: self.meta.pool_id,
            cluster: self.cluster_id(),
            epoch: self.meta.epoch,
            domain: id,
            detached_at,
            name: domain.name.clone(),
            contents: self.contents_of(id),
        })
    }
}
