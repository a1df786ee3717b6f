//! The simulated side of the transport: hosts in one process, joined by memory. A test cuts and
//! heals links; a cut breaks what is open, as a reset would, and refuses what is new.

use super::transport::Connection;
use super::transport::Incoming;
use super::transport::Transport;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::sync::mpsc;
use tokio::sync::watch;

/// Bytes in flight on one direction of a connection.
const PIPE_BYTES: usize = 256 << 10;

/// Connections that wait to be accepted.
const BACKLOG: usize = 64;

#[derive(Default)]
struct Links {
    listeners: BTreeMap<String, mpsc::Sender<io::Result<Connection>>>,
    cut: BTreeSet<(String, String)>,
    /// Connections that each host tried to make over a link that is cut.
    tried: BTreeMap<String, u64>,
    ports: u16,
}

/// A network of hosts named by text; each host takes its own view by `host`.
#[derive(Clone)]
pub struct SimulatedNetwork {
    links: Arc<Mutex<Links>>,
    changes: watch::Sender<u64>,
    host: String,
}

impl Default for SimulatedNetwork {
    fn default() -> Self {
        Self { links: Arc::default(), changes: watch::Sender::new(0), host: String::new() }
    }
}

impl std::fmt::Debug for SimulatedNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedNetwork").field("host", &self.host).finish_non_exhaustive()
    }
}

fn host_of(address: &str) -> String {
    address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned()
}

fn refused(address: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, format!("nothing listens at {address}"))
}

impl SimulatedNetwork {
    /// The same network as seen from this host.
    #[must_use]
    pub fn host(&self, name: &str) -> Self {
        Self { host: name.to_owned(), ..self.clone() }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the link between two hosts, both ways.
    pub fn cut(&self, a: &str, b: &str) {
        let mut links = self.links();
        links.cut.insert((a.to_owned(), b.to_owned()));
        links.cut.insert((b.to_owned(), a.to_owned()));
        drop(links);
        self.changes.send_modify(|n| *n += 1);
    }

    /// How many connections a host tried to make so far over links that were cut.
    #[must_use]
    pub fn tried_over_cuts(&self, host: &str) -> u64 {
        self.links().tried.get(host).copied().unwrap_or_default()
    }

    /// Heals every link.
    pub fn heal(&self) {
        self.links().cut.clear();
        self.changes.send_modify(|n| *n += 1);
    }
}

impl Transport for SimulatedNetwork {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Connection>> {
        let network = self.clone();
        Box::pin(async move {
            let route = (network.host.clone(), host_of(&address));
            let listener = {
                let mut links = network.links();
                if links.cut.contains(&route) {
                    *links.tried.entry(network.host.clone()).or_default() += 1;
                    return Err(io::Error::new(io::ErrorKind::HostUnreachable, format!("no route to {address}")));
                }
                links.listeners.get(&address).cloned().ok_or_else(|| refused(&address))?
            };
            let (client, mut client_end) = tokio::io::duplex(PIPE_BYTES);
            let (server, mut server_end) = tokio::io::duplex(PIPE_BYTES);
            let mut changes = network.changes.subscribe();
            let links = Arc::clone(&network.links);
            let is_cut = move || links.lock().unwrap_or_else(PoisonError::into_inner).cut.contains(&route);
            tokio::spawn(async move {
                let until_cut = async {
                    if changes.wait_for(|_| is_cut()).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    // Either end closed, or the cut drops both ends. Nothing to report.
                    _ = tokio::io::copy_bidirectional(&mut client_end, &mut server_end) => {}
                    () = until_cut => {}
                }
            });
            let accepted = Connection::new(server, network.host.clone());
            listener.send(Ok(accepted)).await.map_err(|_| refused(&address))?;
            Ok(Connection::new(client, address))
        })
    }

    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<(String, Incoming)>> {
        let network = self.clone();
        Box::pin(async move {
            let mut links = network.links();
            let bound = if address.ends_with(":0") {
                links.ports += 1;
                format!("{}:{}", host_of(&address), links.ports)
            } else {
                address
            };
            let (sender, receiver) = mpsc::channel(BACKLOG);
            if links.listeners.get(&bound).is_some_and(|listener| !listener.is_closed()) {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{bound} is taken")));
            }
            links.listeners.insert(bound.clone(), sender);
            let incoming: Incoming = Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver));
            Ok((bound, incoming))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn bytes_arrive_until_the_link_is_cut_and_again_after_it_healed() {
        let network = SimulatedNetwork::default();
        let (address, mut incoming) = network.host("b").listen("b:0".into()).await.unwrap();
        let mut a = network.host("a").connect(address.clone()).await.unwrap();
        let mut b = incoming.next().await.unwrap().unwrap();
        a.write_all(b"hello").await.unwrap();
        let mut bytes = [0; 5];
        b.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");

        network.cut("a", "b");
        assert_eq!(b.read(&mut bytes).await.unwrap(), 0);
        assert!(network.host("a").connect(address.clone()).await.is_err());
        assert!(network.host("c").connect(address.clone()).await.is_ok());
        network.heal();
        assert!(network.host("a").connect(address).await.is_ok());
    }
}
