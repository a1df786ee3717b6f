//! How many raw sparse disks a second three durable members and one worker make: into one domain, and
//! into sixteen. What the load made it deletes afterwards; that is not part of the time.
//!
//! ```sh
//! cargo bench -p sdm --bench disks     # SDM_BENCH_SECONDS, SDM_BENCH_ROUNDS, SDM_BENCH_CLIENTS=1,64,
//!                                      # SDM_BENCH_DOMAINS=1,16
//! ```

#[path = "../tests/cluster/mod.rs"]
mod cluster;
#[path = "../tests/host/mod.rs"]
mod host;

use cluster::Cluster;
use cluster::Shape;

/// Clock ticks a second in /proc/PID/stat; fixed at 100 on every Linux that Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

fn numbers(name: &str, default: &str) -> Vec<u64> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').map(|number| number.parse().unwrap_or_else(|_| panic!("{name}: {number:?}"))).collect()
}

/// User and system time of a process and of those children that it has reaped, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    // The name in parentheses may hold anything; what follows it does not.
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a stat line").1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12) + ticks(13) + ticks(14)) / TICKS_PER_SECOND
}

/// A process and all that it started.
fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().flat_map(|thread| {
        let listed = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    });
    std::iter::once(pid).chain(children.flat_map(family)).collect()
}

/// From the entry that begins a disk to the one that commits it, both counted. Others may come in between
/// (a member's or a worker's sign of life), so the fewest of some tries.
fn entries_of_one(cluster: &Cluster) -> u64 {
    let entries = |number: u32| {
        let name = format!("one-{number}");
        let made = cluster.sdm().done(&["disk", "create", &name, "--domain", "d1", "--size", "1GiB"]);
        cluster.sdm().done(&["disk", "delete", &name]);
        let index = |value: &serde_json::Value| value.as_u64().expect("an index");
        let txn = &made["transaction"];
        index(&txn["revision"]) + 1 - index(&txn["history"][0]["index"])
    };
    (0..10).map(entries).min().unwrap_or_default()
}

fn main() {
    let seconds = numbers("SDM_BENCH_SECONDS", "10")[0];
    let rounds = numbers("SDM_BENCH_ROUNDS", "2")[0];
    let counts = numbers("SDM_BENCH_DOMAINS", "1,16");
    let cluster = Cluster::start(&Shape::usual());
    let names: Vec<String> = (1..=counts.iter().copied().max().unwrap_or(1)).map(|n| format!("d{n}")).collect();
    for name in &names {
        cluster.make_domain(name);
    }
    for name in &names {
        cluster.await_reach(name, &["host-1"]);
    }
    let members: Vec<u32> = cluster.member_names().iter().map(|name| cluster.pid(name)).collect();
    let worker = cluster.pid("host-1");
    let cpu = |pids: &[u32]| pids.iter().copied().map(cpu_seconds).sum::<f64>();
    println!("entries of the log for one disk: {}", entries_of_one(&cluster));
    for clients in numbers("SDM_BENCH_CLIENTS", "1,64") {
        for _ in 0..rounds {
            for count in &counts {
                let domains = names[..usize::try_from(*count).expect("few domains")].join(",");
                let [clients, time] = [clients, seconds].map(|number| number.to_string());
                let before = (cpu(&members), cpu(&family(worker)));
                let arguments = ["bench", "disks", "--clients", &clients, "--seconds", &time, "--domain", &domains];
                let report = cluster.sdm().done(&arguments);
                let after = (cpu(&members), cpu(&family(worker)));
                let field = |name: &str| report[name].as_f64().expect("a number");
                let each_us = |before: f64, after: f64| (after - before) * 1e6 / field("ops").max(1.0);
                println!(
                    "{clients:>3} clients, {count:>2} domains: {:>6.0} disks/s   p50 {:>6.1} ms   p99 {:>6.1} ms   max \
                     {:>6.1} ms   errors {}   CPU for each, its deletion included: members {:.0} us, worker {:.0} us   \
                     deleted {} in {:.1} s, left {}",
                    field("ops_per_sec"),
                    field("p50_us") / 1000.0,
                    field("p99_us") / 1000.0,
                    field("max_us") / 1000.0,
                    report["errors"],
                    each_us(before.0, after.0),
                    each_us(before.1, after.1),
                    report["deleted"],
                    field("cleanup_seconds"),
                    field("disks_left") + field("garbage_left"),
                );
            }
        }
    }
}
