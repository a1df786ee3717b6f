//! What a search for an order of operations comes to, and how a violation reads.

use std::fmt;

/// How far a search goes before it says that it does not know: operations tried on states. A count and not a time, so
/// that the same history gets the same verdict everywhere; some seconds, and at most some gigabytes of memory of what
/// was tried.
pub const STEPS_MAX: u64 = 5_000_000;

/// The outcome of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Violated(Box<Violation>),
    /// The search came to its limit first. It proves nothing.
    Unknown {
        /// Operations that were tried on states.
        steps: u64,
    },
}

/// Why there is no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The answer that nothing explains any more. Without the answers from it on, there is an order: the history up to
    /// it is the shortest that has none.
    pub stuck: String,
    /// Its place in the history.
    pub place: u64,
    /// Of the longest order that was found: the last operations, in the order in which they took effect.
    pub order: Vec<String>,
    /// How many operations stand before those.
    pub earlier: usize,
    /// What the object was after that order.
    pub state: String,
    /// Operations that were open at that place and not in that order.
    pub open: Vec<String>,
    /// Of those, how many are not shown.
    pub open_more: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing explains {}; the longest order that can be: ", self.stuck)?;
        if self.earlier > 0 {
            write!(f, "({} earlier), ", self.earlier)?;
        }
        write!(f, "{}; then the state is {}", self.order.join(", "), self.state)?;
        if !self.open.is_empty() {
            write!(f, "; also open: {}", self.open.join(", "))?;
        }
        if self.open_more > 0 {
            write!(f, " and {} more", self.open_more)?;
        }
        Ok(())
    }
}
