//! What follows when the leader's process ends: its connections tell, long before Raft's timers.

mod cluster;

use cluster::Cluster;
use cluster::PATIENCE;
use cluster::open_session;
use sdm_coordinator::Start;
use sdm_proto::seams::Transport;
use sdm_proto::seams::channel;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::member_service_client::MemberServiceClient;
use sdm_proto::wire::internal::v1::raft_service_client::RaftServiceClient;
use sdm_raft_store::raft::RaftTiming;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Nobody is elected by these within the patience of a test.
const ENDLESS: RaftTiming = RaftTiming { heartbeat_ms: 100, election_min_ms: 600_000, election_max_ms: 700_000 };

/// Members of which `a` leads, and nobody is elected by a timer.
async fn of_timers_that_never_end(failure: Option<ErrorKind>) -> Cluster {
    let mut cluster = Cluster::of(&["a"]).await;
    (cluster.timing, cluster.failure) = (ENDLESS, failure);
    for name in ["b", "c"] {
        cluster.start(name, Start::Join("a:7400".to_owned()));
        cluster.core(name).await;
    }
    assert_eq!(cluster.leader("b").await, "a");
    cluster
}

/// Has these members, one after the other, order something through the leader.
async fn propose(cluster: &Cluster, names: &[&str], what: &str) {
    for name in names {
        let core = cluster.core(name).await;
        core.propose(open_session(&format!("{what}/{name}")), Instant::now() + PATIENCE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_ended_is_replaced_before_any_timer_runs_out() {
    let mut cluster = of_timers_that_never_end(None).await;
    // Both have a line to the leader after this: only a line that was open tells something by its end.
    propose(&cluster, &["b", "c"], "before").await;
    cluster.kill("a");
    propose(&cluster, &["b", "c"], "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_missed_also_by_a_member_whose_line_was_opened_by_a_command() {
    // What a member meets that is cut off is a refusal then.
    let mut cluster = of_timers_that_never_end(Some(ErrorKind::ConnectionRefused)).await;
    propose(&cluster, &["b", "c"], "before").await;
    cluster.network.cut("a", "c");
    let deadline = Instant::now() + PATIENCE;
    while cluster.core("c").await.refused_alone() == 0 {
        assert!(Instant::now() < deadline, "c does not find out that the others have the leader");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // c pauses now before it opens its line again by itself.
    cluster.network.heal();
    propose(&cluster, &["c"], "meanwhile").await;
    cluster.kill("a");
    propose(&cluster, &["b", "c"], "after").await;
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

/// Whether a member says that it has lost a leader.
async fn has_lost(cluster: &Cluster, name: &str, leader: &str) -> bool {
    let (leader, asked) = (cluster.core(leader).await, cluster.core(name).await);
    let transport: Arc<dyn Transport> = Arc::new(cluster.network.host("test"));
    let credentials = leader.credentials_internal(format!("member/{}", asked.node_id()));
    let channel = channel(&transport, &format!("{name}:7400")).unwrap();
    let mut client = MemberServiceClient::with_interceptor(channel, credentials);
    client.ping(wire::PingRequest { leader: leader.node_id() }).await.unwrap().into_inner().leader_lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_refused_in_the_name_of_a_living_leader_still_counts_on_it() {
    let mut cluster = Cluster::of(&["a"]).await;
    cluster.timing = ENDLESS;
    cluster.start("b", Start::Join("a:7400".to_owned()));
    cluster.core("b").await;
    // What a firewall does that rejects.
    cluster.failure = Some(ErrorKind::ConnectionRefused);
    cluster.start("c", Start::Join("a:7400".to_owned()));
    let c = cluster.core("c").await;
    assert_eq!(cluster.leader("b").await, "a");
    // Both have their line to the leader after this.
    for name in ["b", "c"] {
        let core = cluster.core(name).await;
        core.propose(open_session(name), Instant::now() + PATIENCE).await.unwrap();
    }
    assert!(!has_lost(&cluster, "b", "a").await && !has_lost(&cluster, "c", "a").await);

    cluster.network.cut("a", "c");
    let deadline = Instant::now() + PATIENCE;
    while !has_lost(&cluster, "c", "a").await {
        assert!(Instant::now() < deadline, "c does not notice that its line broke");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!has_lost(&cluster, "b", "a").await);

    // It asks b, for a second, and comes to the verdict that it is alone with its trouble.
    while c.refused_alone() == 0 {
        assert!(Instant::now() < deadline, "c does not find out that the others have the leader");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Had it given up the lease of the leader, it would grant this.
    let transport: Arc<dyn Transport> = Arc::new(cluster.network.host("test"));
    let credentials = cluster.core("b").await.credentials_internal(format!("member/{}", c.node_id()));
    let mut client = RaftServiceClient::with_interceptor(channel(&transport, "c:7400").unwrap(), credentials);
    let request = wire::VoteRequest {
        vote: Some(wire::RaftVote { term: 900, node_id: 2, committed: false }),
        last_log_id: Some(wire::LogId { term: 900, node_id: 2, index: 1_000_000 }),
        leadership_transfer: false,
    };
    assert!(!client.pre_vote(request).await.unwrap().into_inner().vote_granted, "it gave up the lease");
}
