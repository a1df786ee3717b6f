//! `sdm disk create`.

use super::format::DiskFormat;
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

/// Its options.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm disk create web-01 --domain nfs1 --size 40GiB --format qcow2")]
pub struct CreateDisk {
    /// Name of the new disk
    name: String,
    /// Domain in which it is made (name or id)
    #[arg(long, value_name = "D")]
    domain: String,
    /// What a virtual machine sees: 40GiB, 40G, 512M, or bytes
    #[arg(long, value_name = "S", allow_hyphen_values = true)]
    size: String,
    /// How it is stored
    #[arg(long, value_enum, default_value = "raw")]
    format: DiskFormat,
    /// Allocate all its blocks now (raw only)
    #[arg(long)]
    preallocate: bool,
    /// What it is for, in a line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    change: Change,
}

impl CreateDisk {
    fn resolve(&self) -> Result<(v1::MutationHeader, v1::CreateDiskRequest), Failure> {
        let header = self.change.mutation.header()?;
        let request = v1::CreateDiskRequest {
            header: Some(header.clone()),
            name: parse_name("NAME", &self.name)?.into(),
            domain: parse_reference("--domain", &self.domain)?,
            size: parse_size("--size", &self.size)?,
            format: v1::DiskFormat::from(self.format).into(),
            preallocate: self.preallocate,
            description: self.description.clone(),
        };
        Ok((header, request))
    }

    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (header, request) = self.resolve()?;
        let create = async |link| DiskServiceClient::new(link).create_disk(request.clone()).await;
        let (label, ask) = (format!("create {}", self.name), context.cluster.call(create));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Create, txn).await)
    }
}
