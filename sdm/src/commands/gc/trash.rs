//! `sdm gc trash`: deleted disks while they can be put back.

use super::hold::print_done;
use super::show;
use crate::commands::begin::Change;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::Table;
use crate::output::bytes_text;
use crate::output::clock_text;
use crate::output::plural;
use crate::values::parse_name;
use crate::values::parse_reference;
use crate::views::GarbageView;
use crate::views::List;
use clap::Args;
use clap::Subcommand;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;
use serde::Serialize;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum TrashCommand {
    /// List deleted disks that are kept
    List {
        /// Only of this domain (name or id)
        #[arg(long, value_name = "D")]
        domain: Option<String>,
    },
    /// Show one of them
    Show {
        /// Its id
        id: String,
    },
    /// Put a deleted disk back, as it was
    Restore(RestoreTrash),
    /// Delete trash for good before its retention is over
    Purge(PurgeTrash),
}

/// Options of `restore`.
#[derive(Args, Debug)]
pub struct RestoreTrash {
    /// Its id (sdm gc trash list), or the name or id of the disk
    id: String,
    /// Give it another name
    #[arg(long, value_name = "NEW")]
    name: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// Options of `purge`.
#[derive(Args, Debug)]
pub struct PurgeTrash {
    /// Their ids (sdm gc trash list), or the names or ids of the disks
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
    ids: Vec<String>,
    /// All trash that is not held
    #[arg(long)]
    all: bool,
    /// With --all: only of this domain (name or id)
    #[arg(long, value_name = "D", requires = "all")]
    domain: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// What `list` prints.
#[derive(Serialize)]
#[serde(transparent)]
struct Trash {
    list: List<GarbageView>,
    #[serde(skip)]
    clock_ms: u64,
}

impl Report for Trash {
    fn text(&self) -> String {
        let mut table = Table::new(&["TRASH", "DISK", "DOMAIN", ">BYTES", "DELETED", "GOES", "STATE", "EVIDENCE"]);
        for item in &self.list.items {
            table.row([
                item.id.clone(),
                item.disk.clone().unwrap_or_default(),
                item.domain.clone(),
                bytes_text(item.bytes),
                clock_text(item.since_ms, self.clock_ms),
                clock_text(item.due_ms, self.clock_ms),
                if item.restorable { item.state.clone() } else { format!("{}, too late to restore", item.state) },
                item.evidence.clone(),
            ]);
        }
        table.render()
    }
}

impl TrashCommand {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::List { domain } => {
                let domain = domain.map(|domain| parse_reference("--domain", &domain)).transpose()?.unwrap_or_default();
                let wanted = v1::ListGarbageRequest { domain, trash: true, ..Default::default() };
                let list = show::listed(context, &wanted).await?;
                let clock_ms = clock_of(context).await?;
                context.printer.print(&Trash { list, clock_ms })
            }
            Self::Show { id } => show::show(context, &id).await,
            Self::Restore(restore) => restore.run(context).await,
            Self::Purge(purge) => purge.run(context).await,
        }
    }
}

async fn clock_of(context: &Context) -> Result<u64, Failure> {
    let ask = async |link| GcServiceClient::new(link).get_garbage_status(v1::GetGarbageStatusRequest {}).await;
    Ok(context.cluster.call(ask).await?.clock_ms)
}

impl RestoreTrash {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let name = self.name.as_deref().map(|name| parse_name("--name", name)).transpose()?;
        let name = name.map(String::from).unwrap_or_default();
        let request = v1::RestoreTrashRequest { header: Some(header.clone()), id: self.id.clone(), name };
        let ask = context.cluster.call(async |link| GcServiceClient::new(link).restore_trash(request.clone()).await);
        let label = format!("restore {}", self.id);
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let done = format!("done: {}", txn.summary);
        print_done(context, txn, done)
    }
}

impl PurgeTrash {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let domain = self.domain.as_deref().map(|domain| parse_reference("--domain", domain)).transpose()?;
        let request = v1::PurgeTrashRequest {
            header: Some(header.clone()),
            ids: self.ids.clone(),
            all: self.all,
            domain: domain.unwrap_or_default(),
        };
        let ask = context.cluster.call(async |link| GcServiceClient::new(link).purge_trash(request.clone()).await);
        let label = if self.all { "purge the trash".to_owned() } else { format!("purge {}", self.ids.join(" ")) };
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let count = txn.objects.len().max(self.ids.len()) as u64;
        let again = if self.all { "; is there more: sdm gc trash list" } else { "" };
        let done = format!("{} ({}) deleted for good{again}", plural(count, "item"), txn.summary);
        print_done(context, txn, done)
    }
}
