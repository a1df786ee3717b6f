//! A lock that many wait for is released: each entry lets through only so many, in their order, and the
//! next ones go on until everyone who can has it.

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
use sdm_state::invariants;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;
use sdm_state::members::FEATURE_LEVEL_MAX;
use sdm_state::settings::Settings;

/// How many one entry lets through here.
const SHARE: usize = 10;

/// How long requests wait.
const WAIT_MS: u64 = 60_000;

struct World {
    state: State,
    index: u64,
    now_ms: u64,
}

impl World {
    fn new(feature_level_max: u32) -> Self {
        let mut world = Self { state: State::default(), index: 0, now_ms: 0 };
        let member = AddMember {
            name: "m1".parse().unwrap(),
            address: "m1:7400".into(),
            incarnation: "m1".into(),
            version: "test".into(),
            feature_level_max,
        };
        let settings = Settings { work_per_entry: SHARE as u64, ..Settings::default() };
        world.apply(Command::Found(Found {
            cluster_id: ClusterId::derive("test", &[]),
            pool_id: PoolId::derive("test", &[]),
            epoch: 1,
            member,
            settings,
        }));
        world
    }

    #[track_caller]
    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let reply = self.state.apply(self.index, &Entry { stamp_ms: self.now_ms, entropy: [0; 16], command });
        assert_eq!(invariants::check(&self.state), Ok(()), "after entry {}", self.index);
        reply
    }

    fn open(&mut self) -> SessionRef {
        let nonce = format!("session {}", self.index);
        let open = OpenSession { owner: SessionOwner::Client("test".into()), ttl_ms: 600_000, nonce };
        match self.apply(Command::OpenSession(open)) {
            Reply::Session { session, .. } => session,
            other => panic!("{other}"),
        }
    }

    /// A request of a session of its own: that session, and the lock.
    #[track_caller]
    fn ask(&mut self, resources: &[(&str, Mode)], wait_ms: u64) -> (SessionRef, u64) {
        let session = self.open();
        let resources = resources.iter().map(|(name, mode)| (Resource::User((*name).to_owned()), *mode)).collect();
        let acquire = AcquireLocks { session, sequence: 1, resources, wait_ms, why: String::new() };
        match self.apply(Command::AcquireLocks(acquire)) {
            Reply::Lock { id, .. } => (session, id),
            other => panic!("{other}"),
        }
    }

    #[track_caller]
    fn release(&mut self, (session, lock): (SessionRef, u64)) {
        assert_eq!(self.apply(Command::ReleaseLocks { session, sequence: 2, lock }), Reply::Done);
    }

    fn holds(&self, (_, lock): (SessionRef, u64)) -> bool {
        self.state.locks.get(&lock).is_some_and(|lock| lock.granted.is_some())
    }

    /// How many of these hold their lock; the first ones do, and no other.
    #[track_caller]
    fn granted(&self, asked: &[(SessionRef, u64)]) -> usize {
        let granted = asked.iter().filter(|asked| self.holds(**asked)).count();
        assert!(asked[..granted].iter().all(|asked| self.holds(*asked)), "they go on in their order");
        let token =
            |asked: &(SessionRef, u64)| self.state.locks.get(&asked.1).and_then(|lock| Some(lock.granted?.token));
        let tokens: Vec<_> = asked[..granted].iter().map(token).collect();
        assert!(tokens.is_sorted());
        granted
    }
}

#[test]
fn each_entry_lets_so_many_through_and_a_tick_is_due_until_all_are() {
    let mut world = World::new(FEATURE_LEVEL_MAX);
    let holder = world.ask(&[("r", Mode::Exclusive)], 0);
    let sharers: Vec<_> = (0..3 * SHARE + 5).map(|_| world.ask(&[("r", Mode::Shared)], WAIT_MS)).collect();
    let after = world.ask(&[("r", Mode::Exclusive)], WAIT_MS);
    assert_eq!(world.granted(&sharers), 0);
    world.release(holder);
    assert_eq!(world.granted(&sharers), SHARE);
    assert_eq!(world.state.next_due_ms(), Some(world.now_ms), "the rest is due at once");
    // What comes meanwhile: nobody overtakes whom it excludes.
    let session = world.open();
    assert_eq!(world.granted(&sharers), 2 * SHARE, "any entry goes on");
    let resources = [(Resource::User("r".to_owned()), Mode::Exclusive)].into();
    let tried = AcquireLocks { session, sequence: 1, resources, wait_ms: 0, why: String::new() };
    assert!(matches!(world.apply(Command::AcquireLocks(tried)), Reply::Refused(_)));
    assert_eq!(world.granted(&sharers), 3 * SHARE);
    world.apply(Command::Tick);
    assert_eq!(world.granted(&sharers), sharers.len());
    assert!(world.state.meta.unsettled.is_empty() && world.state.next_due_ms() > Some(world.now_ms));
    for sharer in sharers {
        assert!(!world.holds(after));
        world.release(sharer);
    }
    assert!(world.holds(after));
}

#[test]
fn those_that_wait_for_something_else_too_do_not_keep_the_rest_from_its_turn() {
    let mut world = World::new(FEATURE_LEVEL_MAX);
    let holder = world.ask(&[("r", Mode::Exclusive)], 0);
    let other = world.ask(&[("q", Mode::Exclusive)], 0);
    let both = [("q", Mode::Shared), ("r", Mode::Shared)];
    let in_front: Vec<_> = (0..2 * SHARE + 3).map(|_| world.ask(&both, WAIT_MS)).collect();
    let behind: Vec<_> = (0..5).map(|_| world.ask(&[("r", Mode::Shared)], WAIT_MS)).collect();
    world.release(holder);
    world.apply(Command::Tick);
    assert_eq!((world.granted(&in_front), world.granted(&behind)), (0, 0));
    // Releases that come while the look is under way do not send it back to the front.
    world.release(behind[4]);
    assert_eq!((world.granted(&in_front), world.granted(&behind)), (0, 4));
    world.release(other);
    for _ in 0..8 {
        world.apply(Command::Tick);
    }
    assert_eq!((world.granted(&in_front), world.granted(&behind)), (in_front.len(), 4));
    assert!(world.state.meta.unsettled.is_empty());
}

#[test]
fn whose_turn_had_come_is_let_through_though_its_time_is_over() {
    let mut world = World::new(FEATURE_LEVEL_MAX);
    let holder = world.ask(&[("r", Mode::Exclusive)], 0);
    let sharers: Vec<_> = (0..3 * SHARE).map(|_| world.ask(&[("r", Mode::Shared)], WAIT_MS)).collect();
    world.release(holder);
    assert_eq!(world.granted(&sharers), SHARE);
    world.now_ms += WAIT_MS + 1;
    world.apply(Command::Tick);
    world.apply(Command::Tick);
    assert_eq!(world.granted(&sharers), sharers.len(), "the lock was theirs, only their entry had not come");
}

#[test]
fn the_first_level_lets_all_through_in_one_entry_as_it_always_did() {
    let mut world = World::new(1);
    let holder = world.ask(&[("r", Mode::Exclusive)], 0);
    let sharers: Vec<_> = (0..3 * SHARE).map(|_| world.ask(&[("r", Mode::Shared)], WAIT_MS)).collect();
    world.release(holder);
    assert_eq!(world.granted(&sharers), sharers.len());
    assert!(world.state.meta.unsettled.is_empty());
}
