//! How many steps one domain's process does in a second, with as many at once as it takes. Not run by itself:
//! `cargo test --release --test step_rate -- --ignored --nocapture`, in a folder on the storage of interest that
//! `SDM_STEP_RATE_FOLDER` names.

mod fixture;

use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use fixture::create_disk;
use fixture::create_domain;
use fixture::done;
use fixture::root;
use sdm_storage_worker::folder::ChildrenLock;
use sdm_storage_worker::process::IoProcess;
use sdm_storage_worker::process::IoProcesses;
use sdm_storage_worker::process::OrderEnd;
use sdm_storage_worker::process::SpawnedProcesses;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::run;

const AT_ONCE: u128 = 64;
const SECONDS: u64 = 4;

fn processes() -> SpawnedProcesses {
    SpawnedProcesses::new("/proc/self/exe", ["the_io_process_itself", "--exact", "--nocapture", "--test-threads=1"])
}

/// What the child runs: it was started with a socket as standard input.
#[test]
fn the_io_process_itself() {
    let stat = rustix::fs::fstat(std::io::stdin()).expect("standard input");
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket {
        std::process::exit(sdm_storage_worker::io_process_main());
    }
}

async fn steps(process: IoProcess, domain: DomainRoot, from: u128, until: Instant) -> u64 {
    let mut made = 0;
    let mut number = from;
    while Instant::now() < until {
        let mut running = process.submit(create_disk(&domain, number, VolumeFormat::Raw, 1 << 30)).await;
        match running.ended().await {
            OrderEnd::Outcome(Outcome::Done(_)) => made += 1,
            other => panic!("no disk: {other:?}"),
        }
        number += AT_ONCE;
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn empty_disks_per_second() {
    let base = std::env::var_os("SDM_STEP_RATE_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(base).expect("a folder");
    let domain = root(folder.path(), 1);
    done(run(Order::CreateDomain(create_domain(domain.clone())), Ports::silent()).await);
    // Its thread is what the child dies with.
    let processes = processes();
    let child = processes.start(ChildrenLock::default()).await.expect("a process");
    let process = IoProcess::new(child);
    let begin = Instant::now();
    let until = begin + Duration::from_secs(SECONDS);
    let tasks: Vec<_> = (1..=AT_ONCE).map(|n| tokio::spawn(steps(process.clone(), domain.clone(), n, until))).collect();
    let mut made = 0;
    for task in tasks {
        made += task.await.expect("steps");
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{made} disks in {seconds:.2} s: {:.0} steps/s with {AT_ONCE} at once", made as f64 / seconds);
}
