//! `sdm lock`: who may act on what, who waits for it, and locks of the user's own.

use crate::commands::explain::explain;
use crate::commands::lock_acquire::AcquireLock;
use crate::commands::lock_acquire::resource_of;
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
            Self::Explain { what } => explain(context, &object_of(&what)).await,
            Self::Release(command) => command.run(context).await,
            Self::Break(command) => command.run(context).await,
            // These are run elsewhere, without a context.
            Self::Acquire(_) | Self::Become { .. } => Ok(ExitCode::Internal),
        }
    }
}

/// A lock's id or token, or else what is locked; a bare name is a user's own, as for `acquire`.
fn object_of(what: &str) -> String {
    let is_lock = what.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_lock { format!("lock/{what}") } else { format!("resource/{}", resource_of(what)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_named_by_its_id_its_token_or_what_it_locks() {
        assert_eq!(object_of("812"), "lock/812");
        assert_eq!(object_of("1-812-0"), "lock/1-812-0");
        assert_eq!(object_of("disk/web-01"), "resource/disk/web-01");
        assert_eq!(object_of("backup"), "resource/user/backup");
    }
}
