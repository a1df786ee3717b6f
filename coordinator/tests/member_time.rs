//! Time in a cluster: the leader's ticks and the leases of sessions, on clocks that the test moves.

mod cluster;

use cluster::Cluster;
use cluster::PATIENCE;
use cluster::open_session;
use sdm_coordinator::Core;
use sdm_coordinator::Start;
use sdm_proto::seams::SimulatedClock;
use sdm_state::Reply;
use sdm_state::command::SessionRef;
use std::sync::Arc;
use tokio::time::Instant;

/// As `open_session` asks for.
const TTL_MS: u64 = 10_000;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

async fn session(core: &Core, nonce: &str) -> SessionRef {
    match core.propose(open_session(nonce), soon()).await.unwrap().reply {
        Reply::Session { session, .. } => session,
        reply => panic!("{reply}"),
    }
}

/// Waits until the member has applied a state that is as wanted.
async fn applied(core: &Core, wanted: impl Fn(&sdm_state::State) -> bool) {
    let mut changes = core.watch();
    let waiting = async {
        while !wanted(&core.view().state) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the state becomes as wanted");
}

/// Three members on one clock.
async fn on_one_clock() -> (Cluster, SimulatedClock) {
    let clock = SimulatedClock::default();
    let mut cluster = Cluster::new();
    cluster.clock = Some(Arc::new(clock.clone()));
    for (name, start) in [("a", Start::Bootstrap), ("b", join_a()), ("c", join_a())] {
        cluster.start(name, start);
        cluster.core(name).await;
    }
    (cluster, clock)
}

fn join_a() -> Start {
    Start::Join("a:7400".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_ticks_once_a_minute_and_lost_time_is_not_caught_up() {
    let (cluster, clock) = on_one_clock().await;
    let core = cluster.core("b").await;
    let begun = core.read(soon()).await.unwrap().state.meta.clock_ms;
    clock.advance(61_000);
    applied(&core, |state| state.meta.clock_ms >= begun + 60_000).await;

    let before = core.read(soon()).await.unwrap().state.meta.clock_ms;
    clock.advance(3_600_000);
    applied(&core, |state| state.meta.clock_ms > before).await;
    // One more entry, so that a stopwatch which went on counting would show.
    session(&core, "later").await;
    let after = core.read(soon()).await.unwrap().state.meta.clock_ms;
    assert!(after <= before + 120_000, "an hour was lost, {} ms of it were caught up", after - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_while_it_is_kept_alive_at_any_member_and_expires_when_it_is_not() {
    let (cluster, clock) = on_one_clock().await;
    let (b, c) = (cluster.core("b").await, cluster.core("c").await);
    let (kept, left) = (session(&b, "kept").await, session(&b, "left").await);
    for core in [&b, &c, &b] {
        clock.advance(TTL_MS / 2 + 1);
        assert_eq!(core.keep_alive(vec![kept], soon()).await.unwrap(), vec![kept]);
    }
    applied(&b, |state| state.sessions.get(&left.id).is_none()).await;
    assert!(b.read(soon()).await.unwrap().state.sessions.get(&kept.id).is_some());
    assert_eq!(c.keep_alive(vec![left, kept], soon()).await.unwrap(), vec![kept]);
    clock.advance(TTL_MS + 1);
    applied(&b, |state| state.sessions.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_gives_every_session_its_full_lease_again() {
    let (mut cluster, clock) = on_one_clock().await;
    let leader = cluster.leader("a").await;
    let other = cluster.members.keys().find(|name| **name != leader).cloned().unwrap();
    let core = cluster.core(&other).await;
    let held = session(&core, "held").await;
    clock.advance(TTL_MS - 1);
    cluster.kill(&leader);
    // Renewal goes through the new leader, which had no keepalive of this session before.
    core.read(soon()).await.unwrap();
    clock.advance(TTL_MS - 1);
    assert_eq!(core.keep_alive(vec![held], soon()).await.unwrap(), vec![held]);
    clock.advance(TTL_MS + 1);
    applied(&core, |state| state.sessions.get(&held.id).is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_renews_nothing() {
    let (mut cluster, _clock) = on_one_clock().await;
    let leader = cluster.leader("a").await;
    let core = cluster.core(&leader).await;
    let held = session(&core, "held").await;
    cluster.isolate(&leader);
    let renewed = core.keep_alive(vec![held], Instant::now() + std::time::Duration::from_secs(3)).await;
    assert_eq!(renewed.unwrap_err().reason, "NO_QUORUM");
}
