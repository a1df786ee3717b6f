//! `sdm txn`: operations, open ones and past ones.

use crate::client::Begun;
use crate::client::abort;
use crate::client::all_pages;
use crate::client::initiator;
use crate::client::wait_for_outcome;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Format;
use crate::output::Report;
use crate::output::one_line;
use crate::values::milliseconds;
use crate::values::parse_duration;
use crate::values::parse_request_id;
use crate::views::List;
use crate::views::TransactionStory;
use crate::views::TransactionView;
use clap::Subcommand;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::AbortTransactionRequest;
use sdm_proto::wire::v1::GetTransactionRequest;
use sdm_proto::wire::v1::GetTransactionResponse;
use sdm_proto::wire::v1::ListTransactionsRequest;
use sdm_proto::wire::v1::RetryTransactionRequest;
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
        /// Only this kind, or kinds that begin so: disk, disk-move
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        #[command(flatten)]
        about: About,
    },
    /// The audit log: transactions with all that happened to them, oldest first
    ///
    /// With -o jsonl each transaction is a line of JSON with its history. Finished ones are remembered for a window.
    Log {
        #[command(flatten)]
        about: About,
    },
    /// Show a transaction's progress until it has its outcome, and end with that
    Watch {
        /// Its id: the request's
        id: String,
    },
    /// Have one that waits for its next attempt try now
    ///
    /// The pause is skipped and those who could not do it are asked again; how often it may be tried stays as it is. One
    /// that waits for something else is refused, with what it waits for.
    Retry {
        /// Its id: the request's
        id: String,
        /// Say what would happen, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Tell one from its beginning
    Show {
        /// Its id: the request's
        id: String,
    },
    /// End one that has no outcome yet: what it made becomes garbage, its locks are released
    ///
    /// Of one that changes a disk or a domain in place the abort is recorded (ABORT_RECORDED, code 5): it takes effect when
    /// its worker's attempt fails or the worker is fenced, and not at all when the change is done by then.
    ///
    /// One that was aborted or refused before stays as it is, and the command succeeds, saying so: nothing of it is done
    /// either way. One that is committed is refused (TXN_COMMITTED).
    Abort {
        /// Its id: the request's
        id: String,
        /// Why, for its history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Say what would happen, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which transactions.
#[derive(clap::Args, Debug, Default)]
pub struct About {
    /// Only those that work on this: disk/web-01, or web-01
    #[arg(long, value_name = "OBJECT")]
    object: Option<String>,
    /// Only those that began no longer ago than this (30m, 2h), on the cluster's clock
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Only those asked for by somebody whose user@host:pid contains this
    #[arg(long, value_name = "TEXT")]
    actor: Option<String>,
}

impl About {
    fn request(self) -> Result<ListTransactionsRequest, Refusal> {
        let since = self.since.as_deref().map(|text| parse_duration("--since", text)).transpose()?;
        Ok(ListTransactionsRequest {
            object: self.object.unwrap_or_default(),
            within_ms: since.map(milliseconds).unwrap_or_default(),
            actor: self.actor.unwrap_or_default(),
            ..Default::default()
        })
    }
}

/// What an order would do.
#[derive(Serialize)]
struct Would {
    dry_run: bool,
    would: Vec<String>,
}

impl Report for Would {
    fn text(&self) -> String {
        self.would.iter().map(|line| format!("{}\n", one_line(line))).chain(["nothing was done\n".to_owned()]).collect()
    }
}

/// What `retry` prints.
#[derive(Serialize)]
#[serde(transparent)]
struct Retried(TransactionView);

impl Report for Retried {
    fn text(&self) -> String {
        format!("transaction {} is tried now: {}\nnext: sdm txn watch {0}\n", self.0.id, one_line(&self.0.phase_reason))
    }
}

/// What `abort` prints.
#[derive(Serialize)]
#[serde(transparent)]
struct Aborted(TransactionView);

impl Report for Aborted {
    fn text(&self) -> String {
        let Self(txn) = self;
        let why = txn.refusal.as_ref().map(|refusal| format!(": {}", one_line(&refusal.message))).unwrap_or_default();
        let by_request = txn.refusal.as_ref().is_none_or(|refusal| refusal.reason == "ABORTED");
        let before = if by_request { "" } else { " already, nothing was to be aborted" };
        format!("transaction {} is {}{before}{why}\nnext: sdm txn show {0}\n", txn.id, txn.phase)
    }
}

impl TxnCommand {
    /// Does it.
    ///
    /// # Errors
    /// No member answers, or there is no such transaction.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::List { open, kind, about } => {
                let asked = about.request()?;
                list(context, ListTransactionsRequest { open_only: open, kind: kind.unwrap_or_default(), ..asked })
                    .await
            }
            Self::Log { about } => log(context, about.request()?).await,
            Self::Show { id } => show(context, &parse_id(&id)?).await,
            Self::Watch { id } => watch(context, &parse_id(&id)?).await,
            Self::Retry { id, dry_run } => retry(context, parse_id(&id)?, dry_run).await,
            Self::Abort { id, reason, dry_run: true } => {
                let request =
                    AbortTransactionRequest { id: parse_id(&id)?, reason: reason.unwrap_or_default(), dry_run: true };
                let answer = context.cluster.call(async |link| {
                    let mut client = TransactionServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
                    client.abort_transaction(request.clone()).await
                });
                context.printer.print(&Would { dry_run: true, would: answer.await?.would })
            }
            Self::Abort { id, reason, dry_run: false } => {
                let id = parse_id(&id)?;
                context.attachment.set(Begun::Change(format!("sdm txn show {id}")));
                let txn = abort(&context.cluster, &id, reason.as_deref().unwrap_or_default()).await?;
                match txn.phase.as_str() {
                    "aborted" | "refused" => context.printer.print(&Aborted(txn.into())),
                    _ => Err(abort_recorded(txn)),
                }
            }
        }
    }
}

/// The abort takes effect later, or not at all: nothing may take it for done.
fn abort_recorded(txn: v1::Transaction) -> Failure {
    let id = txn.id;
    let standing = txn.standing.unwrap_or_default();
    let message =
        format!("the abort of transaction {id} is recorded, and has no effect yet: it awaits {}", standing.awaits);
    let mut ways = vec![format!("watch it: sdm txn watch {id}")];
    ways.extend(standing.next_commands.into_iter().filter(|command| !command.starts_with("sdm txn watch")));
    let refusal = Refusal::new(Class::Precondition, "ABORT_RECORDED", message).hint(ways.join("; "));
    Failure::from(refusal).of_request(&id)
}

async fn pages(context: &Context, asked: ListTransactionsRequest) -> Result<List<TransactionView>, Failure> {
    let list = all_pages::<_, TransactionView, _>(async |page| {
        let request = ListTransactionsRequest { page: Some(page), ..asked.clone() };
        let answer = context.cluster.call(async |link| {
            let mut client = TransactionServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.list_transactions(request.clone()).await
        });
        answer.await.map(|answer| (answer.items, answer.page))
    });
    list.await
}

async fn list(context: &Context, asked: ListTransactionsRequest) -> Result<ExitCode, Failure> {
    context.printer.print(&pages(context, asked).await?)
}

async fn log(context: &Context, asked: ListTransactionsRequest) -> Result<ExitCode, Failure> {
    let list = pages(context, ListTransactionsRequest { with_history: true, ..asked }).await?;
    if context.printer.format != Format::Table {
        return context.printer.print(&list);
    }
    let clock_ms = list.items.iter().flat_map(|txn| [txn.began_ms, txn.finished_ms]).max().unwrap_or(0);
    for transaction in list.items {
        if !context.printer.print_next(&TransactionStory { transaction, clock_ms })? {
            break;
        }
    }
    Ok(ExitCode::Done)
}

async fn watch(context: &Context, id: &str) -> Result<ExitCode, Failure> {
    let answer = transaction_of(context, id).await?;
    let Some(txn) = answer.transaction else {
        return Err(Failure::new(Class::NotFound, "TRANSACTION_NOT_FOUND", format!("there is no transaction {id}")));
    };
    context.attachment.set(Begun::Transaction(id.to_owned()));
    let label = txn.summary.clone();
    let ended = wait_for_outcome(&context.cluster, txn, &label, context.printer.format).await?;
    context.printer.print(&Watched(ended.into()))
}

/// What `watch` prints in the end.
#[derive(Serialize)]
#[serde(transparent)]
struct Watched(TransactionView);

impl Report for Watched {
    fn text(&self) -> String {
        format!("transaction {} is {}: {}\n", self.0.id, self.0.phase, one_line(&self.0.summary))
    }
}

async fn retry(context: &Context, id: String, dry_run: bool) -> Result<ExitCode, Failure> {
    let request = RetryTransactionRequest { id: id.clone(), initiator: initiator(), dry_run };
    context.attachment.set(Begun::Change(format!("sdm txn show {id}")));
    let answer = context.cluster.call(async |link| {
        let mut client = TransactionServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
        client.retry_transaction(request.clone()).await
    });
    let answer = answer.await.map_err(|failure| failure.of_request(&id))?;
    match answer.transaction {
        _ if dry_run => context.printer.print(&Would { dry_run, would: answer.would }),
        Some(txn) => context.printer.print(&Retried(txn.into())),
        None => Err(Failure::new(Class::Internal, "EMPTY_ANSWER", "the member's answer holds no transaction")),
    }
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
