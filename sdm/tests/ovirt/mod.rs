//! A reader of storage domains, written from oVirt's rules alone and sharing no code with the
//! product: what vdsm would find in the folder. Checksums come from `sha1sum`, sizes, formats and
//! backing chains from `qemu-img`.

// Each test binary uses a part of it.
#![allow(dead_code, unused_imports)]

mod domain;
mod image;
mod names;
mod volume;

pub use domain::nothing_is_left_over;
pub use domain::read_domain;
pub use domain::read_images;
pub use image::FoundImage;
pub use volume::FoundVolume;
