//! `sdm disk`: disks of virtual machines. Import and export, which carry bytes, stand in files of
//! their own.

use super::begin::Change;
use super::disk_export::ExportDisk;
use super::disk_import::ImportDisk;
use super::disk_result::DiskResult;
use super::disk_result::Verb;
use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::values::parse_name;
use crate::values::parse_reference;
use crate::values::parse_size;
use crate::views::DiskView;
use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum DiskCommand {
    /// Make a new, empty disk
    Create(CreateDisk),
    /// Make a disk from a file of this host, whose bytes are kept as they are
    Import(ImportDisk),
    /// Write a disk to a file of this host
    Export(ExportDisk),
    /// Move a disk to another domain
    Move(MoveDisk),
    /// Delete a disk
    Delete(DeleteDisk),
    /// List the disks
    List {
        /// Only those of this domain (name or id)
        #[arg(long, value_name = "D")]
        domain: Option<String>,
    },
    /// Show one disk and its volumes
    Show {
        /// Its name or id
        disk: String,
    },
}

/// Formats of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiskFormat {
    /// The guest's bytes as they are
    Raw,
    /// QEMU's copy-on-write format
    Qcow2,
}

impl From<DiskFormat> for v1::DiskFormat {
    fn from(format: DiskFormat) -> Self {
        match format {
            DiskFormat::Raw => Self::Raw,
            DiskFormat::Qcow2 => Self::Qcow2,
        }
    }
}

/// Options of `create`.
#[derive(Args, Debug)]
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
    #[command(flatten)]
    change: Change,
}

/// Options of `move`.
#[derive(Args, Debug)]
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
pub struct DeleteDisk {
    /// Its name or id
    disk: String,
    #[command(flatten)]
    change: Change,
}

impl DiskCommand {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::Import(import) => import.run(context).await,
            Self::Export(export) => export.run(context).await,
            Self::Move(moving) => moving.run(context).await,
            Self::Delete(delete) => delete.run(context).await,
            Self::List { domain } => list(context, domain.as_deref()).await,
            Self::Show { disk } => {
                let disk = disk_of(context, &parse_reference("DISK", &disk)?).await?;
                context.printer.print(&disk)
            }
        }
    }
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
        };
        Ok((header, request))
    }

    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (header, request) = self.resolve()?;
        let create = async |link| DiskServiceClient::new(link).create_disk(request.clone()).await;
        let (label, ask) = (format!("create {}", self.name), context.cluster.call(create));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Create, txn).await)
    }
}

impl MoveDisk {
    fn resolve(&self) -> Result<(v1::MutationHeader, v1::MoveDiskRequest), Failure> {
        let header = self.change.mutation.header()?;
        let request = v1::MoveDiskRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            to_domain: parse_reference("--to", &self.to)?,
        };
        Ok((header, request))
    }

    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (header, request) = self.resolve()?;
        let start = async |link| DiskServiceClient::new(link).move_disk(request.clone()).await;
        let (label, ask) = (format!("move {} to {}", self.disk, self.to), context.cluster.call(start));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Move, txn).await)
    }
}

impl DeleteDisk {
    fn resolve(&self) -> Result<(v1::MutationHeader, v1::DeleteDiskRequest), Failure> {
        let header = self.change.mutation.header()?;
        let disk = parse_reference("DISK", &self.disk)?;
        Ok((header.clone(), v1::DeleteDiskRequest { header: Some(header), disk }))
    }

    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (header, request) = self.resolve()?;
        let delete = async |link| DiskServiceClient::new(link).delete_disk(request.clone()).await;
        let (label, ask) = (format!("delete {}", self.disk), context.cluster.call(delete));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Delete, txn).await)
    }
}

async fn list(context: &Context, domain: Option<&str>) -> Result<ExitCode, Failure> {
    let domain = domain.map(|domain| parse_reference("--domain", domain)).transpose()?.unwrap_or_default();
    let list = all_pages::<_, DiskView, _>(async |page| {
        let request = v1::ListDisksRequest { page: Some(page), domain: domain.clone() };
        let answer = context.cluster.call(async |link| {
            let mut client = DiskServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.list_disks(request.clone()).await
        });
        answer.await.map(|answer| (answer.items, answer.page))
    });
    context.printer.print(&list.await?.sorted_by(|disk| &disk.name))
}

/// One disk by name or id.
///
/// # Errors
/// No member answers, or there is none.
pub async fn disk_of(context: &Context, reference: &str) -> Result<DiskView, Failure> {
    let request = v1::GetDiskRequest { disk: reference.to_owned() };
    let get = async |link| DiskServiceClient::new(link).get_disk(request.clone()).await;
    let answer = context.cluster.call(get).await?;
    let missing = || Failure::new(Class::NotFound, "DISK_NOT_FOUND", format!("there is no disk {reference}"));
    Ok(answer.disk.ok_or_else(missing)?.into())
}
