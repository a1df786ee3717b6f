//! The generated messages and services.

#![allow(missing_docs, reason = "generated from the documented .proto files")]
#![allow(clippy::all, reason = "generated code")]

/// The public package.
pub mod v1 {
    tonic::include_proto!("sdm.v1");
}

/// What members and workers speak among themselves. Not promised to anybody else.
pub mod internal {
    /// Its first and only version.
    pub mod v1 {
        tonic::include_proto!("sdm.internal.v1");
    }
}

/// Descriptors of both packages, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sdm_descriptor.bin"));
