//! `sdm lock`: who may act on what, who waits for it, and locks of the user's own.

use crate::commands::explain::explain;
use crate::commands::lock_acquire::AcquireLock;
use crate::commands::lock_list::list_locks;
use crate::commands::lock_orders::BreakLock;
use crate::commands::lock_orders::ReleaseLock;
use crate::commands::lock_orders::show_lock;
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
    /// Show one lock with all that is known of it
    Show {
        /// Its id
        id: String,
    },
    /// Tell a lock's story: for what, through whom, whom it blocks, and the safe ways out
    Explain {
        /// A lock's id, or what is locked: disk/web-01, domain/nfs1, user/backup
        what: String,
    },
    /// Give a lock of a session back
    Release(ReleaseLock),
    /// Take a lock away from its owner
    ///
    /// A lock beneath user/ needs a reason only. Any other keeps a writer off the storage: it is broken when its holder is
    /// proved to write no more, else the command says what to do for that. A session that loses a lock learns it with
    /// the next renewal of its lease, and `sdm lock acquire` ends its command.
    Break(BreakLock),
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
            Self::Show { id } => show_lock(context, &id).await,
            Self::Explain { what } => {
                let object = if what.bytes().all(|byte| byte.is_ascii_digit()) { format!("lock/{what}") } else { what };
                explain(context, &object).await
            }
            Self::Release(command) => command.run(context).await,
            Self::Break(command) => command.run(context).await,
            // These are run elsewhere, without a context.
            Self::Acquire(_) | Self::Become { .. } => Ok(ExitCode::Internal),
        }
    }
}
