//! The member's disk: the seam between the store and what keeps its bytes. Three parts: the log
//! database, the snapshots' folder and the member's own folder (identity). The real side is a
//! folder of files; the simulated side keeps bytes in memory, forgets on a crash what
//! was not synced, and fails when told to.
//!
//! Log writes are async so that a simulated sync can take simulated time; everything else is plain
//! blocking I/O that [`MemberDisk::blocking`] runs where it hurts nobody.

mod batch;
mod durable;
mod files;
mod log_database;
mod member_disk;
mod real;
mod real_files;
mod segments;
mod simulated;
mod simulated_files;
mod simulated_log;

pub use batch::Batch;
pub use batch::Change;
pub use durable::sync_data;
pub use files::FileReader;
pub use files::FileWriter;
pub use files::Files;
pub use files::FixedFile;
pub use files::read_exact_at;
pub use log_database::LogDatabase;
pub use log_database::Visit;
pub use member_disk::Closed;
pub use member_disk::MemberDisk;
pub use real::OpenFolderError;
pub use simulated::Crash;
pub use simulated::SimulatedDisk;
