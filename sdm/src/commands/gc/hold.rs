//! `sdm gc hold`, `sdm gc unhold`: what shall not be deleted for now.

use crate::commands::begin::Change;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::views::TransactionView;
use clap::Args;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;
use serde::Serialize;

/// Options of `hold`.
#[derive(Args, Debug)]
pub struct HoldGarbage {
    /// Its id (sdm gc list)
    id: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `unhold`.
#[derive(Args, Debug)]
pub struct UnholdGarbage {
    /// Its id (sdm gc list)
    id: String,
    #[command(flatten)]
    change: Change,
}

/// What was done about one row.
#[derive(Serialize)]
struct Ordered {
    transaction: TransactionView,
    #[serde(skip)]
    done: String,
}

impl Report for Ordered {
    fn text(&self) -> String {
        let txn = &self.transaction;
        if txn.phase == "committed" {
            return format!("{}{}\n", self.done, txn.mark());
        }
        format!("transaction {} is {}; look: sdm txn show {0}\n", txn.id, txn.phase)
    }
}

/// Prints that an order was carried out.
pub(super) fn print_done(context: &Context, txn: v1::Transaction, done: String) -> Result<ExitCode, Failure> {
    context.printer.print(&Ordered { transaction: txn.into(), done })
}

impl HoldGarbage {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        if header.reason.is_empty() {
            let refusal =
                Refusal::new(Class::Invalid, "REASON_MISSING", "--reason: whoever finds it held wants to know why");
            return Err(refusal.hint(format!("sdm gc hold {} --reason TEXT", self.id)).into());
        }
        let request = v1::HoldGarbageRequest { header: Some(header.clone()), id: self.id.clone() };
        let ask = context.cluster.call(async |link| GcServiceClient::new(link).hold_garbage(request.clone()).await);
        let label = format!("hold {}", self.id);
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        print_done(context, txn, format!("garbage {} is held until sdm gc unhold {0}", self.id))
    }
}

impl UnholdGarbage {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let request = v1::UnholdGarbageRequest { header: Some(header.clone()), id: self.id.clone() };
        let ask = context.cluster.call(async |link| GcServiceClient::new(link).unhold_garbage(request.clone()).await);
        let label = format!("unhold {}", self.id);
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        print_done(context, txn, format!("garbage {} is not held", self.id))
    }
}
