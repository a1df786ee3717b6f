//! Named places at which a test makes the program fail, stop or die. Compiled in by the feature
//! `failpoints`, which no build that users run has on; without it `hit` is empty. Which places
//! exist is decided where they stand: around log writes and storage calls.
//!
//! A process reads its plan once, from `SDM_FAILPOINTS`: `name=action[@N];...` where the action is
//! `eio`, `enospc`, `abort` (as SIGKILL would), `hang` or `pause`, and N is the call at which it begins
//! (1 by default). A pause holds call N alone, until its plan is taken back. Tests in the same process use `arm`,
//! `disarm` and `is_paused`. A few places ask `skips`
//! instead: the action `skip` leaves the call out, to plant a bug that a test must find.

use std::io;

/// Passes, or fails as planned for this name.
///
/// # Errors
/// EIO or ENOSPC where the plan says so.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &str) -> io::Result<()> {
    Ok(())
}

/// Whether the call that stands here is to be left out. Always false without the feature.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn skips(_name: &str) -> bool {
    false
}

#[cfg(feature = "failpoints")]
pub use planned::{arm, disarm, hit, is_paused, skips};

#[cfg(feature = "failpoints")]
mod planned {
    use super::io;
    use std::collections::BTreeMap;
    use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

    #[derive(Clone, Copy, Debug)]
    enum Action {
        Errno(i32),
        Abort,
        Hang,
        Pause,
        Skip,
    }

    #[derive(Debug)]
    struct Plan {
        action: Action,
        from_call: u64,
        calls: u64,
        paused: bool,
    }

    static PLANS: LazyLock<Mutex<BTreeMap<String, Plan>>> = LazyLock::new(|| {
        let text = std::env::var("SDM_FAILPOINTS").unwrap_or_default();
        Mutex::new(text.split(';').filter_map(parse).collect())
    });

    static TAKEN_BACK: Condvar = Condvar::new();

    fn parse(item: &str) -> Option<(String, Plan)> {
        let (name, rest) = item.trim().split_once('=')?;
        let (action, from_call) = rest.split_once('@').unwrap_or((rest, "1"));
        let action = match action {
            "eio" => Action::Errno(5),
            "enospc" => Action::Errno(28),
            "abort" => Action::Abort,
            "hang" => Action::Hang,
            "pause" => Action::Pause,
            "skip" => Action::Skip,
            _ => return None,
        };
        Some((name.to_owned(), Plan { action, from_call: from_call.parse().ok()?, calls: 0, paused: false }))
    }

    /// Plans an action (in the form of the environment variable) for a name; false when it cannot
    /// be read.
    pub fn arm(item: &str) -> bool {
        let Some((name, plan)) = parse(item) else { return false };
        PLANS.lock().unwrap_or_else(PoisonError::into_inner).insert(name, plan);
        true
    }

    /// Takes the plan for a name back; a call that is paused there goes on.
    pub fn disarm(name: &str) {
        PLANS.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        TAKEN_BACK.notify_all();
    }

    /// Whether a call is paused at this name.
    pub fn is_paused(name: &str) -> bool {
        PLANS.lock().unwrap_or_else(PoisonError::into_inner).get(name).is_some_and(|plan| plan.paused)
    }

    fn pause(name: &str) {
        let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(plan) = plans.get_mut(name) else { return };
        plan.paused = true;
        let taken_back = TAKEN_BACK.wait_while(plans, |plans| plans.get(name).is_some_and(|plan| plan.paused));
        drop(taken_back);
    }

    /// Passes, or fails as planned for this name.
    ///
    /// # Errors
    /// EIO or ENOSPC where the plan says so.
    pub fn hit(name: &str) -> io::Result<()> {
        match next_action(name) {
            None | Some(Action::Skip) => Ok(()),
            Some(Action::Errno(number)) => Err(io::Error::from_raw_os_error(number)),
            Some(Action::Abort) => std::process::abort(),
            Some(Action::Pause) => {
                pause(name);
                Ok(())
            }
            Some(Action::Hang) => loop {
                std::thread::park();
            },
        }
    }

    /// Whether the plan says that the call that stands here is left out.
    pub fn skips(name: &str) -> bool {
        matches!(next_action(name), Some(Action::Skip))
    }

    /// What is planned for this call of the name, which it counts.
    fn next_action(name: &str) -> Option<Action> {
        let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = plans.get_mut(name)?;
        plan.calls += 1;
        // Who comes after a paused call is somebody else.
        let is_planned = match plan.action {
            Action::Pause => plan.calls == plan.from_call,
            _ => plan.calls >= plan.from_call,
        };
        is_planned.then_some(plan.action)
    }
}
