//! `sdm disk copy`, `clone`, `convert` and `flatten`: a disk's content in a new disk, in another format, or in layers of
//! its own.

use super::format::DiskFormat;
use super::format::format_on_the_wire;
use super::result::DiskResult;
use super::result::Verb;
use crate::commands::begin::Change;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::values::parse_name;
use crate::values::parse_reference;
use clap::Args;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;
use std::cell::Cell;

/// Options of `copy`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm disk copy web-01 web-test --to nfs2 --format qcow2\n\n\
    The copy is a disk of its own, of one volume: it shares nothing with the source and has none of its snapshots.")]
pub struct CopyDisk {
    /// Name or id of the source
    disk: String,
    /// Name of the new disk
    name: String,
    /// Domain of the new disk (name or id) [default: that of the source]
    #[arg(long, value_name = "D")]
    to: Option<String>,
    /// How it is stored [default: as the source]
    #[arg(long, value_enum)]
    format: Option<DiskFormat>,
    /// Allocate all its blocks (raw only)
    #[arg(long)]
    preallocate: bool,
    /// As it was at this snapshot (name or id) [default: as it is now]
    #[arg(long, value_name = "S")]
    snapshot: Option<String>,
    /// Copy a disk that has snapshots, without them
    #[arg(long)]
    collapse: bool,
    /// What it is for, in a line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `clone`.
#[derive(Args, Debug)]
#[command(after_help = "Examples: sdm disk clone web-template web-07\n          \
    sdm disk clone web-01 web-test --snapshot before-upgrade\n          sdm disk clone web-01 web-test --full\n\n\
    Without --linked or --full: linked from a template or a snapshot, full from a disk that goes on being written; \
    the result says which, and why.")]
pub struct CloneDisk {
    /// Name or id of the source: a disk or a template
    disk: String,
    /// Name of the new disk
    name: String,
    /// Share the source's volumes; of a live disk, that gives it one more layer
    #[arg(long, conflicts_with = "full")]
    linked: bool,
    /// Copy all bytes, and share nothing
    #[arg(long)]
    full: bool,
    /// As it was at this snapshot (name or id) [default: as it is now]
    #[arg(long, value_name = "S")]
    snapshot: Option<String>,
    /// What it is for, in a line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `convert`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm disk convert web-01 --format raw --preallocate")]
pub struct ConvertDisk {
    /// Its name or id
    disk: String,
    /// How it is stored then
    #[arg(long, value_enum)]
    format: DiskFormat,
    /// Allocate all its blocks (raw only)
    #[arg(long)]
    preallocate: bool,
    #[command(flatten)]
    change: Change,
}

/// Options of `flatten`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm disk flatten web-07\n\n\
    Afterwards the disk shares no volume with any other, and has no layer but its own snapshots and what it holds now. \
    The space of what was shared is needed once more.")]
pub struct FlattenDisk {
    /// Its name or id
    disk: String,
    #[command(flatten)]
    change: Change,
}

fn reference_or_none(option: &str, text: Option<&str>) -> Result<String, Failure> {
    Ok(text.map(|text| parse_reference(option, text)).transpose()?.unwrap_or_default())
}

impl CopyDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let request = v1::CopyDiskRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            name: parse_name("NAME", &self.name)?.into(),
            to_domain: reference_or_none("--to", self.to.as_deref())?,
            format: format_on_the_wire(self.format),
            preallocate: self.preallocate,
            snapshot: reference_or_none("--snapshot", self.snapshot.as_deref())?,
            description: self.description.clone(),
            collapse: self.collapse,
        };
        let copy = async |link| DiskServiceClient::new(link).copy_disk(request.clone()).await;
        let (label, ask) = (format!("copy {} to {}", self.disk, self.name), context.cluster.call(copy));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Import, txn).await)
    }
}

impl CloneDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let kind = match (self.linked, self.full) {
            (true, _) => v1::CloneKind::Linked,
            (_, true) => v1::CloneKind::Full,
            _ => v1::CloneKind::Unspecified,
        };
        let request = v1::CloneDiskRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            name: parse_name("NAME", &self.name)?.into(),
            kind: kind.into(),
            snapshot: reference_or_none("--snapshot", self.snapshot.as_deref())?,
            description: self.description.clone(),
        };
        let clone = async |link| DiskServiceClient::new(link).clone_disk(request.clone()).await;
        let label = format!("clone {} to {}", self.disk, self.name);
        let chosen = Cell::new((v1::CloneKind::Unspecified, String::new()));
        let ask = async {
            let answer = context.cluster.call(clone).await?;
            chosen.set((answer.kind(), answer.kind_reason.clone()));
            Ok(answer)
        };
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let (kind, why) = chosen.into_inner();
        let result = DiskResult::of(context, Verb::Clone, txn).await.cloned(kind_word(kind), &why);
        context.printer.print(&result)
    }
}

fn kind_word(kind: v1::CloneKind) -> Option<&'static str> {
    match kind {
        v1::CloneKind::Linked => Some("linked"),
        v1::CloneKind::Full => Some("full"),
        v1::CloneKind::Unspecified => None,
    }
}

impl ConvertDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let request = v1::ConvertDiskRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            format: v1::DiskFormat::from(self.format).into(),
            preallocate: self.preallocate,
        };
        let convert = async |link| DiskServiceClient::new(link).convert_disk(request.clone()).await;
        let (label, ask) = (format!("convert {}", self.disk), context.cluster.call(convert));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Change, txn).await)
    }
}

impl FlattenDisk {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let disk = parse_reference("DISK", &self.disk)?;
        let request = v1::FlattenDiskRequest { header: Some(header.clone()), disk };
        let flatten = async |link| DiskServiceClient::new(link).flatten_disk(request.clone()).await;
        let (label, ask) = (format!("flatten {}", self.disk), context.cluster.call(flatten));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Change, txn).await)
    }
}
