//! The command's side of a conversation with the cluster: any member will do, dead ones are passed
//! over, a repetition changes nothing twice, and what waits goes on at another member. What is said
//! to the user is the output's affair.

mod abort;
mod answers;
mod attachment;
mod cluster;
mod cluster_error;
mod events;
mod lock_line;
mod lock_session;
mod mutation;
mod pages;
mod trouble;
mod wait;
mod watch;

pub use abort::abort;
pub use abort::abort_own;
pub use answers::ChangeAnswer;
pub use attachment::Attachment;
pub use attachment::Begun;
pub use attachment::repeat_hint;
pub use cluster::Cluster;
pub use cluster::Link;
pub use cluster_error::cause_of;
pub use events::EventWatch;
pub use lock_session::LockSession;
pub use mutation::LOCK_EPOCH_VARIABLE;
pub use mutation::LOCK_SESSION_VARIABLE;
pub use mutation::LOCK_TOKEN_VARIABLE;
pub use mutation::Mutation;
pub use mutation::initiator;
pub use pages::all_pages;
pub use trouble::LOOK;
pub use trouble::trouble_of;
pub use trouble::with_trouble;
pub use wait::show;
pub use wait::wait_for_outcome;
pub use watch::Told;
pub use watch::TransactionWatch;
pub use watch::outcome_of;

#[cfg(test)]
mod tests;
