//! One byte of a stopped member's folder is changed: in the log's database, in a snapshot, in the
//! identity. Started on it, the member refuses and names what is damaged, or it shows that the byte
//! did not matter: everything that was acknowledged is still there. Anything between is a finding.
//!
//! The cluster has one member, so nobody mends it, and each flip starts from the same folder.

use crate::check;
use crate::cluster::Cluster;
use crate::cluster::Node;
use crate::cluster::Shape;
use crate::history::History;
use crate::load::Load;
use crate::load::LoadShape;
use crate::loop_fs::FsKind;
use crate::loop_fs::tool;
use crate::process::Program;
use crate::requirements;
use crate::run_folder::RunFolder;
use anyhow::Context;
use anyhow::Result;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;
use tokio::runtime::Runtime;

/// Bytes of the member's file system: its folder twice.
const FS_BYTES: u64 = 1 << 30;

/// How long the clients work at most until there is a snapshot.
const SNAPSHOT_TIME: Duration = Duration::from_secs(120);

/// How long the clients go on after it, so that the log holds entries behind it.
const AFTER_SNAPSHOT: Duration = Duration::from_secs(3);

/// How long a stop in order may take.
const STOP_TIME: Duration = Duration::from_secs(20);

/// How long a start on a damaged folder may take until it serves or has ended.
const START_TIME: Duration = Duration::from_secs(30);

/// Locks that were granted last: where their names stand in a file, there is an entry or a row that
/// counts, not one that was overwritten long ago.
const NEWEST: usize = 64;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct FlippedByte {
    /// Flips in each file.
    pub flips: u32,
    /// What all random choices follow from.
    pub seed: u64,
    /// What runs as a member.
    pub program: Program,
    /// Where the run's folder is made.
    pub base: PathBuf,
}

/// What became of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It refused and named the file.
    Refused,
    /// It served, and nothing was missing.
    Harmless,
    /// Neither.
    Broken,
}

impl FlippedByte {
    /// Runs it.
    ///
    /// # Errors
    /// Something about this host, not about the member.
    pub fn run(&self) -> Result<ExitCode> {
        let run = RunFolder::make(&self.base)?;
        if let Some(why) = requirements::missing(&run, &[FsKind::Ext4]) {
            return Ok(requirements::skipped("flipped-byte", &why));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let shape =
            Shape { members: 1, fs: FsKind::Ext4, bytes: FS_BYTES, worker: false, program: self.program.clone() };
        let mut cluster = Cluster::start(&run, "one", &shape)?;
        let load = self.prepare(&mut cluster, &runtime)?;
        let _held = runtime.block_on(load.pause());
        let Some(node) = cluster.nodes.first_mut() else { return Ok(ExitCode::FAILURE) };
        anyhow::ensure!(node.stop(STOP_TIME), "the member does not stop");
        let pristine = node.fs().mount_point().join("pristine");
        std::fs::rename(node.data_dir(), &pristine)?;

        let mut random = StdRng::seed_from_u64(self.seed);
        let names = newest_names(load.history());
        let mut outcomes: BTreeMap<(String, Outcome), u32> = BTreeMap::new();
        for file in files_of(&pristine)? {
            for flip in 0..self.flips {
                let Some(offset) = offset_in(&pristine.join(&file), flip, &names, &mut random)? else { continue };
                let outcome = try_flip(&mut cluster, &pristine, &file, offset, &load, &runtime)?;
                *outcomes.entry((kind_of(&file), outcome)).or_default() += 1;
            }
        }
        let mut broken = 0;
        for ((file, outcome), count) in &outcomes {
            println!("{file}: {count} {outcome:?}");
            broken += if *outcome == Outcome::Broken { *count } else { 0 };
        }
        let flips: u32 = outcomes.values().sum();
        let verdict = if broken == 0 { "PASSED" } else { "BROKEN" };
        println!("flipped-byte: {verdict}: {flips} flips, {broken} neither refused nor harmless, seed {}", self.seed);
        Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// A member with a snapshot and entries behind it.
    fn prepare(&self, cluster: &mut Cluster, runtime: &Runtime) -> Result<Load> {
        let history = History::new(0);
        check::await_agreement(cluster, runtime, &history, &mut [false]);
        anyhow::ensure!(history.violations().is_empty(), "the member does not start: {:?}", history.violations());
        let shape = LoadShape { lock_clients: 24, txn_clients: 4, noop_clients: 0 };
        let load = runtime.block_on(async { Load::start(&cluster.addresses(), shape, self.seed) })?;
        let begun = Instant::now();
        let snapshots = cluster.nodes.first().map(|node| node.data_dir().join("snapshots")).unwrap_or_default();
        while !has_snapshot(&snapshots) {
            anyhow::ensure!(begun.elapsed() < SNAPSHOT_TIME, "no snapshot came to be");
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(AFTER_SNAPSHOT);
        Ok(load)
    }
}

fn has_snapshot(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names
        .into_iter()
        .any(|name| name.to_string_lossy().starts_with("snap-") && !name.to_string_lossy().ends_with("tmp"))
}

/// All files of a member's folder but its lock, relative to it.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != "lock") {
                files.push(path.strip_prefix(folder)?.to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What a file is, without the numbers in its name.
fn kind_of(file: &Path) -> String {
    let name = file.to_string_lossy().into_owned();
    let number = name
        .char_indices()
        .zip(name.chars().skip(1))
        .find(|((_, before), c)| matches!(before, '-' | '.') && c.is_ascii_digit());
    number.map_or(name.clone(), |((at, _), _)| name.chars().take(at).collect())
}

/// Names of the locks that were granted last, as they stand in entries and rows.
fn newest_names(history: &History) -> Vec<Vec<u8>> {
    let record = history.record();
    let mut grants: Vec<_> = record.books.iter().flat_map(|book| book.held.values()).collect();
    grants.sort_by_key(|grant| std::cmp::Reverse(grant.token));
    let names = grants.iter().take(NEWEST).map(|grant| grant.resource.trim_start_matches("user/"));
    names.map(|name| name.as_bytes().to_vec()).collect()
}

/// Where to flip: anywhere first, then within one of the names, where the file holds any.
fn offset_in(file: &Path, flip: u32, names: &[Vec<u8>], random: &mut StdRng) -> Result<Option<u64>> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let places: Vec<usize> = if flip.is_multiple_of(2) {
        (0..bytes.len()).filter(|at| bytes.get(*at).is_some_and(|byte| *byte != 0)).collect()
    } else {
        let Some(name) = names.get(random.random_range(0..names.len().max(1))) else { return Ok(None) };
        bytes.windows(name.len()).enumerate().filter(|(_, at)| at == name).map(|(at, _)| at).collect()
    };
    if places.is_empty() {
        return Ok(None);
    }
    Ok(places.get(random.random_range(0..places.len())).map(|at| *at as u64))
}

fn try_flip(
    cluster: &mut Cluster,
    pristine: &Path,
    file: &Path,
    offset: u64,
    load: &Load,
    runtime: &Runtime,
) -> Result<Outcome> {
    let Some(node) = cluster.nodes.first_mut() else { return Ok(Outcome::Broken) };
    let data = node.data_dir();
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    tool("cp", &["-a".as_ref(), pristine.as_os_str(), data.as_os_str()])?;
    flip(&data.join(file), offset)?;
    node.start()?;
    let what = format!("{} at {offset}", file.display());
    let history = load.history();
    let ended = node.process().and_then(|process| ended_or_open(process, START_TIME));
    if let Some(status) = ended {
        let outcome = judge_end(node, file, &format!("{what} ({status})"));
        node.kill();
        return Ok(outcome);
    }
    let before = history.violations().len();
    let mut opened = [false];
    if check::await_agreement(cluster, runtime, history, &mut opened).is_some() {
        runtime.block_on(check::compare(load));
    }
    let broken = history.violations().len() > before;
    for violation in history.violations().iter().skip(before) {
        eprintln!("BROKEN {what}: {violation}");
    }
    if let Some(node) = cluster.nodes.first_mut() {
        node.kill();
    }
    Ok(if broken { Outcome::Broken } else { Outcome::Harmless })
}

/// How it ended; None once it says that its disk is open.
fn ended_or_open(process: &mut crate::process::Process, patience: Duration) -> Option<std::process::ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if let Some(status) = process.ends_within(Duration::from_millis(20)) {
            return Some(status);
        }
        if process.said().contains("disk is open") {
            return process.ends_within(Duration::from_millis(300));
        }
    }
    None
}

/// It ended: it must have refused, in words that name the place, and not by a panic.
fn judge_end(node: &mut Node, file: &Path, what: &str) -> Outcome {
    let panicked = node.panicked();
    let Some(process) = node.process() else { return Outcome::Broken };
    let said = process.said();
    let told = |line: &&str| line.starts_with("error:") || line.contains(" ERROR ");
    let refused = said.lines().filter(told).collect::<Vec<_>>().join("\n");
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = file.parent().map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
    // The log is one thing, whatever files its database has.
    let named = refused.contains(&name) || (!folder.is_empty() && refused.contains(&folder));
    if panicked.is_none() && named {
        return Outcome::Refused;
    }
    eprintln!("BROKEN {what}: it ended without naming the file, or by a panic:\n{}", process.last_words(6));
    Outcome::Broken
}

fn flip(file: &Path, offset: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    Ok(file.write_all_at(&byte.map(|byte| byte ^ 0x40), offset)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_do_not_matter() {
        assert_eq!(kind_of(Path::new("snapshots/snap-3-1-4711")), "snapshots/snap");
        assert_eq!(kind_of(Path::new("log/segment-0000000017")), "log/segment");
        assert_eq!(kind_of(Path::new("identity.json")), "identity.json");
    }
}
