//! Who may not take part: a folder that is an old copy, that lost its log, or whose member was removed;
//! a call that reached somebody else; and a member that comes back from a partition deposes nobody.

mod cluster;

use cluster::Cluster;
use cluster::PATIENCE;
use cluster::open_session;
use cluster::run;
use sdm_coordinator::Start;
use sdm_proto::refusal::Refusal;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn put_back(saved: &Path, folder: &Path) {
    std::fs::remove_dir_all(folder).unwrap();
    copy(saved, folder);
}

async fn ended_as(cluster: &mut Cluster, name: &str, reason: &str) -> Refusal {
    let ended = tokio::time::timeout(PATIENCE, cluster.members.remove(name).unwrap().ended()).await;
    let refusal = ended.expect("it ends by itself").unwrap_err().refusal();
    assert_eq!(refusal.reason, reason, "{refusal}");
    refusal
}

/// Waits until the cluster knows of so many starts of a member.
async fn started(cluster: &Cluster, seen_by: &str, name: &str, starts: u64) {
    let core = cluster.core(seen_by).await;
    let deadline = soon();
    loop {
        let view = core.read(deadline).await.unwrap();
        if view.state.members.values().any(|row| row.name.as_str() == name && row.starts >= starts) {
            return;
        }
        assert!(Instant::now() < deadline, "start {starts} of {name} is not reported");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_a_folder_is_told_to_stop_before_it_votes() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let saved = tempfile::tempdir().unwrap();
    cluster.stop("c");
    let folder = cluster.data_dir("c");
    copy(&folder, &saved.path().join("c"));
    cluster.start("c", Start::Resume);
    cluster.core("c").await.propose(open_session("after the copy"), soon()).await.unwrap();
    started(&cluster, "a", "c", 2).await;
    cluster.stop("c");
    copy(&folder, &saved.path().join("newest"));

    put_back(&saved.path().join("c"), &folder);
    cluster.start("c", Start::Resume);
    let refusal = ended_as(&mut cluster, "c", "OLD_COPY").await;
    assert!(refusal.message.contains("started 1 times") && refusal.message.contains("2 starts"), "{refusal}");
    assert!(refusal.hint.contains("sdm member remove c"), "{refusal}");
    cluster.core("a").await.propose(open_session("the others go on"), soon()).await.unwrap();

    // No leader: a alone, and what it has applied.
    cluster.stop("b");
    cluster.stop("a");
    cluster.start("a", Start::Resume);
    cluster.start("c", Start::Resume);
    ended_as(&mut cluster, "c", "OLD_COPY").await;

    // The folder that it used last is welcome.
    put_back(&saved.path().join("newest"), &folder);
    cluster.start("c", Start::Resume);
    let view = cluster.core("c").await.read(soon()).await.unwrap();
    assert_eq!(view.state.sessions.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_knows_a_log_that_lost_what_it_had_acknowledged() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader("a").await;
    let follower = cluster.members.keys().find(|name| **name != leader).cloned().unwrap();
    let saved = tempfile::tempdir().unwrap();
    cluster.stop(&follower);
    let folder = cluster.data_dir(&follower);
    copy(&folder, &saved.path().join("old"));
    cluster.start(&follower, Start::Resume);
    started(&cluster, &leader, &follower, 2).await;
    let last = cluster.core(&leader).await.propose(open_session("acknowledged"), soon()).await.unwrap().index;
    cluster
        .status_until(&leader, |status| {
            status.members.iter().any(|member| member.name == follower && member.applied_index >= last)
        })
        .await;
    cluster.stop(&follower);
    // As if the machine went back within one run of the member: the count is that of the last start.
    let count = std::fs::read(folder.join("identity.json.starts")).unwrap();
    put_back(&saved.path().join("old"), &folder);
    std::fs::write(folder.join("identity.json.starts"), count).unwrap();
    cluster.start(&follower, Start::Resume);
    let refusal = ended_as(&mut cluster, &follower, "OLD_COPY").await;
    assert!(refusal.message.contains("had acknowledged"), "{refusal}");
    assert_eq!(cluster.leader(&leader).await, leader, "the right one stopped");
    cluster.core(&leader).await.propose(open_session("the others go on"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_whose_log_is_gone_does_not_vote_again() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.stop("c");
    std::fs::remove_dir_all(cluster.data_dir("c").join("log")).unwrap();
    cluster.start("c", Start::Resume);
    let ended = tokio::time::timeout(PATIENCE, cluster.members.remove("c").unwrap().ended()).await;
    let refusal = ended.expect("it ends by itself").unwrap_err().refusal();
    assert!(["LOG_GONE", "LOG_UNUSABLE"].contains(&refusal.reason.as_str()), "{refusal}");
    assert!(refusal.to_string().contains("--join"), "{refusal}");
    // An empty folder under the same name is somebody else.
    std::fs::remove_dir_all(cluster.data_dir("c")).unwrap();
    cluster.start("c", Start::Join("a:7400".to_owned()));
    let refusal = ended_as(&mut cluster, "c", "MEMBER_EXISTS").await;
    assert!(refusal.hint.contains("sdm member remove c") && refusal.hint.contains("replace c"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_left_of_a_member_without_its_identity_is_neither_founded_nor_joined_over() {
    let mut cluster = Cluster::of(&["a", "b"]).await;
    cluster.stop("b");
    let folder = cluster.data_dir("b");
    std::fs::remove_file(folder.join("identity.json")).unwrap();
    let snapshots = folder.join("snapshots");
    // Each time there is less of it.
    for (lose, left) in [
        (folder.join("nothing yet"), "witness"),
        (folder.join("witness"), "a log"),
        (folder.join("log"), "snapshots"),
        (snapshots.clone(), "a count of starts"),
    ] {
        if lose.is_dir() { std::fs::remove_dir_all(&lose) } else { std::fs::remove_file(&lose) }.ok();
        if left == "snapshots" {
            std::fs::create_dir_all(&snapshots).unwrap();
            std::fs::write(snapshots.join("snap-1-1-9"), "x").unwrap();
        }
        for start in [Start::Bootstrap, Start::Join("a:7400".to_owned()), Start::Resume] {
            cluster.start("b", start);
            let refusal = ended_as(&mut cluster, "b", "IDENTITY_GONE").await;
            assert!(refusal.message.contains(left), "{left}: {refusal}");
            assert!(refusal.hint.contains("replace the member"), "{refusal}");
        }
    }
    std::fs::remove_file(folder.join("identity.json.starts")).unwrap();
    cluster.start("b", Start::Resume);
    ended_as(&mut cluster, "b", "NO_MEMBER_HERE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_finds_nobody_to_ask_waits_and_takes_part_when_they_come() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    for name in ["a", "b", "c"] {
        cluster.kill(name);
    }
    cluster.start("b", Start::Resume);
    cluster.core("b").await;
    assert!(!cluster.status("b").await.has_quorum, "it answers, and says that it knows no leader");
    cluster.start("c", Start::Resume);
    cluster.core("c").await.propose(open_session("two of three"), soon()).await.unwrap();
}

async fn until_tried(cluster: &Cluster, host: &str, times: u64) {
    let deadline = tokio::time::Instant::now() + cluster::PATIENCE;
    while cluster.network.tried_over_cuts(host) < times {
        assert!(tokio::time::Instant::now() < deadline, "{host} does not look for the others any more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_cut_off_deposes_nobody_when_it_is_back() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader("a").await;
    let away = cluster.members.keys().find(|name| **name != leader).cloned().unwrap();
    let term = cluster.status(&leader).await.term;
    cluster.isolate(&away);
    // It misses the leader, and asks the others several times whether it may be elected.
    cluster.status_until(&away, |status| !status.has_quorum).await;
    let tried = cluster.network.tried_over_cuts(&away);
    until_tried(&cluster, &away, tried + 8).await;
    cluster.core(&leader).await.propose(open_session("without it"), soon()).await.unwrap();
    assert_eq!(cluster.status(&away).await.term, term, "it counted no term up while it was alone");
    cluster.network.heal();
    cluster.core(&away).await.propose(open_session("with it"), soon()).await.unwrap();
    let status = cluster.status(&away).await;
    assert_eq!((status.leader, status.term), (leader, term));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_reaches_another_member_is_refused_at_its_first_message() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.stop("b");
    cluster.stop("c");
    // c is where b was, and says that it is where it always was.
    let mut config = cluster.config("c", Start::Resume);
    config.listen = "b:7400".to_owned();
    config.advertise = Some("c:7400".to_owned());
    cluster.members.insert("c".to_owned(), run(config));
    let status = cluster
        .status_until("a", |status| {
            status.members.iter().any(|m| m.name == "b" && m.error.contains("the call is for member/"))
        })
        .await;
    assert!(!status.has_quorum, "nobody took entries in b's place");
}
