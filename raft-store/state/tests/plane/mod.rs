//! The whole metadata plane against a naive storage and a naive book. Workers' orders are carried out on
//! the storage, wholly, in part, twice, late or never; the book says what users may expect. After each
//! entry, what the catalog and the storage show together must be what the book has.

pub mod book;
mod compare;
mod effects;
mod hands;
mod rules;
mod steps;
mod storage;

use book::Asked;
use book::Book;
use book::BookDomain;
use effects::Moment;
use effects::host_of;
use hands::Reach;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::assignments::Assignment;
use sdm_state::command::Begin;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::domain_change::DomainChange;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::invariants;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::workers::WorkerChange;
use sdm_state::workers::WorkerIdentity;
use std::collections::BTreeMap;
use storage::Blocks;
use storage::Folder;
use storage::Storage;

pub const WORKERS: [&str; 3] = ["w1", "w2", "w3"];

/// SplitMix64: a few lines, the same on every machine.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = usize::try_from(self.below(from.len() as u64)).ok()?;
        from.get(at).cloned()
    }
}

/// A host as it is, whatever anybody knows of it.
#[derive(Clone, Debug, Default)]
struct Machine {
    boot: u32,
    process: u32,
    session: Option<SessionRef>,
}

/// Something that a worker was told and has not reported on: it may still do it.
#[derive(Clone, Debug)]
struct Hanging {
    host: usize,
    boot: u32,
    process: u32,
    in_place: bool,
    assignment: Assignment,
}

/// A founded cluster with two domains and nobody there.
pub struct Founded {
    state: State,
    index: u64,
    now_ms: u64,
    storage: Storage,
    book: Book,
}

impl Founded {
    pub fn new() -> Self {
        let settings = Settings {
            finished_txns_max: 30,
            finished_noops_max: 3,
            gc_plans_max: 3,
            gc_plan_kept_ms: 120_000,
            attempts_max: 4,
            retention_ms: 30_000,
            chain_max: 6,
            state_hash_every: 0,
            ..Settings::default()
        };
        let mut world = crate::world::World::founded_with(settings);
        let session = world.open_worker("w0", "p0");
        let (mut storage, mut book) = (Storage::default(), Book::default());
        for name in ["d0", "d1"] {
            let id = world.add_domain("w0", session, name);
            storage.domains.entry(id).or_default().name = name.to_owned();
            let (name, path) = (name.to_owned(), format!("/srv/{name}"));
            book.domains.insert(id, BookDomain { name, path, active: true, retention_ms: None });
        }
        world.apply(Command::CloseSession(session));
        Self { state: world.state, index: world.index, now_ms: world.now_ms, storage, book }
    }
}

/// What histories came by: one in which nothing of interest happens proves nothing.
pub type Coverage = BTreeMap<String, u64>;

/// One history.
pub struct History {
    state: State,
    index: u64,
    now_ms: u64,
    storage: Storage,
    book: Book,
    machines: [Machine; 3],
    hanging: Vec<Hanging>,
    reported: Vec<(SessionRef, Token, Report)>,
    /// Files that guests have open.
    guests: BTreeMap<(DiskId, usize), usize>,
    clients: Vec<SessionRef>,
    writes: u64,
    drawn: u64,
    dice: Dice,
    pub story: Vec<String>,
    pub coverage: Coverage,
}

type Told<T = ()> = Result<T, String>;

impl History {
    pub fn new(base: &Founded) -> Self {
        Self {
            state: base.state.clone(),
            index: base.index,
            now_ms: base.now_ms,
            storage: base.storage.clone(),
            book: base.book.clone(),
            machines: Default::default(),
            hanging: Vec::new(),
            reported: Vec::new(),
            guests: BTreeMap::new(),
            clients: Vec::new(),
            writes: 0,
            drawn: 0,
            dice: Dice(0),
            story: Vec::new(),
            coverage: Coverage::new(),
        }
    }

    /// Takes these steps, each of which decides by its own number, and then heals everything.
    pub fn take_all(&mut self, steps: &[u64]) -> Told {
        self.dice = Dice(steps.first().copied().unwrap_or_default());
        self.prelude()?;
        for step in steps {
            self.dice = Dice(*step);
            self.take()?;
        }
        self.heal()
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.coverage.entry(what.into()).or_default() += 1;
    }

    /// One entry; an error says what is wrong after it.
    fn apply(&mut self, command: Command) -> Told<Reply> {
        self.story.push(format!("{:>7} ms  {command:?}", self.now_ms));
        self.index += 1;
        let entropy = [u8::try_from(self.index % 251).unwrap_or_default(); 16];
        let entry = Entry { stamp_ms: self.now_ms, entropy, command };
        let before = self.state.clone();
        let reply = self.state.apply(self.index, &entry);
        invariants::check(&self.state).map_err(|wrong| wrong.join("; "))?;
        self.sessions_changed(&before, &entry.command, &reply);
        self.outcomes(&before)?;
        self.guests_follow();
        self.book.check(&self.state, &self.storage)?;
        Ok(reply)
    }

    fn sessions_changed(&mut self, before: &State, command: &Command, reply: &Reply) {
        let ended: Vec<SessionRef> = match command {
            Command::CloseSession(session) => vec![*session],
            Command::ExpireSessions { sessions } => sessions.clone(),
            _ => Vec::new(),
        };
        for session in ended.iter().filter(|session| before.sessions.get(&session.id).is_some()) {
            self.clients.retain(|client| client != session);
            self.book.client_ended(session.id);
            for (machine, host) in self.machines.iter_mut().zip(&mut self.book.hosts) {
                if machine.session == Some(*session) {
                    machine.session = None;
                    host.live = false;
                }
            }
        }
        if let (Command::OpenSession(open), Reply::Session { session, .. }) = (command, reply) {
            match &open.owner {
                SessionOwner::Client(_) => {
                    if !self.clients.contains(session) {
                        self.clients.push(*session);
                        self.book.client_opened(session.id, &open.nonce);
                    }
                }
                SessionOwner::Worker(identity) => self.worker_opened(before, identity, *session),
            }
        }
    }

    fn worker_opened(&mut self, before: &State, identity: &WorkerIdentity, session: SessionRef) {
        let at = host_of(identity.id);
        let host = &mut self.book.hosts[at];
        (host.known, host.live, host.last_session) = (true, true, session.id);
        self.machines[at].session = Some(session);
        let known = before.workers.get(&identity.id);
        if known.is_some_and(|worker| worker.identity.boot_id != identity.boot_id) {
            self.book.fenced(at);
        }
    }

    /// What got its outcome with this entry, in the order in which it was asked for.
    fn outcomes(&mut self, before: &State) -> Told {
        let after = self.state.clone();
        let mut rows: Vec<_> = after.txns.values().collect();
        rows.sort_by_key(|txn| txn.began_index);
        for row in rows {
            let Some(asked) = self.book.asked.get(&row.id).cloned() else { continue };
            if asked.ended.is_some() && !before.txns.contains(&row.id) {
                return Err(format!("{} was done before, and is begun once more", row.id));
            }
            let ended = row.phase.is_final().then(|| row.phase.word());
            if asked.ended == ended {
                continue;
            }
            if asked.ended.is_some() {
                return Err(format!("{} was {:?} and is {ended:?} now", row.id, asked.ended));
            }
            if let Some(asked) = self.book.asked.get_mut(&row.id) {
                asked.ended = ended;
            }
            self.count(format!("{} {}", asked.begin.spec.kind(), row.phase.word()));
            match &row.phase {
                Phase::Committed(outcome) => {
                    let moment = Moment { before, after: &after, storage: &self.storage, sent: asked.sent };
                    let done = self.book.done(&asked.begin.spec, outcome, &moment);
                    done.map_err(|wrong| format!("{}: {wrong}", row.summary))?;
                }
                _ => self.not_done(&asked.begin.spec),
            }
        }
        let lost = self.book.asked.iter().find(|(id, asked)| asked.ended.is_none() && !after.txns.contains(id));
        match lost {
            Some((id, _)) => Err(format!("transaction {id} is forgotten before it ended")),
            None => Ok(()),
        }
    }

    /// A file that grew for nothing stays as large as it is: beyond what the catalog says nobody looks.
    fn not_done(&mut self, spec: &Spec) {
        if let Spec::ResizeDisk { disk, size } = spec
            && let Some(row) = self.book.disks.get_mut(disk)
        {
            row.size_most = row.size_most.max(*size);
        }
    }

    /// Guests run where their disks are attached, with the file open that was there when they started.
    fn guests_follow(&mut self) {
        let writing: Vec<(DiskId, usize)> =
            self.book.attached.iter().filter(|at| at.write).map(|at| (at.disk, at.host)).collect();
        self.guests.retain(|guest, _| writing.contains(guest));
        for guest in writing {
            if self.guests.contains_key(&guest) {
                continue;
            }
            let file = self.state.disks.get(&guest.0).and_then(|disk| {
                let placement = self.state.placements.get(&disk.placement)?;
                let folder = self.storage.folder(placement.domain, &placement.id.to_string())?;
                folder.files.get(disk.volumes.last()?).copied()
            });
            if let Some(file) = file {
                self.guests.insert(guest, file);
            }
        }
        for (machine, host) in self.machines.iter_mut().zip(&self.book.hosts) {
            if !host.live {
                machine.session = None;
            }
        }
    }

    fn begin(&mut self, spec: Spec) -> Told<TxnId> {
        self.drawn += 1;
        let id = TxnId::derive("plane request", &[&self.drawn.to_be_bytes()]);
        let wait = [0, 5_000, 60_000][usize::try_from(self.dice.below(3)).unwrap_or(0)];
        let begin = Begin {
            id,
            request_hash: *crate::world::blake3_of(&spec),
            not_after_ms: self.now_ms + 400_000,
            looked_up_ms: self.now_ms,
            unix_ms: 0,
            initiator: "test".into(),
            reason: "history".into(),
            lock_wait_ms: wait,
            spec: spec.clone(),
            under: None,
        };
        let mut sent = Blocks::new();
        if let Spec::ImportDisk { file_size, .. } = &spec {
            for block in (0..file_size / storage::BLOCK).filter(|block| block % 2 == 0) {
                self.writes += 1;
                sent.insert(block, self.writes);
            }
        }
        let reasons = self.book.reasons(&spec);
        self.book.asked.insert(id, Asked { begin: begin.clone(), ended: None, sent });
        let known_reason = |reason: &str| rules::KNOWN.contains(&reason);
        match self.apply(Command::Begin(begin))? {
            Reply::Txn(_) => {}
            Reply::Refused(_) => {
                self.book.asked.remove(&id);
                return Ok(id);
            }
            other => return Err(format!("a request was answered with {other}")),
        }
        match self.state.txns.get(&id).map(|txn| &txn.phase) {
            Some(Phase::Refused(refusal)) => {
                let reason = refusal.reason.as_str();
                if known_reason(reason) && !reasons.must.contains(reason) && !reasons.may.contains(reason) {
                    return Err(format!("it was refused, and by the book that is not so: {refusal}"));
                }
            }
            _ if reasons.must.is_empty() => {}
            _ => return Err(format!("it was not refused, although {:?}", reasons.must)),
        }
        Ok(id)
    }

    fn arrive(&mut self, at: usize, rebooted: bool) -> Told {
        let machine = &mut self.machines[at];
        machine.process += 1;
        machine.boot += u32::from(rebooted);
        let process = format!("p{}", machine.process);
        let boot_id = format!("boot {}", machine.boot);
        let name = WORKERS[at];
        let open = OpenSession {
            owner: SessionOwner::Worker(WorkerIdentity { boot_id, ..crate::world::identity(name, &process) }),
            ttl_ms: 10_000,
            nonce: format!("{name} {process}"),
        };
        let Reply::Session { session, .. } = self.apply(Command::OpenSession(open))? else {
            return Err("a worker got no session".to_owned());
        };
        self.look_around(at, session)
    }

    /// Does what is assigned, and reports; what hung before hangs no more.
    fn carry_out(&mut self, at: usize, assignment: &Assignment, reach: Reach) -> Option<Report> {
        self.hanging.retain(|hanging| hanging.assignment.token != assignment.token || hanging.host != at);
        let sent = self.book.asked.get(&assignment.txn).map(|asked| asked.sent.clone());
        hands::do_order(&mut self.storage, assignment, reach, sent.as_ref())
    }

    /// All hosts are started anew, all that is told is done, all collectors run: everything ends, and the storage holds
    /// what the catalog has and nothing else.
    fn heal(&mut self) -> Told {
        for client in self.clients.clone() {
            self.apply(Command::CloseSession(client))?;
        }
        self.hanging.clear();
        for (at, name) in WORKERS.iter().enumerate() {
            self.arrive(at, true)?;
            let worker = crate::world::worker_id(name);
            self.begin(Spec::Worker(WorkerChange::Undrain { worker }))?;
        }
        let domains: Vec<_> = self.book.domains.keys().copied().collect();
        for id in self.book.held.clone() {
            self.begin(Spec::Garbage(GarbageOrder::Unhold { garbage: id }))?;
        }
        let mut audited = false;
        for round in 0..200 {
            for domain in domains.clone() {
                if self.book.domains.get(&domain).is_some_and(|row| !row.active) {
                    self.begin(Spec::Domain(DomainChange::Activate { domain }))?;
                }
            }
            for at in 0..WORKERS.len() {
                self.do_all(at)?;
            }
            let garbage = self.state.garbage.values().map(|garbage| garbage.id).collect();
            self.apply(Command::Collect { garbage })?;
            let state = &self.state;
            let quiet = state.open_txns() == 0 && state.garbage.is_empty() && state.projections.is_empty();
            if quiet && round > 0 {
                if audited {
                    return self.nothing_is_left();
                }
                // What late hands left behind is found by audits.
                audited = true;
                for domain in self.book.domains.keys().copied().collect::<Vec<_>>() {
                    self.audit_of(domain, true)?;
                }
            }
            self.now_ms += 5_000;
            self.apply(Command::Tick)?;
        }
        let open: Vec<_> = self.state.txns.values().filter(|txn| !txn.phase.is_final()).collect();
        Err(format!("it does not end: {open:?}; garbage {:?}", self.state.garbage.values().collect::<Vec<_>>()))
    }

    fn do_all(&mut self, at: usize) -> Told {
        let Some(session) = self.machines[at].session else { return Ok(()) };
        self.look_around(at, session)?;
        for assignment in self.state.assignments(crate::world::worker_id(WORKERS[at]), 256) {
            let Some(report) = self.carry_out(at, &assignment, Reach::End) else { continue };
            self.apply(Command::ReportAttempt { session, token: assignment.token, report })?;
        }
        Ok(())
    }

    /// Nobody knows any more whether what late hands made had won: then it is told, and never touched.
    fn may_have_won(&self, folder: &Folder) -> bool {
        match self.state.txns.get(&folder.txn) {
            None => true,
            Some(txn) => matches!(txn.spec, Spec::CloneLinked { snapshot: None, .. }),
        }
    }

    fn nothing_is_left(&self) -> Told {
        let state = &self.state;
        if !state.locks.is_empty() || !state.jobs.is_empty() {
            return Err(format!("locks or jobs are left: {:?}", state.locks));
        }
        for (id, place) in &self.storage.domains {
            if let Some(away) = self.book.away.get(id) {
                // Late hands may have left something behind; whoever attaches it has it audited.
                let kept =
                    away.catalog.contents.placements.iter().all(|row| place.folders.contains_key(&row.id.to_string()));
                if place.given_up.is_none() || !kept {
                    return Err(format!("detached domain {} is not whole", place.name));
                }
                continue;
            }
            let Some(domain) = state.domains.get(id) else {
                return Err(format!("a folder of domain {} is on the storage that nobody knows", place.name));
            };
            if place.given_up.is_some() || place.name != domain.name.as_str() {
                return Err(format!("domain {} is {place:?} on the storage", domain.name));
            }
            for (name, folder) in &place.folders {
                let row = state.placements.values().find(|row| row.id.to_string() == *name);
                let disk = row.and_then(|row| state.disks.get(&row.disk));
                let Some(disk) = disk else {
                    if self.may_have_won(folder) {
                        continue;
                    }
                    return Err(format!(
                        "folder {name} made by {} is on the storage that nobody knows",
                        folder.made_by
                    ));
                };
                let volumes: Vec<_> = disk.volumes.iter().filter_map(|id| state.volumes.get(id)).cloned().collect();
                let words = hands::words_of(disk.name.as_str(), &disk.description, &volumes);
                if folder.words != words {
                    return Err(format!("beside disk {} stands: {}; it should be: {words}", disk.name, folder.words));
                }
            }
        }
        Ok(())
    }
}

/// The steps of a history.
pub fn steps_of(seed: u64, steps: usize) -> Vec<u64> {
    let mut dice = Dice(seed);
    (0..steps).map(|_| dice.next()).collect()
}

/// The fewest steps that still fail, the story of them, and how they fail.
pub fn shrunk(base: &Founded, mut steps: Vec<u64>) -> (usize, Vec<String>, String) {
    let fails = |steps: &[u64]| {
        let mut history = History::new(base);
        history.take_all(steps).err().map(|wrong| (history.story, wrong))
    };
    let mut last = fails(&steps).unwrap_or_default();
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            match fails(&fewer).filter(|_| !fewer.is_empty()) {
                Some(failed) => (steps, last) = (fewer, failed),
                None => at += size,
            }
        }
        size /= 2;
    }
    (steps.len(), last.0, last.1)
}
