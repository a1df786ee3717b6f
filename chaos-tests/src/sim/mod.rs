//! The simulation: real coordinators and real workers, with their real services, on simulated links, disks and storage,
//! in one thread, under the simulation's time and randomness. The same seed is the same run, byte for byte.
//!
//! ```text
//!  batch ─ one child process a seed ─▶ run ─ turmoil ─ hosts (members, workers) on network, watched storage
//!                                       │             clients, observer, operator
//!                                       └ nemesis (between two steps)       verdict, fencing ──▶ history
//! ```
//!
//! Phases: the cluster forms; clients work under faults; everything is healed and clients finish; then what was promised
//! is compared with what is there. What real disks, kernels and processes do is for the other scenarios.

mod batch;
mod clients;
mod disk_client;
mod fault;
mod fencing;
mod heard;
mod hosts;
mod kernel;
mod lease_client;
mod membership_client;
mod nemesis;
mod network;
mod observer;
mod operator;
mod plan;
mod read_client;
mod roster;
mod run;
mod shared;
mod verdict;
mod watched;

pub use batch::Batch;
pub use batch::seeds;
pub use plan::Planted;
pub use plan::Workload;
pub use run::SeedRun;
