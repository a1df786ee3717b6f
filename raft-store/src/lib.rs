//! The Raft store of sdm: what a member keeps on its disk, and the thin adapters that hand it to
//! openraft. Nothing here decides: `sdm-state` decides, openraft orders, this crate keeps.
//!
//! ```text
//!  MemberDisk (disk/)          the seam: a real folder (segments of the log, files) or a simulated one
//!     │
//!     ├─ Identity (identity.rs)   who this folder's member is
//!     ├─ LogStore (log/)          vote and log through one queue, one writer, one sync per batch
//!     └─ SnapshotFolder (snapshot/)  fsynced files, verified before they are believed
//!            │
//!  open() ───┴─> Opened { log_store, state_machine, view, snapshots, snapshot_trigger, fatal, .. }
//!                      └── Raft::new(id, config, network, log_store, state_machine)
//! ```
//!
//! The member stops when [`Fatal`] fires: from then on its disk cannot be trusted, and every write
//! has been refused.

#![forbid(unsafe_code)]

pub mod backup;
pub mod disk;
pub mod fatal;
pub mod identity;
pub mod log;
pub mod offline;
pub mod open;
pub mod raft;
pub mod seed;
pub mod snapshot;
pub mod types;

#[cfg(test)]
mod conformance;

pub use disk::MemberDisk;
pub use disk::SimulatedDisk;
pub use fatal::Fatal;
pub use fatal::FatalError;
pub use identity::Identity;
pub use identity::IdentityFile;
pub use log::LogStore;
pub use open::OpenError;
pub use open::Opened;
pub use open::open;
pub use raft::RowWatch;
pub use raft::StateMachine;
pub use raft::StateView;
pub use raft::ViewHandle;
pub use raft::raft_config;
pub use seed::SeedError;
pub use seed::SeededFolder;
pub use seed::seed_folder;
pub use snapshot::SnapshotFile;
pub use snapshot::SnapshotFolder;
pub use snapshot::SnapshotReceiver;
pub use snapshot::SnapshotTrigger;
pub use types::*;
