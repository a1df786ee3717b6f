//! The wish to end: Ctrl-C or SIGTERM, and the death of whoever started this process, for those that
//! must not outlive it.
//!
//! Both signals are listened to before anything else is done: one that comes at any later moment finds
//! somebody who says what it meant, instead of the kernel's end without a word.

use crate::output::Failure;
use rustix::process::Signal;
use rustix::process::getppid;
use rustix::process::set_parent_process_death_signal;
use sdm_proto::refusal::Class;
use std::io;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::watch;

/// How often this process was asked to end. Clones share it.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<u64>);

impl Shutdown {
    /// Listens from now on, on a thread of its own. To be called once, before any runtime is built: tokio's handler
    /// stands before its listener does, and a runtime of other threads that wakes up in between hands the signal to
    /// nobody. Here nobody can wake up until both stand.
    ///
    /// # Errors
    /// The kernel takes no handler or no thread: then the signals end the process by themselves.
    pub fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let (count, asked) = watch::channel(0);
        let listener = async move {
            loop {
                tokio::select! {
                    Some(()) = interrupt.recv() => {}
                    Some(()) = terminate.recv() => {}
                    else => return,
                }
                count.send_modify(|count| *count += 1);
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(listener))?;
        Ok(Self(asked))
    }

    /// One that nothing asks.
    pub fn never() -> Self {
        Self(watch::channel(0).1)
    }

    /// Completes when the process was asked to end, at once if that was before.
    pub async fn requested(self) {
        self.requested_times(1).await;
    }

    /// The same, when it was asked so many times.
    pub async fn requested_times(mut self, times: u64) {
        if self.0.wait_for(|count| *count >= times).await.is_err() {
            // Nobody listens any more: nobody can ask.
            std::future::pending::<()>().await;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpid;
    use rustix::process::kill_process;

    // The only test that sends signals to its own process, and so the only one that listens.
    #[tokio::test]
    async fn a_signal_that_came_before_anybody_asked_is_not_lost_and_the_second_is_told_apart() {
        let shutdown = Shutdown::listen().unwrap();
        kill_process(getpid(), Signal::INT).unwrap();
        shutdown.clone().requested().await;
        // Known from now on to whoever asks later.
        shutdown.clone().requested().await;
        let mut again = std::pin::pin!(shutdown.clone().requested_times(2));
        assert!(futures_util::poll!(&mut again).is_pending(), "it was asked once");
        kill_process(getpid(), Signal::TERM).unwrap();
        again.await;
    }

    #[tokio::test]
    async fn who_is_never_asked_never_ends() {
        let mut never = std::pin::pin!(Shutdown::never().requested());
        assert!(futures_util::poll!(&mut never).is_pending());
    }
}
