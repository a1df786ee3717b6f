//! `sdm backup`: the cluster's state in a file, a new cluster out of such a file, and the way of that
//! cluster to its storage.

mod create;
mod file;
mod reconcile;

use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use clap::Subcommand;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum BackupCommand {
    /// Write the cluster's state to FILE, as of now
    ///
    /// It holds the catalog, not the disks' bytes.
    Create(create::CreateBackup),
    /// Read FILE from end to end and say what it holds; needs no cluster
    Verify(file::VerifyBackup),
    /// Make the first member of a new cluster out of FILE; needs no cluster
    ///
    /// The new cluster has an id of its own and touches no storage until `sdm backup reconcile` was
    /// run in it and the operator released it.
    Restore(file::RestoreBackup),
    /// In a restored cluster: read and take over the storage, then release the cluster
    Reconcile(reconcile::ReconcileCluster),
}

impl BackupCommand {
    /// Does it.
    ///
    /// # Errors
    /// What was refused, or could not be done.
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::Verify(command) => command.run(context).await,
            Self::Restore(command) => command.run(context).await,
            Self::Reconcile(command) => command.run(context).await,
        }
    }
}
