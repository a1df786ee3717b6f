//! The worker's connection to the cluster: says hello to any member, keeps the lease, takes sets of
//! assignments in order, and repeats reports until a set no longer names them.
//!
//! ```text
//!            hello, pings, reports                 Mandate (watch)
//!  member ◄────────────────────────── Gateway ─────────────────────► supervisor
//!         ──────────────────────────►         ◄─────────────────────
//!            welcome, pongs, sets                  Outbox (reports)
//! ```
//!
//! It runs nothing and decides nothing about attempts: a set or the end of the lease changes the
//! mandate, and the supervisor makes what runs equal to it.

mod connection;
mod endpoints;
mod lease;
mod link;
mod mandate;
mod outbox;

pub(crate) use connection::Gateway;
pub(crate) use connection::GatewayError;
pub(crate) use connection::GatewaySettings;
pub(crate) use mandate::Mandate;
pub(crate) use mandate::SessionFacts;
pub(crate) use outbox::Outbox;
