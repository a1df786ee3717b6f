//! qcow2: a gate for headers, a full check of tables and refcounts, a map of where guest data lies, a writer of empty
//! images; and what is done to one in place: it is grown, gets clusters of its own, or another layer beneath it.
//!
//! ```text
//!  header gate ─► refcount table, L1, snapshots, bitmaps, L2 tables: claimed as metadata, each cluster once
//!              ─► clusters that L2 entries refer to: inside the file, never metadata, counted
//!              ─► counted references against stored refcounts: too low is refused, too high is a leak
//! ```
//! The bytes are a stranger's. Nothing is allocated by a size that they state without a limit, every offset is
//! checked before it is read, and no table is walked twice for the same question. Guest data is read by `flatten/`.

mod additions;
mod be;
mod bitmaps;
mod check;
mod create;
mod decompress;
mod encode;
mod error;
mod extensions;
mod grow;
mod header;
mod image;
mod ledger;
mod map;
mod new_image;
mod rebase;
mod refcounts;
mod room;
mod snapshots;
mod tables;

pub use additions::Additions;
pub use check::check;
pub use check::check_layer;
pub use create::create_empty;
pub use decompress::decompress;
pub use encode::BackingFile;
pub use error::Qcow2Error;
pub use grow::grow;
pub use header::Backing;
pub use header::Compression;
pub use header::HEAD_BYTES;
pub use header::Header;
pub use image::FileImage;
pub use image::HeadImage;
pub use image::Image;
pub use map::Map;
pub use map::Mapped;
pub use new_image::NewImage;
pub use new_image::NewRefcounts;
pub use rebase::check_rebase;
pub use rebase::names_backing;
pub use rebase::rebase;
