//! The garbage collector: every member has one, none is special. It looks at its own applied state
//! and proposes the deletion of what is due; `apply` checks each again and picks the worker. Nothing
//! is remembered here, so a member that dies loses no collection.

mod plan;
mod run;

pub(crate) use plan::deleter_exists;
pub(crate) use run::Collector;
