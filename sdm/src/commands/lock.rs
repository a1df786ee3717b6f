//! `sdm lock`: who may act on what, who waits for it, and locks of the user's own.

use crate::commands::lock_acquire::AcquireLock;
use crate::commands::lock_list::list_locks;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use clap::Subcommand;
use std::ffi::OsString;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum LockCommand {
    /// List held and waiting locks, in the order of their requests
    List,
    /// Run a command under a lock of your own
    Acquire(AcquireLock),
    /// Become the command that is run under a lock: ends with whoever holds the lock
    #[command(hide = true)]
    Become {
        /// Process id of whoever holds the lock
        #[arg(long)]
        holder: u32,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

impl LockCommand {
    /// Does what ends by itself.
    ///
    /// # Errors
    /// No member answers.
    pub async fn operate(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::List => list_locks(context).await,
            // These are run elsewhere, without a context.
            Self::Acquire(_) | Self::Become { .. } => Ok(ExitCode::Internal),
        }
    }
}
