//! The transport seam: byte connections to an address and from a listener. What is spoken over
//! them, and with which deadlines, is decided above (`channel`).

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio_stream::StreamExt;

/// What a connection is made of.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One byte connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    peer: String,
}

impl Connection {
    /// Wraps a stream from this peer.
    pub fn new(stream: impl Stream + 'static, peer: impl Into<String>) -> Self {
        Self { stream: Box::new(stream), peer: peer.into() }
    }
}

/// Connections that a listener accepted. An item is an error when accepting one failed; the
/// listener goes on.
pub type Incoming = BoxStream<'static, io::Result<Connection>>;

/// How connections are made.
pub trait Transport: Send + Sync + std::fmt::Debug + 'static {
    /// Connects to `host:port`.
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Connection>>;
    /// Listens at `host:port`; answers with the real address (a port of 0 is replaced) and the
    /// connections.
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<(String, Incoming)>>;
}

/// TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpTransport;

impl Transport for TcpTransport {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok(Connection::new(stream, address))
        })
    }

    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<(String, Incoming)>> {
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(&address).await?;
            let bound = listener.local_addr()?.to_string();
            let accepted = tokio_stream::wrappers::TcpListenerStream::new(listener).map(|stream| {
                let stream = stream?;
                stream.set_nodelay(true)?;
                let peer = stream.peer_addr()?.to_string();
                Ok(Connection::new(stream, peer))
            });
            Ok((bound, Box::pin(accepted) as Incoming))
        })
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.peer.clone())
    }
}

/// Address of the other end, as the server side sees it.
#[derive(Debug, Clone)]
pub struct Peer(pub String);

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}
