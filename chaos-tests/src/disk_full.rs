//! The disk runs full under load: first one member's, then all. The member stops by itself and says
//! what to do; the others go on; started while the disk is still full it does not pretend; once there
//! is space it is a member again, and nothing acknowledged is gone.

use crate::check;
use crate::cluster::Cluster;
use crate::cluster::Node;
use crate::cluster::Shape;
use crate::evidence;
use crate::history::History;
use crate::history::Promise;
use crate::load::Load;
use crate::load::LoadShape;
use crate::loop_fs::FsKind;
use crate::process::Program;
use crate::requirements;
use crate::run_folder::RunFolder;
use anyhow::Result;
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;
use tokio::runtime::Runtime;

/// Bytes of a member's file system, where its mkfs takes so few.
const FS_BYTES: u64 = 192 << 20;

/// The file that takes the rest of the space.
const FILLER: &str = "filler";

/// How long a member may go on writing into the space that its log has already.
const STOP_TIME: Duration = Duration::from_secs(120);

/// Operations before the first disk is full.
const WARM_UP: u64 = 4_000;

/// Operations that the other members must acknowledge while one has stopped.
const GO_ON: u64 = 200;

/// What the last words of a member whose disk is full must say.
const ADVICE: &str = "free space";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct DiskFull {
    /// On which file systems: one cluster after the other.
    pub kinds: Vec<FsKind>,
    /// What the clients' choices follow from.
    pub seed: u64,
    /// What runs as a member.
    pub program: Program,
    /// Where the run's folder is made.
    pub base: PathBuf,
}

impl DiskFull {
    /// Runs it.
    ///
    /// # Errors
    /// Something about this host, not about the members.
    pub fn run(&self) -> Result<ExitCode> {
        let run = RunFolder::make(&self.base)?;
        if let Some(why) = requirements::missing(&run, &self.kinds) {
            return Ok(requirements::skipped("disk-full", &why));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        for kind in &self.kinds {
            let shape = Shape { members: 3, fs: *kind, bytes: FS_BYTES, worker: false, program: self.program.clone() };
            let mut cluster = Cluster::start(&run, &kind.to_string(), &shape)?;
            let begun = History::new(0);
            check::await_agreement(&mut cluster, &runtime, &begun, &mut [false; 3]);
            anyhow::ensure!(begun.violations().is_empty(), "the cluster does not start: {:?}", begun.violations());
            let load = LoadShape { lock_clients: 24, txn_clients: 4, noop_clients: 0 };
            let load = runtime.block_on(async { Load::start(&cluster.addresses(), load, self.seed) })?;
            wait_for_operations(load.history(), WARM_UP);
            let mut story = Story { kind: *kind, cluster: &mut cluster, load: &load, runtime: &runtime };
            story.one_member()?;
            if load.history().violations().is_empty() {
                story.all_members()?;
            }
            let counts = load.history().record().counts;
            let violations = load.history().violations();
            for violation in &violations {
                eprintln!("BROKEN {violation}");
            }
            let verdict = if violations.is_empty() { "PASSED" } else { "BROKEN" };
            println!(
                "disk-full: {verdict}: {kind}: {} operations acknowledged, {} unknown, {} compared, {} violations, seed {}",
                counts.acknowledged,
                counts.unknown,
                counts.compared,
                violations.len(),
                self.seed
            );
            if !violations.is_empty() {
                let history = load.history().clone();
                drop(load);
                let folder = evidence::keep(&run, &mut cluster, &history, &format!("{violations:#?}"))?;
                println!("evidence in {}", folder.display());
                return Ok(ExitCode::FAILURE);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

struct Story<'a> {
    kind: FsKind,
    cluster: &'a mut Cluster,
    load: &'a Load,
    runtime: &'a Runtime,
}

impl Story<'_> {
    fn one_member(&mut self) -> Result<()> {
        let history = self.load.history().clone();
        let Some(node) = self.cluster.nodes.get_mut(1) else { return Ok(()) };
        fill(node)?;
        let begun = Instant::now();
        if !stops_with_advice(node, &history) {
            return Ok(());
        }
        println!(
            "{}: {} stopped {:.1} s after its disk was full",
            self.kind,
            node.name(),
            begun.elapsed().as_secs_f64()
        );
        self.others_go_on(&history);
        let Some(node) = self.cluster.nodes.get_mut(1) else { return Ok(()) };
        // On a disk that is still full it may end again or serve from what it has; it may not hang or panic.
        node.start()?;
        let ended = node.process().and_then(|process| process.ends_within(Duration::from_secs(5)));
        if let Some(words) = node.panicked() {
            history.violated(Promise::Opens, format!("started on a full disk: {words}"));
        }
        let words = node.process().map(|process| process.last_words(3)).unwrap_or_default();
        println!(
            "{}: started on the full disk it {}",
            self.kind,
            match ended {
                Some(status) => format!("ended ({status}): {words}"),
                None => "runs".to_owned(),
            }
        );
        free(node)?;
        node.kill();
        node.start()?;
        self.settle(&[1]);
        Ok(())
    }

    fn all_members(&mut self) -> Result<()> {
        let history = self.load.history().clone();
        for node in &mut self.cluster.nodes {
            fill(node)?;
        }
        // Once two have stopped, nobody writes any more.
        let begun = Instant::now();
        let mut stopped = 0;
        while stopped < 2 && begun.elapsed() < STOP_TIME {
            std::thread::sleep(Duration::from_millis(50));
            let ended = |node: &mut Node| node.process().is_some_and(|process| process.ended().is_some());
            stopped = self.cluster.nodes.iter_mut().filter_map(|node| ended(node).then_some(())).count();
        }
        println!("{}: {stopped} members stopped within {:.1} s", self.kind, begun.elapsed().as_secs_f64());
        if stopped < 2 {
            history.violated(Promise::Opens, "the disks of all members are full, and they go on");
        }
        let mut restarted = Vec::new();
        for (number, node) in self.cluster.nodes.iter_mut().enumerate() {
            if node.process().is_some_and(|process| process.ended().is_some()) {
                stops_with_advice(node, &history);
                restarted.push(number);
            }
            free(node)?;
        }
        for number in &restarted {
            if let Some(node) = self.cluster.nodes.get_mut(*number) {
                node.start()?;
            }
        }
        self.settle(&restarted);
        Ok(())
    }

    /// Two members are enough.
    fn others_go_on(&self, history: &History) {
        if !wait_for_operations(history, GO_ON) {
            history.violated(Promise::Serves, "one member's disk is full, and the others do not go on");
        }
    }

    fn settle(&mut self, restarted: &[usize]) {
        let history = self.load.history().clone();
        let mut opened: Vec<bool> = (0..self.cluster.nodes.len()).map(|number| !restarted.contains(&number)).collect();
        if !check::await_service(self.cluster, self.runtime, &history, &mut opened) {
            return;
        }
        let _held = self.runtime.block_on(self.load.pause());
        if check::await_agreement(self.cluster, self.runtime, &history, &mut opened).is_some() {
            self.runtime.block_on(check::compare(self.load));
        }
    }
}

/// Waits until the clients have done so many more operations; false if they do not.
fn wait_for_operations(history: &History, operations: u64) -> bool {
    let before = history.record().counts.acknowledged;
    let begun = Instant::now();
    while history.record().counts.acknowledged < before + operations {
        if begun.elapsed() > STOP_TIME {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Takes all space that is left.
fn fill(node: &Node) -> Result<()> {
    let filler = File::options().create(true).append(true).open(node.fs().mount_point().join(FILLER))?;
    let mut end = filler.metadata()?.len();
    for piece in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
        loop {
            match rustix::fs::fallocate(&filler, FallocateFlags::empty(), end, piece) {
                Ok(()) => end += piece,
                Err(rustix::io::Errno::NOSPC) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn free(node: &Node) -> Result<()> {
    Ok(std::fs::remove_file(node.fs().mount_point().join(FILLER))?)
}

/// Waits until a member ends by itself, and looks at its last words.
fn stops_with_advice(node: &mut Node, history: &History) -> bool {
    let name = node.name().to_owned();
    let panicked = node.panicked();
    let Some(process) = node.process() else { return false };
    let Some(status) = process.ends_within(STOP_TIME) else {
        history.violated(Promise::Opens, format!("{name} goes on although its disk is full"));
        return false;
    };
    let said = process.said();
    if status.success() || !said.contains(ADVICE) {
        let words = process.last_words(6);
        history.violated(Promise::Opens, format!("{name} ended ({status}) without saying {ADVICE:?}:\n{words}"));
    }
    let panicked = panicked.or_else(|| node.panicked());
    if let Some(words) = panicked {
        history.violated(Promise::Opens, format!("its disk is full: {words}"));
    }
    true
}
