//! This host as the tests use it: tools, folders that go away by themselves, mounts, processes, and
//! waiting for a condition.

// Each test binary uses a part of it.
#![allow(dead_code, unused_imports)]

mod mount;
mod process;
mod scratch;
mod tools;
mod wait;

pub use mount::Mount;
pub use process::Process;
pub use process::Stopped;
pub use process::children_of;
pub use process::send;
pub use process::spawn;
pub use scratch::Scratch;
pub use tools::Need;
pub use tools::ready;
pub use tools::run;
pub use tools::text;
pub use tools::try_run;
pub use wait::PATIENCE;
pub use wait::until;
pub use wait::within;
