//! I/O processes: children of the supervisor that touch storage in its place, because a hung mount
//! must not hang a host. Real ones are this program again ([`SpawnedProcesses`]); the simulated ones
//! run the same child loop as tasks ([`InProcess`]).
//!
//! ```text
//!  supervisor                         I/O process
//!  IoProcess::submit ── Order ──────► serve ──► one thread per order: work::run
//!  PieceSender       ── Piece ──────►   │
//!  RunningOrder      ◄─ State, Piece, Ended
//!  kill + exit       ── SIGKILL, reaped by a waiter
//! ```
//!
//! What an order means stands in `work`; which orders run, and for how long, in `supervisor`.

mod child_loop;
mod entry;
mod frame;
mod in_process;
mod io_process;
mod spawned;

pub(crate) use child_loop::ORDERS_MAX;
pub use child_loop::OrderRunner;
pub use child_loop::Threads;
pub use child_loop::serve;
pub use entry::io_process_main;
pub use frame::OrderState;
pub use in_process::InProcess;
pub use io_process::ExitWatch;
pub use io_process::IoProcess;
pub use io_process::NotTaken;
pub use io_process::OrderEnd;
pub use io_process::PieceSender;
pub use io_process::RunningOrder;
pub use spawned::SpawnedProcesses;

use crate::folder::ChildrenLock;
use futures_util::future::BoxFuture;
use std::io;
use std::sync::Arc;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::watch;

/// A byte stream to a child.
pub trait ChildStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ChildStream for T {}

/// How a child ended, in words ("signal: 9 (SIGKILL)").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit(pub String);

/// A child that was started.
pub struct Child {
    /// Its process id, for logs; 0 when it is none.
    pub pid: u32,
    /// The connection: frames both ways. Its end makes the child exit.
    pub stream: Box<dyn ChildStream>,
    /// Sends SIGKILL. Returns at once; the child may outlive it in an uninterruptible call.
    pub kill: Arc<dyn Fn() + Send + Sync>,
    /// Set once the child was reaped: from then on, and not before, it does nothing any more.
    pub exit: watch::Receiver<Option<Exit>>,
}

/// Where I/O processes come from. A started child lives until it is killed, its stream ends, or the
/// process that started it dies, whatever kills that; and it is always reaped when it can be.
pub trait IoProcesses: Send + Sync + std::fmt::Debug + 'static {
    /// Starts a child that holds this lock for as long as it lives.
    ///
    /// # Errors
    /// The system cannot start one (no memory, too many processes).
    fn start(&self, lock: ChildrenLock) -> BoxFuture<'static, io::Result<Child>>;
}
