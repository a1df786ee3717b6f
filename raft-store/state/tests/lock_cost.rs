//! What an entry costs does not grow with how many sessions, locks and waiting requests there are.
//! Each story is timed in a small and in a large world; a scan of the large one would take hundreds
//! of times as long, and a deeper tree takes less than twice.

use sdm_proto::ids::ClusterId;
use sdm_proto::ids::PoolId;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::State;
use sdm_state::command::AcquireLocks;
use sdm_state::command::AddMember;
use sdm_state::command::Found;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::members::FEATURE_LEVEL_MAX;
use sdm_state::settings::Settings;
use std::time::Duration;
use std::time::Instant;

const SMALL: usize = 10;
const LARGE: usize = 5_000;

/// Entries of one measurement, and how many times the small world's best time the large one's best
/// may take.
const ENTRIES: usize = 300;
const TIMES: u32 = 20;

/// How often a lock is handed on: few times, so that the short queue is short.
const HANDED_ON: usize = 40;

struct Bare {
    state: State,
    index: u64,
}

impl Bare {
    fn new() -> Self {
        let mut bare = Self { state: State::default(), index: 0 };
        let member = AddMember {
            name: "m1".parse().unwrap(),
            address: "m1:7400".into(),
            incarnation: "m1".into(),
            version: "test".into(),
            feature_level_max: FEATURE_LEVEL_MAX,
        };
        let settings = Settings { sessions_max: u64::MAX, locks_max: u64::MAX, ..Settings::default() };
        bare.apply(Command::Found(Found {
            cluster_id: ClusterId::derive("test", &[]),
            pool_id: PoolId::derive("test", &[]),
            epoch: 1,
            member,
            settings,
        }));
        bare
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        self.state.apply(self.index, &Entry { stamp_ms: 0, entropy: [0; 16], command })
    }

    fn open(&mut self) -> SessionRef {
        let nonce = format!("session {}", self.index);
        let open = OpenSession { owner: SessionOwner::Client("test".into()), ttl_ms: 10_000, nonce };
        match self.apply(Command::OpenSession(open)) {
            Reply::Session { session, .. } => session,
            other => panic!("{other}"),
        }
    }

    fn ask(&mut self, session: SessionRef, sequence: u64, resources: &[(&str, Mode)], wait_ms: u64) -> (u64, bool) {
        let resources = resources.iter().map(|(name, mode)| (Resource::User((*name).to_owned()), *mode)).collect();
        let acquire = AcquireLocks { session, sequence, resources, wait_ms, why: String::new() };
        match self.apply(Command::AcquireLocks(acquire)) {
            Reply::Lock { id, token } => (id, token.is_some()),
            other => panic!("{other}"),
        }
    }

    fn release(&mut self, session: SessionRef, sequence: u64, lock: u64) {
        assert_eq!(self.apply(Command::ReleaseLocks { session, sequence, lock }), Reply::Done);
    }
}

/// The best of some runs, each in a world made anew: what the machine does beside it only adds.
fn best(size: usize, prepare: fn(&mut Bare, usize), run: fn(&mut Bare)) -> Duration {
    let runs = (0..3).map(|_| {
        let mut bare = Bare::new();
        prepare(&mut bare, size);
        let begun = Instant::now();
        run(&mut bare);
        begun.elapsed()
    });
    runs.min().unwrap_or_default()
}

fn same_cost(what: &str, prepare: fn(&mut Bare, usize), run: fn(&mut Bare)) {
    let (small, large) = (best(SMALL, prepare, run), best(LARGE, prepare, run));
    println!("{what}: took {small:?} beside {SMALL}, {large:?} beside {LARGE}");
    assert!(large < small * TIMES, "{what}: {small:?} beside {SMALL}, {large:?} beside {LARGE}");
}

/// Pairs of one more session on a name of its own.
fn pairs(bare: &mut Bare) {
    let session = bare.open();
    for n in 0..ENTRIES as u64 / 2 {
        let (lock, held) = bare.ask(session, 2 * n + 1, &[("own", Mode::Exclusive)], 0);
        assert!(held);
        bare.release(session, 2 * n + 2, lock);
    }
}

#[test]
fn a_pair_costs_the_same_beside_many_sessions_locks_and_waiters_of_other_names() {
    let prepare = |bare: &mut Bare, size: usize| {
        for n in 0..size {
            let session = bare.open();
            bare.ask(session, 1, &[(&format!("held/{n}"), Mode::Exclusive)], 0);
            bare.ask(session, 2, &[("held/0", Mode::Exclusive)], 60_000);
        }
    };
    same_cost("pairs", prepare, pairs);
}

#[test]
fn passing_a_lock_on_costs_the_same_with_a_long_queue_as_with_a_short_one() {
    let prepare = |bare: &mut Bare, size: usize| {
        for _ in 0..size + HANDED_ON {
            let session = bare.open();
            bare.ask(session, 1, &[("queue", Mode::Exclusive)], 60_000);
        }
    };
    let run = |bare: &mut Bare| {
        for _ in 0..HANDED_ON {
            let held = bare.state.locks.values().next().expect("somebody holds it").clone();
            let sdm_state::locks::Owner::Session(id) = held.owner else { panic!() };
            assert!(held.granted.is_some());
            bare.release(SessionRef { id, epoch: id }, 2, held.id);
        }
    };
    same_cost("a queue", prepare, run);
}

#[test]
fn asking_at_the_end_of_a_long_queue_and_giving_up_costs_the_same_as_at_a_short_one() {
    let prepare = |bare: &mut Bare, size: usize| {
        for _ in 0..size {
            let session = bare.open();
            bare.ask(session, 1, &[("queue", Mode::Exclusive)], 60_000);
        }
    };
    let run = |bare: &mut Bare| {
        let session = bare.open();
        for n in 0..ENTRIES as u64 / 2 {
            let (lock, held) = bare.ask(session, 2 * n + 1, &[("queue", Mode::Exclusive)], 60_000);
            assert!(!held);
            bare.release(session, 2 * n + 2, lock);
        }
    };
    same_cost("the end of a queue", prepare, run);
}

#[test]
fn sharing_with_many_costs_the_same_as_sharing_with_few() {
    let prepare = |bare: &mut Bare, size: usize| {
        let first = bare.open();
        bare.ask(first, 1, &[("disk", Mode::Exclusive)], 0);
        for _ in 0..size {
            let session = bare.open();
            bare.ask(session, 1, &[("domain", Mode::IntentExclusive)], 0);
            // Who waits elsewhere shares the domain with those that work there.
            bare.ask(session, 2, &[("domain", Mode::IntentExclusive), ("disk", Mode::Exclusive)], 60_000);
        }
    };
    let run = |bare: &mut Bare| {
        let session = bare.open();
        for n in 0..ENTRIES as u64 / 2 {
            let (lock, held) = bare.ask(session, 2 * n + 1, &[("domain", Mode::IntentExclusive)], 0);
            assert!(held);
            bare.release(session, 2 * n + 2, lock);
        }
    };
    same_cost("sharing", prepare, run);
}

#[test]
fn opening_and_ending_sessions_costs_the_same_beside_many() {
    let prepare = |bare: &mut Bare, size: usize| {
        for n in 0..size {
            let session = bare.open();
            bare.ask(session, 1, &[(&format!("held/{n}"), Mode::Exclusive)], 0);
        }
    };
    let run = |bare: &mut Bare| {
        for _ in 0..ENTRIES / 3 {
            let session = bare.open();
            bare.ask(session, 1, &[("own", Mode::Exclusive)], 0);
            assert_eq!(bare.apply(Command::CloseSession(session)), Reply::Done);
        }
    };
    same_cost("sessions", prepare, run);
}
