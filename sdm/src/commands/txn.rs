//! `sdm txn`: operations, open ones and past ones.

use crate::client::Begun;
use crate::client::abort;
use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::one_line;
use crate::values::parse_request_id;
use crate::views::TransactionStory;
use crate::views::TransactionView;
use clap::Subcommand;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1::GetTransactionRequest;
use sdm_proto::wire::v1::GetTransactionResponse;
use sdm_proto::wire::v1::ListTransactionsRequest;
use sdm_proto::wire::v1::transaction_service_client::TransactionServiceClient;
use serde::Serialize;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum TxnCommand {
    /// List transactions, newest last
    List {
        /// Only those without an outcome
        #[arg(long)]
        open: bool,
    },
    /// Tell one from its beginning
    Show {
        /// Its id: the request's
        id: String,
    },
    /// End one that has no outcome yet: what it made becomes garbage, its locks are released
    Abort {
        /// Its id: the request's
        id: String,
        /// Why, for its history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// What `abort` prints.
#[derive(Serialize)]
#[serde(transparent)]
struct Aborted(TransactionView);

impl Report for Aborted {
    fn text(&self) -> String {
        let Self(txn) = self;
        let why = txn.refusal.as_ref().map(|refusal| format!(": {}", one_line(&refusal.message))).unwrap_or_default();
        format!("transaction {} is {}{why}\n", txn.id, txn.phase)
    }
}

impl TxnCommand {
    /// Does it.
    ///
    /// # Errors
    /// No member answers, or there is no such transaction.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::List { open } => list(context, open).await,
            Self::Show { id } => show(context, &parse_id(&id)?).await,
            Self::Abort { id, reason } => {
                let id = parse_id(&id)?;
                context.attachment.set(Begun::Change(format!("sdm txn show {id}")));
                let txn = abort(&context.cluster, &id, reason.as_deref().unwrap_or_default()).await?;
                context.printer.print(&Aborted(txn.into()))
            }
        }
    }
}

async fn list(context: &Context, open_only: bool) -> Result<ExitCode, Failure> {
    let list = all_pages::<_, TransactionView, _>(async |page| {
        let request = ListTransactionsRequest { page: Some(page), open_only };
        let answer = context.cluster.call(async |link| {
            let mut client = TransactionServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.list_transactions(request.clone()).await
        });
        answer.await.map(|answer| (answer.items, answer.page))
    });
    context.printer.print(&list.await?)
}

fn parse_id(id: &str) -> Result<String, Refusal> {
    parse_request_id(id).map_err(|_| {
        let message = format!("{id:?} is not the id of a transaction: those are UUIDs");
        Refusal::new(Class::Invalid, "BAD_TRANSACTION_ID", message).hint("`sdm txn list` lists them")
    })
}

async fn show(context: &Context, id: &str) -> Result<ExitCode, Failure> {
    let answer = transaction_of(context, id).await?;
    let Some(txn) = answer.transaction else {
        return Err(Failure::new(Class::NotFound, "TRANSACTION_NOT_FOUND", format!("there is no transaction {id}")));
    };
    context.printer.print(&TransactionStory { transaction: txn.into(), clock_ms: answer.clock_ms })
}

/// Asks for one transaction with its history.
///
/// # Errors
/// No member answers, or there is none.
pub async fn transaction_of(context: &Context, id: &str) -> Result<GetTransactionResponse, Failure> {
    let request = GetTransactionRequest { id: id.to_owned() };
    let answer = context.cluster.call(async |link| {
        let mut client = TransactionServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
        client.get_transaction(request.clone()).await
    });
    answer.await
}
