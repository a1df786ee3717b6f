//! sled asserts and unwraps where its file is damaged. Such a panic becomes an error here, and is
//! told once, in words, by whoever stops the member; it never reaches the terminal as a backtrace.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Once;

/// Names of the threads that sled makes; what panics there makes the call that waits for it fail.
const SLED_THREADS: [&str; 2] = ["sled-io-", "log flusher"];

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics of guarded calls off the terminal. The hook is the process's: all others go on to
/// the one before.
fn quiet_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            let of_sled = thread.name().is_some_and(|name| SLED_THREADS.iter().any(|start| name.starts_with(start)));
            if GUARDED.get() || of_sled {
                tracing::debug!(%panic, "the log database panicked");
            } else {
                before(panic);
            }
        }));
    });
}

fn text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "no reason given",
    }
}

/// Runs a call of the database.
///
/// # Errors
/// The call's own; `InvalidData` if it panicked.
pub(crate) fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    quiet_hook();
    let nested = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(nested);
    result.unwrap_or_else(|panic| {
        let reason = text(panic.as_ref());
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("its database cannot make sense of its file ({reason})"),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_reason() {
        let error = guarded::<()>(|| panic!("segment {} twice", 3)).expect_err("it panicked");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("segment 3 twice"), "{error}");
        assert_eq!(guarded(|| Ok(4)).expect("no panic"), 4);
    }
}
