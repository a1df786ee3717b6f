//! What three members without work cost: CPU time and resident memory of each, over a minute.
//!
//! ```sh
//! cargo bench -p sdm --bench idle            # SDM_BENCH_SECONDS to change it
//! ```

#[path = "../tests/cluster/mod.rs"]
mod cluster;
#[path = "../tests/host/mod.rs"]
mod host;

use cluster::Cluster;
use cluster::Shape;
use std::time::Duration;

/// Time that passes before the measurement, so that start-up is not part of it.
const SETTLE: Duration = Duration::from_secs(10);

/// Clock ticks a second in /proc/PID/stat; fixed at 100 on every Linux that Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process");
    // The name in parentheses may hold anything; what follows it does not.
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a stat line").1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("KiB") / 1024.0
}

fn main() {
    let seconds = std::env::var("SDM_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let cluster = Cluster::start(&Shape::usual());
    cluster.make_domain("d");
    std::thread::sleep(SETTLE);
    let names = cluster.member_names();
    let before: Vec<f64> = names.iter().map(|name| cpu_seconds(cluster.pid(name))).collect();
    std::thread::sleep(Duration::from_secs(seconds));
    for (name, before) in names.iter().zip(before) {
        let pid = cluster.pid(name);
        let percent = (cpu_seconds(pid) - before) / seconds as f64 * 100.0;
        println!("{name}: {percent:.2} % of a core, {:.1} MiB resident", resident_mib(pid));
    }
}
