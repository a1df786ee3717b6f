//! `sdm disk rename`, `describe` and `resize`: another name, other words, more room.

use super::result::DiskResult;
use super::result::Verb;
use crate::commands::begin::Change;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::values::parse_name;
use crate::values::parse_reference;
use crate::values::parse_size;
use clap::Args;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;

/// Options of `rename`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm disk rename web-01 web-old")]
pub struct RenameDisk {
    /// Its name or id
    disk: String,
    /// Its new name
    name: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `describe`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm disk describe web-01 \"root disk of the shop\"")]
pub struct DescribeDisk {
    /// Its name or id
    disk: String,
    /// One line, at most 200 bytes; "" takes away what was written before
    text: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `resize`.
#[derive(Args, Debug)]
#[command(after_help = "Examples: sdm disk resize web-01 60GiB\n          sdm disk resize web-01 +20GiB")]
pub struct ResizeDisk {
    /// Its name or id
    disk: String,
    /// The new size (60GiB, or bytes), or how much more (+20GiB); never less than it has
    #[arg(allow_hyphen_values = true)]
    size: String,
    #[command(flatten)]
    change: Change,
}

impl RenameDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let request = v1::RenameDiskRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            name: parse_name("NAME", &self.name)?.into(),
        };
        let rename = async |link| DiskServiceClient::new(link).rename_disk(request.clone()).await;
        let (label, ask) = (format!("rename {}", self.disk), context.cluster.call(rename));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Change, txn).await)
    }
}

impl DescribeDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let request = v1::DescribeDiskRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            description: self.text.clone(),
        };
        let describe = async |link| DiskServiceClient::new(link).describe_disk(request.clone()).await;
        let (label, ask) = (format!("describe {}", self.disk), context.cluster.call(describe));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Change, txn).await)
    }
}

impl ResizeDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let (size, grow_by) = match self.size.trim().strip_prefix('+') {
            Some(more) => (0, parse_size("SIZE", more)?),
            None => (parse_size("SIZE", &self.size)?, 0),
        };
        let disk = parse_reference("DISK", &self.disk)?;
        let request = v1::ResizeDiskRequest { header: Some(header.clone()), disk, size, grow_by };
        let resize = async |link| DiskServiceClient::new(link).resize_disk(request.clone()).await;
        let (label, ask) = (format!("resize {}", self.disk), context.cluster.call(resize));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Change, txn).await)
    }
}
