//! The simulated side of transport and clock: turmoil's links between hosts by name, and the time of the simulated host.

use super::kernel;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sdm_proto::seams::Clock;
use sdm_proto::seams::Connection;
use sdm_proto::seams::Incoming;
use sdm_proto::seams::Transport;
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// Which links lose everything, by direction, and which machines are without power. turmoil loses what is sent there; it
/// also answers a connection attempt that it lost as if nobody listened, and that must not be believed: only a machine
/// that lives can refuse.
#[derive(Clone, Debug, Default)]
pub struct Cuts(Arc<Mutex<Lost>>);

#[derive(Debug, Default)]
struct Lost {
    links: BTreeSet<(String, String)>,
    dark: BTreeSet<String>,
}

impl Cuts {
    /// The links that lose everything from now on.
    pub fn set_links(&self, links: BTreeSet<(String, String)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).links = links;
    }

    /// The links that lose everything.
    pub fn links(&self) -> BTreeSet<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).links.clone()
    }

    /// A machine loses its power, or has it again.
    pub fn set_dark(&self, host: &str, dark: bool) {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if dark {
            lost.dark.insert(host.to_owned());
        } else {
            lost.dark.remove(host);
        }
    }

    fn answers(&self, from: &str, to: &str) -> bool {
        let lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let way = |a: &str, b: &str| !lost.links.contains(&(a.to_owned(), b.to_owned()));
        way(from, to) && way(to, from) && !lost.dark.contains(to)
    }
}

/// A simulated host's way into the network.
#[derive(Clone, Debug)]
pub struct SimTransport {
    host: String,
    cuts: Cuts,
}

impl SimTransport {
    /// The way of this host.
    pub fn of(host: &str, cuts: &Cuts) -> Arc<dyn Transport> {
        Arc::new(Self { host: host.to_owned(), cuts: cuts.clone() })
    }
}

fn invalid(address: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{address:?} is not HOST:PORT"))
}

impl Transport for SimTransport {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Connection>> {
        let (from, cuts) = (self.host.clone(), self.cuts.clone());
        async move {
            let (to, _) = address.rsplit_once(':').ok_or_else(|| invalid(&address))?;
            match turmoil::net::TcpStream::connect(address.as_str()).await {
                Ok(stream) if cuts.answers(&from, to) => Ok(Connection::new(stream, address)),
                Err(error) if cuts.answers(&from, to) => Err(error),
                // Nobody answers, and nobody says so.
                _ => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<(String, Incoming)>> {
        async move {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            let port = port.ok_or_else(|| invalid(&address))?;
            let listener = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
            let accepted = futures_util::stream::unfold(listener, |listener| async move {
                let accepted = listener.accept().await;
                Some((accepted.map(|(stream, peer)| Connection::new(stream, peer.to_string())), listener))
            });
            Ok((address, Box::pin(accepted) as Incoming))
        }
        .boxed()
    }
}

/// A planted defect: the wall clock, where one that only runs is meant.
#[derive(Clone, Copy, Debug)]
pub struct JumpingClock;

impl Clock for JumpingClock {
    fn now_ms(&self) -> u64 {
        SimClock.now_ms().saturating_add_signed(kernel::wall_ahead_ms())
    }

    fn sleep_until(&self, at_ms: u64) -> BoxFuture<'static, ()> {
        async move {
            // It may jump meanwhile.
            while JumpingClock.now_ms() < at_ms {
                tokio::time::sleep(JUMP_LOOK).await;
            }
        }
        .boxed()
    }
}

/// How often the planted clock is looked at.
const JUMP_LOOK: Duration = Duration::from_millis(50);

/// The clock of the simulated host that runs.
#[derive(Clone, Copy, Debug)]
pub struct SimClock;

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        u64::try_from(kernel::since_start().as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep_until(&self, at_ms: u64) -> BoxFuture<'static, ()> {
        let left = Duration::from_millis(at_ms.saturating_sub(self.now_ms()));
        tokio::time::sleep(left).boxed()
    }
}
