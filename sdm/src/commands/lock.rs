//! `sdm lock`: who may act on what, who waits for it, and locks of the user's own.

use crate::commands::explain::explain;
use crate::commands::lock_acquire::AcquireLock;
use crate::commands::lock_list::list_locks;
use crate::commands::lock_list::show_locks_on;
use crate::commands::lock_orders::BreakLock;
use crate::commands::lock_orders::ReleaseLock;
use crate::commands::lock_orders::show_lock;
use crate::context::Context;
use crate::output::ExitCode;
use crate::output::Failure;
use crate::values::split_resource;
use clap::Subcommand;
use sdm_proto::refusal::Refusal;
use std::ffi::OsString;

/// Its verbs.
#[derive(Subcommand, Debug)]
pub enum LockCommand {
    /// List held and waiting locks, in the order of their requests
    List,
    /// Show one lock with all that is known of it, or every lock on a resource
    #[command(after_help = "Examples: sdm lock show 812; sdm lock show disk/web-01")]
    Show {
        /// A lock's id, or what is locked: disk/web-01, domain/nfs1, user/backup (backup alone is the same)
        what: String,
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
            Self::Show { what } if is_lock(&what) => show_lock(context, &what).await,
            Self::Show { what } => show_locks_on(context, &split_resource(&what)?.0).await,
            Self::Explain { what } => explain(context, &object_of(&what)?).await,
            Self::Release(command) => command.run(context).await,
            Self::Break(command) => command.run(context).await,
            // These are run elsewhere, without a context.
            Self::Acquire(_) | Self::Become { .. } => Ok(ExitCode::Internal),
        }
    }
}

/// A lock's id or token, or else what is locked; a bare name is a user's own, as for `acquire`.
fn object_of(what: &str) -> Result<String, Refusal> {
    if is_lock(what) { Ok(format!("lock/{what}")) } else { Ok(format!("resource/{}", split_resource(what)?.0)) }
}

/// Whether this is a lock's id or token, and not what it locks.
fn is_lock(what: &str) -> bool {
    what.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_named_by_its_id_its_token_or_what_it_locks() {
        let object = |what: &str| object_of(what).unwrap();
        assert_eq!(object("812"), "lock/812");
        assert_eq!(object("1-812-0"), "lock/1-812-0");
        assert_eq!(object("disk/web-01"), "resource/disk/web-01");
        assert_eq!(object("backup"), "resource/user/backup");
        assert_eq!(object("domain/nfs1:IX"), "resource/domain/nfs1", "as `lock list` writes it");
        assert!(object_of("disks/web-01").is_err());
    }
}
