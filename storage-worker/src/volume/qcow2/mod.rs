//! qcow2: a gate for headers, a full check of tables and refcounts, and a writer of empty images.
//!
//! ```text
//!  header gate ─► refcount table, L1, snapshots, bitmaps, L2 tables: claimed as metadata, each cluster once
//!              ─► clusters that L2 entries refer to: inside the file, never metadata, counted
//!              ─► counted references against stored refcounts: too low is refused, too high is a leak
//! ```
//! The bytes are a stranger's. Nothing is allocated by a size that they state without a limit, every offset is
//! checked before it is read, and no table is walked twice for the same question. Guest data is not read.

mod be;
mod bitmaps;
mod check;
mod create;
mod error;
mod extensions;
mod header;
mod image;
mod ledger;
mod refcounts;
mod snapshots;
mod tables;

pub use check::check;
pub use create::create_empty;
pub use error::Qcow2Error;
pub use header::HEAD_BYTES;
pub use header::Header;
pub use image::FileImage;
pub use image::HeadImage;
pub use image::Image;
