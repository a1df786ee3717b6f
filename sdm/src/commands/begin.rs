//! The common end of every mutation that needs nobody's bytes: begun, perhaps waited for.

use super::status::status_of;
use crate::client::Begun;
use crate::client::ChangeAnswer;
use crate::client::Mutation;
use crate::client::repeat_hint;
use crate::client::wait_for_outcome;
use crate::context::Context;
use crate::output::Failure;
use crate::views::DryRunView;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use std::future::Future;

/// From this feature level on every member knows dry runs.
const DRY_RUN_LEVEL: u32 = 2;

/// Whether a command waits for the outcome.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Waiting {
    /// Return when the transaction is recorded, instead of waiting for its outcome
    #[arg(long, help_heading = "Change options")]
    no_wait: bool,
}

/// Options of every change that needs nobody's bytes.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Change {
    #[command(flatten)]
    pub mutation: Mutation,
    #[command(flatten)]
    waiting: Waiting,
}

impl Change {
    /// Begins it and waits for its outcome, unless told not to. None after a dry run, whose plan is
    /// printed.
    ///
    /// # Errors
    /// It was refused or aborted, or nobody can tell.
    pub async fn carry_out<A: ChangeAnswer>(
        &self,
        context: &Context,
        header: &v1::MutationHeader,
        label: &str,
        ask: impl Future<Output = Result<A, Failure>>,
    ) -> Result<Option<v1::Transaction>, Failure> {
        let id = &header.request_id;
        let Some(txn) = begin(context, header, Begun::Transaction(id.clone()), ask).await? else { return Ok(None) };
        self.waiting.outcome(context, txn, label).await.map(Some)
    }
}

/// Asks for a transaction and notes what goes on from then on. A refusal to begin gets its request's id.
/// None after a dry run, whose plan is printed.
///
/// # Errors
/// The member refused, answered without a transaction, or nobody answered.
pub async fn begin<A: ChangeAnswer>(
    context: &Context,
    header: &v1::MutationHeader,
    begun: Begun,
    ask: impl Future<Output = Result<A, Failure>>,
) -> Result<Option<v1::Transaction>, Failure> {
    if header.dry_run {
        return show_plan(context, ask).await.map(|()| None);
    }
    let id = &header.request_id;
    // Before the call: the answer can be lost while the transaction is not.
    context.attachment.set(Begun::Asked(id.clone()));
    match ask.await.map(ChangeAnswer::parts) {
        Ok((Some(txn), _)) => {
            context.attachment.set(begun);
            Ok(Some(txn))
        }
        Ok((None, _)) => {
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

async fn show_plan<A: ChangeAnswer>(
    context: &Context,
    ask: impl Future<Output = Result<A, Failure>>,
) -> Result<(), Failure> {
    // A member of an earlier release does not know the field, and would do it. From this level on
    // there is none.
    let level = status_of(context).await?.feature_level;
    if level < DRY_RUN_LEVEL {
        let message = format!("dry runs need feature level {DRY_RUN_LEVEL}, and the cluster has level {level}");
        let refusal = Refusal::new(Class::Unsupported, "FEATURE_LEVEL", message);
        return Err(refusal.hint("upgrade all members (sdm status)").into());
    }
    let (_, plan) = ask.await?.parts();
    let missing = || Failure::new(Class::Internal, "EMPTY_ANSWER", "the member's answer holds no plan");
    context.printer.print(&DryRunView::from(plan.ok_or_else(missing)?)).map(|_| ())
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
