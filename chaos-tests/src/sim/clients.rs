//! Hosts with clients: each works until the clients are to pause, and then says that it has finished.

use super::disk_client::DiskClient;
use super::disk_client::Shelf;
use super::hosts::Ended;
use super::lease_client::LeaseClient;
use super::lease_client::Resources;
use super::network::SimTransport;
use super::plan::Workload;
use super::read_client::ReadClient;
use super::shared::Phase;
use super::shared::Shared;
use crate::client::Endpoints;
use crate::client::LockClient;
use crate::client::NoopClient;
use crate::client::TxnClient;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Clients of locks on one host.
pub const LOCK_CLIENTS: usize = 2;

/// Clients of disks on one host.
const DISK_CLIENTS: usize = 2;

/// A client's longest pause between two things, so that a run is not filled by one of them.
const PAUSE_MS: u64 = 120;

enum Client {
    Lock(Box<LockClient>),
    Txn(Box<TxnClient>),
    Noop(Box<NoopClient>),
    Lease(Box<LeaseClient>),
    Disk(Box<DiskClient>),
    Read(Box<ReadClient>),
}

impl Client {
    async fn step(&mut self) {
        match self {
            Client::Lock(client) => client.step().await,
            Client::Txn(client) => client.step().await,
            Client::Noop(client) => client.step().await,
            Client::Lease(client) => client.step().await,
            Client::Disk(client) => client.step().await,
            Client::Read(client) => client.step().await,
        }
    }

    /// When nothing new is begun any more.
    async fn finish(&mut self) {
        if let Client::Read(client) = self {
            client.last_look().await;
        }
    }
}

/// What the clients of one kind know together.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// Of disks.
    pub shelf: Arc<Shelf>,
    /// Of locks under short leases.
    pub resources: Arc<Resources>,
}

/// The clients of the host with this number, counted from 0.
pub async fn host(name: String, number: usize, shared: Arc<Shared>, knowledge: Knowledge) -> Ended {
    shared.wait_for(Phase::Working).await;
    let transport = SimTransport::of(&name, &shared.cuts);
    let mut seeds = StdRng::seed_from_u64(shared.plan.seed.wrapping_mul(31).wrapping_add(number as u64));
    let addresses = shared.plan.addresses();
    let mut clients = Vec::new();
    for local in 0..LOCK_CLIENTS {
        let of_all = number * LOCK_CLIENTS + local;
        let endpoints = Endpoints::over(&transport, &addresses, of_all)?;
        let random = StdRng::seed_from_u64(seeds.random());
        clients.push(Client::Lock(Box::new(LockClient::new(of_all, endpoints, shared.history.clone(), random))));
    }
    let endpoints = Endpoints::over(&transport, &addresses, number)?;
    let random = StdRng::seed_from_u64(seeds.random());
    clients.push(Client::Txn(Box::new(TxnClient::new(100 + number, endpoints, shared.history.clone(), random))));
    let endpoints = Endpoints::over(&transport, &addresses, number)?;
    let random = StdRng::seed_from_u64(seeds.random());
    let resources = knowledge.resources.clone();
    clients.push(Client::Lease(Box::new(LeaseClient::new(number, endpoints, shared.clone(), resources, random))));
    if shared.plan.workload == Workload::Disks {
        let endpoints = Endpoints::over(&transport, &addresses, number)?;
        let random = StdRng::seed_from_u64(seeds.random());
        clients.push(Client::Noop(Box::new(NoopClient::new(200 + number, endpoints, shared.history.clone(), random))));
        for local in 0..DISK_CLIENTS {
            let endpoints = Endpoints::over(&transport, &addresses, number + local)?;
            let random = StdRng::seed_from_u64(seeds.random());
            let name = format!("{name}.{local}");
            let client = DiskClient::new(name, endpoints, shared.history.clone(), knowledge.shelf.clone(), random);
            clients.push(Client::Disk(Box::new(client)));
        }
    }
    let endpoints = Endpoints::over(&transport, &addresses, number)?;
    let random = StdRng::seed_from_u64(seeds.random());
    let client = ReadClient::new(number, endpoints, shared.clone(), knowledge.shelf.clone(), random);
    clients.push(Client::Read(Box::new(client)));
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let shared = shared.clone();
        let mut random = StdRng::seed_from_u64(seeds.random());
        tasks.spawn(async move {
            while shared.works() {
                client.step().await;
                tokio::time::sleep(Duration::from_millis(random.random_range(0..PAUSE_MS))).await;
            }
            client.finish().await;
        });
    }
    while tasks.join_next().await.is_some() {}
    shared.finished.send_modify(|finished| *finished += 1);
    shared.wait_for(Phase::Over).await;
    Ok(())
}
