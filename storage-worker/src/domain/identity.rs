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
    /// The token of the step that made it.
    pub token: String,
}
