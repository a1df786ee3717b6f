//! The one binary of sdm.
fn main() {}
