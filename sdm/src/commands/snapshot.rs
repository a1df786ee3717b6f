//! `sdm snapshot`: how a disk was at one moment, kept.

use super::begin::Change;
use super::disk::DiskResult;
use super::disk::Verb;
use crate::client::all_pages;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::bytes_text;
use crate::values::parse_name;
use crate::values::parse_reference;
use crate::views::Shown;
use crate::views::SnapshotView;
use crate::views::TransactionView;
use clap::Args;
use clap::Subcommand;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::snapshot_service_client::SnapshotServiceClient;
use serde::Serialize;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum SnapshotCommand {
    /// Freeze what a disk holds now
    Create(CreateSnapshot),
    /// List the snapshots of a disk, oldest first
    List {
        /// The disk's name or id
        disk: String,
    },
    /// Show one snapshot
    Show {
        /// The disk's name or id
        disk: String,
        /// The snapshot's name or id
        snapshot: String,
    },
    /// Give a snapshot up: its layer and the one above become one, the disk's content stays
    Delete(DeleteSnapshot),
    /// Make a disk what it was at a snapshot; what was written since is gone
    Revert(RevertSnapshot),
}

/// Options of `create`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm snapshot create web-01 before-upgrade")]
pub struct CreateSnapshot {
    /// The disk's name or id
    disk: String,
    /// Name of the snapshot, unique among those of the disk [default: the current time, as 20260131-093000-250]
    name: Option<String>,
    /// What it is for, in a line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    change: Change,
}

/// Options of `delete`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm snapshot delete web-01 before-upgrade")]
pub struct DeleteSnapshot {
    /// The disk's name or id
    disk: String,
    /// The snapshot's name or id
    snapshot: String,
    /// Not open yet: refused (IN_PLACE_UNSUPPORTED). A merge makes new files, and needs the space for them
    #[arg(long)]
    in_place: bool,
    #[command(flatten)]
    change: Change,
}

/// Options of `revert`.
#[derive(Args, Debug)]
#[command(after_help = "Example: sdm snapshot revert web-01 before-upgrade")]
pub struct RevertSnapshot {
    /// The disk's name or id
    disk: String,
    /// The snapshot's name or id
    snapshot: String,
    /// Give up the snapshots that are newer, too
    #[arg(long)]
    discard_newer: bool,
    #[command(flatten)]
    change: Change,
}

/// What `create` prints.
#[derive(Serialize)]
struct SnapshotResult {
    transaction: TransactionView,
    snapshot: Option<SnapshotView>,
}

impl Report for SnapshotResult {
    fn text(&self) -> String {
        let txn = &self.transaction;
        match &self.snapshot {
            Some(snapshot) => format!(
                "snapshot {} of disk {} is there ({})   id {}{}\nnext: sdm snapshot list {1}\n",
                snapshot.name,
                snapshot.disk,
                bytes_text(snapshot.virtual_size),
                snapshot.id,
                txn.mark()
            ),
            None => format!("transaction {} is {}; look: sdm txn show {0}\n", txn.id, txn.phase),
        }
    }
}

impl SnapshotCommand {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::List { disk } => list(context, &parse_reference("DISK", &disk)?).await,
            Self::Show { disk, snapshot } => {
                let disk = parse_reference("DISK", &disk)?;
                let snapshot = snapshot_of(context, &disk, &parse_reference("SNAPSHOT", &snapshot)?).await?;
                context.printer.print(&Shown(snapshot))
            }
            Self::Delete(delete) => delete.run(context).await,
            Self::Revert(revert) => revert.run(context).await,
        }
    }
}

impl CreateSnapshot {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let name = match &self.name {
            Some(name) => parse_name("NAME", name)?.into(),
            None => name_of_now(self.change.mutation.is_repetition())?,
        };
        let disk = parse_reference("DISK", &self.disk)?;
        let request = v1::CreateSnapshotRequest {
            header: Some(header.clone()),
            disk: disk.clone(),
            name: name.clone(),
            description: self.description.clone(),
        };
        let create = async |link| SnapshotServiceClient::new(link).create_snapshot(request.clone()).await;
        let (label, ask) = (format!("snapshot {name} of {}", self.disk), context.cluster.call(create));
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        let snapshot = match txn.outcome.is_some() {
            true => snapshot_of(context, &disk, &name).await.ok(),
            false => None,
        };
        context.printer.print(&SnapshotResult { transaction: txn.into(), snapshot })
    }
}

/// A repetition must name the same snapshot, and the time has changed since.
fn name_of_now(is_repetition: bool) -> Result<String, Failure> {
    if is_repetition {
        let message =
            "with --request-id the snapshot needs a NAME: the one it gets from the time would not be the same";
        return Err(Failure::new(Class::Invalid, "NAME_MISSING", message));
    }
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(name_at(u64::try_from(since.as_millis()).unwrap_or_default()))
}

/// To the millisecond: scripts take several snapshots within a second, and each needs a name of its own.
fn name_at(unix_ms: u64) -> String {
    let text = crate::output::utc_text(unix_ms);
    let digits = |part: &str| part.chars().filter(char::is_ascii_digit).collect::<String>();
    let (date, time) = text.split_once('T').unwrap_or((text.as_str(), ""));
    format!("{}-{}-{:03}", digits(date), digits(time), unix_ms % 1000)
}

impl DeleteSnapshot {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let request = v1::DeleteSnapshotRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            snapshot: parse_reference("SNAPSHOT", &self.snapshot)?,
            in_place: self.in_place,
        };
        let delete = async |link| SnapshotServiceClient::new(link).delete_snapshot(request.clone()).await;
        let label = format!("delete snapshot {} of {}", self.snapshot, self.disk);
        let ask = context.cluster.call(delete);
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Change, txn).await)
    }
}

impl RevertSnapshot {
    async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let header = self.change.mutation.header()?;
        let request = v1::RevertSnapshotRequest {
            header: Some(header.clone()),
            disk: parse_reference("DISK", &self.disk)?,
            snapshot: parse_reference("SNAPSHOT", &self.snapshot)?,
            discard_newer: self.discard_newer,
        };
        let revert = async |link| SnapshotServiceClient::new(link).revert_snapshot(request.clone()).await;
        let label = format!("revert {} to {}", self.disk, self.snapshot);
        let ask = context.cluster.call(revert);
        let Some(txn) = self.change.carry_out(context, &header, &label, ask).await? else { return Ok(ExitCode::Done) };
        context.printer.print(&DiskResult::of(context, Verb::Change, txn).await)
    }
}

async fn list(context: &Context, disk: &str) -> Result<ExitCode, Failure> {
    let list = all_pages::<_, SnapshotView, _>(async |page| {
        let request = v1::ListSnapshotsRequest { page: Some(page), disk: disk.to_owned() };
        let answer = context.cluster.call(async |link| {
            let mut client = SnapshotServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            client.list_snapshots(request.clone()).await
        });
        answer.await.map(|answer| (answer.items, answer.page))
    });
    context.printer.print(&list.await?)
}

async fn snapshot_of(context: &Context, disk: &str, snapshot: &str) -> Result<SnapshotView, Failure> {
    let request = v1::GetSnapshotRequest { disk: disk.to_owned(), snapshot: snapshot.to_owned() };
    let get = async |link| SnapshotServiceClient::new(link).get_snapshot(request.clone()).await;
    let answer = context.cluster.call(get).await?;
    let missing =
        || Failure::new(Class::NotFound, "SNAPSHOT_NOT_FOUND", format!("disk {disk} has no snapshot {snapshot}"));
    Ok(answer.snapshot.ok_or_else(missing)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_of_one_second_have_different_names() {
        let first = 1_769_852_730_009;
        assert_eq!(name_at(first), "20260131-094530-009");
        assert_ne!(name_at(first), name_at(first + 1));
        assert!(parse_name("NAME", &name_at(first)).is_ok());
    }
}
