//! `sdm disk list`, `show` and `tree`.

use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::values::parse_reference;
use crate::views::DiskTree;
use crate::views::DiskView;
use clap::Args;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;

/// Options of `list`.
#[derive(Args, Debug)]
pub struct ListDisks {
    /// Only those of this domain (name or id)
    #[arg(long, value_name = "D")]
    domain: Option<String>,
}

impl ListDisks {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let domain = self.domain.map(|domain| parse_reference("--domain", &domain)).transpose()?.unwrap_or_default();
        let list = all_pages::<_, DiskView, _>(async |page| {
            let request = v1::ListDisksRequest { page: Some(page), domain: domain.clone(), templates_only: false };
            let answer = context.cluster.call(async |link| {
                let mut client = DiskServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
                client.list_disks(request.clone()).await
            });
            answer.await.map(|answer| (answer.items, answer.page))
        });
        context.printer.print(&list.await?.sorted_by(|disk| &disk.name))
    }
}

pub(super) async fn show(context: &Context, disk: &str) -> Result<ExitCode, Failure> {
    context.printer.print(&disk_of(context, &parse_reference("DISK", disk)?).await?)
}

pub(super) async fn tree(context: &Context, disk: &str) -> Result<ExitCode, Failure> {
    context.printer.print(&DiskTree::of(disk_of(context, &parse_reference("DISK", disk)?).await?))
}

/// One disk by name or id.
///
/// # Errors
/// No member answers, or there is none.
pub async fn disk_of(context: &Context, reference: &str) -> Result<DiskView, Failure> {
    let request = v1::GetDiskRequest { disk: reference.to_owned() };
    let get = async |link| {
        let mut client = DiskServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
        client.get_disk(request.clone()).await
    };
    let answer = context.cluster.call(get).await?;
    let missing = || Failure::new(Class::NotFound, "DISK_NOT_FOUND", format!("there is no disk {reference}"));
    Ok(answer.disk.ok_or_else(missing)?.into())
}
