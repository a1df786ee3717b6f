//! The member of sdm: services, proposals, reads, worker gateway and garbage collector.
//!
//! ```text
//!  port ─ door ─ guard ─ services, gateway ──┐            collector
//!                        raft/service        │ propose, read, keep_alive
//!                             │             Core ── route ─▶ leader (here, or one hop)
//!                           openraft ◀───────┘ ◀── timekeeper (leader)
//!                        raft/network ─▶ other members
//! ```
//!
//! It decides nothing about storage: `sdm-state` does, inside `apply`.

#![forbid(unsafe_code)]

mod admission;
mod check_in;
mod collector;
mod comparing;
mod config;
pub mod core;
mod door;
mod ending;
mod error;
mod forward;
mod founding;
mod gateway;
mod join;
mod keepalive;
mod leadership;
mod member;
mod membership;
mod peers;
mod pending;
mod propose;
mod raft;
mod reachability;
mod read;
mod report;
mod rounds;
mod route;
mod running;
mod services;
mod shown_clock;
mod starts;
mod stopwatch;
mod timekeeper;

#[cfg(test)]
mod sample;

pub use config::MemberConfig;
pub use config::Start;
pub use core::Core;
pub use core::Proposed;
pub use error::MemberError;
pub use member::run;
pub use member::run_with;
