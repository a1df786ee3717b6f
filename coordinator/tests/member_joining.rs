//! Becoming a member: in whatever state a start was interrupted, the next one finishes; and whoever
//! does not belong here is told so.

mod cluster;

use cluster::Cluster;
use cluster::PATIENCE;
use cluster::open_session;
use cluster::run;
use cluster::secret;
use sdm_coordinator::Start;
use sdm_proto::refusal::Class;
use std::time::Duration;
use tokio::time::Instant;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn join_a() -> Start {
    Start::Join("a:7400".to_owned())
}

async fn wait_for_file(path: std::path::PathBuf) {
    let deadline = soon();
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} does not appear", path.display());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_is_killed_at_any_step_finishes_at_its_next_start() {
    // Before anything is pending, only the same command can go on.
    for (file, again) in [
        ("log/segment-0000000001", Start::Bootstrap),
        ("identity.json.pending", Start::Resume),
        ("identity.json", Start::Resume),
    ] {
        let mut cluster = Cluster::new();
        cluster.start("a", Start::Bootstrap);
        wait_for_file(cluster.data_dir("a").join(file)).await;
        cluster.kill("a");
        cluster.start("a", again);
        let view = cluster.core("a").await.read(soon()).await.unwrap();
        assert!(view.state.meta.cluster_id.is_some(), "killed at {file}");
        assert_eq!(view.state.members.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_is_killed_at_any_step_is_admitted_after_its_next_start() {
    let mut cluster = Cluster::of(&["a"]).await;
    for (name, file, again) in [
        ("b", "log/segment-0000000001", join_a()),
        ("c", "identity.json.pending", Start::Resume),
        ("d", "identity.json", Start::Resume),
    ] {
        cluster.start(name, join_a());
        wait_for_file(cluster.data_dir(name).join(file)).await;
        cluster.kill(name);
        cluster.start(name, again);
        let view = cluster.core(name).await.read(soon()).await.unwrap();
        assert_eq!(view.state.members.values().filter(|member| member.name.as_str() == name).count(), 1);
        cluster
            .status_until("a", |status| {
                status.members.iter().any(|member| member.name == name && member.role == "follower")
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_that_are_started_at_once_form_one_cluster() {
    let mut cluster = Cluster::new();
    cluster.start("c", join_a());
    cluster.start("b", join_a());
    cluster.start("a", Start::Bootstrap);
    for name in ["a", "b", "c"] {
        cluster.core(name).await;
    }
    cluster
        .status_until("c", |status| {
            status.members.iter().filter(|m| m.reachable && ["leader", "follower"].contains(&m.role.as_str())).count()
                == 3
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_stays_one_and_serves_reads_and_proposals() {
    let mut cluster = Cluster::of(&["a"]).await;
    let mut config = cluster.config("b", join_a());
    config.stay_learner = true;
    cluster.members.insert("b".to_owned(), run(config));
    let core = cluster.core("b").await;
    core.propose(open_session("from the learner"), soon()).await.unwrap();
    assert_eq!(core.read(soon()).await.unwrap().state.sessions.len(), 1);
    drop(core);
    cluster.stop("b");
    cluster.start("b", Start::Resume);
    cluster.core("b").await;
    let status = cluster.status("a").await;
    let role = |name: &str| status.members.iter().find(|m| m.name == name).map(|m| m.role.clone());
    assert_eq!((role("a").as_deref(), role("b").as_deref()), (Some("leader"), Some("learner")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstrap_and_join_are_ignored_on_a_folder_that_holds_a_member() {
    let mut cluster = Cluster::of(&["a", "b"]).await;
    let id = cluster.core("b").await.node_id();
    for start in [Start::Bootstrap, Start::Join("nobody:1".to_owned())] {
        cluster.stop("b");
        cluster.start("b", start);
        assert_eq!(cluster.core("b").await.node_id(), id);
        assert_eq!(cluster.core("b").await.read(soon()).await.unwrap().state.members.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_name_another_secret_another_name_and_an_empty_folder_are_refused() {
    let mut cluster = Cluster::of(&["a", "b"]).await;

    let mut taken = cluster.config("c", join_a());
    taken.name = "b".parse().unwrap();
    let refusal = run(taken).ended().await.unwrap_err().refusal();
    assert_eq!(refusal.reason, "MEMBER_EXISTS", "{refusal}");

    let mut stranger = cluster.config("d", join_a());
    stranger.secret = secret("another secret entirely");
    let refusal = run(stranger).ended().await.unwrap_err().refusal();
    assert_eq!(refusal.reason, "BAD_SECRET", "{refusal}");

    let refusal = run(cluster.config("e", Start::Resume)).ended().await.unwrap_err().refusal();
    assert_eq!(refusal.reason, "NO_MEMBER_HERE", "{refusal}");
    assert!(refusal.hint.contains("--bootstrap") && refusal.hint.contains("--join"), "{refusal}");

    cluster.stop("b");
    let mut renamed = cluster.config("b", Start::Resume);
    renamed.name = "bb".parse().unwrap();
    let refusal = run(renamed).ended().await.unwrap_err().refusal();
    assert_eq!(refusal.reason, "ANOTHER_NAME", "{refusal}");
    cluster.start("b", Start::Resume);
    cluster.core("b").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_another_cluster_than_the_one_to_join_is_refused_with_both_their_ids() {
    let mut cluster = Cluster::of(&["a", "b"]).await;
    cluster.start("x", Start::Bootstrap);
    let ids = [cluster.core("a").await, cluster.core("x").await].map(|core| core.view().state.cluster_id().to_string());
    cluster.stop("b");
    cluster.start("b", Start::Join("x:7400".to_owned()));
    let ended = tokio::time::timeout(PATIENCE, cluster.members.remove("b").unwrap().ended()).await;
    let refusal = ended.expect("it does not wait in silence").unwrap_err().refusal();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "WRONG_CLUSTER"), "{refusal}");
    for part in ids.iter().map(String::as_str).chain(["x:7400"]) {
        assert!(refusal.message.contains(part), "no {part}: {refusal}");
    }
    assert!(refusal.hint.contains("--join") && refusal.hint.contains("empty"), "{refusal}");
    // As the hint says.
    cluster.start("b", Start::Resume);
    cluster.core("b").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_one_folder_and_a_port_beyond_loopback_without_a_secret_are_refused() {
    let cluster = Cluster::of(&["a"]).await;
    let mut second = cluster.config("a", Start::Resume);
    second.listen = "x:7400".to_owned();
    let refusal = run(second).ended().await.unwrap_err().refusal();
    assert_eq!(refusal.reason, "FOLDER_IN_USE", "{refusal}");

    let mut open = cluster.config("o", Start::Bootstrap);
    open.secret = sdm_proto::credentials::ClusterSecret::default();
    let refusal = run(open).ended().await.unwrap_err().refusal();
    assert_eq!(refusal.reason, "SECRET_NEEDED", "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_waits_to_join_says_that_it_is_no_member_yet() {
    let mut cluster = Cluster::new();
    cluster.start("b", join_a());
    let mut client = cluster.client("b");
    let deadline = soon();
    let refusal = loop {
        let status = client.get_status(sdm_proto::wire::v1::GetStatusRequest {}).await.unwrap_err();
        let refusal = sdm_proto::status::from_status(&status);
        // Until it listens, nobody is there.
        if refusal.reason != "UNREACHABLE" {
            break refusal;
        }
        assert!(Instant::now() < deadline, "{refusal}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(refusal.reason, "NOT_A_MEMBER_YET");
    assert_eq!(refusal.class, Class::Unavailable);
    cluster.start("a", Start::Bootstrap);
    cluster.core("b").await;
}
