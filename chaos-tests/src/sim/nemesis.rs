//! The nemesis: draws faults while the clients work, and takes each of them back after a while; at the end it heals
//! everything. It runs between two steps of the simulation, outside every host.

use super::fault::Fault;
use super::fault::SickDisk;
use super::heard;
use super::kernel;
use super::operator::DOMAINS;
use super::plan::Plan;
use super::plan::Planted;
use super::plan::pick;
use super::shared::Shared;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rustix::io::Errno;
use sdm_raft_store::disk::Crash;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use turmoil::Sim;

/// Faults at once, at most: with more, nothing ever happens any more.
const ACTIVE_MAX: usize = 2;

/// Room of the simulated storage.
const CAPACITY_BYTES: u64 = 1 << 40;

struct Active {
    fault: Fault,
    until: Duration,
    /// When something of it changes that is not its end.
    turn: Duration,
    /// Whether it bites now.
    on: bool,
}

/// Draws faults and takes them back.
pub struct Nemesis {
    shared: Arc<Shared>,
    random: StdRng,
    active: Vec<Active>,
    next: Duration,
}

fn millis(random: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.random_range(from..=to))
}

/// Both directions between each of one side and each of the other.
fn between(one: &[String], other: &[String]) -> BTreeSet<(String, String)> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a.clone(), b.clone())));
    pairs.flat_map(|(a, b)| [(a.clone(), b.clone()), (b, a)]).collect()
}

impl Nemesis {
    /// One that has done nothing yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        let random = StdRng::seed_from_u64(shared.plan.seed ^ 0x006e_656d_6573_6973);
        Self { shared, random, active: Vec::new(), next: Duration::ZERO }
    }

    fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// Members of the cluster as it is now.
    fn members(&self) -> Vec<String> {
        self.shared.roster().members.iter().cloned().collect()
    }

    /// Every host that takes part, the observer and the operator left out.
    fn all(&self) -> Vec<String> {
        [self.plan().member_names(), self.plan().worker_names(), self.plan().client_names()].concat()
    }

    /// Takes back what is over, and begins something when it is time.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        while let Some(at) = self.active.iter().position(|active| active.until <= now) {
            let over = self.active.remove(at);
            self.take_back(sim, &over.fault);
        }
        self.take_turns(sim, now);
        self.strike_at_snapshots(sim, now);
        if self.next.is_zero() {
            self.next = now + millis(&mut self.random, 500, 3_000);
        }
        if now < self.next {
            return;
        }
        let pause = u64::try_from(self.plan().fault_pause.as_millis()).unwrap_or(1_000);
        self.next = now + millis(&mut self.random, pause / 4, pause * 2);
        if self.active.len() >= ACTIVE_MAX {
            return;
        }
        if let Some((fault, time)) = self.draw() {
            self.start(sim, fault, now, time);
        }
    }

    fn start(&mut self, sim: &mut Sim<'_>, fault: Fault, now: Duration, time: Duration) {
        self.begin(sim, &fault);
        self.active.push(Active { fault, until: now + time, turn: now, on: true });
    }

    /// What changes while a fault lasts.
    fn take_turns(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let mut flapped = false;
        let (mut up, mut down) = (None, None);
        for active in self.active.iter_mut().filter(|active| active.turn <= now) {
            match &mut active.fault {
                Fault::Flapping(_) => {
                    active.on = !active.on;
                    active.turn = now + millis(&mut self.random, 50, 500);
                    flapped = true;
                }
                Fault::RollingRestart(host, left) => {
                    up = host.take();
                    *host = left.pop();
                    down.clone_from(host);
                    active.turn = now + millis(&mut self.random, 300, 3_000);
                    active.until = if down.is_none() { now } else { Duration::MAX };
                }
                _ => active.turn = Duration::MAX,
            }
        }
        if flapped {
            self.apply_cuts(sim, None);
        }
        if let Some(up) = up {
            sim.bounce(up.as_str());
        }
        if let Some(down) = down {
            self.kill(sim, "kill", &down);
        }
    }

    /// Now and then a snapshot that is on its way is cut short: its receiver dies, or its sender, or the way is cut.
    fn strike_at_snapshots(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let Some(peer) = heard::take_receiver() else { return };
        let members = self.plan().member_names();
        let Some(receiver) = members.iter().find(|name| peer.contains(&format!("at {name}:"))).cloned() else { return };
        let sender = self.shared.leader().filter(|name| *name != receiver);
        let away = self.away();
        let (dice, time) = (self.random.random_range(0..8), millis(&mut self.random, 300, 4_000));
        let fault = match (dice, sender) {
            (0, _) if !away.contains(&receiver) => Fault::Down("kill", vec![receiver]),
            (1, _) if !away.contains(&receiver) => Fault::Down("power-cut", vec![receiver]),
            (2, Some(sender)) if !away.contains(&sender) => Fault::Down("kill", vec![sender]),
            (3, Some(sender)) => Fault::Cut("partition", between(&[receiver], &[sender])),
            _ => return,
        };
        self.shared.coverage().count("struck-at-a-snapshot");
        self.start(sim, fault, now, time);
    }

    /// Takes everything back.
    pub fn heal(&mut self, sim: &mut Sim<'_>) {
        for over in std::mem::take(&mut self.active) {
            self.take_back(sim, &over.fault);
        }
    }

    /// Machines that are down, or are to be brought down and up by a fault that lasts.
    fn away(&self) -> BTreeSet<String> {
        let down = self.active.iter().filter_map(|active| match &active.fault {
            Fault::Down(_, hosts) => Some(hosts.clone()),
            Fault::SickDisk(_, host) => Some(vec![host.clone()]),
            Fault::RollingRestart(..) => Some(self.plan().member_names()),
            _ => None,
        });
        down.flatten().collect()
    }

    fn draw(&mut self) -> Option<(Fault, Duration)> {
        let has_workers = self.plan().workers > 0;
        let dice = self.random.random_range(0..if has_workers { 136 } else { 96 });
        let time = match self.random.random_range(0..4) {
            0 => millis(&mut self.random, 100, 1_500),
            1 | 2 => millis(&mut self.random, 1_500, 8_000),
            _ => millis(&mut self.random, 8_000, 16_000),
        };
        let fault = match dice {
            0..10 => self.leader_in_minority()?,
            10..18 => self.split_members(),
            18..26 => self.one_way()?,
            26..32 => self.bridge()?,
            32..36 => self.cut_off_client(),
            36..48 => self.crash_member()?,
            48..53 => self.crash_all()?,
            53..60 => self.slow_links(),
            60..65 => self.held_links()?,
            65..70 => self.slow_disk(),
            70..80 => self.sick_disk()?,
            80..85 => self.flapping(),
            85..91 => self.rolling_restart()?,
            91..96 => self.wall_clock()?,
            96..106 => self.crash_worker()?,
            106..112 => self.cut_off_worker(),
            112..118 => Fault::HungStorage(pick(&mut self.random, &self.shared.plan.worker_names()).clone()),
            118..122 => self.hung_domain()?,
            122..126 => self.failing_storage()?,
            126..129 => self.full_storage()?,
            _ => self.pause_worker(),
        };
        Some((fault, time))
    }

    fn leader_in_minority(&mut self) -> Option<Fault> {
        let leader = self.shared.leader()?;
        let mut others: Vec<String> = self.members().into_iter().filter(|name| *name != leader).collect();
        others.shuffle(&mut self.random);
        let with = (others.len() + 1).div_ceil(2).saturating_sub(2);
        let mut side = vec![leader];
        side.extend(others.drain(..self.random.random_range(0..=with)));
        // Clients and workers are on either side.
        for host in [self.plan().worker_names(), self.plan().client_names()].concat() {
            if self.random.random_range(0..3) == 0 { side.push(host) } else { others.push(host) }
        }
        Some(Fault::Cut("leader-in-minority", between(&side, &others)))
    }

    fn split_members(&mut self) -> Fault {
        let mut hosts = self.all();
        hosts.shuffle(&mut self.random);
        let at = self.random.random_range(1..hosts.len());
        let (one, other) = hosts.split_at(at);
        Fault::Cut("partition", between(one, other))
    }

    fn one_way(&mut self) -> Option<Fault> {
        let members = self.members();
        let victim = match self.random.random_range(0..2) {
            0 => self.shared.leader()?,
            _ => pick(&mut self.random, &members).clone(),
        };
        let others = members.into_iter().filter(|name| *name != victim);
        let out = self.random.random_range(0..2) == 0;
        let links = others.map(|other| if out { (victim.clone(), other) } else { (other, victim.clone()) });
        Some(Fault::Cut("one-way", links.collect()))
    }

    /// Two halves that only one member connects.
    fn bridge(&mut self) -> Option<Fault> {
        let mut members = self.members();
        members.shuffle(&mut self.random);
        members.pop()?;
        let (one, other) = members.split_at(members.len() / 2);
        Some(Fault::Cut("bridge", between(one, other)))
    }

    fn cut_off_client(&mut self) -> Fault {
        let client = pick(&mut self.random, &self.shared.plan.client_names()).clone();
        Fault::Cut("client-cut-off", between(&[client], &self.plan().member_names()))
    }

    fn cut_off_worker(&mut self) -> Fault {
        let worker = pick(&mut self.random, &self.shared.plan.worker_names()).clone();
        Fault::Cut("worker-cut-off", between(&[worker], &self.plan().member_names()))
    }

    fn pause_worker(&mut self) -> Fault {
        let worker = pick(&mut self.random, &self.shared.plan.worker_names()).clone();
        let others: Vec<String> = self.all().into_iter().filter(|name| *name != worker).collect();
        Fault::Paused(worker.clone(), between(&[worker], &others))
    }

    fn flapping(&mut self) -> Fault {
        let mut hosts = self.all();
        hosts.shuffle(&mut self.random);
        let at = self.random.random_range(1..hosts.len());
        let (one, other) = hosts.split_at(at);
        Fault::Flapping(between(one, other))
    }

    /// Not of a machine that is down, and of one at a time: a quorum has to be left that can serve.
    fn sick_disk(&mut self) -> Option<Fault> {
        let away = self.away();
        let runs = self.shared.roster().running.clone();
        let up: Vec<String> = runs.into_keys().filter(|name| !away.contains(name)).collect();
        if up.is_empty() || self.active.iter().any(|active| matches!(active.fault, Fault::SickDisk(..))) {
            return None;
        }
        let room = self.random.random_range(0..60_000);
        let how = *pick(&mut self.random, &[SickDisk::Syncs, SickDisk::Writes, SickDisk::Full(room), SickDisk::Files]);
        Some(Fault::SickDisk(how, pick(&mut self.random, &up).clone()))
    }

    fn rolling_restart(&mut self) -> Option<Fault> {
        let mut hosts = self.plan().member_names();
        hosts.shuffle(&mut self.random);
        self.away().is_empty().then_some(Fault::RollingRestart(None, hosts))
    }

    fn wall_clock(&mut self) -> Option<Fault> {
        if self.active.iter().any(|active| matches!(active.fault, Fault::WallClock(_))) {
            return None;
        }
        Some(Fault::WallClock(*pick(&mut self.random, &[-86_400_000, -3_600_000, -5_000, 5_000, 60_000, 3_600_000])))
    }

    fn hung_domain(&mut self) -> Option<Fault> {
        let (_, path) = *pick(&mut self.random, &DOMAINS);
        let is_free = !self.active.iter().any(|active| active.fault == Fault::HungDomain(path));
        is_free.then_some(Fault::HungDomain(path))
    }

    fn failing_storage(&mut self) -> Option<Fault> {
        if self.active.iter().any(|active| matches!(active.fault, Fault::FailingStorage(..))) {
            return None;
        }
        let worker = pick(&mut self.random, &self.shared.plan.worker_names()).clone();
        let (of, errno) =
            *pick(&mut self.random, &[(3, Errno::IO), (20, Errno::IO), (10, Errno::STALE), (8, Errno::NOSPC)]);
        Some(Fault::FailingStorage(worker, of, errno))
    }

    fn full_storage(&self) -> Option<Fault> {
        (!self.active.iter().any(|active| active.fault == Fault::FullStorage)).then_some(Fault::FullStorage)
    }

    fn crash_member(&mut self) -> Option<Fault> {
        let down = self.away();
        let up: Vec<String> = self.plan().member_names().into_iter().filter(|name| !down.contains(name)).collect();
        let leader = self.shared.leader().filter(|name| up.contains(name));
        let victim = match leader {
            Some(leader) if self.random.random_range(0..2) == 0 => leader,
            _ if up.is_empty() => return None,
            _ => pick(&mut self.random, &up).clone(),
        };
        let how = *pick(&mut self.random, &["kill", "power-cut", "power-cut", "torn-power-cut"]);
        Some(Fault::Down(how, vec![victim]))
    }

    fn crash_all(&mut self) -> Option<Fault> {
        self.away().is_empty().then(|| Fault::Down("power-cut-of-all", self.plan().member_names()))
    }

    fn crash_worker(&mut self) -> Option<Fault> {
        let down = self.away();
        let up: Vec<String> = self.plan().worker_names().into_iter().filter(|name| !down.contains(name)).collect();
        if up.is_empty() {
            return None;
        }
        Some(Fault::Down("worker-kill", vec![pick(&mut self.random, &up).clone()]))
    }

    fn slow_links(&mut self) -> Fault {
        let mut hosts = self.all();
        hosts.shuffle(&mut self.random);
        let slow = hosts.pop().unwrap_or_default();
        let latency = millis(&mut self.random, 100, 900);
        Fault::Slow(hosts.into_iter().map(|other| (slow.clone(), other)).collect(), latency)
    }

    fn held_links(&mut self) -> Option<Fault> {
        // A hold and a cut of one link do not go together.
        if !self.shared.cuts.links().is_empty()
            || self.active.iter().any(|active| matches!(active.fault, Fault::Held(_)))
        {
            return None;
        }
        let mut hosts = self.all();
        hosts.shuffle(&mut self.random);
        let held = hosts.pop()?;
        let count = self.random.random_range(1..=hosts.len());
        Some(Fault::Held(hosts.into_iter().take(count).map(|other| (held.clone(), other)).collect()))
    }

    fn slow_disk(&mut self) -> Fault {
        let member = pick(&mut self.random, &self.shared.plan.member_names()).clone();
        Fault::SlowDisk(member, millis(&mut self.random, 50, 700))
    }

    fn say(&self, what: &str, fault: &Fault) {
        let value = json!({ "fault": format!("{fault:?}") });
        self.shared.history.event("info", "nemesis", what, fault.name(), value);
    }

    fn begin(&mut self, sim: &mut Sim<'_>, fault: &Fault) {
        self.say("begin", fault);
        self.shared.coverage().count(fault.name());
        match fault {
            Fault::Cut(..) | Fault::Flapping(_) => self.apply_cuts(sim, Some(fault)),
            Fault::Paused(worker, _) => {
                self.shared.storage.hold(worker, true);
                self.apply_cuts(sim, Some(fault));
            }
            Fault::HungStorage(worker) => self.shared.storage.hold(worker, true),
            Fault::HungDomain(path) => self.shared.storage.hold_domain(path, true),
            Fault::FailingStorage(worker, of, errno) => self.shared.storage.fail(worker, Some((*of, *errno))),
            Fault::FullStorage => self.shared.storage.files.set_capacity(0),
            Fault::WallClock(by_ms) => kernel::jump_wall_clock(*by_ms),
            Fault::SickDisk(how, host) => self.sicken(*how, host),
            // It goes on by turns.
            Fault::RollingRestart(..) => {}
            Fault::Down(how, hosts) => {
                for host in hosts {
                    self.kill(sim, how, host);
                }
            }
            Fault::Slow(links, latency) => {
                for (a, b) in links {
                    sim.set_link_max_message_latency(a.as_str(), b.as_str(), *latency);
                }
            }
            Fault::Held(links) => {
                for (a, b) in links {
                    sim.hold(a.as_str(), b.as_str());
                }
            }
            Fault::SlowDisk(member, time) => {
                if let Some(disk) = self.shared.disks.get(member) {
                    disk.slow_syncs(*time);
                }
            }
        }
    }

    fn take_back(&mut self, sim: &mut Sim<'_>, fault: &Fault) {
        self.say("end", fault);
        match fault {
            Fault::Cut(..) | Fault::Flapping(_) => self.apply_cuts(sim, None),
            Fault::Paused(worker, _) => {
                self.apply_cuts(sim, None);
                self.let_go(worker);
            }
            Fault::HungStorage(worker) => self.let_go(worker),
            Fault::HungDomain(path) => self.shared.storage.hold_domain(path, false),
            Fault::FailingStorage(worker, ..) => self.shared.storage.fail(worker, None),
            Fault::FullStorage => self.shared.storage.files.set_capacity(CAPACITY_BYTES),
            Fault::WallClock(by_ms) => kernel::jump_wall_clock(-by_ms),
            Fault::SickDisk(how, host) => self.mend(sim, *how, host),
            Fault::RollingRestart(down, _) => {
                if let Some(host) = down {
                    sim.bounce(host.as_str());
                }
            }
            Fault::Down(_, hosts) => {
                let mut hosts = hosts.clone();
                hosts.shuffle(&mut self.random);
                for host in hosts {
                    self.shared.cuts.set_dark(&host, false);
                    sim.bounce(host.as_str());
                }
            }
            Fault::Slow(links, _) => {
                for (a, b) in links {
                    sim.set_link_max_message_latency(a.as_str(), b.as_str(), self.plan().latency.1);
                }
            }
            Fault::Held(links) => {
                let cut = self.shared.cuts.links();
                for (a, b) in links {
                    sim.release(a.as_str(), b.as_str());
                    // Releasing also takes back what was cut meanwhile.
                    for (from, to) in [(a, b), (b, a)] {
                        if cut.contains(&(from.clone(), to.clone())) {
                            sim.partition_oneway(from.as_str(), to.as_str());
                        }
                    }
                }
            }
            Fault::SlowDisk(member, _) => {
                if let Some(disk) = self.shared.disks.get(member) {
                    disk.slow_syncs(self.plan().sync_time);
                }
            }
        }
    }

    fn sicken(&self, how: SickDisk, host: &str) {
        let Some(disk) = self.shared.disks.get(host) else { return };
        if how != SickDisk::Files {
            self.shared.roster().sick.insert(host.to_owned());
        }
        match how {
            SickDisk::Syncs => disk.fail_syncs(ErrorKind::Other),
            SickDisk::Writes => disk.fail_writes(ErrorKind::Other),
            SickDisk::Full(bytes) => disk.limit_space(bytes),
            SickDisk::Files => disk.fail_files(ErrorKind::StorageFull),
        }
    }

    /// The disk works again, and the machine is started anew: what a sync had failed for is lost.
    fn mend(&self, sim: &mut Sim<'_>, how: SickDisk, host: &str) {
        let Some(disk) = self.shared.disks.get(host) else { return };
        disk.heal();
        disk.slow_syncs(self.plan().sync_time);
        if how == SickDisk::Files {
            return;
        }
        disk.crash(Crash::LoseUnsynced);
        sim.crash(host);
        sim.bounce(host);
        self.shared.roster().sick.remove(host);
    }

    /// The storage answers this worker again, unless another fault holds it.
    fn let_go(&self, worker: &str) {
        let held = self.active.iter().any(|active| match &active.fault {
            Fault::HungStorage(name) | Fault::Paused(name, _) => name == worker,
            _ => false,
        });
        self.shared.storage.hold(worker, held);
    }

    fn kill(&mut self, sim: &mut Sim<'_>, how: &str, host: &str) {
        let Some(disk) = self.shared.disks.get(host) else {
            sim.crash(host);
            return;
        };
        // The disk first: what destructors still write must find it dead.
        let crash = match how {
            "kill" => Crash::KeepUnsynced,
            "torn-power-cut" => Crash::Tear(self.random.random_range(0..6)),
            _ => Crash::LoseUnsynced,
        };
        self.shared.cuts.set_dark(host, crash != Crash::KeepUnsynced);
        disk.crash(crash);
        if self.plan().planted == Some(Planted::LyingDisk) && crash != Crash::KeepUnsynced {
            disk.lose_log_end(2);
        }
        sim.crash(host);
    }

    /// Makes the links as all cuts that are active want them, with one more that begins.
    fn apply_cuts(&self, sim: &mut Sim<'_>, more: Option<&Fault>) {
        let faults = self.active.iter().filter(|active| active.on).map(|active| &active.fault).chain(more);
        let wanted: BTreeSet<(String, String)> = faults
            .filter_map(|fault| match fault {
                Fault::Cut(_, links) | Fault::Paused(_, links) | Fault::Flapping(links) => Some(links.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        let now = self.shared.cuts.links();
        for (from, to) in now.difference(&wanted) {
            sim.repair_oneway(from.as_str(), to.as_str());
        }
        for (from, to) in wanted.difference(&now) {
            sim.partition_oneway(from.as_str(), to.as_str());
        }
        self.shared.cuts.set_links(wanted);
    }
}
