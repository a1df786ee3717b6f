//! The contract of sdm: what members, workers, commands and tests agree on. Plain values (ids,
//! names, tokens, limits, refusals) always; the generated protobuf packages and what every
//! connection needs (credentials, transport, clock) with the feature `grpc`.
//!
//! It decides nothing: rules of the cluster live in the state crate.

#![forbid(unsafe_code)]

pub mod failpoint;
pub mod ids;
pub mod limits;
pub mod names;
pub mod refusal;
pub mod request_id;
pub mod token;

#[cfg(feature = "grpc")]
pub mod credentials;
#[cfg(feature = "grpc")]
pub mod seams;
#[cfg(feature = "grpc")]
pub mod status;
#[cfg(feature = "grpc")]
pub mod wire;
