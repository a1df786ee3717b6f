//! The clients: they change things through any member, and write down what they were told.

mod endpoints;
mod locks;
mod noops;
mod sessions;
mod txns;

pub use endpoints::Answer;
pub use endpoints::Endpoints;
pub use endpoints::cluster;
pub use endpoints::disks;
pub use endpoints::domains;
pub use endpoints::events;
pub use endpoints::garbage;
pub use endpoints::locks;
pub use endpoints::snapshots;
pub use endpoints::transactions;
pub use locks::LockClient;
pub use locks::shared_resources;
pub use noops::NoopClient;
pub use sessions::keep_alive;
pub use txns::TxnClient;
