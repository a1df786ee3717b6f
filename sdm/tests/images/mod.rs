//! Images as users have them, made by mkfs.ext4 and qemu-img: a file system with real files in it,
//! in every form that an import takes.

// Each test binary uses a part of it.
#![allow(dead_code, unused_imports)]

mod forms;
mod noise;
mod spoilt;
mod tree;

pub use forms::Form;
pub use forms::Images;
pub use forms::TOOLS;
pub use forms::check_export;
pub use forms::differing_bytes;
pub use noise::noise;
pub use noise::noise_with_holes;
pub use spoilt::Spoilt;
pub use spoilt::spoilt_images;
