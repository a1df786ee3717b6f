//! `sdm disk import`: a file of this host becomes a disk. The file is read by this command and
//! streamed to the worker that builds the disk.

use super::format::DiskFormat;
use super::result::DiskResult;
use super::result::Verb;
use crate::client::Begun;
use crate::client::Mutation;
use crate::commands::begin::begin;
use crate::commands::txn::transaction_of;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::transfer::ContentHash;
use crate::transfer::Exchange;
use crate::transfer::SourceFile;
use crate::transfer::TransferError;
use crate::transfer::upload;
use crate::values::parse_name;
use crate::values::parse_reference;
use clap::Args;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A disk that was a file.
#[derive(Debug, Default)]
pub struct Imported {
    /// Committed.
    pub transaction: v1::Transaction,
    /// The file's; none when the disk was complete already and the file is gone.
    pub content: Option<ContentHash>,
}

/// Its options.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm disk import web.img --name web-02 --domain nfs1 --format raw")]
pub struct ImportDisk {
    /// The file: regular, and written by nobody meanwhile
    file: PathBuf,
    /// Name of the new disk
    #[arg(long, value_name = "N")]
    name: String,
    /// Domain in which it is made (name or id)
    #[arg(long, value_name = "D")]
    domain: String,
    /// What the file is: nothing is guessed
    #[arg(long, value_enum)]
    format: DiskFormat,
    #[command(flatten)]
    mutation: Mutation,
}

impl ImportDisk {
    /// Of a raw file, with nothing special.
    #[must_use]
    pub fn raw(file: PathBuf, name: &str, domain: &str) -> Self {
        let mutation = Mutation::default();
        Self { file, name: name.to_owned(), domain: domain.to_owned(), format: DiskFormat::Raw, mutation }
    }

    /// Does it and prints the result.
    ///
    /// # Errors
    /// The file cannot be read, or the import was refused or aborted.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Some(Imported { transaction, content }) = self.import(context).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Import, transaction).await.of_file(content))
    }

    /// Does it; answers with none after a dry run.
    ///
    /// # Errors
    /// As `run`.
    pub async fn import(&self, context: &Context) -> Result<Option<Imported>, Failure> {
        let header = self.mutation.header()?;
        let id = header.request_id.clone();
        let name = parse_name("--name", &self.name)?.into();
        let domain = parse_reference("--domain", &self.domain)?;
        let source = match SourceFile::open(&self.file) {
            Ok(source) => Arc::new(source),
            // After completion the file is needed no more, and may be gone.
            Err(failure) => {
                let known = self.completed(context, &id).await;
                if let Some(transaction) = &known {
                    self.say_unread(context, transaction);
                }
                return known.map(|transaction| Some(Imported { transaction, content: None })).ok_or(failure);
            }
        };
        self.doubt(context, &source);
        let request = v1::ImportDiskRequest {
            header: Some(header.clone()),
            name,
            domain,
            format: v1::DiskFormat::from(self.format).into(),
            file_size: source.size(),
            allocated_bytes: source.allocated_bytes(),
        };
        let import = async |link| DiskServiceClient::new(link).import_disk(request.clone()).await;
        let ask = context.cluster.call(import);
        match begin(context, &header, Begun::Transfer(id), ask).await? {
            Some(txn) => self.send(context, txn, source).await.map(Some),
            None => Ok(None),
        }
    }

    /// Warns where the file looks like something else than what it was called.
    fn doubt(&self, context: &Context, source: &SourceFile) {
        let Some(seen) = source.looks_like().filter(|_| self.format == DiskFormat::Raw) else { return };
        let what =
            format!("{} begins like a {seen} file, and --format raw keeps it as a guest's bytes", self.file.display());
        let hint = match seen {
            "qcow2" => "if that is not meant: `sdm disk delete`, and import it again with --format qcow2",
            "LUKS" => "right for a disk that its guest encrypts itself; otherwise decrypt it first",
            _ => "if that is not meant: convert it first (qemu-img convert -O raw), and import the result",
        };
        context.printer.warn(&what, hint);
    }

    async fn send(
        &self,
        context: &Context,
        txn: v1::Transaction,
        source: Arc<SourceFile>,
    ) -> Result<Imported, Failure> {
        let exchange = Exchange {
            cluster: &context.cluster,
            label: format!("import {}", self.name),
            closing: "all bytes sent; the worker checks and publishes them",
            format: context.printer.format,
            done: Arc::default(),
            total: Arc::new(AtomicU64::new(source.size())),
        };
        let start = |transfer: v1::Transfer| {
            let link = context.cluster.worker(&transfer.address);
            let (source, done) = (Arc::clone(&source), Arc::clone(&exchange.done));
            async move { upload(link.map_err(TransferError::Local)?, transfer, source, done).await }
        };
        let (transaction, sent) = exchange.run(txn, start).await?;
        match &sent {
            Some(content) => self.require_same(&transaction, content)?,
            None => self.say_unread(context, &transaction),
        }
        Ok(Imported { transaction, content: sent })
    }

    /// It was complete before this command sent anything: FILE is not read any more, and may be another one by now.
    fn say_unread(&self, context: &Context, txn: &v1::Transaction) {
        let stored = txn.outcome.as_ref().map(|outcome| outcome.blake3.as_str()).unwrap_or_default();
        let what = format!(
            "request {} was complete before: {} was not read; disk {} holds what was sent then (BLAKE3 {stored})",
            txn.id,
            self.file.display(),
            self.name
        );
        let hint = "if another content was meant: import it under another name, without --request-id";
        context.printer.warn(&what, hint);
    }

    /// One request id stands for one content: what another command sent meanwhile is not taken for this one's.
    fn require_same(&self, txn: &v1::Transaction, content: &ContentHash) -> Result<(), Failure> {
        let stored = txn.outcome.as_ref().map(|outcome| outcome.blake3.as_str()).unwrap_or_default();
        if stored.is_empty() || content.is_stored_as(stored) {
            return Ok(());
        }
        let message = format!(
            "request {} has the content that another command sent: disk {} has BLAKE3 {stored}, {} has {}",
            txn.id,
            self.name,
            self.file.display(),
            content.file.to_hex()
        );
        let hint = "import this file under another name, without --request-id";
        let refusal = Refusal::new(Class::Conflict, "CONTENT_DIFFERS", message).hint(hint);
        Err(Failure::from(refusal).of_request(&txn.id))
    }

    /// The import that an earlier command with this id completed, if there was one.
    async fn completed(&self, context: &Context, id: &str) -> Option<v1::Transaction> {
        if !self.mutation.is_repetition() {
            return None;
        }
        let txn = transaction_of(context, id).await.ok()?.transaction?;
        let same =
            txn.kind == "disk-import" && txn.objects.iter().any(|object| *object == format!("disk/{}", self.name));
        (same && txn.phase == "committed").then_some(txn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_contents_under_one_request_the_one_that_was_not_taken_ends_in_a_conflict() {
        let import = ImportDisk::raw("second.img".into(), "web-01", "nfs1");
        let content = |bytes: &[u8]| {
            let hash = blake3::hash(bytes);
            ContentHash { bytes: bytes.len() as u64, file: hash, padded: hash }
        };
        let (first, second) = (content(b"the first"), content(b"the second"));
        let outcome = v1::Outcome { blake3: first.file.to_hex().to_string(), ..Default::default() };
        let txn = v1::Transaction { id: "the request".into(), outcome: Some(outcome), ..Default::default() };
        assert!(import.require_same(&txn, &first).is_ok());
        let failure = import.require_same(&txn, &second).expect_err("another content");
        let refusal = &failure.refusal;
        assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Conflict, "CONTENT_DIFFERS"));
        for hash in [first, second] {
            assert!(refusal.message.contains(hash.file.to_hex().as_str()), "{refusal}");
        }
        assert!(refusal.hint.contains("another name"), "{refusal}");
    }
}
