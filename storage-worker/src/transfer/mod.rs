//! Bytes between this worker and others: the gRPC server that commands and other workers read from
//! and write to, the client side of a pull, and the tickets that say which stream belongs to which
//! attempt. What is done with the pieces is decided by the attempt and its I/O process.

mod data_service;
mod pieces;
mod progress;
mod pull;
mod reader_stream;
mod server;
mod takeover;
mod tickets;
mod transfer_service;

pub(crate) use pieces::split;
pub(crate) use progress::ProgressBoard;
pub(crate) use progress::ProgressRow;
pub(crate) use pull::PullClient;
pub(crate) use server::TransferServer;
pub(crate) use takeover::Takeover;
pub(crate) use tickets::Purpose;
pub(crate) use tickets::Reader;
pub(crate) use tickets::Sender;
pub(crate) use tickets::Tickets;
pub(crate) use tickets::Visit;
