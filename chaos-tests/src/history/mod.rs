//! What happened in a run: what the clients were told (`record`), and every event in the order in which it was seen
//! (`event`), written down and read again as JSON lines (`lines`) in the form of Jepsen's operations, paired into
//! operations for the checkers (`operation`), and converted for checkers of others (`edn`, `porcupine`). What must hold
//! of it is for `check` and `checkers`.

mod edn;
mod event;
mod export;
mod lines;
mod operation;
mod porcupine;
mod record;

pub use event::Event;
pub use event::Kind;
pub use event::Process;
pub use export::Target;
pub use lines::Lines;
pub use lines::write_event;
pub use operation::Operation;
pub use operation::Outcome;
pub use operation::pair;
pub use record::*;
