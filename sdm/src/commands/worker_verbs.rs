//! `sdm worker show`, `drain`, `undrain`, `remove` and `confirm-down`.

use super::begin::Change;
use super::confirmed::Confirmed;
use crate::client::ChangeAnswer;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::values::parse_reference;
use crate::views::Shown;
use crate::views::TransactionView;
use crate::views::WorkerView;
use clap::Args;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::worker_service_client::WorkerServiceClient;
use serde::Serialize;
use std::future::Future;

/// Options of `drain` and `undrain`.
#[derive(Args, Debug)]
pub struct ChangeWorker {
    /// Its name or id
    worker: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `remove`.
#[derive(Args, Debug)]
pub struct RemoveWorker {
    /// Its name or id
    worker: String,
    #[command(flatten)]
    confirmed: Confirmed,
    #[command(flatten)]
    change: Change,
}

/// Options of `confirm-down`.
#[derive(Args, Debug)]
#[command(after_help = "Say this only of a host that is powered off, or that nothing on it can reach the storage:\n\
    what it may still have been writing goes on elsewhere. A host that runs on then writes over it.\n\
    Example: sdm worker confirm-down kvm3 --session 4711 --reason \"pulled the plug\"")]
pub struct ConfirmDown {
    /// Its name or id
    worker: String,
    /// The session that `sdm worker show` tells: proof that you looked at what is so now
    #[arg(long, value_name = "N")]
    session: String,
    #[command(flatten)]
    change: Change,
}

/// What they print.
#[derive(Serialize)]
struct WorkerResult {
    transaction: TransactionView,
    worker: Option<WorkerView>,
}

impl Report for WorkerResult {
    fn text(&self) -> String {
        match &self.worker {
            Some(worker) => {
                let mark = self.transaction.mark();
                format!("worker {} is {}{mark}\nnext: sdm worker show {0}\n", worker.name, worker.state_words())
            }
            None => {
                let TransactionView { summary, phase, .. } = &self.transaction;
                format!("{summary}: {phase}{}\nnext: sdm worker list\n", self.transaction.mark())
            }
        }
    }
}

/// `sdm worker show`.
pub(super) async fn show(context: &Context, worker: &str) -> Result<ExitCode, Failure> {
    context.printer.print(&Shown(worker_of(context, &parse_reference("WORKER", worker)?).await?))
}

async fn worker_of(context: &Context, reference: &str) -> Result<WorkerView, Failure> {
    let request = v1::GetWorkerRequest { worker: reference.to_owned() };
    let get = async |link| WorkerServiceClient::new(link).get_worker(request.clone()).await;
    let answer = context.cluster.call(get).await?;
    let missing = || Failure::new(Class::NotFound, "WORKER_NOT_FOUND", format!("there is no worker {reference}"));
    Ok(answer.worker.ok_or_else(missing)?.into())
}

async fn finish<A: ChangeAnswer>(
    context: &Context,
    change: &Change,
    (header, label, worker): (&v1::MutationHeader, &str, &str),
    ask: impl Future<Output = Result<A, Failure>>,
) -> Result<ExitCode, Failure> {
    let Some(txn) = change.carry_out(context, header, label, ask).await? else { return Ok(ExitCode::Done) };
    let worker = worker_of(context, worker).await.ok();
    context.printer.print(&WorkerResult { transaction: txn.into(), worker })
}

impl ChangeWorker {
    pub(super) async fn drain(self, context: &Context) -> Result<ExitCode, Failure> {
        let (header, worker) = (self.change.mutation.header()?, parse_reference("WORKER", &self.worker)?);
        let request = v1::DrainWorkerRequest { header: Some(header.clone()), worker };
        let drain = async |link| WorkerServiceClient::new(link).drain_worker(request.clone()).await;
        let (label, ask) = (format!("drain {}", self.worker), context.cluster.call(drain));
        finish(context, &self.change, (&header, &label, &request.worker), ask).await
    }

    pub(super) async fn undrain(self, context: &Context) -> Result<ExitCode, Failure> {
        let (header, worker) = (self.change.mutation.header()?, parse_reference("WORKER", &self.worker)?);
        let request = v1::UndrainWorkerRequest { header: Some(header.clone()), worker };
        let undrain = async |link| WorkerServiceClient::new(link).undrain_worker(request.clone()).await;
        let (label, ask) = (format!("undrain {}", self.worker), context.cluster.call(undrain));
        finish(context, &self.change, (&header, &label, &request.worker), ask).await
    }
}

impl RemoveWorker {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (header, worker) = (self.change.mutation.header()?, parse_reference("WORKER", &self.worker)?);
        if !header.dry_run && !self.change.mutation.is_repetition() {
            self.confirmed.require(&format!("worker {} is forgotten", self.worker), &self.worker)?;
        }
        let request = v1::RemoveWorkerRequest { header: Some(header.clone()), worker };
        let remove = async |link| WorkerServiceClient::new(link).remove_worker(request.clone()).await;
        let (label, ask) = (format!("remove {}", self.worker), context.cluster.call(remove));
        finish(context, &self.change, (&header, &label, &request.worker), ask).await
    }
}

impl ConfirmDown {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (header, worker) = (self.change.mutation.header()?, parse_reference("WORKER", &self.worker)?);
        if header.reason.trim().is_empty() {
            return Err(Refusal::new(Class::Invalid, "REASON_NEEDED", "confirm-down needs a reason")
                .hint("--reason TEXT: how do you know that the host is down? It is kept in the audit log")
                .into());
        }
        let session_id = self.session.clone();
        let request = v1::ConfirmWorkerDownRequest { header: Some(header.clone()), worker, session_id };
        let confirm = async |link| WorkerServiceClient::new(link).confirm_worker_down(request.clone()).await;
        let (label, ask) = (format!("confirm {} down", self.worker), context.cluster.call(confirm));
        finish(context, &self.change, (&header, &label, &request.worker), ask).await
    }
}
