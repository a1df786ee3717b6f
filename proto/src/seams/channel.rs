//! gRPC channels and servers with the settings that every connection needs: a connect timeout and
//! HTTP/2 pings, because a channel without them stays blocked for good after a partition; window
//! and frame sizes for streams of file pieces.

use super::transport::Transport;
use crate::limits;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use tonic::transport::Channel;
use tonic::transport::Endpoint;
use tonic::transport::Server;
use tonic::transport::Uri;

/// Bytes in flight of one stream, and of one connection. Covers 1 GiB/s at 4 ms, more than one
/// disk delivers.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A channel to `host:port` that connects when first used, and again after each failure. It sets
/// no deadline: each call carries its own.
///
/// # Errors
/// The address does not read as `host:port`.
pub fn channel(transport: &Arc<dyn Transport>, address: &str) -> io::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{address:?} is not HOST:PORT: {error}")))?
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(limits::FRAME_BYTES_MAX);
    let transport = Arc::clone(transport);
    let connector = tower::service_fn(move |uri: Uri| {
        let transport = Arc::clone(&transport);
        async move {
            let address = uri.authority().map(ToString::to_string).unwrap_or_default();
            let connecting = transport.connect(address.clone());
            let connection = tokio::time::timeout(limits::CONNECT_TIMEOUT, connecting)
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer in time")))??;
            Ok::<_, io::Error>(TokioIo::new(connection))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// A server builder with the same settings.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(limits::FRAME_BYTES_MAX)
        .tcp_nodelay(true)
}
