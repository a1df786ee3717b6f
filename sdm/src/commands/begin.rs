//! The common end of every mutation that needs nobody's bytes: begun, perhaps waited for.

use crate::client::Begun;
use crate::client::repeat_hint;
use crate::client::wait_for_outcome;
use crate::context::Context;
use crate::output::Failure;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use std::future::Future;

/// Whether a command waits for the outcome.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Waiting {
    /// Return when the transaction is recorded, instead of waiting for its outcome
    #[arg(long, help_heading = "Change options")]
    no_wait: bool,
}

/// Asks for a transaction and notes what goes on from then on. A refusal to begin gets its request's id.
///
/// # Errors
/// The member refused, answered without a transaction, or nobody answered.
pub async fn begin(
    context: &Context,
    id: &str,
    begun: Begun,
    ask: impl Future<Output = Result<Option<v1::Transaction>, Failure>>,
) -> Result<v1::Transaction, Failure> {
    // Before the call: the answer can be lost while the transaction is not.
    context.attachment.set(Begun::Asked(id.to_owned()));
    match ask.await {
        Ok(Some(txn)) => {
            context.attachment.set(begun);
            Ok(txn)
        }
        Ok(None) => {
            let message = "the member's answer holds no transaction";
            Err(Failure::new(Class::Internal, "EMPTY_ANSWER", message).of_request(id))
        }
        Err(mut failure) => {
            if failure.refusal.class == Class::Unavailable {
                failure.refusal.hint = format!("{}; then {}", failure.refusal.hint, repeat_hint(id));
            }
            Err(failure.of_request(id))
        }
    }
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
            return wait_for_outcome(&context.cluster, txn, label, context.printer.format).await;
        }
        // A repetition may find it ended.
        crate::client::outcome_of(&txn).unwrap_or(Ok(()))?;
        Ok(txn)
    }
}
