//! The member's gRPC services, one file each, and how they stand behind the port: which guard is
//! in front of which, and how large a message may be.

mod backup;
pub(crate) mod call;
mod cluster;
mod disk;
mod domain;
mod domain_reading;
mod gc;
pub(crate) mod health;
mod insiders;
mod job;
mod lock;
pub(crate) mod member;
mod mutation;
mod noop;
mod page;
mod present;
mod progress;
mod reconcile;
mod resolve;
mod routes;
mod transaction;
mod transaction_watch;
mod worker;

pub(crate) use routes::all;
pub(crate) use routes::standard;
