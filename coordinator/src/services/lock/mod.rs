//! `LockService`: who holds what and who waits for whom, clients' sessions, and the locks of users'
//! own names that clients take under them.

mod acquire;
mod api;
mod request;
mod session;

pub(crate) use api::LockApi;
