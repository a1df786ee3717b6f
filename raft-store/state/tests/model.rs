//! `apply` against a small naive model: clients, workers, collectors, late copies and time do anything in
//! any order; after each entry the reply and all that is visible are what the model says, and every
//! invariant holds.
//!
//! The quick form runs with all tests. The long form, about 25 minutes of one core:
//! `SDM_HISTORIES=100000 cargo test --release -p sdm-state --test model`. A failure names the seed of its
//! history: `SDM_SEED=… SDM_HISTORIES=1` runs it again.

mod naive;
mod world;

use naive::Naive;
use naive::Phase;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::assignments::Assignment;
use sdm_state::assignments::Order;
use sdm_state::catalog::Format;
use sdm_state::command::Begin;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::garbage::Kind;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::invariants;
use sdm_state::settings::Settings;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::workers::DomainReport;
use sdm_state::workers::DomainSight;
use world::World;
use world::done;
use world::name;
use world::request;

/// Histories of the quick form.
const HISTORIES: u64 = 300;

/// Longest line of a failed history's story.
const STORY_LINE_MAX: usize = 400;

/// Steps of a history.
const STEPS: u64 = 45;

const WORKERS: [&str; 3] = ["w1", "w2", "w3"];

/// SplitMix64: a few lines, the same on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = usize::try_from(self.below(from.len() as u64)).ok()?;
        from.get(at).cloned()
    }
}

struct History {
    world: World,
    model: Naive,
    dice: Dice,
    domains: Vec<DomainId>,
    processes: u32,
    requests: u8,
    /// Requests as they were sent: copies of them may come late.
    sent: Vec<Begin>,
    /// What workers were told once.
    told: Vec<(SessionRef, Assignment)>,
    /// What was done, for people.
    story: Vec<String>,
}

/// A founded cluster with three domains and nobody there.
fn founded() -> (World, Vec<DomainId>) {
    let settings = Settings {
        finished_txns_max: 12,
        finished_noops_max: 3,
        gc_plans_max: 3,
        gc_plan_kept_ms: 120_000,
        attempts_max: 3,
        retention_ms: 30_000,
        state_hash_every: 0,
        ..Settings::default()
    };
    let mut world = World::founded_with(settings);
    let session = world.open_worker("w0", "p0");
    let domains = ["d0", "d1", "d2"].map(|domain| world.add_domain("w0", session, domain)).to_vec();
    world.apply(Command::CloseSession(session));
    (world, domains)
}

impl History {
    fn new(base: &(World, Vec<DomainId>), seed: u64) -> Self {
        let (from, domains) = base;
        let mut world = World::empty();
        (world.state, world.index, world.now_ms) = (from.state.clone(), from.index, from.now_ms);
        // The setup's own transactions are history to the model.
        let mut model = Naive::of(&world.state);
        for txn in world.state.txns.values() {
            model.txns.push(naive::Txn {
                id: txn.id,
                hash: txn.request_hash,
                spec: txn.spec.clone(),
                phase: naive::compare::phase_of(&txn.phase),
                lock: None,
                work: None,
                ended: (txn.changed_index, txn.finished_ms),
            });
        }
        Self {
            world,
            model,
            dice: Dice(seed),
            domains: domains.clone(),
            processes: 0,
            requests: 50,
            sent: Vec::new(),
            told: Vec::new(),
            story: Vec::new(),
        }
    }

    /// One entry in both; an error says where they differ.
    fn apply(&mut self, command: Command) -> Result<Reply, String> {
        self.story.push(format!("{:>7} ms  {command:?}", self.world.now_ms));
        self.world.index += 1;
        let entry = Entry { stamp_ms: self.world.now_ms, entropy: [7; 16], command };
        let reply = self.world.state.apply(self.world.index, &entry);
        let state = &self.world.state;
        invariants::check(state).map_err(|wrong| wrong.join("; "))?;
        let model = &mut self.model;
        model.index = self.world.index;
        model.workers_changed = false;
        let expected = step(model, &entry, &reply, state);
        if model.lock_freed {
            model.lock_freed = false;
            model.settle();
        }
        if model.workers_changed {
            model.assign_pending();
        }
        model.learn(state)?;
        let told = match &reply {
            Reply::Refused(refusal) => Err(refusal.reason.clone()),
            Reply::Collected(tokens) => Ok(tokens.clone()),
            _ => Ok(Vec::new()),
        };
        if told != expected {
            return Err(format!("the reply is {told:?}, the model says {expected:?}"));
        }
        model.check(state)?;
        Ok(reply)
    }

    fn begin(&mut self, spec: Spec) -> Result<(), String> {
        self.requests = self.requests.wrapping_add(1);
        let wait = [0, 5_000, 60_000][usize::try_from(self.dice.below(3)).unwrap_or(0)];
        let begin = Begin {
            id: request(self.requests),
            request_hash: *world::blake3_of(&spec),
            not_after_ms: self.world.now_ms + 400_000,
            looked_up_ms: self.world.now_ms,
            unix_ms: 0,
            initiator: "test".into(),
            reason: String::new(),
            lock_wait_ms: wait,
            spec,
            under: None,
        };
        self.sent.push(begin.clone());
        self.apply(Command::Begin(begin)).map(drop)
    }

    fn disk(&mut self) -> DiskId {
        let ids: Vec<DiskId> = self.model.disks.iter().map(|disk| disk.id).collect();
        let gone = DiskId::derive("no such disk", &[]);
        if self.dice.chance(4) { gone } else { self.dice.pick(&ids).unwrap_or(gone) }
    }

    fn garbage(&mut self) -> Token {
        let ids: Vec<Token> = self.model.garbage.iter().map(|row| row.id).collect();
        self.dice.pick(&ids).unwrap_or(Token { epoch: 9, index: 9, ordinal: 9 })
    }

    /// Of trash rather than of anything.
    fn trash(&mut self) -> Token {
        let trash = self.model.garbage.iter().filter(|row| row.trash.is_some());
        let ids: Vec<Token> = trash.map(|row| row.id).collect();
        if self.dice.chance(15) { self.garbage() } else { self.dice.pick(&ids).unwrap_or_default() }
    }

    fn new_name(&mut self) -> sdm_proto::names::Name {
        name(&format!("disk{}", self.dice.below(5)))
    }

    fn domain(&mut self) -> DomainId {
        self.dice.pick(&self.domains.clone()).unwrap_or_default()
    }

    fn spec(&mut self) -> Spec {
        match self.dice.below(24) {
            0..=5 => Spec::CreateDisk {
                name: self.new_name(),
                domain: self.domain(),
                size: 1 << 20,
                format: Format::Raw,
                preallocated: false,
                description: String::new(),
            },
            6..=8 => Spec::MoveDisk { disk: self.disk(), to: self.domain() },
            9..=12 => Spec::DeleteDisk { disk: self.disk() },
            13 => Spec::RenameDisk { disk: self.disk(), name: self.new_name() },
            14 => Spec::Noop { resource: format!("bench/{}", self.dice.below(2)) },
            _ => Spec::Garbage(self.order()),
        }
    }

    fn order(&mut self) -> GarbageOrder {
        match self.dice.below(14) {
            0..=3 => {
                let name = self.dice.chance(40).then(|| self.new_name());
                GarbageOrder::RestoreDisk { garbage: self.trash(), name }
            }
            4 => GarbageOrder::PurgeTrash { garbage: vec![self.trash()] },
            5..=6 => {
                let reason = if self.dice.chance(5) { "" } else { "look at it" };
                GarbageOrder::Hold { garbage: self.garbage(), reason: reason.to_owned() }
            }
            7 => GarbageOrder::Unhold { garbage: self.garbage() },
            8..=9 => {
                let domain = self.dice.chance(30).then(|| self.domain());
                let kind = self.dice.chance(20).then_some(Kind::Deleted);
                GarbageOrder::PlanCollection { domain, kind, trash: self.dice.chance(70) }
            }
            10..=11 => {
                let plans: Vec<u64> = self.model.plans.iter().map(|plan| plan.id).collect();
                let plan = self.dice.pick(&plans).unwrap_or(1);
                GarbageOrder::ApplyPlan { plan, skip_changed: self.dice.chance(30) }
            }
            _ => {
                let retention_ms =
                    [None, Some(0), Some(20_000), Some(200_000)][usize::try_from(self.dice.below(4)).unwrap_or(0)];
                GarbageOrder::SetRetention { domain: self.domain(), retention_ms }
            }
        }
    }

    /// What most histories begin with: somebody to work, and disks, one of them deleted. The same entries as
    /// later, looked at in the same way.
    fn prelude(&mut self) -> Result<(), String> {
        if self.dice.chance(10) {
            return Ok(());
        }
        self.arrive()?;
        for disk in 0..3 {
            let (name, domain) = (name(&format!("disk{disk}")), self.domain());
            let description = String::new();
            let (size, format, preallocated) = (1 << 20, Format::Raw, false);
            self.begin(Spec::CreateDisk { name, domain, size, format, preallocated, description })?;
            for worker in WORKERS {
                let Some(session) = self.model.worker(worker).and_then(|worker| worker.session) else { continue };
                for assignment in self.world.assignments(worker) {
                    let Some(report) = done(&assignment.order) else { continue };
                    self.apply(Command::ReportAttempt { session, token: assignment.token, report })?;
                }
            }
        }
        let disk = self.disk();
        self.begin(Spec::DeleteDisk { disk })
    }

    fn take(&mut self) -> Result<(), String> {
        // Time passes in an entry of its own: what it assigns is seen before anything else happens.
        if self.dice.chance(30) {
            let ms = [50, 900, 4_000, 30_000, 110_000][usize::try_from(self.dice.below(5)).unwrap_or(0)];
            self.world.now_ms += self.dice.below(ms);
            self.apply(Command::Tick)?;
        }
        match self.dice.below(100) {
            0..=29 => {
                let spec = self.spec();
                self.begin(spec)
            }
            30..=34 => {
                let Some(mut begin) = self.dice.pick(&self.sent.clone()) else { return Ok(()) };
                if self.dice.chance(10) {
                    begin.request_hash = [3; 32];
                }
                self.apply(Command::Begin(begin)).map(drop)
            }
            35..=37 => {
                let txn = self.dice.pick(&self.sent.clone()).map_or_else(|| request(1), |begin| begin.id);
                self.apply(Command::Abort { txn, reason: "changed my mind".into() }).map(drop)
            }
            38..=69 => self.report(),
            70..=73 => {
                let Some((session, assignment)) = self.dice.pick(&self.told.clone()) else { return Ok(()) };
                let Some(report) = done(&assignment.order) else { return Ok(()) };
                self.apply(Command::ReportAttempt { session, token: assignment.token, report }).map(drop)
            }
            74..=83 => {
                let mut garbage: Vec<Token> = self.model.garbage.iter().map(|row| row.id).collect();
                garbage.truncate(usize::try_from(self.dice.below(6)).unwrap_or(0) + 1);
                self.apply(Command::Collect { garbage }).map(drop)
            }
            84..=93 => self.arrive(),
            94..=96 => {
                let live: Vec<SessionRef> = self.model.workers.iter().filter_map(|worker| worker.session).collect();
                let Some(session) = self.dice.pick(&live) else { return Ok(()) };
                let closed = self.dice.chance(50);
                let command = if closed { Command::CloseSession(session) } else { expire(session) };
                self.apply(command).map(drop)
            }
            _ => {
                let live: Vec<SessionRef> = self.model.workers.iter().filter_map(|worker| worker.session).collect();
                let (Some(session), domain) = (self.dice.pick(&live), self.domain()) else { return Ok(()) };
                let well = self.dice.chance(50);
                self.see(session, domain, well)
            }
        }
    }

    /// A worker's process starts, or is replaced, and reaches two of the three domains.
    fn arrive(&mut self) -> Result<(), String> {
        let worker = WORKERS[usize::try_from(self.dice.below(3)).unwrap_or(0)];
        self.processes += 1;
        let process = format!("p{}", self.processes);
        let open = OpenSession {
            owner: SessionOwner::Worker(world::identity(worker, &process)),
            ttl_ms: 10_000,
            nonce: format!("{worker} {process}"),
        };
        let Reply::Session { session, .. } = self.apply(Command::OpenSession(open))? else {
            return Err("a worker got no session".to_owned());
        };
        let beyond = self.dice.below(6);
        for (at, domain) in self.domains.clone().into_iter().enumerate() {
            if at as u64 != beyond {
                self.see(session, domain, true)?;
            }
        }
        Ok(())
    }

    fn see(&mut self, session: SessionRef, domain: DomainId, well: bool) -> Result<(), String> {
        let sight = DomainSight {
            error: (!well).then(|| "the mount hangs".to_owned()),
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            file_system: format!("fs of {domain}"),
            sequence: self.world.index,
            seen_ms: 0,
        };
        self.apply(Command::ReportDomains { session, items: vec![DomainReport { domain, sight }] }).map(drop)
    }

    fn report(&mut self) -> Result<(), String> {
        let worker = WORKERS[usize::try_from(self.dice.below(3)).unwrap_or(0)];
        let Some(session) = self.model.worker(worker).and_then(|worker| worker.session) else { return Ok(()) };
        let assignments = self.world.assignments(worker);
        let Some(assignment) = self.dice.pick(&assignments) else { return Ok(()) };
        self.told.push((session, assignment.clone()));
        if matches!(assignment.order, Order::Project { .. }) {
            self.model.projections.insert(assignment.token);
        }
        let report = match self.dice.below(12) {
            0 => Report::Failed { reason: "IO".into(), message: "no".into(), hint: String::new() },
            1 => Report::Refused(Refusal::new(Class::Invalid, "NO", "no")),
            2 => Report::Stopped,
            3 => Report::Checkpoint { durable_bytes: 4096 },
            _ => match done(&assignment.order) {
                Some(report) => report,
                None => return Ok(()),
            },
        };
        self.apply(Command::ReportAttempt { session, token: assignment.token, report }).map(drop)
    }
}

fn expire(session: SessionRef) -> Command {
    Command::ExpireSessions { sessions: vec![session] }
}

/// What the model says to one entry: the answer, or the reason of its refusal.
fn step(model: &mut Naive, entry: &Entry, reply: &Reply, state: &sdm_state::State) -> Result<Vec<Token>, String> {
    let cluster = state.cluster_id();
    model.pass(entry.stamp_ms, cluster);
    let answer = match &entry.command {
        Command::Tick => Ok(()),
        Command::Begin(begin) => model.begin(begin),
        Command::Abort { txn, .. } => model.abort_asked(*txn, cluster),
        Command::Collect { garbage } => return Ok(model.collect(garbage)),
        // What placements say to others is nothing that anybody waits for, nor anything here.
        Command::ReportAttempt { token, .. } if model.projections.contains(token) => match reply {
            Reply::Refused(refusal) => Err(refusal.reason.clone()),
            _ => Ok(()),
        },
        Command::ReportAttempt { session, token, report } => model.report(*session, *token, report, state),
        Command::CloseSession(session) => {
            model.lose(*session, cluster);
            Ok(())
        }
        Command::ExpireSessions { sessions } => {
            sessions.iter().for_each(|session| model.lose(*session, cluster));
            Ok(())
        }
        Command::ReportDomains { session, items } => {
            items.iter().try_for_each(|item| model.see(*session, item.domain, item.sight.error.is_none()))
        }
        Command::OpenSession(open) => {
            let SessionOwner::Worker(identity) = &open.owner else { panic!("the model has workers only") };
            let Reply::Session { session, .. } = reply else { panic!("a worker was refused: {reply}") };
            let known = model.workers.iter().find(|worker| worker.name == identity.name.as_str());
            if let Some(old) = known.and_then(|worker| worker.session) {
                model.lose(old, cluster);
            }
            model.workers.retain(|worker| worker.name != identity.name.as_str());
            model.workers_changed = true;
            let (name, session) = (identity.name.to_string(), Some(*session));
            model.workers.push(naive::Worker { name, session, reaches: Vec::new(), told: Vec::new() });
            Ok(())
        }
        other => panic!("the model knows no {other:?}"),
    };
    answer.map(|()| Vec::new())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn apply_does_what_a_naive_model_of_the_rules_does() {
    let base = founded();
    let histories = number("SDM_HISTORIES").unwrap_or(HISTORIES);
    let first = number("SDM_SEED").unwrap_or(1);
    let (mut entries, mut restored, mut aborted, mut forgotten) = (0, 0, 0, 0);
    for seed in first..first + histories {
        let mut history = History::new(&base, seed);
        for step in 0..=STEPS {
            if let Err(wrong) = if step == 0 { history.prelude() } else { history.take() } {
                let told = history.story.iter().map(|line| line.chars().take(STORY_LINE_MAX).collect::<String>());
                panic!("seed {seed}:\n{}\n\n{wrong}", told.collect::<Vec<_>>().join("\n"));
            }
        }
        entries += history.story.len();
        let of = |txn: &naive::Txn, restores: bool| {
            matches!(&txn.spec, Spec::Garbage(GarbageOrder::RestoreDisk { .. })) == restores
        };
        let ended = |phase: Phase, restores: bool| {
            history.model.txns.iter().filter(|txn| of(txn, restores) && txn.phase == phase).count()
        };
        restored += ended(Phase::Committed, true);
        aborted += ended(Phase::Aborted("ATTEMPTS_USED_UP".into()), false);
        forgotten += usize::from(history.model.forgotten.is_some());
    }
    println!(
        "{histories} histories, {entries} entries; {restored} restores, {aborted} used up, {forgotten} forgot results"
    );
    // Histories in which nothing of interest happens would prove nothing.
    assert!(
        restored > 0 && aborted > 0 && forgotten > 0,
        "{restored} restores, {aborted} used up, {forgotten} forgetful histories"
    );
}
