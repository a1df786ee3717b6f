//! A merge in place: a layer gets what the layer beneath it holds and it does not, so that the one beneath can be left
//! out of the chain. No new file is written; what it takes is the space of what is missing above.
//!
//! ```text
//!  parent ◄── gone ◄── child        each cluster that `gone` holds and `child` does not ──► into `child`
//!  parent ◄─────────── child        the header of `child` names `parent` (another order: volume/qcow2/rebase.rs)
//! ```
//! The first half changes nothing that a guest sees, however often it is broken off and begun again: `child` over `gone`
//! always reads the same. When it is complete, `child` over `parent` does so, too.

mod pull;

pub use pull::MergePorts;
pub use pull::pull;
