//! `sdm gc`: garbage, what may come back of it, and its deletion.

mod audit;
mod hold;
mod plan;
mod run;
mod show;
mod status;
mod trash;

pub use show::garbage_of;

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use clap::Subcommand;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum GcCommand {
    /// How much garbage there is, of which kind and where, and what is in the way of its deletion
    Status,
    /// List garbage
    List(show::ListGarbage),
    /// Show one piece of garbage with its evidence
    Show {
        /// Its id
        id: String,
    },
    /// Write down what would be deleted, under an id; nothing is deleted
    Plan(plan::MakePlan),
    /// Show a plan again, each row as it is now
    ShowPlan {
        /// The plan's id
        plan: String,
    },
    /// Delete exactly what a plan names, or nothing if something of it changed
    Apply(plan::ApplyPlan),
    /// Delete all that is due, now, and wait until it is gone
    Run(run::RunCollection),
    /// Compare a domain's storage with the catalog: what is ours and lost, what is nobody's, what is missing
    Audit(audit::AuditDomain),
    /// Keep garbage from being deleted until it is given free
    Hold(hold::HoldGarbage),
    /// Give held garbage free
    Unhold(hold::UnholdGarbage),
    /// Deleted disks that can be put back
    #[command(subcommand)]
    Trash(trash::TrashCommand),
}

impl GcCommand {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Status => status::show(context).await,
            Self::List(list) => list.run(context).await,
            Self::Show { id } => show::show(context, &id).await,
            Self::Plan(plan) => plan.run(context).await,
            Self::ShowPlan { plan } => plan::show(context, plan::plan_id(&plan)?).await,
            Self::Apply(apply) => apply.run(context).await,
            Self::Run(run) => run.run(context).await,
            Self::Audit(audit) => audit.run(context).await,
            Self::Hold(hold) => hold.run(context).await,
            Self::Unhold(unhold) => unhold.run(context).await,
            Self::Trash(command) => command.run(context).await,
        }
    }
}
