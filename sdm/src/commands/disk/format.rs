//! Formats as users write them.

use clap::ValueEnum;
use sdm_proto::wire::v1;

/// Formats of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiskFormat {
    /// The guest's bytes as they are
    Raw,
    /// QEMU's copy-on-write format
    Qcow2,
}

impl From<DiskFormat> for v1::DiskFormat {
    fn from(format: DiskFormat) -> Self {
        match format {
            DiskFormat::Raw => Self::Raw,
            DiskFormat::Qcow2 => Self::Qcow2,
        }
    }
}

/// As it stands in a request where none keeps the one there is.
#[must_use]
pub fn format_on_the_wire(format: Option<DiskFormat>) -> i32 {
    format.map_or(v1::DiskFormat::Unspecified, v1::DiskFormat::from).into()
}
