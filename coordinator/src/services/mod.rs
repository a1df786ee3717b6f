//! The member's gRPC services, one file each, and how they stand behind the port: which guard is
//! in front of which, and how large a message may be.

mod attachment;
mod audit;
mod audit_findings;
mod backup;
pub(crate) mod call;
mod care_checks;
mod cluster;
mod disk;
mod domain;
mod domain_check;
mod domain_life;
mod domain_reading;
mod event;
mod explain;
mod gc;
mod gc_orders;
mod gc_status;
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
mod snapshot;
mod template;
mod transaction;
mod transaction_watch;
mod volume;
mod volume_check;
mod worker;
mod worker_call;

pub(crate) use routes::all;
pub(crate) use routes::standard;
