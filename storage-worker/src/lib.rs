//! The hands of sdm: supervisor, I/O processes, domain drivers, formats and the copy engine.

pub mod work;
