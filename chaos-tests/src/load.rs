//! The load: clients at work, on a runtime of their own, until they are told to pause.

use crate::client::Endpoints;
use crate::client::LockClient;
use crate::client::TxnClient;
use crate::client::keep_alive;
use crate::history::History;
use anyhow::Result;
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
        let mut tasks = JoinSet::new();
        for number in 0..shape.lock_clients {
            let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
            let endpoints = Endpoints::new(addresses, number)?;
            let mut client = LockClient::new(number, endpoints, history.clone(), random);
            let gate = gate.clone();
            tasks.spawn(async move {
                loop {
                    let _open = gate.read().await;
                    client.step().await;
                }
            });
        }
        for number in 0..shape.txn_clients {
            let random = StdRng::seed_from_u64(seed.wrapping_sub(1 + number as u64));
            let endpoints = Endpoints::new(addresses, number)?;
            let mut client = TxnClient::new(number, endpoints, history.clone(), random);
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
