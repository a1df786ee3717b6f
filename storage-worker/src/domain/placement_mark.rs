//! `.sdm` in a placement: the evidence of who made it, and what was found out while it was made.
//!
//! It is written last, just before the placement is published: a published placement always has one. Its report
//! lets a repeated order answer without reading the volumes again.

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::work::VolumeReport;

/// The mark of a placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementMark {
    /// The pool.
    pub pool: Uuid,
    /// The cluster whose log assigned the token.
    pub cluster: Uuid,
    /// Its epoch then.
    pub epoch: u64,
    /// The domain in which it was made.
    pub domain: Uuid,
    /// The folder's published name.
    pub placement: Uuid,
    /// The token of the attempt or step that made it.
    pub token: String,
    /// The transaction.
    pub transaction: String,
    /// The disk, when it was made for one; marks of before do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Uuid>,
    /// The volumes, base first, as they were when it was published.
    pub volumes: Vec<VolumeReport>,
}
