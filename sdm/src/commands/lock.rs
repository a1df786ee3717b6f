//! `sdm lock`: who may act on what, who waits for it, and locks of the user's own.

use crate::cli::GlobalOptions;
use crate::commands::held_command;
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
    /// Whether it stays as long as another process runs, and ends that in order when the user wants no
    /// more.
    #[must_use]
    pub fn is_process(&self) -> bool {
        !matches!(self, Self::List)
    }

    /// Runs the process.
    ///
    /// # Errors
    /// The lock was not granted or was lost, or the command could not be run.
    pub async fn run(self, global: &GlobalOptions) -> Result<ExitCode, Failure> {
        match self {
            Self::List => list_locks(&global.context()?).await,
            Self::Acquire(acquire) => acquire.run(global).await,
            Self::Become { holder, command } => Err(held_command::become_command(holder, &command)),
        }
    }

    /// Does what ends by itself.
    ///
    /// # Errors
    /// No member answers.
    pub async fn operate(self, context: &Context) -> Result<ExitCode, Failure> {
        match self {
            Self::List => list_locks(context).await,
            // These are run as processes.
            Self::Acquire(_) | Self::Become { .. } => Ok(ExitCode::Internal),
        }
    }
}
