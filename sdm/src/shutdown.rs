//! The wish to end: Ctrl-C or SIGTERM, and the death of whoever started this process, for those that
//! must not outlive it.

use crate::output::Failure;
use rustix::process::Signal;
use rustix::process::getppid;
use rustix::process::set_parent_process_death_signal;
use sdm_proto::refusal::Class;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// Completes at the first SIGINT or SIGTERM after it was first polled.
pub async fn requested() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        // Without a handler the signal ends the process by itself.
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => {
            if interrupted.is_err() {
                std::future::pending::<()>().await;
            }
        }
        _ = terminate.recv() => {}
    }
}

/// Has the kernel kill this process when the thread that started it ends. With the starter's process
/// id, a starter that is gone already is noticed, too.
///
/// # Errors
/// The kernel refuses, or the starter is gone already.
pub fn die_with_parent(starter: Option<u32>) -> Result<(), Failure> {
    let refused = |why: String| Failure::new(Class::Internal, "ORPHANED", format!("--die-with-parent: {why}"));
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| refused(error.to_string()))?;
    // It may have ended just before the kernel was told.
    let parent = getppid().and_then(|parent| u32::try_from(parent.as_raw_nonzero().get()).ok());
    match starter {
        Some(_) if parent != starter => Err(refused("the starter is gone already".to_owned())),
        _ => Ok(()),
    }
}
