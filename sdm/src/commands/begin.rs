//! The common end of every mutation that needs nobody's bytes: begun, perhaps waited for.

use crate::client::wait_for_outcome;
use crate::context::Context;
use crate::output::Failure;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;

/// Whether a command waits for the outcome.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Waiting {
    /// Return when the transaction is recorded, instead of waiting for its outcome
    #[arg(long, help_heading = "Change options")]
    no_wait: bool,
}

/// The transaction of an answer; a refusal to begin gets its request's id.
///
/// # Errors
/// The member refused, or answered without a transaction.
pub fn begun(request_id: &str, answer: Result<Option<v1::Transaction>, Failure>) -> Result<v1::Transaction, Failure> {
    let nothing = || Failure::new(Class::Internal, "EMPTY_ANSWER", "the member's answer holds no transaction");
    answer.and_then(|txn| txn.ok_or_else(nothing)).map_err(|failure| failure.of_request(request_id))
}

impl Waiting {
    /// Waits for the outcome, unless told not to; then the transaction is handed back as it is.
    ///
    /// # Errors
    /// It was refused or aborted, or nobody can tell any more.
    pub async fn outcome(
        &self,
        context: &Context,
        txn: v1::Transaction,
        label: &str,
    ) -> Result<v1::Transaction, Failure> {
        if !self.no_wait {
            return wait_for_outcome(&context.cluster, txn, label).await;
        }
        // A repetition may find it ended.
        crate::client::outcome_of(&txn).unwrap_or(Ok(()))?;
        Ok(txn)
    }
}
