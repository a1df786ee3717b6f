//! Members as a cluster: proposing and reading anywhere, losing and regaining members.

mod cluster;

use cluster::Cluster;
use cluster::PATIENCE;
use cluster::open_session;
use cluster::run;
use futures_util::StreamExt;
use sdm_coordinator::Start;
use sdm_proto::refusal::Class;
use sdm_proto::seams::SimulatedClock;
use sdm_raft_store::SimulatedDisk;
use sdm_raft_store::raft::RaftTiming;
use sdm_state::Command;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_form_a_cluster_and_each_answers_for_all() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    for name in ["a", "b", "c"] {
        let status = cluster
            .status_until(name, |status| {
                status
                    .members
                    .iter()
                    .filter(|m| m.reachable && ["leader", "follower"].contains(&m.role.as_str()))
                    .count()
                    == 3
            })
            .await;
        assert!(status.has_quorum);
        assert_eq!(status.answered_by, name);
        assert_eq!(status.members.iter().filter(|member| member.role == "leader").count(), 1);
        assert!(status.checks.is_empty(), "{:?}", status.checks);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proposed_at_one_member_is_read_at_every_other_at_once() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    for (round, at) in ["a", "b", "c", "a", "b", "c"].into_iter().enumerate() {
        let core = cluster.core(at).await;
        let proposed = core.propose(open_session(&format!("{at}-{round}")), soon()).await.unwrap();
        assert!(core.view().applied_index() >= Some(proposed.index), "the proposer's own view has it");
        for reader in ["a", "b", "c"] {
            let view = cluster.core(reader).await.read(soon()).await.unwrap();
            assert_eq!(view.state.sessions.len(), round + 1, "{reader} reads what {at} proposed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_command_is_done_once_whoever_gets_it() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let mut replies = Vec::new();
    for at in ["a", "b", "c"] {
        replies.push(cluster.core(at).await.propose(open_session("same"), soon()).await.unwrap().reply);
    }
    assert!(replies.windows(2).all(|pair| pair[0] == pair[1]), "{replies:?}");
    assert_eq!(cluster.core("b").await.read(soon()).await.unwrap().state.sessions.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_goes_on_when_the_leader_is_killed_and_it_comes_back_with_all_that_was_done() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader("a").await;
    cluster.core(&leader).await.propose(open_session("before"), soon()).await.unwrap();
    cluster.kill(&leader);
    let others: Vec<String> = cluster.members.keys().cloned().collect();
    for other in &others {
        cluster.core(other).await.propose(open_session(other), soon()).await.unwrap();
        let view = cluster.core(other).await.read(soon()).await.unwrap();
        assert!(view.state.sessions.values().any(|session| session.nonce == "before"));
    }
    let status = cluster.status(&others[0]).await;
    assert!(status.checks.iter().any(|check| check.code == "MEMBER_UNREACHABLE"), "{:?}", status.checks);
    assert!(status.members.iter().any(|member| member.name == leader && !member.reachable && !member.error.is_empty()));

    cluster.start(&leader, Start::Resume);
    let view = cluster.core(&leader).await.read(soon()).await.unwrap();
    assert_eq!(view.state.sessions.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_refuses_and_the_others_go_on_until_the_network_heals() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader("b").await;
    let cut_off = cluster.core(&leader).await;
    cluster.isolate(&leader);
    let other = cluster.members.keys().find(|name| **name != leader).cloned().unwrap();
    cluster.core(&other).await.propose(open_session("majority"), soon()).await.unwrap();

    let refusal = cut_off.propose(open_session("minority"), Instant::now() + Duration::from_secs(4)).await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Unavailable, "NO_QUORUM"));
    assert_eq!(refusal.blockers.len(), 2, "it names both that it cannot reach: {refusal}");
    let silent: Vec<&str> = refusal.blockers.iter().map(|blocker| blocker.id.as_str()).collect();
    for name in silent {
        let id = cluster.core(name).await.node_id();
        assert!(refusal.message.contains(&format!("{name} (id {id})")), "{refusal}");
    }
    assert!(!refusal.to_string().contains('{'), "words, no values of the program: {refusal}");
    let refusal = cut_off.read(Instant::now() + Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(refusal.reason, "NO_QUORUM");
    let status = cluster.status(&leader).await;
    assert!(!status.has_quorum);
    assert!(status.checks.iter().any(|check| check.code == "NO_QUORUM"));
    assert_eq!(status.leader, "", "a leader that nobody follows is none");
    assert!(status.members.iter().all(|member| member.role != "leader"), "{:?}", status.members);

    cluster.network.heal();
    let view = cut_off.read(soon()).await.unwrap();
    assert!(view.state.sessions.values().any(|session| session.nonce == "majority"));
    cut_off.propose(open_session("minority"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_to_a_leader_that_is_cut_off_is_done_by_the_next_one() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader("a").await;
    let follower = cluster.members.keys().find(|name| **name != leader).cloned().unwrap();
    let core = cluster.core(&follower).await;
    let abort = || Command::Abort { txn: sdm_proto::ids::TxnId::default(), reason: String::new() };
    let proposals = futures_util::stream::iter(0..2_000).map(|_| core.propose(abort(), soon())).buffer_unordered(64);
    let mut proposals = std::pin::pin!(proposals);
    let mut done = 0;
    while let Some(proposed) = proposals.next().await {
        proposed.unwrap();
        done += 1;
        if done == 200 {
            // Dozens of calls break in the middle.
            cluster.isolate(&leader);
        }
    }
    assert_eq!(done, 2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_leader_is_held_until_there_is_one() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.kill("b");
    cluster.kill("c");
    let core = cluster.core("a").await;
    let held = tokio::spawn(async move { core.propose(open_session("patient"), soon()).await });
    cluster.status_until("a", |status| !status.has_quorum).await;
    cluster.start("b", Start::Resume);
    held.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_all_members_were_killed_and_started_again() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    for nonce in ["one", "two", "three"] {
        cluster.core("c").await.propose(open_session(nonce), soon()).await.unwrap();
    }
    let before = cluster.core("c").await.read(soon()).await.unwrap();
    for name in ["a", "b", "c"] {
        cluster.kill(name);
    }
    for name in ["a", "b", "c"] {
        cluster.start(name, Start::Resume);
    }
    for name in ["a", "b", "c"] {
        let after = cluster.core(name).await.read(soon()).await.unwrap();
        assert_eq!(after.state.sessions.len(), 3);
        assert_eq!(after.state.cluster_id(), before.state.cluster_id());
        assert!(after.state.meta.clock_ms >= before.state.meta.clock_ms);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joins_after_the_log_was_cut_gets_a_snapshot_and_goes_on_from_it() {
    let mut cluster = Cluster::new();
    // However long the test takes, no session expires.
    cluster.clock = Some(Arc::new(SimulatedClock::default()));
    cluster.start("a", Start::Bootstrap);
    cluster.core("a").await.propose(open_session("early"), soon()).await.unwrap();
    // More than the log keeps behind a snapshot.
    cluster.outgrow_the_log().await;
    cluster.start("b", Start::Join("a:7400".to_owned()));
    let core = cluster.core("b").await;
    assert_eq!(core.read(soon()).await.unwrap().state.sessions.len(), 1);
    assert!(!cluster.snapshots("b").is_empty(), "it came as a snapshot");
    core.propose(open_session("late"), soon()).await.unwrap();
    drop(core);
    cluster.kill("b");
    cluster.start("b", Start::Resume);
    assert_eq!(cluster.core("b").await.read(soon()).await.unwrap().state.sessions.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_answered_is_lost_when_all_members_lose_their_power_at_once() {
    let mut cluster = Cluster::new();
    for name in ["a", "b", "c"] {
        cluster.disks.insert(name.to_owned(), SimulatedDisk::new());
    }
    for name in ["a", "b", "c"] {
        let start = if name == "a" { Start::Bootstrap } else { Start::Join("a:7400".to_owned()) };
        cluster.start(name, start);
        cluster.core(name).await;
    }
    for round in 1..=3 {
        let core = cluster.core("b").await;
        core.propose(open_session(&format!("round {round}")), soon()).await.unwrap();
        drop(core);
        for name in ["a", "b", "c"] {
            cluster.cut_power(name);
        }
        for name in ["a", "b", "c"] {
            cluster.start(name, Start::Resume);
        }
        for name in ["a", "b", "c"] {
            let view = cluster.core(name).await.read(soon()).await.unwrap();
            assert_eq!(view.state.sessions.len(), round, "{name} after power cut {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_stopped_in_order_hands_over_before_it_goes() {
    let mut cluster = Cluster::of(&["a"]).await;
    // Nobody but a named successor is elected within the patience of this test: no timer runs out, and
    // nobody learns that the leader's process has ended.
    cluster.timing = RaftTiming { heartbeat_ms: 100, election_min_ms: 600_000, election_max_ms: 700_000 };
    cluster.failure = Some(ErrorKind::HostUnreachable);
    for name in ["b", "c"] {
        cluster.start(name, Start::Join("a:7400".to_owned()));
        cluster.core(name).await;
    }
    assert_eq!(cluster.leader("b").await, "a");
    cluster.stop("a");
    cluster.core("b").await.propose(open_session("after"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_of_three_that_comes_back_alone_answers_and_says_that_it_is_alone() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    for name in ["a", "b", "c"] {
        cluster.kill(name);
    }
    cluster.start("b", Start::Resume);
    cluster.core("b").await;
    let status = cluster.status("b").await;
    assert!(!status.has_quorum);
    assert_eq!(status.leader, "");
    let unreachable: Vec<&str> = status.members.iter().filter(|m| !m.reachable).map(|m| m.name.as_str()).collect();
    assert_eq!(unreachable, ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_changed_hands_does_no_harm_to_either_cluster() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.kill("c");
    let mut stranger = cluster.config("z", Start::Bootstrap);
    stranger.listen = "c:7400".to_owned();
    cluster.members.insert("z".to_owned(), run(stranger));
    let z = cluster.core("z").await;
    cluster.core("a").await.propose(open_session("ours"), soon()).await.unwrap();
    let status = cluster
        .status_until("a", |status| status.members.iter().any(|m| m.name == "c" && m.error.contains("cluster")))
        .await;
    assert!(status.has_quorum);
    let view = z.read(soon()).await.unwrap();
    assert_eq!(view.state.members.len(), 1);
    assert!(view.state.sessions.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_fails_ends_and_says_so_and_the_others_go_on() {
    let mut cluster = Cluster::new();
    let disk = SimulatedDisk::new();
    cluster.disks.insert("b".to_owned(), disk.clone());
    cluster.start("a", Start::Bootstrap);
    for name in ["b", "c"] {
        cluster.start(name, Start::Join("a:7400".to_owned()));
        cluster.core(name).await;
    }
    disk.fail_syncs(std::io::ErrorKind::Other);
    cluster.core("a").await.propose(open_session("one"), soon()).await.unwrap();
    let refusal = cluster.members.remove("b").unwrap().ended().await.unwrap_err().refusal();
    assert_eq!(refusal.reason, "DISK_FAILED", "{refusal}");
    cluster.core("c").await.propose(open_session("two"), soon()).await.unwrap();
}
