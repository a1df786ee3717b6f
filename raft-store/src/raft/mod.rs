//! The adapters between openraft and the state: they apply, publish, snapshot and answer, and
//! decide nothing. What openraft does with time and the log is set in `config.rs`.

mod config;
mod state_machine;
mod view;

pub use config::LogCut;
pub use config::RaftTiming;
pub use config::raft_config;
pub use state_machine::SnapshotBuilder;
pub use state_machine::StateMachine;
pub use view::RowWatch;
pub use view::StateView;
pub use view::ViewHandle;
