//! Commands on their way to the leader, over one stream that each member keeps open to it (`line`);
//! the leader's end of such streams (`desk`); and what a member concludes when its stream breaks
//! because the leader's process is gone (`lifeline`). A stream in place of a call for each command
//! halves what a forwarded command costs both members: whatever waits travels together, and so do
//! the answers.

mod desk;
pub(crate) mod lifeline;
mod line;

pub(crate) use desk::Answers;
pub(crate) use desk::serve;
pub(crate) use line::Forwarded;
pub(crate) use line::Lines;
