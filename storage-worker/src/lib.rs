//! The hands of sdm: supervisor, I/O processes, domain drivers, formats and the copy engine.

pub mod copy;
pub mod domain;
pub mod driver;
pub mod volume;
pub mod work;
