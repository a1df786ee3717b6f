//! How many locks a second three durable members grant and take back, next to three members of etcd
//! 3.4 on the same disk in the same run: one operation is a lock and an unlock of a free name. Rounds
//! are interleaved; clients are spread over all members on both sides. Both shapes are measured, each
//! the same on both sides: every client is a program with a connection of its own, and all clients are
//! one program with one connection to each member.
//!
//! ```sh
//! cargo bench -p sdm --bench locks     # SDM_BENCH_SECONDS, SDM_BENCH_ROUNDS, SDM_BENCH_CLIENTS=1,64,256,
//!                                      # SDM_BENCH_SHAPES=own,shared
//! ```

#[path = "../tests/cluster/mod.rs"]
mod cluster;
mod etcd;
#[path = "../tests/host/mod.rs"]
mod host;

use cluster::Cluster;
use cluster::Shape;
use etcd::Etcd;
use host::Need;
use std::time::Duration;

/// Clock ticks a second in /proc/PID/stat; fixed at 100 on every Linux that Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of some processes, in seconds.
fn cpu_seconds(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process");
        // The name in parentheses may hold anything; what follows it does not.
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a stat line").1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    };
    pids.iter().map(of).sum()
}

/// What one side did in one round.
#[derive(Clone, Copy, Debug)]
struct Figures {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Processor time that the members took for one operation.
    cpu_us: f64,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn peer(etcd: &Etcd, clients: u32, connections: u32, seconds: u64) -> Figures {
    let before = cpu_seconds(&etcd.pids());
    let latencies = etcd.measure(clients, connections, Duration::from_secs(seconds));
    let cpu = cpu_seconds(&etcd.pids()) - before;
    let ops = latencies.len() as f64;
    let at = |share: f64| latencies[((ops * share) as usize).min(latencies.len() - 1)] as f64;
    Figures { per_second: ops / seconds as f64, p50_us: at(0.5), p99_us: at(0.99), cpu_us: cpu * 1e6 / ops }
}

fn ours(cluster: &Cluster, clients: u32, connections: u32, seconds: u64) -> Figures {
    let pids: Vec<u32> = cluster.member_names().iter().map(|name| cluster.pid(name)).collect();
    let before = cpu_seconds(&pids);
    let [clients, connections, time] = [clients.into(), connections.into(), seconds].map(|n: u64| n.to_string());
    let arguments = ["bench", "locks", "--clients", &clients, "--connections", &connections, "--seconds", &time];
    let report = cluster.sdm().done(&arguments);
    let cpu = cpu_seconds(&pids) - before;
    assert_eq!(report["errors"], 0, "{report}");
    let field = |name: &str| report[name].as_f64().expect("a number");
    Figures {
        per_second: field("ops_per_sec"),
        p50_us: field("p50_us"),
        p99_us: field("p99_us"),
        cpu_us: cpu * 1e6 / field("ops"),
    }
}

fn median(rounds: &[Figures], field: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(field).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn summary(rounds: &[Figures]) -> Figures {
    Figures {
        per_second: median(rounds, |round| round.per_second),
        p50_us: median(rounds, |round| round.p50_us),
        p99_us: median(rounds, |round| round.p99_us),
        cpu_us: median(rounds, |round| round.cpu_us),
    }
}

fn line(who: &str, figures: &Figures) -> String {
    format!(
        "{who:<5} {:>7.0} pairs/s   p50 {:>7.2} ms   p99 {:>7.2} ms   {:>5.0} us of the members' CPU each",
        figures.per_second,
        figures.p50_us / 1000.0,
        figures.p99_us / 1000.0,
        figures.cpu_us
    )
}

fn main() {
    let peers = host::ready("the comparison with etcd", &[Need::Tool("etcd")]);
    if !peers {
        println!("SKIPPED: etcd (Debian package etcd-server) is the peer of this benchmark, and is not here");
    }
    let seconds = number("SDM_BENCH_SECONDS", 10);
    let rounds = number("SDM_BENCH_ROUNDS", 3);
    let clients = std::env::var("SDM_BENCH_CLIENTS").unwrap_or_else(|_| "1,64,256".to_owned());
    let cluster = Cluster::start(&Shape { hosts: Vec::new(), ..Shape::usual() });
    let etcd = peers.then(Etcd::start);
    let shapes = std::env::var("SDM_BENCH_SHAPES").unwrap_or_else(|_| "own,shared".to_owned());
    let measured = Measured { cluster, etcd, seconds, rounds };
    for clients in clients.split(',').map(|text| text.parse::<u32>().expect("SDM_BENCH_CLIENTS is a list of numbers")) {
        for shape in shapes.split(',') {
            match shape {
                "own" => measured.compare(clients, clients, "a connection each"),
                // One client cannot share.
                "shared" if clients > 1 => measured.compare(clients, 1, "one connection to each member"),
                _ => {}
            }
        }
    }
}

/// Both sides, and how they are measured.
struct Measured {
    cluster: Cluster,
    etcd: Option<Etcd>,
    seconds: u64,
    rounds: u64,
}

impl Measured {
    fn compare(&self, clients: u32, connections: u32, shape: &str) {
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            theirs.extend(self.etcd.as_ref().map(|etcd| peer(etcd, clients, connections, self.seconds)));
            own.push(ours(&self.cluster, clients, connections, self.seconds));
        }
        println!("\n{clients} clients, {shape}, {} rounds of {} s each, medians", self.rounds, self.seconds);
        let own = summary(&own);
        println!("{}", line("sdm", &own));
        if theirs.is_empty() {
            return;
        }
        let theirs = summary(&theirs);
        println!("{}", line("etcd", &theirs));
        println!(
            "ratio {:>6.2} times the pairs   p50 {:.2}   p99 {:.2}   CPU {:.2}",
            own.per_second / theirs.per_second,
            own.p50_us / theirs.p50_us,
            own.p99_us / theirs.p99_us,
            own.cpu_us / theirs.cpu_us
        );
    }
}
