//! What follows when the leader's process ends: its connections tell, long before Raft's timers.

mod cluster;

use cluster::Cluster;
use cluster::PATIENCE;
use cluster::open_session;
use sdm_coordinator::Start;
use sdm_raft_store::raft::RaftTiming;
use tokio::time::Instant;

/// Nobody is elected by these within the patience of a test.
const ENDLESS: RaftTiming = RaftTiming { heartbeat_ms: 100, election_min_ms: 600_000, election_max_ms: 700_000 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_ended_is_replaced_before_any_timer_runs_out() {
    let mut cluster = Cluster::of(&["a"]).await;
    cluster.timing = ENDLESS;
    for name in ["b", "c"] {
        cluster.start(name, Start::Join("a:7400".to_owned()));
        cluster.core(name).await;
    }
    assert_eq!(cluster.leader("b").await, "a");
    cluster.kill("a");
    for name in ["b", "c"] {
        let core = cluster.core(name).await;
        core.propose(open_session(name), Instant::now() + PATIENCE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_loses_only_its_way_to_the_leader_does_not_depose_it() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader("a").await;
    let other = ["a", "b", "c"].into_iter().find(|name| *name != leader).unwrap();
    let term = cluster.status(&leader).await.term;
    for _ in 0..3 {
        cluster.network.cut(&leader, other);
        // What comes by way of the third member shows that the leader leads on.
        let third = ["a", "b", "c"].into_iter().find(|name| *name != leader && *name != other).unwrap();
        let core = cluster.core(third).await;
        core.propose(open_session(&format!("{term}")), Instant::now() + PATIENCE).await.unwrap();
        cluster.network.heal();
        cluster.core(other).await.read(Instant::now() + PATIENCE).await.unwrap();
    }
    assert_eq!(cluster.status(&leader).await.term, term);
}
