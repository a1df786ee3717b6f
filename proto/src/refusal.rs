//! Refusals: who or what stands in the way, why, and what to do next. A refusal is a value: the
//! state records it, the wire carries it as google.rpc.Status details (see `status`), the command
//! line prints it.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// What a refusal means to a program. Written into the log: never rename one, only add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// The request itself is wrong.
    Invalid,
    /// What it names does not exist.
    NotFound,
    /// It exists already, with other content.
    Conflict,
    /// Locked, in use, or in the wrong state.
    Precondition,
    /// No permission, or no credentials.
    Denied,
    /// No space, or over a limit.
    Exhausted,
    /// Ended by an abort.
    Aborted,
    /// The time to wait is over; what was begun may go on.
    Timeout,
    /// Nobody can answer now; try again.
    Unavailable,
    /// This version does not know it.
    Unsupported,
    /// A defect of ours.
    Internal,
}

/// One thing in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// "lock", "transaction", "job", "worker", "domain", "disk" ...
    pub kind: String,
    /// Its id or name.
    pub id: String,
    /// What it does there, in words.
    pub description: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Refusal {
    /// What it means to a program.
    pub class: Class,
    /// Stable code in SCREAMING_SNAKE.
    pub reason: String,
    /// One sentence: what was refused, and why.
    pub message: String,
    /// The next command, or what to change. May be empty.
    pub hint: String,
    /// What stands in the way.
    pub blockers: Vec<Blocker>,
}

impl Refusal {
    /// A refusal without blockers or hint.
    #[must_use]
    pub fn new(class: Class, reason: &str, message: impl Into<String>) -> Self {
        Self { class, reason: reason.to_owned(), message: message.into(), hint: String::new(), blockers: Vec::new() }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with one more thing in the way.
    #[must_use]
    pub fn blocker(mut self, kind: &str, id: impl Into<String>, description: impl Into<String>) -> Self {
        self.blockers.push(Blocker { kind: kind.to_owned(), id: id.into(), description: description.into() });
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.reason)?;
        for blocker in &self.blockers {
            write!(f, "; {} {}: {}", blocker.kind, blocker.id, blocker.description)?;
        }
        if !self.hint.is_empty() {
            write!(f, " (hint: {})", self.hint)?;
        }
        Ok(())
    }
}
