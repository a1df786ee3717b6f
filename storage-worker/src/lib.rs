//! The hands of sdm: supervisor, I/O processes, domain drivers, formats and the copy engine.

pub mod copy;
pub mod domain;
pub mod driver;
pub mod flatten;
pub mod folder;
mod gateway;
pub mod merge;
pub mod process;
mod supervisor;
mod transfer;
pub mod volume;
pub mod work;

pub use process::io_process_main;
pub use supervisor::WorkerConfig;
pub use supervisor::WorkerError;
pub use supervisor::run;
pub use supervisor::run_in_folder;
