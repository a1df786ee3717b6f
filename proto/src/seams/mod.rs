//! The seams that members and workers share: transport, clock and blocking pool, each with a real
//! and a simulated side. The member's disk, the domain driver, the worker's folder and its I/O
//! processes have theirs in the crates that own them.

mod blocking;
mod channel;
mod clock;
mod simulated_network;
mod transport;

pub use blocking::BlockingPool;
pub use channel::channel;
pub use channel::server;
pub use clock::BootClock;
pub use clock::Clock;
pub use clock::SimulatedClock;
pub use simulated_network::SimulatedNetwork;
pub use transport::Connection;
pub use transport::Incoming;
pub use transport::TcpTransport;
pub use transport::Transport;
