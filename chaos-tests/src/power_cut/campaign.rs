//! One cluster, its load, and the cuts that it has to survive.

use super::PowerCut;
use super::Victims;
use super::cut_power;
use super::summary::Summary;
use crate::check;
use crate::check::Agreement;
use crate::cluster::Cluster;
use crate::cluster::Shape;
use crate::evidence;
use crate::evidence::CRASH_IMAGES;
use crate::history::History;
use crate::history::Promise;
use crate::history::Violation;
use crate::load::Load;
use crate::load::LoadShape;
use crate::loop_fs::FsKind;
use crate::run_folder::RunFolder;
use anyhow::Result;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use tokio::runtime::Runtime;

/// Bytes of a member's file system: room for a log of many minutes under load.
const FS_BYTES: u64 = 512 << 20;

/// How long the clients work before a cut, in milliseconds.
const LOAD_MS: Range<u64> = 300..3_000;

/// How long processes run on without power, in milliseconds; half of the time not at all.
const LINGER_MS: Range<u64> = 0..400;

/// How long after a start the power may fail again, in milliseconds: in the election or soon after ...
const AGAIN_MS: Range<u64> = 0..3_000;

/// ... or, half of the time, while the member opens its folder.
const OPENING_MS: Range<u64> = 0..150;

/// Of a hundred cuts of all members, those that are followed by another one.
const AGAIN_PERCENT: u32 = 20;

/// Clients that begin transactions that are refused at once.
const TXN_CLIENTS: usize = 4;

/// Clients that begin transactions that a worker takes part in.
const NOOP_CLIENTS: usize = 4;

/// A cluster under load.
pub struct Campaign<'a> {
    plan: &'a PowerCut,
    runtime: &'a Runtime,
    kind: FsKind,
    random: StdRng,
    crash_images: PathBuf,
    // The load ends before the cluster.
    load: Option<Load>,
    history: std::sync::Arc<History>,
    cluster: Cluster,
    leader: String,
}

impl<'a> Campaign<'a> {
    /// Starts a cluster and, once it serves, the load.
    ///
    /// # Errors
    /// A tool fails.
    pub fn start(
        plan: &'a PowerCut,
        run: &RunFolder,
        runtime: &'a Runtime,
        kind: FsKind,
        seed: u64,
    ) -> Result<Campaign<'a>> {
        let shape =
            Shape { members: plan.members, fs: kind, bytes: FS_BYTES, worker: true, program: plan.program.clone() };
        let mut cluster = Cluster::start(run, &kind.to_string(), &shape)?;
        let load = LoadShape { lock_clients: plan.clients, txn_clients: TXN_CLIENTS, noop_clients: NOOP_CLIENTS };
        let begun = History::new(0);
        let agreement = check::await_agreement(&mut cluster, runtime, &begun, &mut vec![false; plan.members]);
        let load = match &agreement {
            Some(_) => Some(runtime.block_on(async { Load::start(&cluster.addresses(), load, seed) })?),
            None => None,
        };
        let history = load.as_ref().map_or_else(|| begun.into(), |load| load.history().clone());
        Ok(Self {
            plan,
            runtime,
            kind,
            random: StdRng::seed_from_u64(seed),
            crash_images: run.path().join(CRASH_IMAGES),
            load,
            history,
            cluster,
            leader: agreement.map(|agreement| agreement.leader).unwrap_or_default(),
        })
    }

    /// Cuts the power so often, or until something is broken.
    ///
    /// # Errors
    /// A tool fails.
    pub fn run(&mut self, cuts: u32, summary: &mut Summary) -> Result<()> {
        for number in 1..=cuts {
            if !self.violations().is_empty() {
                break;
            }
            self.wait_within(LOAD_MS);
            let begun = Instant::now();
            let all = match self.plan.victims {
                Victims::All => true,
                Victims::One => false,
                Victims::Mixed => self.random.random(),
            };
            let victims = if all { (0..self.cluster.nodes.len()).collect() } else { vec![self.one_victim()] };
            let again = all && self.random.random_range(0..100) < AGAIN_PERCENT;
            self.cut(&victims)?;
            if again {
                let soon = self.random.random();
                self.wait_within(if soon { OPENING_MS } else { AGAIN_MS });
                self.cut(&victims)?;
            }
            let agreement = self.settle(&victims)?;
            summary.cut(self.kind, all, again);
            self.tell(number, cuts, all, again, begun.elapsed(), agreement.as_ref());
        }
        Ok(())
    }

    /// Under load, for a random time.
    fn wait_within(&mut self, range: Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.random.random_range(range)));
    }

    fn one_victim(&mut self) -> usize {
        let leader = self.cluster.nodes.iter().position(|node| node.name() == self.leader);
        match leader {
            Some(leader) if self.random.random() => leader,
            _ => self.random.random_range(0..self.cluster.nodes.len()),
        }
    }

    /// Cuts and starts again, in a random order.
    fn cut(&mut self, victims: &[usize]) -> Result<()> {
        let linger = if self.random.random() { 0 } else { self.random.random_range(LINGER_MS) };
        self.history.event("info", "nemesis", "power_cut", "", json!({ "members": victims, "linger_ms": linger }));
        self.history.record().cuts += 1;
        cut_power(&mut self.cluster, victims, Duration::from_millis(linger), &self.crash_images)?;
        let mut order = victims.to_vec();
        let turn = self.random.random_range(0..order.len().max(1));
        order.rotate_left(turn);
        for number in order {
            if let Some(node) = self.cluster.nodes.get_mut(number) {
                node.start()?;
            }
        }
        self.history.event("info", "nemesis", "power_on", "", json!({ "members": victims }));
        Ok(())
    }

    /// Holds the clients, waits until the members agree, and compares.
    fn settle(&mut self, victims: &[usize]) -> Result<Option<Agreement>> {
        let Some(load) = &self.load else { return Ok(None) };
        let mut opened: Vec<bool> = (0..self.cluster.nodes.len()).map(|number| !victims.contains(&number)).collect();
        // First once with the clients at work, so that a member that does not open is known before
        // they lose their patience.
        let _held = match check::await_service(&mut self.cluster, self.runtime, &self.history, &mut opened) {
            true => self.runtime.block_on(load.pause()),
            false => return Ok(None),
        };
        let agreement = check::await_agreement(&mut self.cluster, self.runtime, &self.history, &mut opened);
        if let Some(agreement) = &agreement {
            self.leader.clone_from(&agreement.leader);
            self.runtime.block_on(check::compare(load));
        }
        for node in &mut self.cluster.nodes {
            if let Some(words) = node.panicked() {
                self.history.violated(Promise::Opens, words);
            }
        }
        Ok(agreement)
    }

    fn tell(&self, number: u32, of: u32, all: bool, again: bool, took: Duration, state: Option<&Agreement>) {
        let record = self.history.record();
        println!(
            "{} cut {number}/{of}: {}{}; {} acknowledged, {} unknown so far; {} in {:.1} s",
            self.kind,
            if all { "all members" } else { "one member" },
            if again { ", twice" } else { "" },
            record.counts.acknowledged,
            record.counts.unknown,
            state.map_or_else(|| "NOT WHOLE".to_owned(), |state| format!("whole at index {}", state.index)),
            took.as_secs_f64(),
        );
    }

    /// What was broken so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.history.violations()
    }

    /// What the clients were told.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Ends the load and the members, and keeps what they leave.
    ///
    /// # Errors
    /// The file system's.
    pub fn keep_evidence(&mut self, run: &RunFolder, story: &str) -> Result<PathBuf> {
        self.load = None;
        evidence::keep(run, &mut self.cluster, &self.history, story)
    }
}
