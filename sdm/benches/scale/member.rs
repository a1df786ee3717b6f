//! A member on a filled folder: made, started, watched from outside.

use crate::host::Process;
use crate::host::Scratch;
use crate::host::text;
use sdm_proto::wire::v1;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;
use tonic::transport::Channel;
use tonic::transport::Endpoint;

/// Between two looks at the member or its folder.
const LOOK: Duration = Duration::from_millis(5);

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(300);

/// Clock ticks a second in /proc/PID/stat; fixed at 100 on every Linux that Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// The folder.
pub struct Filled {
    scratch: Scratch,
    address: String,
}

/// A snapshot, as its file's names told.
pub struct Snapshot {
    /// When its temporary file was there.
    pub begun: Instant,
    /// When it had its final name.
    pub ended: Instant,
    /// Its length.
    pub bytes: u64,
}

impl Filled {
    /// Makes one.
    pub fn make(volumes: u64, disks: u64, waiting: u64) -> Self {
        let scratch = Scratch::new("scale");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let address = format!("127.0.0.1:{port}");
        let folder = scratch.join("member");
        let made = Command::new(env!("CARGO_BIN_EXE_sdm"))
            .args(["bench", "fill", "--data-dir", text(&folder), "--listen", &address])
            .args(["--volumes", &volumes.to_string(), "--disks", &disks.to_string()])
            .args(["--waiting", &waiting.to_string()])
            .output()
            .expect("sdm runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { scratch, address }
    }

    fn snapshots(&self) -> Vec<(PathBuf, u64)> {
        let folder = std::fs::read_dir(self.scratch.join("member").join("snapshots")).expect("the folder");
        let files = folder.filter_map(Result::ok);
        files.filter_map(|file| Some((file.path(), file.metadata().ok()?.len()))).collect()
    }

    /// Length of the newest snapshot.
    pub fn snapshot_bytes(&self) -> u64 {
        self.snapshots().iter().map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    /// Starts a member on it, and waits for its first linearizable answer.
    pub async fn start(&self) -> Member {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sdm"));
        let folder = self.scratch.join("member");
        command.args(["coordinator", "--name", "fill", "--listen", &self.address, "--data-dir", text(&folder)]);
        let begun = Instant::now();
        let process = Process::start("fill", command, &self.scratch.join("log"));
        let channel = Endpoint::from_shared(format!("http://{}", self.address)).expect("an address").connect_lazy();
        let mut client = v1::disk_service_client::DiskServiceClient::new(channel.clone());
        loop {
            let disk = sdm_state::fill::disk_name(0);
            if client.get_disk(v1::GetDiskRequest { disk }).await.is_ok() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "the member does not serve: see {}", self.scratch.path().display());
            tokio::time::sleep(LOOK).await;
        }
        Member { process, channel, serving_after: begun.elapsed().as_secs_f64() }
    }

    /// Waits for the next snapshot that the member takes by itself.
    pub async fn next_snapshot(&self) -> Snapshot {
        let known: Vec<_> = self.snapshots().into_iter().map(|(path, _)| path).collect();
        let waiting = Instant::now();
        let mut begun = None;
        loop {
            let files = self.snapshots();
            if files.iter().any(|(path, _)| path.extension().is_some_and(|ending| ending == "tmp")) {
                begun.get_or_insert_with(Instant::now);
            }
            let new = files.iter().find(|(path, _)| !known.contains(path) && path.extension().is_none());
            if let (Some(begun), Some((_, bytes))) = (begun, new) {
                return Snapshot { begun, ended: Instant::now(), bytes: *bytes };
            }
            assert!(waiting.elapsed() < PATIENCE, "no snapshot was taken");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A member that serves. Dropping it kills it.
pub struct Member {
    process: Process,
    /// To it.
    pub channel: Channel,
    /// Seconds from its start to its first answer.
    pub serving_after: f64,
}

impl Member {
    fn status_mib(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("the process");
        let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("KiB") / 1024.0
    }

    /// Memory that it has now.
    pub fn resident_mib(&self) -> f64 {
        self.status_mib("VmRSS:")
    }

    /// The most that it had.
    pub fn peak_mib(&self) -> f64 {
        self.status_mib("VmHWM:")
    }

    /// User and system time so far.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid())).expect("the process");
        // The name in parentheses may hold anything; what follows it does not.
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a stat line").1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }
}
