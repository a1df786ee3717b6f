//! The load: clients at work, on a runtime of their own, until they are told to pause.

use crate::client::Endpoints;
use crate::client::LockClient;
use crate::client::NoopClient;
use crate::client::TxnClient;
use crate::client::keep_alive;
use crate::history::History;
use anyhow::Result;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedRwLockWriteGuard;
use tokio::sync::RwLock;
use tokio::task::JoinSet;

/// How often the sessions are renewed: a small part of their lease.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);

/// How many clients of which kind.
#[derive(Clone, Copy, Debug)]
pub struct LoadShape {
    /// Those that take locks.
    pub lock_clients: usize,
    /// Those that begin transactions.
    pub txn_clients: usize,
    /// Those that begin transactions of kind noop, which need a worker.
    pub noop_clients: usize,
}

enum Client {
    Lock(LockClient),
    Txn(TxnClient),
    Noop(NoopClient),
}

impl Client {
    async fn step(&mut self) {
        match self {
            Client::Lock(client) => client.step().await,
            Client::Txn(client) => client.step().await,
            Client::Noop(client) => client.step().await,
        }
    }
}

/// Clients at work. Dropping it ends them.
pub struct Load {
    history: Arc<History>,
    endpoints: Endpoints,
    gate: Arc<RwLock<()>>,
    _tasks: JoinSet<()>,
}

/// No client does anything until this is dropped.
pub struct Paused(#[allow(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>);

impl Load {
    /// Starts the clients; they begin at once. To be called on the runtime.
    ///
    /// # Errors
    /// An address does not read as one.
    pub fn start(addresses: &[String], shape: LoadShape, seed: u64) -> Result<Self> {
        let history = Arc::new(History::new(shape.lock_clients));
        let gate = Arc::new(RwLock::new(()));
        let mut seeds = StdRng::seed_from_u64(seed);
        let mut next = |number: usize| -> Result<_> {
            Ok((Endpoints::new(addresses, number)?, history.clone(), StdRng::seed_from_u64(seeds.random())))
        };
        let mut clients = Vec::new();
        for number in 0..shape.lock_clients {
            let (endpoints, history, random) = next(number)?;
            clients.push(Client::Lock(LockClient::new(number, endpoints, history, random)));
        }
        for number in 0..shape.txn_clients {
            let (endpoints, history, random) = next(number)?;
            clients.push(Client::Txn(TxnClient::new(number, endpoints, history, random)));
        }
        for number in 0..shape.noop_clients {
            let (endpoints, history, random) = next(number)?;
            clients.push(Client::Noop(NoopClient::new(number, endpoints, history, random)));
        }
        let mut tasks = JoinSet::new();
        for mut client in clients {
            let gate = gate.clone();
            tasks.spawn(async move {
                loop {
                    let _open = gate.read().await;
                    client.step().await;
                }
            });
        }
        let (renewed, mut endpoints) = (history.clone(), Endpoints::new(addresses, 0)?);
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(KEEPALIVE_EVERY).await;
                keep_alive(&mut endpoints, &renewed).await;
            }
        });
        Ok(Self { history, endpoints: Endpoints::new(addresses, 0)?, gate, _tasks: tasks })
    }

    /// What the clients were told.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// The members, one by one.
    pub fn members(&self) -> Vec<Endpoints> {
        self.endpoints.each()
    }

    /// Waits until every client has finished what it was doing, and holds them there.
    pub async fn pause(&self) -> Paused {
        Paused(self.gate.clone().write_owned().await)
    }
}
