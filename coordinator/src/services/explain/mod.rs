//! `ExplainService`: what a thing is, who holds it, what stands in its way, what happened to it last, and the exact
//! next command. One file a family of things; all of it follows from the applied state.

mod api;
mod catalog;
mod cluster;
mod lock;
mod lookup;
mod parts;
mod transaction;

pub(crate) use api::ExplainApi;
