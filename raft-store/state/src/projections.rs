//! What placements say to others on the storage (`.meta`) and has changed in the catalog since it was
//! written: a row for each placement until a worker confirmed that the storage says it, too. Nobody
//! waits for that, and nothing is decided by what stands there.

use crate::work::Work;
use sdm_proto::ids::PlacementId;
use serde::Deserialize;
use serde::Serialize;

/// A placement whose words on the storage are to be written anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    /// Which.
    pub placement: PlacementId,
    /// The last entry that changed what it is to say: only an attempt that was assigned in this entry or
    /// later confirms it.
    pub wanted_index: u64,
    /// Since when, on the cluster's clock.
    pub since_ms: u64,
    /// Its attempts.
    pub work: Work,
}
