//! The supervisor: makes what runs on this worker equal to what the cluster wants, and reports what
//! becomes of it. It never touches a domain's path itself: whatever looks at storage runs in an I/O
//! process that can be given up.
//!
//! ```text
//!  Mandate ──► Supervisor ──► one task per attempt ──► I/O process of its own  (copy, pull, receive, send)
//!                  │                     └───────────► the domain's process    (short steps)
//!                  └────────► one task per domain ───► the domain's process    (probes)
//!                                        └──► Outbox ──► gateway
//! ```

mod answers;
mod assignment;
mod attempt;
mod build_order;
mod domain_process;
mod reach;
mod reachability;
mod running_set;
mod streams;
mod task;
mod turns;
mod unreaped;
mod volume_spec;
mod worker;

pub(crate) use answers::refusal_by_storage;
pub(crate) use assignment::Unreadable;
pub(crate) use reach::Reach;
pub(crate) use volume_spec::expected_placement;
pub use worker::WorkerConfig;
pub use worker::WorkerError;
pub use worker::run;
pub use worker::run_in_folder;
