//! How long a move of 4 GiB between two local domains takes, next to `qemu-img convert` on the same
//! file in the same run. Rounds are interleaved and alternate in direction, since a machine's disk
//! drifts within minutes; caches are dropped before each where that is allowed (root).
//!
//! ```sh
//! cargo bench -p sdm --bench move            # SDM_BENCH_BYTES, SDM_BENCH_ROUNDS to change it
//! ```

#[path = "../tests/cluster/mod.rs"]
mod cluster;
#[path = "../tests/host/mod.rs"]
mod host;

use cluster::Cluster;
use cluster::Shape;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

/// Half of the image is data in runs of this length, half is holes of this length.
const RUN_BYTES: u64 = 16 << 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// An image of incompressible data and holes, in turns.
fn make_image(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = File::create(path)?;
    file.set_len(bytes)?;
    let mut run = vec![0; RUN_BYTES as usize];
    for at in (0..bytes).step_by(2 * RUN_BYTES as usize) {
        blake3::Hasher::new().update(&at.to_le_bytes()).finalize_xof().fill(&mut run);
        file.write_all_at(&run[..RUN_BYTES.min(bytes - at) as usize], at)?;
    }
    file.sync_all()
}

fn drop_caches() {
    // Without root the caches stay warm for both, which the two anchors share.
    let _ = Command::new("sync").status();
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
}

fn qemu_convert(source: &Path, target: &Path) -> Duration {
    drop_caches();
    let begun = Instant::now();
    let status = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "raw", "-W", "-m", "16", "-t", "none", "-T", "none"])
        .args([source, target])
        .status()
        .expect("qemu-img");
    assert!(status.success(), "qemu-img convert failed");
    let took = begun.elapsed();
    std::fs::remove_file(target).expect("the copy");
    took
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        println!("SKIPPED: qemu-img (Debian package qemu-utils) is the peer of this benchmark, and is not here");
        return;
    }
    let bytes = number("SDM_BENCH_BYTES", 4 << 30);
    let rounds = number("SDM_BENCH_ROUNDS", 7);
    let cluster = Cluster::start(&Shape::usual());
    let sdm = cluster.sdm();
    for domain in ["left", "right"] {
        cluster.make_domain(domain);
    }
    let image = cluster.path("image.raw");
    make_image(&image, bytes).expect("an image");
    sdm.done(&["disk", "import", image.to_str().unwrap(), "--name", "d", "--domain", "left", "--format", "raw"]);
    std::fs::remove_file(&image).expect("the image");

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let shown = sdm.done(&["disk", "show", "d"]);
        let source = shown["volumes"][0]["path"].as_str().expect("a path").to_owned();
        let peer = qemu_convert(Path::new(&source), &cluster.path("peer.raw"));
        drop_caches();
        let target = if round % 2 == 0 { "right" } else { "left" };
        let begun = Instant::now();
        sdm.done(&["disk", "move", "d", "--to", target]);
        let own = begun.elapsed();
        sdm.done(&["gc", "run"]);
        println!("round {round}: qemu-img {:.2} s, sdm {:.2} s", peer.as_secs_f64(), own.as_secs_f64());
        ours.push(own.as_secs_f64());
        theirs.push(peer.as_secs_f64());
    }
    let ratio = median(ours.iter().zip(&theirs).map(|(own, peer)| own / peer).collect());
    println!(
        "{} MiB, {rounds} rounds: median qemu-img {:.2} s, median sdm {:.2} s, median ratio {ratio:.2}",
        bytes >> 20,
        median(theirs),
        median(ours)
    );
}
