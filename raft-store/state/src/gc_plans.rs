//! Plans of a collection: which rows would be deleted, each with a hash of what it said then. Whoever
//! looked at a plan has it carried out exactly, or learns what is not any more what it was.

use crate::garbage::Garbage;
use crate::garbage::Kind;
use crate::work::Work;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use serde::Deserialize;
use serde::Serialize;

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GcPlan {
    /// Index of the entry that made it.
    pub id: u64,
    /// The transaction that made it.
    pub txn: TxnId,
    /// When, on the cluster's clock.
    pub made_ms: u64,
    /// From when on it is not carried out any more.
    pub expires_ms: u64,
    /// Only this domain was looked at.
    pub domain: Option<DomainId>,
    /// Only this kind was.
    pub kind: Option<Kind>,
    /// Trash within its retention was taken in.
    pub trash: bool,
    /// What it deletes, by rising id.
    pub items: Vec<PlanItem>,
    /// Rows that would belong in it and found no place: another plan takes them.
    pub left_out: u64,
    /// The heap was too large to be looked at as a whole: more may belong in it than were counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// The transaction that carried it out.
    pub applied: Option<TxnId>,
}

/// A row of garbage in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanItem {
    /// Which.
    pub garbage: Token,
    /// What it names: live again if it was restored since.
    pub placement: Option<PlacementId>,
    /// Hash of what it said when the plan was made.
    pub hash: [u8; 32],
}

impl Garbage {
    /// Hash of what the row says about itself: what it names, why, from when on it may go, and whether it
    /// is held. How far its deletion has come does not count: that is what a plan asks for.
    #[must_use]
    pub fn content_hash(&self) -> [u8; 32] {
        let content = Self { work: Work::default(), doomed: None, emptied: false, ..self.clone() };
        let mut hasher = blake3::Hasher::new_derive_key("sdm 2026 garbage row");
        // Encoding into memory; see Table for why a failure need not be told apart.
        hasher.update(&rmp_serde::to_vec_named(&content).unwrap_or_default());
        *hasher.finalize().as_bytes()
    }
}
