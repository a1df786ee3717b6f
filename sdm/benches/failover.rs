//! How long a lock is not to be had after the leader's process was killed: from the SIGKILL to the
//! next grant, asked of another member all the time. The killed member is started again before the
//! next round.
//!
//! ```sh
//! cargo bench -p sdm --bench failover     # SDM_BENCH_ROUNDS; SDM_BENCH_CLIENTS=64 for load meanwhile
//! ```

#[path = "../tests/cluster/mod.rs"]
mod cluster;
#[path = "../tests/host/mod.rs"]
mod host;

use cluster::Cluster;
use cluster::Shape;
use cluster::Started;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use std::time::Duration;
use std::time::Instant;
use tonic::transport::Channel;
use tonic::transport::Endpoint;

/// Pause between two requests after one that was refused.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the cluster is left alone before a kill: connections are open, leases are fresh.
const SETTLE: Duration = Duration::from_secs(2);

/// No grant takes this long, unless nothing works.
const PATIENCE: Duration = Duration::from_secs(30);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A session at one member.
struct Asking {
    client: LockServiceClient<Channel>,
    session: v1::SessionKey,
    sequence: u64,
}

impl Asking {
    async fn begin(address: &str, round: u64) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
        let mut client = LockServiceClient::new(channel);
        let nonce = format!("failover-{}-{round}", std::process::id());
        let request = v1::OpenSessionRequest { label: "failover".to_owned(), ttl_ms: 60_000, nonce };
        let opened = client.open_session(request).await.expect("a session").into_inner();
        Self { client, session: opened.session.expect("its key"), sequence: 0 }
    }

    /// Takes a free name, or learns why not.
    async fn grant(&mut self, round: u64) -> Result<(), tonic::Status> {
        self.sequence += 1;
        let resource = format!("user/failover/{round}/{}", self.sequence);
        let request = v1::AcquireRequest {
            session: Some(self.session),
            sequence: self.sequence,
            resources: vec![v1::LockedResource { resource, mode: "X".to_owned() }],
            wait_ms: 0,
            why: "failover".to_owned(),
        };
        self.client.acquire(request).await.map(drop)
    }
}

/// Kills the leader; how long until another member's next grant.
fn round(cluster: &mut Cluster, runtime: &tokio::runtime::Runtime, round: u64) -> Duration {
    let leader = cluster.leader();
    let names = cluster.member_names();
    let others: Vec<&String> = names.iter().filter(|name| **name != leader).collect();
    let other = others[usize::try_from(round).expect("few rounds") % others.len()];
    let mut asking = runtime.block_on(Asking::begin(cluster.address_of(other), round));
    runtime.block_on(asking.grant(round)).expect("a grant before anything happens");
    let begun = Instant::now();
    cluster.kill(&leader);
    loop {
        match runtime.block_on(asking.grant(round)) {
            Ok(()) => break,
            Err(status) => assert!(begun.elapsed() < PATIENCE, "no grant after {PATIENCE:?}: {status:?}"),
        }
        std::thread::sleep(PAUSE);
    }
    let took = begun.elapsed();
    cluster.start_node(&leader);
    cluster.await_members(names.len());
    took
}

fn load(cluster: &Cluster, clients: u64) -> Option<Started> {
    let clients = (clients > 0).then(|| clients.to_string())?;
    Some(cluster.sdm().start(&["bench", "locks", "--clients", &clients, "--seconds", "3600"]))
}

fn main() {
    let rounds = number("SDM_BENCH_ROUNDS", 20);
    let mut cluster = Cluster::start(&Shape { hosts: Vec::new(), ..Shape::usual() });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let load = load(&cluster, number("SDM_BENCH_CLIENTS", 0));
    let mut took = Vec::new();
    for number in 0..rounds {
        std::thread::sleep(SETTLE);
        let time = round(&mut cluster, &runtime, number);
        println!("round {number}: {} ms", time.as_millis());
        took.push(time);
    }
    drop(load);
    took.sort_unstable();
    println!(
        "{rounds} kills of the leader: next grant through another member after {} ms at the median, {} ms at the most",
        took[took.len() / 2].as_millis(),
        took[took.len() - 1].as_millis()
    );
}
