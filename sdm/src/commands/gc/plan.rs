//! `sdm gc plan`, `sdm gc apply`: what would be deleted, written down row by row, and then exactly that.

use super::hold::print_done;
use crate::commands::begin;
use crate::commands::begin::Change;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::Table;
use crate::output::bytes_text;
use crate::output::clock_text;
use crate::output::one_line;
use crate::output::plural;
use crate::values::parse_reference;
use crate::views::GarbageView;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;
use serde::Serialize;

/// Options of `plan`.
#[derive(Args, Debug)]
pub struct MakePlan {
    /// Only in this domain (name or id)
    #[arg(long, value_name = "D")]
    domain: Option<String>,
    /// Only of this kind: closed-attempt, superseded, deleted, orphan
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Trash as well whose retention is not over
    #[arg(long)]
    trash: bool,
    #[command(flatten)]
    change: Change,
}

/// Options of `apply`.
#[derive(Args, Debug)]
pub struct ApplyPlan {
    /// The plan's id (sdm gc plan)
    plan: String,
    /// Do the rest where some rows are not what they were
    #[arg(long)]
    skip_changed: bool,
    #[command(flatten)]
    change: Change,
}

#[derive(Serialize)]
struct ItemView {
    #[serde(flatten)]
    garbage: GarbageView,
    /// What changed since the plan was made; empty when nothing did.
    changed: String,
    /// It is not there any more.
    gone: bool,
}

/// A plan as it is printed.
#[derive(Serialize)]
struct PlanView {
    plan: u64,
    transaction_id: String,
    domain: String,
    kind: String,
    trash: bool,
    items: Vec<ItemView>,
    left_out: u64,
    cut: bool,
    bytes: u64,
    made_ms: u64,
    expires_ms: u64,
    clock_ms: u64,
    applied_by: Option<String>,
}

impl From<v1::CollectionPlan> for PlanView {
    fn from(plan: v1::CollectionPlan) -> Self {
        let item = |item: v1::CollectionItem| ItemView {
            garbage: item.garbage.unwrap_or_default().into(),
            changed: item.changed,
            gone: item.gone,
        };
        Self {
            plan: plan.id,
            transaction_id: plan.transaction_id,
            domain: plan.domain,
            kind: plan.kind,
            trash: plan.trash,
            items: plan.items.into_iter().map(item).collect(),
            left_out: plan.left_out,
            cut: plan.cut,
            bytes: plan.bytes,
            made_ms: plan.made_ms,
            expires_ms: plan.expires_ms,
            clock_ms: plan.clock_ms,
            applied_by: Some(plan.applied_by).filter(|txn| !txn.is_empty()),
        }
    }
}

impl Report for PlanView {
    fn text(&self) -> String {
        let mut table = Table::new(&["GARBAGE", "KIND", "DOMAIN", ">BYTES", "NAMES", "EVIDENCE", "CHANGED"]);
        for item in &self.items {
            let (row, changed) = (&item.garbage, if item.gone { "it is gone" } else { &item.changed });
            let names = row.names.join(" ");
            let cells = [&row.id, &row.kind, &row.domain].map(Clone::clone).into_iter();
            let cells = cells.chain([bytes_text(row.bytes), names, row.evidence.clone(), one_line(changed)]);
            table.row(cells);
        }
        let mut text = table.render();
        let count = plural(self.items.len() as u64, "row");
        text.push_str(&format!("plan {}: {count}, {}", self.plan, bytes_text(self.bytes)));
        if self.left_out > 0 {
            let least = if self.cut { "at least " } else { "" };
            text.push_str(&format!("; {least}{} more need another plan", self.left_out));
        } else if self.cut {
            text.push_str("; not all was looked at: carry it out, or narrow it (--domain, --kind), and plan again");
        }
        match &self.applied_by {
            Some(txn) => text.push_str(&format!("; carried out in transaction {txn}\n")),
            None => text.push_str(&format!(
                "; NOTHING WAS DELETED\nit can be carried out for a while (it expires {}): sdm gc apply {}\n",
                clock_text(self.expires_ms, self.clock_ms),
                self.plan
            )),
        }
        text
    }
}

impl MakePlan {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let domain = self.domain.as_deref().map(|domain| parse_reference("--domain", domain)).transpose()?;
        let request = v1::PlanCollectionRequest {
            header: Some(header.clone()),
            domain: domain.unwrap_or_default(),
            kind: self.kind.clone().unwrap_or_default(),
            trash: self.trash,
        };
        let ask = async |link| {
            let mut client = GcServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.plan_collection(request.clone()).await
        };
        let asked = async {
            let answer = context.cluster.call(ask).await?;
            Ok(answer)
        };
        let begun = crate::client::Begun::Transaction(header.request_id.clone());
        let Some(txn) = begin::begin(context, &header, begun, asked).await? else { return Ok(ExitCode::Done) };
        let made = plans_entry(context, &txn).await?;
        context.printer.print(&PlanView::from(made))
    }
}

/// A plan as users name it.
pub(super) fn plan_id(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| {
        let message = format!("there is no plan {text:?}: plans have numbers");
        Refusal::new(Class::Invalid, "BAD_PLAN", message)
            .hint("make one, and take the number that it tells: sdm gc plan")
    })
}

/// The plan that a transaction made.
async fn plans_entry(context: &Context, txn: &v1::Transaction) -> Result<v1::CollectionPlan, Failure> {
    collection(context, v1::GetCollectionPlanRequest { id: 0, transaction_id: txn.id.clone() }).await
}

async fn collection(context: &Context, request: v1::GetCollectionPlanRequest) -> Result<v1::CollectionPlan, Failure> {
    let ask = async |link| {
        let mut client = GcServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
        client.get_collection_plan(request.clone()).await
    };
    let missing = || Failure::new(Class::NotFound, "PLAN_NOT_FOUND", "there is no such plan");
    context.cluster.call(ask).await?.collection.ok_or_else(missing)
}

/// Shows a plan again.
///
/// # Errors
/// No member answers, or there is none.
pub(super) async fn show(context: &Context, id: u64) -> Result<ExitCode, Failure> {
    let made = collection(context, v1::GetCollectionPlanRequest { id, ..Default::default() }).await?;
    context.printer.print(&PlanView::from(made))
}

impl ApplyPlan {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let (id, skip_changed) = (plan_id(&self.plan)?, self.skip_changed);
        let request = v1::ApplyCollectionPlanRequest { header: Some(header.clone()), id, skip_changed };
        let ask = async |link| GcServiceClient::new(link).apply_collection_plan(request.clone()).await;
        let (label, ask) = (format!("apply plan {id}"), context.cluster.call(ask));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let bytes = txn.outcome.as_ref().map_or(0, |outcome| outcome.bytes);
        let done =
            format!("plan {id} is carried out: {} are being deleted; look: sdm gc show-plan {id}", bytes_text(bytes));
        print_done(context, txn, done)
    }
}
