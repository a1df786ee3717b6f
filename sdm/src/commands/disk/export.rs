//! `sdm disk export`: a disk becomes a file of this host. The bytes come from the worker that reads
//! the disk; the file appears when it is whole, checked and durable.

use crate::client::Begun;
use crate::client::Mutation;
use crate::commands::begin::begin;
use crate::commands::txn::transaction_of;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::bytes_text;
use crate::transfer::Download;
use crate::transfer::Exchange;
use crate::transfer::SourceFile;
use crate::transfer::TargetPath;
use crate::transfer::TransferError;
use crate::transfer::download;
use crate::values::parse_reference;
use crate::views::TransactionView;
use clap::Args;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// Its options.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm disk export web-02 web.img")]
pub struct ExportDisk {
    /// Its name or id
    disk: String,
    /// The file to write
    file: PathBuf,
    /// Replace FILE if it exists
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    mutation: Mutation,
}

/// A file that holds a disk's bytes.
pub struct Exported {
    transaction: v1::Transaction,
    bytes: u64,
    /// BLAKE3 of them.
    pub hash: blake3::Hash,
}

/// What it prints.
#[derive(Serialize)]
struct ExportResult {
    transaction: TransactionView,
    file: String,
    bytes: u64,
    blake3: String,
}

impl Report for ExportResult {
    fn text(&self) -> String {
        format!("{} holds {} (BLAKE3 {})\n", self.file, bytes_text(self.bytes), self.blake3)
    }
}

impl ExportDisk {
    /// Of a disk into a new file.
    #[must_use]
    pub fn of(disk: &str, file: PathBuf) -> Self {
        Self { disk: disk.to_owned(), file, overwrite: false, mutation: Mutation::default() }
    }

    /// Does it and prints the result.
    ///
    /// # Errors
    /// The file cannot be written, or the export was refused or aborted.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Some(exported) = self.export(context).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&ExportResult {
            transaction: exported.transaction.into(),
            file: self.file.display().to_string(),
            bytes: exported.bytes,
            blake3: exported.hash.to_hex().to_string(),
        })
    }

    /// Does it; answers with none after a dry run.
    ///
    /// # Errors
    /// As `run`.
    pub async fn export(&self, context: &Context) -> Result<Option<Exported>, Failure> {
        let header = self.mutation.header()?;
        let id = header.request_id.clone();
        let disk = parse_reference("DISK", &self.disk)?;
        if let Some(txn) = self.completed(context, &id).await {
            return self.repeat(txn).await.map(Some);
        }
        let target = TargetPath::new(&self.file, self.overwrite, &id, &context.parts)?;
        if !header.dry_run {
            target.remove_leftovers();
        }
        let request = v1::ExportDiskRequest { header: Some(header.clone()), disk };
        let export = async |link| DiskServiceClient::new(link).export_disk(request.clone()).await;
        let ask = context.cluster.call(export);
        let Some(txn) = begin(context, &header, Begun::Transfer(id.clone()), ask).await? else { return Ok(None) };
        self.receive(context, txn, target).await.map(Some).map_err(|failure| failure.of_request(&id))
    }

    async fn receive(&self, context: &Context, txn: v1::Transaction, target: TargetPath) -> Result<Exported, Failure> {
        let exchange = Exchange {
            cluster: &context.cluster,
            label: format!("export {}", self.disk),
            closing: "all bytes are here; the worker closes the export",
            format: context.printer.format,
            done: Arc::default(),
            total: Arc::default(),
        };
        let to = Download { target, done: Arc::clone(&exchange.done), total: Arc::clone(&exchange.total) };
        let start = |transfer: v1::Transfer| {
            let link = context.cluster.worker(&transfer.address);
            let to = to.clone();
            async move { download(link.map_err(TransferError::Local)?, transfer, to).await }
        };
        let (txn, received) = exchange.run(txn, start).await?;
        let Some((part, hash)) = received else { return Err(self.gone(&txn.id)) };
        let bytes = part.position();
        let published = tokio::task::spawn_blocking(move || part.publish()).await;
        published.map_err(|error| Failure::new(Class::Internal, "EXPORT_FAILED", error.to_string()))??;
        Ok(Exported { transaction: txn, bytes, hash })
    }

    /// The export that an earlier command with this id completed, if there was one.
    async fn completed(&self, context: &Context, id: &str) -> Option<v1::Transaction> {
        if !self.mutation.is_repetition() {
            return None;
        }
        let txn = transaction_of(context, id).await.ok()?.transaction?;
        (txn.kind == "disk-export" && txn.phase == "committed").then_some(txn)
    }

    /// Its bytes are not sent again: either FILE holds them, or a new export is needed.
    async fn repeat(&self, transaction: v1::Transaction) -> Result<Exported, Failure> {
        let expected = transaction.outcome.as_ref().map(|outcome| outcome.blake3.clone()).unwrap_or_default();
        let path = self.file.clone();
        let hashed = tokio::task::spawn_blocking(move || hash_of(&path)).await;
        match hashed {
            Ok(Ok((bytes, hash))) if hash.to_hex().as_str() == expected => Ok(Exported { transaction, bytes, hash }),
            _ => Err(self.gone(&transaction.id)),
        }
    }

    fn gone(&self, id: &str) -> Failure {
        let message = format!(
            "the export {id} is complete, and {} does not hold its bytes: they are sent only once",
            self.file.display()
        );
        let refusal = Refusal::new(Class::Precondition, "EXPORT_IS_OVER", message)
            .hint("export again, without --request-id or with a new one");
        Failure::from(refusal).of_request(id)
    }
}

fn hash_of(path: &std::path::Path) -> Result<(u64, blake3::Hash), Failure> {
    let content = SourceFile::open(path)?.content_hash()?;
    Ok((content.bytes, content.file))
}
