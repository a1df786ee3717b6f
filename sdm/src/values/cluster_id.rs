//! Ids of clusters.

use crate::output::Failure;
use sdm_proto::ids::ClusterId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// Reads one; `option` names it in the refusal.
///
/// # Errors
/// It is none.
pub fn parse_cluster_id(option: &str, text: &str) -> Result<ClusterId, Failure> {
    text.parse().map_err(|_| {
        let message = format!("{option}: {text:?} is not the id of a cluster");
        Refusal::new(Class::Invalid, "BAD_CLUSTER_ID", message).hint("`sdm status` at its members shows it").into()
    })
}
