//! The entry of the real I/O process: what the hidden subcommand `io-process` calls. Its standard
//! input is the socket to the supervisor, its standard output the supervisor's lock file, which it
//! only holds open (a shared lock on an inherited description lasts until the last holder is gone).

use super::child_loop;
use super::child_loop::Threads;
use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// What `ps` and `top` show.
const PROCESS_NAME: &CStr = c"sdm-io";

/// Exit code when the process was not started by a supervisor.
const NOT_A_CHILD: i32 = 64;

/// Runs an I/O process until its supervisor is gone or done with it; answers with the exit code.
/// The caller exits with it at once, without waiting for threads that may hang.
#[must_use]
pub fn io_process_main() -> i32 {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the I/O process cannot serve; it is started by `sdm worker` only");
            NOT_A_CHILD
        }
    }
}

fn run() -> io::Result<()> {
    // First of all: die with the supervisor. It may have died before this line; then the socket has
    // ended already, which `serve` sees.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // It was started as /proc/self/exe; `ps` is to show something better than "exe".
    rustix::thread::set_name(PROCESS_NAME)?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    socket.peer_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        child_loop::serve(tokio::net::UnixStream::from_std(socket)?, Arc::new(Threads::default())).await
    });
    // Threads of orders may be stuck in the kernel; nobody waits for them here.
    runtime.shutdown_background();
    served
}
