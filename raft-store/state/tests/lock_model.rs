//! The lock table against a small naive model: sessions and transactions ask, wait, give back, end, are broken and
//! time out in any order, and after every entry both hold the same locks for the same owners. The model looks at
//! every pair of locks each time; it has no queues, no indexes and no cleverness.
//!
//! `SDM_HISTORIES=100000 cargo test -p sdm-state --test lock_model` is the long form.

mod world;

use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::TestRunner;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::command::AcquireLocks;
use sdm_state::command::Begin;
use sdm_state::command::BreakLock;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::command::Under;
use sdm_state::locks::Mode;
use sdm_state::locks::Owner;
use sdm_state::locks::Resource;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use std::collections::BTreeMap;
use world::World;
use world::worker_id;

/// Histories of the quick form.
const HISTORIES: u32 = 400;

const MODES: [Mode; 4] = [Mode::IntentShared, Mode::IntentExclusive, Mode::Shared, Mode::Exclusive];

#[derive(Clone, Debug)]
enum Step {
    Pass(u16),
    Ask { client: u8, first: (u8, u8), second: (u8, u8), wait: bool },
    Release { client: u8, which: u8 },
    End { client: u8 },
    Break { which: u8 },
    Noop { name: u8, wait: bool },
    NoopUnder { client: u8, name: u8 },
    Done { which: u8 },
    Abort { which: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let one = || (0u8..4, 0u8..4);
    prop_oneof![
        2 => (0u16..9_000).prop_map(Step::Pass),
        9 => (0u8..4, one(), one(), any::<bool>())
            .prop_map(|(client, first, second, wait)| Step::Ask { client, first, second, wait }),
        4 => (0u8..4, any::<u8>()).prop_map(|(client, which)| Step::Release { client, which }),
        1 => (0u8..4).prop_map(|client| Step::End { client }),
        1 => any::<u8>().prop_map(|which| Step::Break { which }),
        3 => (0u8..4, any::<bool>()).prop_map(|(name, wait)| Step::Noop { name, wait }),
        3 => (0u8..4, 0u8..4).prop_map(|(client, name)| Step::NoopUnder { client, name }),
        4 => any::<u8>().prop_map(|which| Step::Done { which }),
        1 => any::<u8>().prop_map(|which| Step::Abort { which }),
    ]
}

type Set = BTreeMap<Resource, Mode>;

fn resource(name: u8) -> Resource {
    Resource::User(format!("r{name}"))
}

fn compatible(a: Mode, b: Mode) -> bool {
    use Mode::Exclusive as X;
    use Mode::IntentExclusive as IX;
    use Mode::IntentShared as IS;
    use Mode::Shared as S;
    matches!((a, b), (IS, IS | IX | S) | (IX, IS | IX) | (S, IS | S)) && a != X && b != X
}

fn conflict(a: &Set, b: &Set) -> bool {
    a.iter().any(|(resource, mode)| b.get(resource).is_some_and(|other| !compatible(*mode, *other)))
}

/// What the model knows of one lock set.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    id: u64,
    owner: Owner,
    set: Set,
    held: bool,
    deadline_ms: u64,
    under: Option<TxnId>,
}

#[derive(Default)]
struct Model {
    locks: Vec<Known>,
    /// Transactions that took locks of their own under a session's lock, which must be the session's still when
    /// theirs is granted.
    vouched: BTreeMap<TxnId, (u64, Owner)>,
}

impl Model {
    fn blocked(&self, id: u64, set: &Set) -> bool {
        self.locks.iter().any(|other| other.id != id && (other.held || other.id < id) && conflict(&other.set, set))
    }

    fn settle(&mut self) {
        let free = |model: &Self| {
            model.locks.iter().find(|lock| !lock.held && !model.blocked(lock.id, &lock.set)).map(|lock| lock.id)
        };
        while let Some(id) = free(self) {
            self.grant(id);
        }
    }

    /// Holds it from now on; or it is refused, because the lock that it was asked under is lost.
    fn grant(&mut self, id: u64) {
        let Some(at) = self.locks.iter().position(|lock| lock.id == id) else { return };
        let vouched = match self.locks[at].owner {
            Owner::Txn(txn) => self.vouched.get(&txn).copied(),
            Owner::Session(_) => None,
        };
        let stands =
            |(lock, owner): (u64, Owner)| self.locks.iter().any(|k| k.id == lock && k.owner == owner && k.held);
        if vouched.is_none_or(stands) {
            self.locks[at].held = true;
        } else {
            self.remove(id);
        }
    }

    /// Whether it was granted; None when it was refused.
    fn ask(&mut self, id: u64, owner: Owner, set: Set, now_ms: u64, wait_ms: u64) -> Option<bool> {
        let held = !self.blocked(id, &set);
        if !held && wait_ms == 0 {
            return None;
        }
        self.locks.push(Known { id, owner, set, held, deadline_ms: now_ms + wait_ms, under: None });
        Some(held)
    }

    /// Waits end one after the other, by their deadlines; one whose turn has come by then is granted.
    fn pass(&mut self, now_ms: u64) {
        let mut due: Vec<(u64, u64)> = self
            .locks
            .iter()
            .filter(|lock| !lock.held && lock.deadline_ms <= now_ms)
            .map(|lock| (lock.deadline_ms, lock.id))
            .collect();
        due.sort_unstable();
        for (_, id) in due {
            let Some(at) = self.locks.iter().position(|lock| lock.id == id) else { continue };
            if self.blocked(id, &self.locks[at].set) {
                self.remove(id);
            } else {
                self.grant(id);
            }
        }
    }

    fn remove(&mut self, id: u64) {
        self.locks.retain(|lock| lock.id != id);
    }

    fn give_back(&mut self, id: u64) {
        let Some(lock) = self.locks.iter_mut().find(|lock| lock.id == id) else { return };
        match lock.under.take() {
            Some(txn) => lock.owner = Owner::Txn(txn),
            None => self.remove(id),
        }
    }

    fn end_txn(&mut self, txn: TxnId) {
        for lock in &mut self.locks {
            if lock.under == Some(txn) {
                lock.under = None;
            }
        }
        self.locks.retain(|lock| lock.owner != Owner::Txn(txn));
    }
}

struct Run {
    state: State,
    model: Model,
    index: u64,
    now_ms: u64,
    sessions: BTreeMap<u8, (SessionRef, u64)>,
    opened: u64,
    begun: u64,
    worker: SessionRef,
}

impl Run {
    fn new() -> Self {
        let mut world = World::founded_with(Settings { step_max_ms: u64::MAX / 2, ..Settings::default() });
        let worker = world.open_worker("w", "p");
        Self {
            state: world.state.clone(),
            model: Model::default(),
            index: world.index,
            now_ms: world.now_ms,
            sessions: BTreeMap::new(),
            opened: 0,
            begun: 0,
            worker,
        }
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let entry = Entry { stamp_ms: self.now_ms, entropy: [0; 16], command };
        self.state.apply(self.index, &entry)
    }

    fn client(&mut self, client: u8) -> (SessionRef, u64) {
        if !self.sessions.contains_key(&client) {
            self.opened += 1;
            let owner = SessionOwner::Client(format!("client {client}"));
            let open = OpenSession { owner, ttl_ms: 10_000, nonce: format!("{}", self.opened) };
            let Reply::Session { session, .. } = self.apply(Command::OpenSession(open)) else { panic!("no session") };
            self.sessions.insert(client, (session, 0));
        }
        let known = self.sessions.get_mut(&client).expect("just made");
        known.1 += 1;
        *known
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Pass(ms) => {
                self.now_ms += u64::from(ms);
                self.apply(Command::Tick);
                self.model.pass(self.now_ms);
            }
            Step::Ask { client, first, second, wait } => {
                let (session, sequence) = self.client(client);
                let resources: Vec<(Resource, Mode)> =
                    [first, second].map(|(name, mode)| (resource(name), MODES[usize::from(mode)])).to_vec();
                let mut set = Set::new();
                for (resource, mode) in &resources {
                    // IX and S together are X: the only pair that no mode of the four stands for.
                    let joined = set.get(resource).map_or(*mode, |have| join(*have, *mode));
                    set.insert(resource.clone(), joined);
                }
                let wait_ms = if wait { 20_000 } else { 0 };
                let ask = AcquireLocks { session, sequence, resources, wait_ms, why: String::new() };
                let reply = self.apply(Command::AcquireLocks(ask));
                let expected = self.model.ask(self.index, Owner::Session(session.id), set, self.now_ms, wait_ms);
                match (&reply, expected) {
                    (Reply::Lock { token, .. }, Some(held)) => assert_eq!(token.is_some(), held),
                    (Reply::Refused(_), None) => {}
                    other => panic!("{other:?}"),
                }
            }
            Step::Release { client, which } => {
                let (session, sequence) = self.client(client);
                let owner = Owner::Session(session.id);
                let own: Vec<u64> =
                    self.model.locks.iter().filter(|lock| lock.owner == owner).map(|lock| lock.id).collect();
                let Some(lock) = own.get(usize::from(which) % own.len().max(1)).copied() else { return };
                self.apply(Command::ReleaseLocks { session, sequence, lock });
                self.model.give_back(lock);
            }
            Step::End { client } => {
                let Some((session, _)) = self.sessions.remove(&client) else { return };
                self.apply(Command::ExpireSessions { sessions: vec![session] });
                let owner = Owner::Session(session.id);
                let own: Vec<u64> =
                    self.model.locks.iter().filter(|lock| lock.owner == owner).map(|lock| lock.id).collect();
                own.into_iter().for_each(|id| self.model.give_back(id));
            }
            Step::Break { which } => self.break_one(which),
            Step::Noop { name, wait } => self.noop(name, if wait { 20_000 } else { 0 }, None),
            Step::NoopUnder { client, name } => {
                let Some((session, _)) = self.sessions.get(&client).copied() else { return };
                let owner = Owner::Session(session.id);
                let Some(lock) = self.model.locks.iter().find(|lock| lock.owner == owner && lock.held) else { return };
                let token = self.state.locks.get(&lock.id).and_then(|lock| lock.granted).expect("held").token;
                self.noop(name, 20_000, Some((session, token, lock.id)));
            }
            Step::Done { which } => self.done(which),
            Step::Abort { which } => {
                let open: Vec<TxnId> =
                    self.state.txns.values().filter(|txn| !txn.phase.is_final()).map(|txn| txn.id).collect();
                let Some(txn) = open.get(usize::from(which) % open.len().max(1)).copied() else { return };
                self.apply(Command::Abort { txn, reason: String::new() });
                self.model.end_txn(txn);
            }
        }
    }

    fn break_one(&mut self, which: u8) {
        let Some(known) = self.model.locks.get(usize::from(which) % self.model.locks.len().max(1)).cloned() else {
            return;
        };
        let order = BreakLock { lock: known.id, reason: "x".into(), by: String::new() };
        let reply = self.apply(Command::BreakLock(order));
        let allowed = matches!(known.owner, Owner::Session(_)) && known.under.is_none();
        assert_eq!(matches!(reply, Reply::Done), allowed, "{known:?}: {reply}");
        if allowed {
            self.model.remove(known.id);
        }
    }

    fn noop(&mut self, name: u8, lock_wait_ms: u64, under: Option<(SessionRef, Token, u64)>) {
        self.begun += 1;
        let id = TxnId::derive("model", &[&self.begun.to_be_bytes()]);
        self.apply(Command::Begin(Begin {
            id,
            request_hash: [0; 32],
            not_after_ms: u64::MAX,
            looked_up_ms: self.now_ms,
            unix_ms: 0,
            initiator: String::new(),
            reason: String::new(),
            lock_wait_ms,
            spec: Spec::Noop { resource: format!("r{name}") },
            under: under.map(|(session, token, _)| Under { session, token }),
        }));
        let refused = matches!(self.state.txns.get(&id).map(|txn| &txn.phase), Some(Phase::Refused(_)));
        let wanted = Set::from([(resource(name), Mode::Exclusive)]);
        if let Some((session, _, lock)) = under {
            let known = self.model.locks.iter_mut().find(|known| known.id == lock).expect("the session's");
            match known.set.get(&resource(name)) {
                Some(Mode::Exclusive) if known.under.is_none() => {
                    known.under = Some(id);
                    return assert!(!refused);
                }
                Some(_) => return assert!(refused, "busy, or held in a weaker mode"),
                // Nothing that the session holds: it takes its own.
                None => drop(self.model.vouched.insert(id, (lock, Owner::Session(session.id)))),
            }
        }
        let expected = self.model.ask(self.index, Owner::Txn(id), wanted, self.now_ms, lock_wait_ms);
        assert_eq!(expected.is_none(), refused);
    }

    fn done(&mut self, which: u8) {
        let attempts: Vec<_> = self.state.attempts_of(worker_id("w")).collect();
        let Some((token, owner)) = attempts.get(usize::from(which) % attempts.len().max(1)).copied() else { return };
        let sdm_state::work::Owner::Step(txn) = owner else { panic!("{owner:?}") };
        let report = Report::Done { volumes: Vec::new(), bytes: 0 };
        self.apply(Command::ReportAttempt { session: self.worker, token, report });
        self.model.end_txn(txn);
    }

    fn compare(&mut self, after: &Step) {
        self.model.settle();
        let mut last = Token::default();
        let found: Vec<Known> = self
            .state
            .locks
            .values()
            .map(|lock| Known {
                id: lock.id,
                owner: lock.owner,
                set: lock.resources.clone(),
                held: lock.granted.is_some(),
                deadline_ms: lock.deadline_ms,
                under: lock.txn,
            })
            .collect();
        assert_eq!(found, self.model.locks, "after {after:?}");
        let mut tokens: Vec<Token> =
            self.state.locks.values().filter_map(|lock| lock.granted).map(|granted| granted.token).collect();
        tokens.sort_unstable();
        for token in tokens {
            assert!(token > last, "a token was given twice");
            last = token;
        }
        let held = self.model.locks.iter().filter(|lock| lock.held).count();
        assert_eq!(self.state.locks_held(), held);
    }
}

fn join(a: Mode, b: Mode) -> Mode {
    use Mode::IntentExclusive as IX;
    use Mode::Shared as S;
    match (a, b) {
        (IX, S) | (S, IX) => Mode::Exclusive,
        (a, b) => a.max(b),
    }
}

fn histories() -> u32 {
    std::env::var("SDM_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(HISTORIES)
}

#[test]
fn the_lock_table_does_what_a_naive_model_does_in_any_history() {
    let config = Config { cases: histories(), failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 1..60), |steps| {
        let mut run = Run::new();
        for step in steps {
            run.take(step.clone());
            run.compare(&step);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
