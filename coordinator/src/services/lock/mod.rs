//! `LockService`: who holds what and who waits for whom, clients' sessions, and the locks of users'
//! own names that clients take under them.

mod acquire;
mod api;
mod catalog;
mod orders;
mod request;
mod session;
mod stream;
mod watch;

pub(crate) use api::LockApi;
pub(in crate::services) use catalog::resource;
