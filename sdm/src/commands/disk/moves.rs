//! `sdm disk move` and `sdm disk delete`.

use super::result::DiskResult;
use super::result::Verb;
use crate::commands::begin::Change;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::values::parse_reference;
use clap::Args;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;

/// Options of `move`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm disk move web-01 --to nfs2")]
pub struct MoveDisk {
    /// Its name or id
    disk: String,
    /// Domain to which it goes (name or id)
    #[arg(long, value_name = "D")]
    to: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `delete`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm disk delete web-01 --reason \"replaced by web-02\"")]
pub struct DeleteDisk {
    /// Its name or id
    disk: String,
    #[command(flatten)]
    change: Change,
}

impl MoveDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let request = v1::MoveDiskRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            to_domain: parse_reference("--to", &self.to)?,
        };
        let start = async |link| DiskServiceClient::new(link).move_disk(request.clone()).await;
        let (label, ask) = (format!("move {} to {}", self.disk, self.to), context.cluster.call(start));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Move, txn).await)
    }
}

impl DeleteDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let disk = parse_reference("DISK", &self.disk)?;
        let request = v1::DeleteDiskRequest { header: Some(header.clone()), disk };
        let delete = async |link| DiskServiceClient::new(link).delete_disk(request.clone()).await;
        let (label, ask) = (format!("delete {}", self.disk), context.cluster.call(delete));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Delete, txn).await)
    }
}
