//! Waiting for conditions.

use std::time::Duration;
use std::time::Instant;

/// How long a condition may take. Most take a second; a loaded machine with a debug build takes more.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// Waits until `look` finds what it looks for; else it says how things stand.
///
/// # Panics
/// It is not found within the patience.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, look)
}

/// The same with a patience of its own.
///
/// # Panics
/// It is not found in that time.
#[track_caller]
pub fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(stands) if begun.elapsed() > patience => {
                panic!("{what}: not within {} s. Last seen: {stands}", patience.as_secs())
            }
            Err(_) => std::thread::sleep(LOOK_INTERVAL),
        }
    }
}
