//! `dom_md/.sdm`: which cluster, in which epoch, a domain belongs to.

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

/// The mark of a domain that this project made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainIdentity {
    /// The pool.
    pub pool: Uuid,
    /// The cluster that owns it.
    pub cluster: Uuid,
    /// The cluster's epoch when it took the domain.
    pub epoch: u64,
    /// The domain.
    pub domain: Uuid,
    /// The token of the step that made it, or attached it.
    pub token: String,
    /// Given up by a detach: no pool has it. The rest says whose it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
    /// Pools that had it before, whose placements may still lie in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_pools: Vec<Uuid>,
    /// BLAKE3 of the catalog that its last detach wrote, in hexadecimal digits: an attach takes what it read, or nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub catalog_blake3: String,
}
