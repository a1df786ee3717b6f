//! etcd as the peer of a benchmark: three members on loopback with their data on the same disk as
//! ours, and clients that lock through its own gRPC API. The few messages of it that are needed
//! stand here by hand.

use crate::host::Process;
use crate::host::Scratch;
use crate::host::text;
use crate::host::until;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// Lease of a client, in seconds: longer than any run, so that nobody renews.
const LEASE_SECONDS: i64 = 600;

/// Names of each client, as many as ours have.
const NAMES: u64 = 64;

/// `etcdserverpb.LeaseGrantRequest`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

/// `etcdserverpb.LeaseGrantResponse`, what is used of it.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

/// `etcdserverpb.LeaseRevokeRequest`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct LeaseRevokeRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

/// `v3lockpb.LockRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct LockRequest {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int64, tag = "2")]
    lease: i64,
}

/// `v3lockpb.LockResponse`, what is used of it.
#[derive(Clone, PartialEq, prost::Message)]
struct LockResponse {
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
}

/// `v3lockpb.UnlockRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct UnlockRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// An answer of which nothing is used.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Nothing {}

/// Three members.
pub struct Etcd {
    members: Vec<Process>,
    endpoints: Vec<String>,
    // After the processes, which write into it.
    _scratch: Scratch,
}

fn free_port() -> u16 {
    // Free a moment ago; a benchmark has the machine for itself.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

impl Etcd {
    /// Starts them with etcd's defaults and waits until they serve.
    pub fn start() -> Self {
        let scratch = Scratch::new("etcd");
        let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}")).collect();
        let members = ports.iter().enumerate().map(|(n, (client, peer))| {
            let mut command = Command::new("etcd");
            let client = format!("http://127.0.0.1:{client}");
            let peer = format!("http://127.0.0.1:{peer}");
            command.args(["--name", &format!("m{n}"), "--data-dir", text(&scratch.folder(&format!("m{n}")))]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", "new"]);
            command.args(["--log-level", "error"]);
            Process::start(&format!("m{n}"), command, &scratch.join(&format!("m{n}.log")))
        });
        let members = members.collect();
        let endpoints = ports.iter().map(|(client, _)| format!("http://127.0.0.1:{client}")).collect();
        let etcd = Self { members, endpoints, _scratch: scratch };
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        until("etcd serves", || runtime.block_on(etcd.client(0)).map(drop).map_err(|status| status.to_string()));
        etcd
    }

    /// Their process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Process::pid).collect()
    }

    async fn client(&self, number: usize) -> Result<Client, Status> {
        let endpoint = self.endpoints[number % self.endpoints.len()].clone();
        let channel = Endpoint::from_shared(endpoint).expect("an address").connect_lazy();
        Client::new(channel, number).await
    }

    /// One lock and one unlock after the other by so many clients, each with a lease of its own, spread
    /// over all members with so many connections to each. Answers with the latencies in microseconds,
    /// sorted.
    pub fn measure(&self, clients: u32, connections: u32, time: Duration) -> Vec<u64> {
        // One thread, as `sdm bench` has.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let channel =
                |endpoint: &String| Endpoint::from_shared(endpoint.clone()).expect("an address").connect_lazy();
            let sets: Vec<Vec<Channel>> =
                (0..connections).map(|_| self.endpoints.iter().map(channel).collect()).collect();
            let mut ready = Vec::new();
            for number in 0..clients as usize {
                let set = &sets[number % sets.len()];
                ready.push(Client::new(set[number % set.len()].clone(), number).await.expect("a lease"));
            }
            let end = Instant::now() + time;
            let working: Vec<_> = ready.into_iter().map(|client| tokio::spawn(client.work_until(end))).collect();
            let mut latencies = Vec::new();
            for work in working {
                latencies.extend(work.await.expect("a client does not panic").expect("etcd locks and unlocks"));
            }
            latencies.sort_unstable();
            latencies
        })
    }
}

struct Client {
    grpc: Grpc<Channel>,
    number: usize,
    lease: i64,
}

impl Client {
    async fn new(channel: Channel, number: usize) -> Result<Self, Status> {
        let mut client = Self { grpc: Grpc::new(channel), number, lease: 0 };
        let granted: LeaseGrantResponse =
            client.call("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl: LEASE_SECONDS }).await?;
        client.lease = granted.id;
        Ok(client)
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let path = PathAndQuery::from_static(path);
        self.grpc.unary(tonic::Request::new(request), path, codec).await.map(tonic::Response::into_inner)
    }

    async fn work_until(mut self, end: Instant) -> Result<Vec<u64>, Status> {
        let mut latencies = Vec::new();
        for turn in 0_u64.. {
            let begun = Instant::now();
            let name = format!("bench/{}/{}", self.number, turn % NAMES).into_bytes();
            let locked: LockResponse =
                self.call("/v3lockpb.Lock/Lock", LockRequest { name, lease: self.lease }).await?;
            let Nothing {} = self.call("/v3lockpb.Lock/Unlock", UnlockRequest { key: locked.key }).await?;
            if Instant::now() > end {
                break;
            }
            latencies.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        let Nothing {} = self.call("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeRequest { id: self.lease }).await?;
        Ok(latencies)
    }
}
