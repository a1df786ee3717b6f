//! Raft's own traffic: this member's calls to others (`network`, `stream`, `snapshot`), others'
//! calls to it (`service`), and both sides' one way of writing openraft's values on the wire
//! (`convert`). Nothing here decides; `acknowledged` notes what followers said that they have.

mod acknowledged;
mod convert;
mod network;
mod service;
mod snapshot;
mod stream;

pub(crate) use acknowledged::Acknowledgements;
pub(crate) use network::PeerNetwork;
pub(crate) use service::RaftServer;
