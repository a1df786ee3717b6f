//! `sdm disk attach`, `detach` and `attachments`: which hosts may use which disks.

use crate::client::all_pages;
use crate::commands::begin::Change;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::values::parse_reference;
use crate::views::AttachmentView;
use crate::views::TransactionView;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::attachment_service_client::AttachmentServiceClient;
use serde::Serialize;
use std::cell::RefCell;

/// Options of `attach`.
#[derive(Args, Debug)]
#[command(after_help = "While a host has a disk attached, operations on its data are refused.\n\
    Example: sdm disk attach web-01 --host kvm3 --reason \"vm web-01\"")]
pub struct AttachDisk {
    /// Its name or id
    disk: String,
    /// The host, named by its worker
    #[arg(long, value_name = "WORKER")]
    host: String,
    /// The host only reads; others may read it, too
    #[arg(long)]
    read_only: bool,
    /// For as long as this session of a client lasts
    #[arg(long, value_name = "ID", conflicts_with = "durable")]
    session: Option<String>,
    /// Until it is detached (the default)
    #[arg(long)]
    durable: bool,
    #[command(flatten)]
    change: Change,
}

/// Options of `detach`.
#[derive(Args, Debug)]
pub struct DetachDisk {
    /// Its name or id
    disk: String,
    /// The host, where several have it
    #[arg(long, value_name = "WORKER")]
    host: Option<String>,
    /// You have looked at the host, and nothing there uses the disk: for an attachment whose owner or
    /// host is gone; needs --reason
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    change: Change,
}

/// Options of `attachments`.
#[derive(Args, Debug)]
pub struct ListAttachments {
    /// Only those of this disk (name or id)
    disk: Option<String>,
    /// Only those at this host
    #[arg(long, value_name = "WORKER")]
    host: Option<String>,
}

/// What they print.
#[derive(Serialize)]
struct AttachmentResult {
    transaction: TransactionView,
    attachment: Option<AttachmentView>,
}

impl Report for AttachmentResult {
    fn text(&self) -> String {
        match &self.attachment {
            Some(at) => format!(
                "disk {} is attached to host {} for {}   token {}{}\n{}   {}\nnext: sdm disk detach {0} --host {1}\n",
                at.disk,
                at.worker,
                if at.access == "write" { "writing" } else { "reading" },
                at.token,
                self.transaction.mark(),
                at.path,
                at.format
            ),
            None => format!("{}: {}{}\n", self.transaction.summary, self.transaction.phase, self.transaction.mark()),
        }
    }
}

impl AttachDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let session_id = self.session.clone().unwrap_or_default();
        if !session_id.chars().all(|digit| digit.is_ascii_digit()) {
            return Err(Failure::new(Class::Invalid, "BAD_SESSION", format!("--session: {session_id:?} is no number")));
        }
        let access = if self.read_only { v1::AttachmentAccess::Read } else { v1::AttachmentAccess::Write };
        let request = v1::AttachDiskRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            worker: parse_reference("--host", &self.host)?,
            access: access.into(),
            session_id,
            session_epoch: 0,
        };
        let given = RefCell::new(None);
        let attach = async |link| AttachmentServiceClient::new(link).attach_disk(request.clone()).await;
        let ask = async {
            let answer = context.cluster.call(attach).await?;
            given.replace(answer.attachment.clone());
            Ok(answer)
        };
        let label = format!("attach {}", self.disk);
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let mut attachment = given.take().map(AttachmentView::from);
        if attachment.is_none() {
            // It waited for its lock: the answer came before the grant.
            let token = txn.outcome.as_ref().and_then(|outcome| outcome.attachment).map(AttachmentView::token_text);
            let known = attachments(context, &request.disk, &request.worker).await.unwrap_or_default();
            attachment = known.into_iter().find(|at| Some(&at.token) == token.as_ref());
        }
        context.printer.print(&AttachmentResult { transaction: txn.into(), attachment })
    }
}

impl DetachDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        if self.stopped && header.reason.trim().is_empty() {
            return Err(Refusal::new(Class::Invalid, "REASON_NEEDED", "--stopped needs a reason")
                .hint("--reason TEXT: how do you know? It is kept in the audit log")
                .into());
        }
        let request = v1::DetachDiskRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            worker: self.host.as_deref().map(|host| parse_reference("--host", host)).transpose()?.unwrap_or_default(),
            stopped: self.stopped,
        };
        let detach = async |link| AttachmentServiceClient::new(link).detach_disk(request.clone()).await;
        let (label, ask) = (format!("detach {}", self.disk), context.cluster.call(detach));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&AttachmentResult { transaction: txn.into(), attachment: None })
    }
}

impl ListAttachments {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let disk = self.disk.map(|disk| parse_reference("DISK", &disk)).transpose()?.unwrap_or_default();
        let worker = self.host.map(|host| parse_reference("--host", &host)).transpose()?.unwrap_or_default();
        let list = all_pages::<_, AttachmentView, _>(async |page| {
            let request = v1::ListAttachmentsRequest { page: Some(page), disk: disk.clone(), worker: worker.clone() };
            let answer = context.cluster.call(async |link| {
                let mut client = AttachmentServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
                client.list_attachments(request.clone()).await
            });
            answer.await.map(|answer| (answer.items, answer.page))
        });
        context.printer.print(&list.await?.sorted_by(|at| &at.disk))
    }
}

async fn attachments(context: &Context, disk: &str, worker: &str) -> Result<Vec<AttachmentView>, Failure> {
    let request = v1::ListAttachmentsRequest { page: None, disk: disk.to_owned(), worker: worker.to_owned() };
    let list = async |link| AttachmentServiceClient::new(link).list_attachments(request.clone()).await;
    let answer = context.cluster.call(list).await?;
    Ok(answer.items.into_iter().map(AttachmentView::from).collect())
}
