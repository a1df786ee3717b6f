//! The nouns of the command line, one a file: what their options are, and what they ask of the
//! cluster.

mod backup;
mod begin;
mod bench;
mod confirmed;
mod coordinator;
mod data_folder;
mod demo;
mod disk;
mod domain;
mod domain_check;
mod domain_life;
mod events;
mod exit_codes;
mod explain;
mod gc;
mod held_command;
mod job;
mod listening;
mod lock;
mod lock_acquire;
mod lock_list;
mod lock_orders;
mod member;
mod offline;
mod request_id;
mod snapshot;
mod status;
mod template;
mod txn;
mod version;
mod volume;
mod worker;
mod worker_verbs;

pub use disk::ExportDisk;
pub use disk::ImportDisk;
pub use disk::disk_of;
pub use gc::garbage_of;
pub use held_command::become_command;
pub use lock::LockCommand;
pub use status::status_of;

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use clap::Subcommand;

/// Every noun.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a member of the cluster
    Coordinator(coordinator::CoordinatorCommand),
    /// Run a worker, or list the workers
    Worker(worker::WorkerCommand),
    /// See it at work: a cluster of your own, a disk that moves while the leader dies
    ///
    /// It tells its story to people, line by line, and refuses -o json.
    Demo(demo::DemoCommand),
    /// The cluster on one screen
    Status(status::StatusCommand),
    /// The members of the cluster
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Storage domains: places with storage
    #[command(subcommand)]
    Domain(domain::DomainCommand),
    /// Disks of virtual machines
    #[command(subcommand)]
    Disk(disk::DiskCommand),
    /// Snapshots: how a disk was at one moment
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Templates: read-only disks that many clones share
    #[command(subcommand)]
    Template(template::TemplateCommand),
    /// Volumes: single layers of disks, for experts
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Locks: who may act on what
    #[command(subcommand)]
    Lock(lock::LockCommand),
    /// Transactions: operations, open ones and past ones
    #[command(subcommand)]
    Txn(txn::TxnCommand),
    /// Jobs: the long, data-moving part of transactions
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Garbage: what lost its place and waits for deletion
    #[command(subcommand)]
    Gc(gc::GcCommand),
    /// What happened in the cluster, and what happens
    Events(events::EventsCommand),
    /// What anything is: its state, who holds it, what blocks it, its last events, the next commands
    Explain(explain::ExplainCommand),
    /// Backups of the cluster's state, and the restore from one
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Look into the folder of a stopped member, without changing it
    #[command(subcommand)]
    Offline(offline::OfflineCommand),
    /// Measure how fast the cluster is
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Issue a request id that carries the cluster's clock, for --request-id
    ///
    /// Results are remembered for a window: 24 h of the cluster's clock, and 10000 finished transactions at most. Within
    /// it a repetition under the same id answers with the recorded result and does nothing. An id that was issued here is
    /// refused after it (REQUEST_TOO_OLD), so a late repetition is never done twice. A plain UUID also serves, but is
    /// remembered for that window only: repeated after it, the operation is done again.
    RequestId(request_id::RequestIdCommand),
    /// Print the version
    Version(version::VersionCommand),
    /// Print what the exit codes mean
    #[command(after_help = crate::cli::exit_codes_text())]
    ExitCodes(exit_codes::ExitCodesCommand),
}

impl Command {
    /// Whether the command ends in order by itself when the user wants no more, or its time is over.
    #[must_use]
    pub fn ends_itself(&self) -> bool {
        matches!(self, Self::Bench(_))
    }

    /// Runs an operator's command.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn operate(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Worker(command) => command.operate(context).await,
            Self::Status(command) => command.run(context).await,
            Self::Member(command) => command.run(context).await,
            Self::Domain(command) => command.run(context).await,
            Self::Disk(command) => command.run(context).await,
            Self::Snapshot(command) => command.run(context).await,
            Self::Template(command) => command.run(context).await,
            Self::Volume(command) => command.run(context).await,
            Self::Lock(command) => command.operate(context).await,
            Self::Txn(command) => command.run(context).await,
            Self::Job(command) => command.run(context).await,
            Self::Gc(command) => command.run(context).await,
            Self::Events(command) => command.run(context).await,
            Self::Explain(command) => command.run(context).await,
            Self::Backup(command) => command.run(context).await,
            Self::Offline(command) => command.run(context).await,
            Self::Bench(command) => command.run(context).await,
            Self::RequestId(command) => command.run(context).await,
            Self::Version(command) => command.run(context),
            Self::ExitCodes(command) => command.run(context),
            // These stay in the foreground; they are run elsewhere, without a context.
            Self::Coordinator(_) | Self::Demo(_) => Ok(ExitCode::Internal),
        }
    }
}
