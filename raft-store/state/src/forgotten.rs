//! Domains that were given up without a word to their storage. What stands on that still says that it is this
//! cluster's; should it ever come back, it must not be taken for what the cluster once knew of it.

use crate::state::State;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use serde::Deserialize;
use serde::Serialize;

/// Rows that are kept: ten times the domains that a cluster has at once. None ever gives way to another, because what it
/// says is never over.
pub(crate) const FORGOTTEN_MAX: usize = 10_000;

/// A domain that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Which.
    pub domain: DomainId,
    /// Its name then.
    pub name: Name,
    /// Its path then.
    pub path: String,
    /// When, on the cluster's clock.
    pub at_ms: u64,
    /// Who said so, for people.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The transaction.
    pub txn: TxnId,
}

impl State {
    /// Refuses a domain that was given up: what the cluster did there since its last detach nobody knows any more.
    ///
    /// # Errors
    /// `DOMAIN_FORGOTTEN`, with by whom and why.
    pub fn refuse_forgotten(&self, domain: DomainId) -> Result<(), Refusal> {
        let Some(row) = self.forgotten.get(&domain) else { return Ok(()) };
        let seconds = self.meta.clock_ms.saturating_sub(row.at_ms) / 1000;
        let by = if row.by.is_empty() { String::new() } else { format!(" by {}", row.by) };
        let message = format!(
            "domain {domain} ({}) was forgotten {seconds} s ago{by} ({}): nobody knows any more which of the files in it \
             are disks as they were last",
            row.name, row.reason
        );
        Err(Refusal::new(Class::Precondition, "DOMAIN_FORGOTTEN", message)
            .hint(
                "nothing of it is touched; what is still needed: sdm disk import FILE --name NAME --domain ANOTHER \
                 --format FORMAT, then remove its folder by hand",
            )
            .blocker("transaction", row.txn.to_string(), "forgot it"))
    }
}
