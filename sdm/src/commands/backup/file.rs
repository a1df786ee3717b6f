//! `sdm backup verify` and `sdm backup restore`: what can be done with a backup's file alone.

use super::super::data_folder::folder_class;
use crate::client::Begun;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::output::Report;
use crate::output::bytes_text;
use crate::output::utc_text;
use crate::values::parse_address;
use crate::values::parse_name;
use clap::Args;
use sdm_proto::ids::ClusterId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_raft_store::backup::Backup;
use sdm_raft_store::backup::BackupError;
use sdm_raft_store::backup::RestoreError;
use sdm_raft_store::backup::RestorePlan;
use sdm_raft_store::backup::check_backup;
use sdm_raft_store::backup::restore_backup;
use sdm_raft_store::offline::table_counts;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use uuid::Uuid;

/// Options of `verify`.
#[derive(Args, Debug)]
pub struct VerifyBackup {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Options of `restore`.
#[derive(Args, Debug)]
pub struct RestoreBackup {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder of the new member; empty, or made if it is missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of the new member
    #[arg(long)]
    name: String,
    /// Address that others will reach it at, HOST:PORT: what it will listen on or advertise
    #[arg(long, visible_alias = "listen", value_name = "ADDR")]
    advertise: String,
}

/// What `verify` prints.
#[derive(Serialize)]
struct VerifiedBackup {
    file: String,
    cluster_id: String,
    pool_id: String,
    epoch: u64,
    /// The last entry in it.
    index: u64,
    feature_level: u32,
    state_hash: String,
    bytes: u64,
    blake3: String,
    created: String,
    member: String,
    sdm_version: String,
    /// Members of the cluster then.
    members: Vec<String>,
    /// Rows of each table.
    tables: BTreeMap<&'static str, u64>,
}

impl Report for VerifiedBackup {
    fn text(&self) -> String {
        let tables = self.tables.iter().map(|(table, rows)| format!("  {table:<14}{rows:>10}\n")).collect::<String>();
        format!(
            "{} is whole: {}\ncluster {}  pool {}  epoch {}\nup to entry {}  feature level {}\nwritten {} by member {} \
             (sdm {})\nmembers then: {}\nstate {}\nblake3 {}\n{tables}",
            self.file,
            bytes_text(self.bytes),
            self.cluster_id,
            self.pool_id,
            self.epoch,
            self.index,
            self.feature_level,
            self.created,
            self.member,
            self.sdm_version,
            self.members.join(", "),
            self.state_hash,
            self.blake3,
        )
    }
}

/// What `restore` prints.
#[derive(Serialize)]
struct RestoredCluster {
    data_dir: String,
    name: String,
    address: String,
    /// Of the new cluster.
    cluster_id: String,
    pool_id: String,
    epoch: u64,
    /// The last entry of the backup.
    index: u64,
    /// Of the cluster that made the backup.
    backup_cluster_id: String,
    suspended: bool,
}

impl Report for RestoredCluster {
    fn text(&self) -> String {
        let Self { data_dir, name, address, cluster_id, index, backup_cluster_id, epoch, .. } = self;
        format!(
            "{data_dir} holds member {name} of the new cluster {cluster_id} (epoch {epoch}), restored from cluster \
             {backup_cluster_id} up to entry {index}. It is suspended.\nnext:\n  sdm coordinator --data-dir {data_dir} --name \
             {name} --listen {address}\n  on each host the worker's usual command with --readmit {cluster_id}\n  sdm backup reconcile --dry-run\n  \
             sdm backup reconcile\n  sdm backup reconcile --release\n"
        )
    }
}

/// Reads a backup and checks all of it.
pub(super) async fn checked(file: PathBuf) -> Result<Backup, Failure> {
    let reading = file.clone();
    match tokio::task::spawn_blocking(move || check_backup(&reading)).await {
        Ok(checked) => checked.map_err(|error| unusable(&file, &error)),
        Err(panic) => Err(Failure::new(Class::Internal, "DEFECT", format!("reading the backup ended: {panic}"))),
    }
}

fn unusable(file: &Path, error: &BackupError) -> Failure {
    let message = format!("{}: {error}", file.display());
    let (class, reason, hint) = match error {
        BackupError::Foreign => (Class::Invalid, "NOT_A_BACKUP", "give a file that `sdm backup create` wrote"),
        BackupError::Newer(_) => {
            (Class::Unsupported, "BACKUP_NEWER", "use the version of sdm that wrote it, or a newer one")
        }
        BackupError::Truncated(_) | BackupError::Damaged(_) => {
            (Class::Aborted, "BACKUP_DAMAGED", "use another copy of it, or an earlier backup; nothing was changed")
        }
        BackupError::Io(source) => match source.kind() {
            io::ErrorKind::NotFound => (Class::NotFound, "FILE_NOT_FOUND", "check the path"),
            io::ErrorKind::PermissionDenied => (Class::Denied, "FILE_NOT_READABLE", "check its owner and mode"),
            _ => (Class::Precondition, "FILE_NOT_READABLE", "check the file and its disk"),
        },
    };
    Refusal::new(class, reason, message).hint(hint).into()
}

impl VerifyBackup {
    /// Does it.
    ///
    /// # Errors
    /// It is no backup, is damaged, or of a newer version.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let backup = checked(self.file.clone()).await?;
        let header = backup.header;
        context.printer.print(&VerifiedBackup {
            file: self.file.display().to_string(),
            cluster_id: header.cluster_id.to_string(),
            pool_id: header.pool_id.to_string(),
            epoch: header.epoch,
            index: header.index,
            feature_level: header.feature_level,
            state_hash: header.state_hash,
            bytes: backup.bytes,
            blake3: blake3::Hash::from_bytes(backup.blake3).to_hex().to_string(),
            created: utc_text(header.created_unix_ms),
            member: header.member,
            sdm_version: header.sdm_version,
            members: backup.members,
            tables: table_counts(&backup.state),
        })
    }
}

impl RestoreBackup {
    /// Does it.
    ///
    /// # Errors
    /// The backup cannot be used, or the folder is not empty or not writable.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let name = parse_name("--name", &self.name)?;
        let address = reachable("--advertise", &self.advertise)?;
        let backup = checked(self.file.clone()).await?;
        let backup_cluster_id = backup.header.cluster_id.to_string();
        let plan = RestorePlan {
            cluster_id: ClusterId::from_uuid(random_uuid()),
            incarnation: random_uuid(),
            name: name.clone(),
            address: address.clone(),
            sdm_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        context.attachment.set(Begun::Folder(self.data_dir.display().to_string()));
        let restored = restore_backup(backup, &self.data_dir, plan).await.map_err(|error| not_restored(&error))?;
        context.printer.print(&RestoredCluster {
            data_dir: self.data_dir.display().to_string(),
            name: name.to_string(),
            address,
            cluster_id: restored.identity.cluster_id.to_string(),
            pool_id: restored.identity.pool_id.to_string(),
            epoch: restored.identity.epoch,
            index: restored.index,
            backup_cluster_id,
            suspended: true,
        })
    }
}

fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// An address that others can be told.
fn reachable(option: &str, text: &str) -> Result<String, Failure> {
    let address = parse_address(option, text)?;
    let (host, port) = address.rsplit_once(':').unwrap_or((&address, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let anywhere = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    if anywhere || port == "0" {
        let message = format!("{option}: {address} names no place that others can reach");
        return Err(Refusal::new(Class::Invalid, "BAD_ADDRESS", message)
            .hint("give HOST:PORT as others reach it")
            .into());
    }
    Ok(address)
}

fn not_restored(error: &RestoreError) -> Failure {
    let (class, reason, hint) = match error {
        RestoreError::NotEmpty { .. } => (
            Class::Conflict,
            "FOLDER_NOT_EMPTY",
            "give a new or an empty folder; an old member's folder is not written over",
        ),
        RestoreError::List { .. } | RestoreError::Folder(_) => {
            (folder_class(error), "FOLDER_UNUSABLE", "check the path")
        }
        RestoreError::Seed(_) => (folder_class(error), "NOT_RESTORED", "remove that folder, and repeat"),
    };
    Refusal::new(class, reason, error.to_string()).hint(hint).into()
}
