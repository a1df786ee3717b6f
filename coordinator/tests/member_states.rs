//! Members whose states part, and members of several versions: who stops, what is refused, and when
//! the feature level rises.

mod cluster;

use cluster::Cluster;
use cluster::PATIENCE;
use cluster::open_session;
use sdm_coordinator::Core;
use sdm_coordinator::Start;
use sdm_proto::ids::TxnId;
use sdm_proto::seams::Transport;
use sdm_proto::seams::channel;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::raft_service_client::RaftServiceClient;
use sdm_proto::wire::v1::RemoveMemberRequest;
use sdm_raft_store::SimulatedDisk;
use sdm_state::Command;
use sdm_state::members::FEATURE_LEVEL_MAX;
use std::sync::Arc;
use tokio::time::Instant;

/// Entries after which members compare their states.
const COMPARED_EVERY: u64 = 4_096;

/// Entries proposed at once.
const BATCH: u64 = 512;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Three members at most, each on a simulated disk.
async fn on_simulated_disks(names: &[&str]) -> Cluster {
    let mut cluster = Cluster::new();
    for (at, name) in names.iter().enumerate() {
        cluster.disks.insert((*name).to_owned(), SimulatedDisk::new());
        cluster.start(name, if at == 0 { Start::Bootstrap } else { Start::Join("a:7400".to_owned()) });
        cluster.core(name).await;
    }
    cluster
}

/// Changes the first entry of the cluster in a stopped member's log.
fn forge_first_entry(disk: &SimulatedDisk, change: impl Fn(&mut [u8])) {
    let forged = (0..10).any(|index| {
        let mut is_it = false;
        disk.forge_log_entry(index, |entry| {
            is_it = position(entry, b"Found").is_some();
            if is_it {
                change(entry);
            }
        });
        is_it
    });
    assert!(forged, "the log holds its first entry");
}

fn position(bytes: &[u8], of: &[u8]) -> Option<usize> {
    bytes.windows(of.len()).position(|part| part == of)
}

/// The founder's version reads otherwise afterwards, in this member's state alone.
fn plant_divergence(cluster: &mut Cluster, name: &str, digit: u8) {
    cluster.kill(name);
    forge_first_entry(&cluster.disks[name], |entry| {
        let version = position(entry, b"version").expect("a version");
        entry[version + 12] = digit;
    });
    cluster.start(name, Start::Resume);
}

/// Proposes until the members have compared their states, or writes are refused.
async fn compare(core: &Core) {
    let abort = || Command::Abort { txn: TxnId::default(), reason: String::new() };
    while core.view().state.last_hash_point().is_none() {
        let many = (0..BATCH).map(|_| core.propose(abort(), soon()));
        for proposed in futures_util::future::join_all(many).await {
            if proposed.is_err_and(|refusal| refusal.reason == "STATE_DIVERGED") {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_enter_the_same_hash_and_status_shows_it() {
    let mut cluster = on_simulated_disks(&["a", "b", "c"]).await;
    compare(&cluster.core("a").await).await;
    let status = cluster
        .status_until("b", |status| status.members.iter().all(|member| member.hash_index >= COMPARED_EVERY))
        .await;
    assert!(status.members.windows(2).all(|pair| pair[0].state_hash == pair[1].state_hash), "{status:?}");
    assert!(status.checks.is_empty(), "{:?}", status.checks);
    let core = cluster.core("a").await;
    let all = async {
        while core.view().state.last_hash_point().is_none_or(|point| point.reports.len() < 3) {
            core.watch().changed().await.expect("it runs");
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("all three enter their hashes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_state_is_not_that_of_the_majority_stops_and_the_others_go_on() {
    let mut cluster = on_simulated_disks(&["a", "b", "c"]).await;
    plant_divergence(&mut cluster, "c", b'9');
    cluster.core("c").await;
    compare(&cluster.core("a").await).await;
    let ended = cluster.members.remove("c").unwrap().ended();
    let refusal = tokio::time::timeout(PATIENCE, ended).await.expect("it stops").unwrap_err().refusal();
    assert_eq!(refusal.reason, "STATE_DIVERGED", "{refusal}");
    for said in ["member c", "a, b", "after entry", "sdm member remove c"] {
        assert!(refusal.to_string().contains(said), "{refusal}");
    }
    for name in ["a", "b"] {
        cluster.core(name).await.propose(open_session(name), soon()).await.unwrap();
    }
    // What it has on its disk is still wrong.
    cluster.start("c", Start::Resume);
    let ended = cluster.members.remove("c").unwrap().ended();
    let again = tokio::time::timeout(PATIENCE, ended).await.expect("it stops again").unwrap_err().refusal();
    assert_eq!(again.reason, "STATE_DIVERGED", "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_writes_are_refused_until_the_operator_removes_who_is_wrong() {
    let mut cluster = on_simulated_disks(&["a", "b"]).await;
    plant_divergence(&mut cluster, "b", b'9');
    cluster.core("b").await;
    compare(&cluster.core("a").await).await;
    let status = cluster.status_until("a", |status| status.checks.iter().any(|c| c.code == "STATE_DIVERGED")).await;
    assert!(status.has_quorum, "reads go on");
    for name in ["a", "b"] {
        let refusal = cluster.core(name).await.propose(open_session(name), soon()).await.unwrap_err();
        assert_eq!(refusal.reason, "STATE_DIVERGED", "{refusal}");
        let blockers: Vec<&str> = refusal.blockers.iter().map(|blocker| blocker.id.as_str()).collect();
        assert_eq!(blockers.len(), 2, "{refusal}");
    }
    let mut client = cluster.client("a");
    client.remove_member(RemoveMemberRequest { member: "b".to_owned() }).await.expect("removing passes");
    cluster.core("a").await.propose(open_session("after"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_with_three_states_refuse_writes() {
    let mut cluster = on_simulated_disks(&["a", "b", "c"]).await;
    plant_divergence(&mut cluster, "b", b'8');
    cluster.core("b").await;
    plant_divergence(&mut cluster, "c", b'9');
    cluster.core("c").await;
    compare(&cluster.core("a").await).await;
    cluster.status_until("a", |status| status.checks.iter().any(|c| c.code == "STATE_DIVERGED")).await;
    for name in ["a", "b", "c"] {
        let refusal = cluster.core(name).await.propose(open_session(name), soon()).await.unwrap_err();
        assert_eq!(refusal.reason, "STATE_DIVERGED", "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_of_an_older_cluster_is_raised_once_its_members_run_this_build() {
    let mut cluster = on_simulated_disks(&["a"]).await;
    cluster.kill("a");
    // As an older build would have founded it.
    forge_first_entry(&cluster.disks["a"], |entry| {
        let level = position(entry, b"feature_level_max").expect("a level");
        entry[level + 17] = 1;
        entry[2] = 1;
    });
    cluster.start("a", Start::Resume);
    cluster.core("a").await;
    let status = cluster.status_until("a", |status| status.feature_level == FEATURE_LEVEL_MAX).await;
    assert_eq!(status.members[0].feature_level_max, FEATURE_LEVEL_MAX);
    let history = cluster.core("a").await.view();
    assert_eq!(history.state.members.get(&1).map(|member| member.feature_level_max), Some(FEATURE_LEVEL_MAX));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_only_a_newer_sdm_can_read_stops_the_member_that_gets_it() {
    let mut cluster = on_simulated_disks(&["a", "b"]).await;
    let (a, b) = (cluster.core("a").await, cluster.core("b").await);
    let transport: Arc<dyn Transport> = Arc::new(cluster.network.host("test"));
    let credentials = a.credentials_internal(format!("member/{}", b.node_id()));
    let mut client = RaftServiceClient::with_interceptor(channel(&transport, "b:7400").unwrap(), credentials);
    drop((a, b));
    let newer = u8::try_from(FEATURE_LEVEL_MAX + 1).unwrap();
    let entry = wire::LogEntry {
        log_id: Some(wire::LogId { term: 9, node_id: 1, index: 900 }),
        payload: vec![1, b'E', 0, newer, 0x80].into(),
    };
    let request = wire::AppendRequest {
        vote: Some(wire::RaftVote { term: 9, node_id: 1, committed: true }),
        prev_log_id: None,
        entries: vec![entry],
        leader_commit: None,
    };
    client.append(request).await.expect_err("it cannot be read");
    let ended = cluster.members.remove("b").unwrap().ended();
    let refusal = tokio::time::timeout(PATIENCE, ended).await.expect("it stops").unwrap_err().refusal();
    assert_eq!(refusal.reason, "NEWER_VERSION", "{refusal}");
    assert!(refusal.message.contains("entry 900") && refusal.message.contains("newer sdm"), "{refusal}");
}
