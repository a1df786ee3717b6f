//! Operations as intervals: between which two places of a history each may have taken effect.

/// When an operation can take effect no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// It took effect before this place.
    At(u64),
    /// It took effect before this place, or never.
    LapsesAt(u64),
    /// It may take effect at any later time, or never.
    Never,
}

/// An operation that may have taken effect at one moment of this interval.
#[derive(Clone, Debug)]
pub struct Interval<O> {
    /// What.
    pub op: O,
    /// The place from which on it may have taken effect.
    pub begins: u64,
    /// Until when.
    pub ends: Ends,
    /// What it is called in a report: who did it, and the number of the event that asked.
    pub label: String,
}

/// The place of an event of a history, which leaves room before it.
pub fn place(event: usize) -> u64 {
    u64::try_from(event).unwrap_or(u64::MAX / 4) * 2 + 1
}

/// The place just before an event.
pub fn before(event: usize) -> u64 {
    place(event) - 1
}

/// A sequential object: what each operation does to it, and which results it may have.
pub trait Model {
    /// What the object remembers.
    type State: Clone + Eq + std::hash::Hash + std::fmt::Debug;
    /// An operation, with its result where it is known.
    type Op: std::fmt::Debug;

    /// The object at the beginning.
    fn initial(&self) -> Self::State;

    /// The object afterwards; none when the operation cannot have had this result here.
    fn apply(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// Whether the operation leaves every object as it is, except for what it lets others know of it.
    fn only_looks(&self, op: &Self::Op) -> bool;
}
