//! What a member with a million volumes costs: memory, the time from its start to its first
//! linearizable answer, how fast it answers, and what its clients notice while it writes a snapshot;
//! each next to a member with a thousand volumes.
//!
//! ```sh
//! cargo bench -p sdm --bench scale           # SDM_BENCH_VOLUMES to change it
//! ```

#[path = "../tests/host/mod.rs"]
mod host;
#[path = "scale/load.rs"]
mod load;
#[path = "scale/member.rs"]
mod member;
#[path = "scale/times.rs"]
mod times;

use load::Load;
use member::Filled;
use sdm_proto::wire::v1;
use std::time::Duration;
use std::time::Instant;
use times::Times;
use tonic::transport::Channel;

/// Calls of each kind that are timed, one after another.
const CALLS: u64 = 2_000;

/// Lock requests that wait in one more member.
const WAITING: u64 = 9_000;

/// Time after which nothing of the start is left, and for which the idle member is watched.
const IDLE: Duration = Duration::from_secs(10);

/// Time of load before the snapshot begins, at least.
const BEFORE: Duration = Duration::from_secs(2);

/// A disk's number, spread over all.
fn number(call: u64, disks: u64) -> u64 {
    call.wrapping_mul(0x9e37_79b9_7f4a_7c15) % disks
}

async fn show(channel: &Channel, disks: u64) -> Times {
    let mut client = v1::disk_service_client::DiskServiceClient::new(channel.clone());
    let mut times = Times::default();
    for call in 0..CALLS {
        let disk = sdm_state::fill::disk_name(number(call, disks));
        let begun = Instant::now();
        let shown = client.get_disk(v1::GetDiskRequest { disk }).await.expect("a disk").into_inner();
        times.add(begun.elapsed());
        assert!(!shown.disk.expect("the disk").volumes.is_empty());
    }
    times
}

async fn status(channel: &Channel) -> Times {
    let mut client = v1::cluster_service_client::ClusterServiceClient::new(channel.clone());
    let mut times = Times::default();
    for _ in 0..CALLS / 10 {
        let begun = Instant::now();
        let status = client.get_status(v1::GetStatusRequest::default()).await.expect("a status").into_inner();
        times.add(begun.elapsed());
        assert!(status.has_quorum);
    }
    times
}

async fn page(channel: &Channel) -> Times {
    let mut client = v1::disk_service_client::DiskServiceClient::new(channel.clone());
    let mut times = Times::default();
    for _ in 0..CALLS / 20 {
        let page = Some(v1::PageRequest { page_size: 100, page_token: String::new() });
        let request = v1::ListDisksRequest { page, domain: "fill-0".to_owned(), ..Default::default() };
        let begun = Instant::now();
        client.list_disks(request).await.expect("a page");
        times.add(begun.elapsed());
    }
    times
}

/// A lock that nobody else wants, taken and given back.
async fn locks(channel: &Channel) -> Times {
    let mut session = load::Session::open(channel.clone(), "probe").await;
    let mut times = Times::default();
    for _ in 0..CALLS / 2 {
        let begun = Instant::now();
        session.pair(vec![load::resource("user/probe".to_owned())]).await;
        times.add(begun.elapsed());
    }
    session.close().await;
    times
}

/// Everything that needs no load, told in one line each.
async fn quiet_figures(shape: &str, volumes: u64, waiting: u64) -> Filled {
    let disks = (volumes / 10).max(1);
    let filled = Filled::make(volumes, disks, waiting);
    let member = filled.start().await;
    println!(
        "{shape}: {} bytes of snapshot; serving {:.2} s after its start",
        filled.snapshot_bytes(),
        member.serving_after
    );
    println!("  resident {:.0} MiB, at most so far {:.0} MiB", member.resident_mib(), member.peak_mib());
    println!("  disk show    {}", show(&member.channel, disks).await);
    println!("  status       {}", status(&member.channel).await);
    println!("  a page of a domain's disks  {}", page(&member.channel).await);
    println!("  lock pair    {}", locks(&member.channel).await);
    let before = member.cpu_seconds();
    tokio::time::sleep(IDLE).await;
    println!("  idle         {:.2} % of a core", (member.cpu_seconds() - before) / IDLE.as_secs_f64() * 100.0);
    drop(member);
    filled
}

/// What the clients of a member notice while it writes a snapshot: short requests beside the load
/// that makes the snapshot due.
async fn snapshot_figures(filled: &Filled) {
    let member = filled.start().await;
    let loading = Load::start(&member.channel);
    let probe = tokio::spawn(load::probe(member.channel.clone()));
    let begun = Instant::now();
    let snapshot = filled.next_snapshot().await;
    assert!(snapshot.begun - begun > BEFORE, "the snapshot began before there was anything to compare with");
    loading.end().await;
    probe.abort();
    let took = snapshot.ended - snapshot.begun;
    println!("snapshot beside a load of {} MiB: {:.2} s, {} bytes", loading_mib(), took.as_secs_f64(), snapshot.bytes);
    let (before, meanwhile) = load::probed(snapshot.begun, snapshot.ended);
    println!("  lock pair, load, no snapshot    {before}");
    println!("  lock pair, load and snapshot    {meanwhile}");
    println!("  resident {:.0} MiB, at most so far {:.0} MiB", member.resident_mib(), member.peak_mib());
}

fn loading_mib() -> u64 {
    load::written_bytes() >> 20
}

fn main() {
    let volumes = std::env::var("SDM_BENCH_VOLUMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        drop(quiet_figures("1000 volumes", 1_000, 0).await);
        drop(quiet_figures("1000 volumes, 9000 waiting requests", 1_000, WAITING).await);
        let filled = quiet_figures(&format!("{volumes} volumes"), volumes, 0).await;
        snapshot_figures(&filled).await;
    });
}
