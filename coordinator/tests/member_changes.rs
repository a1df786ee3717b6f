//! Changes of the membership: each does what it says at whichever member it is asked, once, and none
//! takes the quorum away.

mod cluster;

use cluster::Cluster;
use cluster::PATIENCE;
use cluster::open_session;
use cluster::run;
use sdm_coordinator::Start;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::from_status;
use sdm_proto::wire::v1;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Response;
use tonic::Status;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn join_a() -> Start {
    Start::Join("a:7400".to_owned())
}

type Answer = Result<v1::ChangeMembershipResponse, Refusal>;

/// Asks again while it says that it may be done in a moment, as the command does.
async fn settled(mut ask: impl AsyncFnMut() -> Result<Response<v1::ChangeMembershipResponse>, Status>) -> Answer {
    let deadline = soon();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => {
                let refusal = from_status(&status);
                if !matches!(refusal.class, Class::Unavailable | Class::Timeout) || Instant::now() > deadline {
                    return Err(refusal);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn remove(cluster: &mut Cluster, at: &str, member: &str) -> Answer {
    let mut client = cluster.client(at);
    settled(async || client.remove_member(v1::RemoveMemberRequest { member: member.to_owned() }).await).await
}

async fn promote(cluster: &mut Cluster, at: &str, member: &str) -> Answer {
    let mut client = cluster.client(at);
    settled(async || client.promote_member(v1::PromoteMemberRequest { member: member.to_owned() }).await).await
}

async fn replace(cluster: &mut Cluster, at: &str, old: &str, new: &str) -> Answer {
    let mut client = cluster.client(at);
    let request = v1::ReplaceMemberRequest { old: old.to_owned(), new: new.to_owned(), only_voter: false };
    settled(async || client.replace_member(request.clone()).await).await
}

async fn transfer(cluster: &mut Cluster, at: &str, to: &str) -> Answer {
    let mut client = cluster.client(at);
    let request = v1::TransferLeaderRequest { to: to.to_owned(), from: String::new() };
    settled(async || client.transfer_leader(request.clone()).await).await
}

async fn add(cluster: &mut Cluster, at: &str, name: &str, address: &str, learner: bool) -> Answer {
    let mut client = cluster.client(at);
    let request = v1::AddMemberRequest { name: name.to_owned(), address: address.to_owned(), learner };
    settled(async || client.add_member(request.clone()).await).await
}

fn start_learner(cluster: &mut Cluster, name: &str) {
    let mut config = cluster.config(name, join_a());
    config.stay_learner = true;
    cluster.members.insert(name.to_owned(), run(config));
}

/// Waits until these vote, as this member sees it, and nobody else is a member.
async fn voters_are(cluster: &mut Cluster, seen_by: &str, voters: &[&str]) {
    let wanted: Vec<String> = voters.iter().map(|name| (*name).to_owned()).collect();
    cluster
        .status_until(seen_by, |status| {
            let mut names: Vec<String> = status
                .members
                .iter()
                .filter(|member| ["leader", "follower"].contains(&member.role.as_str()))
                .map(|member| member.name.clone())
                .collect();
            names.sort();
            names == wanted && status.members.len() == wanted.len() && status.has_quorum
        })
        .await;
}

async fn ended_as(cluster: &mut Cluster, name: &str, reason: &str) -> Refusal {
    let ended = tokio::time::timeout(PATIENCE, cluster.members.remove(name).unwrap().ended()).await;
    let refusal = ended.expect("it ends by itself").unwrap_err().refusal();
    assert_eq!(refusal.reason, reason, "{refusal}");
    refusal
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_follower_stops_and_its_name_joins_anew_under_another_id() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    assert!(transfer(&mut cluster, "b", "a").await.is_ok());
    let id = cluster.core("c").await.node_id();
    // Asked at the very member that goes, and at a follower.
    let done = remove(&mut cluster, "c", "c").await;
    let again = remove(&mut cluster, "b", "c").await.unwrap();
    assert!(!again.changed && again.message.contains("was removed"), "{again:?}");
    assert!(done.is_ok() || done.unwrap_err().class == Class::Unavailable);
    voters_are(&mut cluster, "a", &["a", "b"]).await;
    voters_are(&mut cluster, "b", &["a", "b"]).await;
    let refusal = ended_as(&mut cluster, "c", "REMOVED_MEMBER").await;
    assert!(refusal.message.contains('c') && refusal.hint.contains("--join"), "{refusal}");

    // Whatever it is told, its folder is a removed member's.
    for start in [Start::Resume, join_a()] {
        cluster.start("c", start);
        ended_as(&mut cluster, "c", "REMOVED_MEMBER").await;
    }
    std::fs::remove_dir_all(cluster.data_dir("c")).unwrap();
    cluster.start("c", join_a());
    assert!(cluster.core("c").await.node_id() > id);
    voters_are(&mut cluster, "a", &["a", "b", "c"]).await;
    cluster.core("c").await.propose(open_session("after"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_can_be_removed_by_name_or_id() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader("b").await;
    let others: Vec<String> = cluster.members.keys().filter(|name| **name != leader).cloned().collect();
    let id = cluster.core(&leader).await.node_id();
    assert!(remove(&mut cluster, &others[0], &id.to_string()).await.is_ok());
    ended_as(&mut cluster, &leader, "REMOVED_MEMBER").await;
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    voters_are(&mut cluster, others[0], &others).await;
    cluster.core(others[1]).await.propose(open_session("after"), soon()).await.unwrap();
    // Of two, the leader again; and the last one stays.
    let leader = cluster.leader(others[0]).await;
    let last = others.iter().find(|name| **name != leader).unwrap();
    assert!(remove(&mut cluster, last, &leader).await.is_ok());
    ended_as(&mut cluster, &leader, "REMOVED_MEMBER").await;
    let refusal = remove(&mut cluster, last, last).await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "LAST_VOTER"));
    cluster.core(last).await.propose(open_session("alone"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_leave_no_majority_is_refused_with_names_and_numbers() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.kill("c");
    cluster.leader("a").await;
    let refusal = remove(&mut cluster, "a", "b").await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "QUORUM_WOULD_BE_LOST"));
    assert!(refusal.message.contains("2 voters, of which 1 answer (a) and 1 do not (c): a majority is 2"), "{refusal}");
    assert!(refusal.hint.contains("start c first"), "{refusal}");
    // The dead one may go, and then the other, too.
    assert!(remove(&mut cluster, "b", "c").await.unwrap().changed);
    voters_are(&mut cluster, "a", &["a", "b"]).await;
    assert!(remove(&mut cluster, "a", "b").await.unwrap().changed);
    voters_are(&mut cluster, "a", &["a"]).await;
    let refusal = remove(&mut cluster, "a", "nobody").await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::NotFound, "MEMBER_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_becomes_a_voter_when_it_answers_and_not_before() {
    let mut cluster = Cluster::of(&["a"]).await;
    start_learner(&mut cluster, "l");
    cluster.core("l").await;
    cluster.kill("l");
    let refusal = promote(&mut cluster, "a", "l").await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "MEMBER_UNREACHABLE"), "{refusal}");
    cluster.start("l", Start::Resume);
    cluster.core("l").await;
    assert!(promote(&mut cluster, "l", "l").await.unwrap().changed);
    assert!(!promote(&mut cluster, "a", "l").await.unwrap().changed, "it is one already");
    voters_are(&mut cluster, "l", &["a", "l"]).await;
    let refusal = promote(&mut cluster, "a", "nobody").await.unwrap_err();
    assert_eq!(refusal.reason, "MEMBER_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_replaced_in_one_step_and_stops_when_it_comes_back() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.kill("c");
    let refusal = replace(&mut cluster, "a", "c", "d").await.unwrap_err();
    assert_eq!(refusal.reason, "MEMBER_NOT_FOUND", "{refusal}");
    start_learner(&mut cluster, "d");
    cluster.core("d").await;
    assert!(replace(&mut cluster, "d", "c", "d").await.unwrap().changed);
    let again = replace(&mut cluster, "a", "c", "d").await.unwrap();
    assert!(!again.changed && again.message.contains("d votes"), "{again:?}");
    voters_are(&mut cluster, "a", &["a", "b", "d"]).await;
    // Only now the others can do without one of them.
    cluster.kill("a");
    cluster.core("d").await.propose(open_session("without a"), soon()).await.unwrap();
    let term = cluster.status("b").await.term;
    cluster.start("c", Start::Resume);
    ended_as(&mut cluster, "c", "REMOVED_MEMBER").await;
    assert_eq!(cluster.status("b").await.term, term, "it disturbed nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_by_one_that_votes_already_is_refused_and_removes_nobody() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    for (old, new) in [("c", "b"), ("a", "c")] {
        let refusal = replace(&mut cluster, "b", old, new).await.unwrap_err();
        assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "ALREADY_VOTES"));
        assert!(refusal.hint.contains(&format!("sdm member remove {old}")), "{refusal}");
    }
    voters_are(&mut cluster, "a", &["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_of_two_is_replaced_by_a_learner_and_never_by_the_other_one() {
    let mut cluster = Cluster::of(&["a", "b"]).await;
    transfer(&mut cluster, "a", "a").await.unwrap();
    // Of the leader and of the other one, asked at either.
    for (at, old, new) in [("a", "a", "b"), ("b", "b", "a"), ("b", "a", "b")] {
        let refusal = replace(&mut cluster, at, old, new).await.unwrap_err();
        assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "ALREADY_VOTES"), "{refusal}");
        assert!(refusal.message.contains("a voter less") && refusal.hint.contains("--learner"), "{refusal}");
    }
    voters_are(&mut cluster, "a", &["a", "b"]).await;
    // What the hint says.
    start_learner(&mut cluster, "c");
    cluster.core("c").await;
    assert!(replace(&mut cluster, "b", "a", "c").await.unwrap().changed);
    ended_as(&mut cluster, "a", "REMOVED_MEMBER").await;
    voters_are(&mut cluster, "b", &["b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_of_the_only_voter_that_was_cut_in_the_middle_is_finished_by_its_repetition_alone() {
    let mut cluster = Cluster::of(&["a"]).await;
    start_learner(&mut cluster, "b");
    cluster.core("b").await;
    // The first half.
    promote(&mut cluster, "a", "b").await.unwrap();
    assert_eq!(replace(&mut cluster, "a", "a", "b").await.unwrap_err().reason, "ALREADY_VOTES");
    let mut client = cluster.client("b");
    let begun = v1::ReplaceMemberRequest { old: "a".to_owned(), new: "b".to_owned(), only_voter: true };
    assert!(settled(async || client.replace_member(begun.clone()).await).await.unwrap().changed);
    ended_as(&mut cluster, "a", "REMOVED_MEMBER").await;
    voters_are(&mut cluster, "b", &["b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_a_removed_member_is_sent_on_and_not_told_that_it_was_removed() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    transfer(&mut cluster, "a", "a").await.unwrap();
    let core = cluster.core("c").await;
    let asking = tokio::spawn(async move {
        let mut refusals = Vec::new();
        let deadline = soon();
        // Until it has ended, and Raft with it.
        while Instant::now() < deadline {
            if let Err(refusal) = core.read(Instant::now() + Duration::from_secs(5)).await {
                let over = refusal.message.contains("shutting down");
                refusals.push(refusal);
                if over {
                    return refusals;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("it never ended: {refusals:?}");
    });
    assert!(remove(&mut cluster, "a", "c").await.unwrap().changed);
    let refusals = asking.await.unwrap();
    assert!(refusals.iter().all(|refusal| refusal.class == Class::Unavailable), "{refusals:?}");
    let sent_on = refusals.iter().find(|refusal| refusal.message.contains("was removed from the cluster"));
    let sent_on = sent_on.expect("it says that it is stopping, and why");
    assert_eq!(sent_on.reason, "MEMBER_STOPPING");
    let there: Vec<&str> = sent_on.blockers.iter().map(|blocker| blocker.id.as_str()).collect();
    assert_eq!(there, ["a:7400", "b:7400"], "{sent_on}");
    ended_as(&mut cluster, "c", "REMOVED_MEMBER").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_and_the_only_voter_can_be_replaced() {
    let mut cluster = Cluster::of(&["a"]).await;
    start_learner(&mut cluster, "b");
    cluster.core("b").await;
    assert!(replace(&mut cluster, "b", "a", "b").await.is_ok());
    ended_as(&mut cluster, "a", "REMOVED_MEMBER").await;
    voters_are(&mut cluster, "b", &["b"]).await;
    cluster.core("b").await.propose(open_session("after"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leadership_goes_to_whom_it_is_given() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    for to in ["c", "b", "a"] {
        let led = cluster.leader("a").await;
        let done = transfer(&mut cluster, "a", to).await.unwrap();
        assert_eq!(done.changed, led != to, "{done:?}");
        for seen_by in ["a", "b", "c"] {
            cluster.status_until(seen_by, |status| status.leader == to).await;
        }
        assert!(!transfer(&mut cluster, "c", to).await.unwrap().changed, "{to} leads already");
    }
    let anybody = transfer(&mut cluster, "b", "").await.unwrap();
    assert!(anybody.message.contains("leads"), "{anybody:?}");
    cluster.status_until("a", |status| !["", "a"].contains(&status.leader.as_str())).await;
    start_learner(&mut cluster, "l");
    cluster.core("l").await;
    assert_eq!(transfer(&mut cluster, "a", "l").await.unwrap_err().reason, "NOT_A_VOTER");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announced_member_joins_from_where_and_as_what_it_was_announced() {
    let mut cluster = Cluster::of(&["a"]).await;
    assert!(add(&mut cluster, "a", "d", "d:7400", true).await.unwrap().changed);
    let again = add(&mut cluster, "a", "d", "d:7400", true).await.unwrap();
    assert!(!again.changed && again.hint.contains("--name d --listen d:7400"), "{again:?}");
    assert_eq!(add(&mut cluster, "a", "d", "", false).await.unwrap_err().reason, "ANNOUNCED_OTHERWISE");
    let status = cluster.status("a").await;
    let expected = status.members.iter().find(|member| member.name == "d").unwrap();
    assert_eq!((expected.role.as_str(), expected.id), ("announced", 0));

    let mut elsewhere = cluster.config("d", join_a());
    elsewhere.listen = "x:7400".to_owned();
    let refusal = run(elsewhere).ended().await.unwrap_err().refusal();
    assert_eq!(refusal.reason, "ANNOUNCED_ELSEWHERE", "{refusal}");
    cluster.start("d", join_a());
    cluster.core("d").await;
    let status = cluster.status("a").await;
    assert!(status.members.iter().any(|member| member.name == "d" && member.role == "learner"), "{status:?}");
    assert!(!add(&mut cluster, "a", "d", "d:7400", true).await.unwrap().changed, "it came as announced");

    add(&mut cluster, "a", "e", "", false).await.unwrap();
    assert_eq!(promote(&mut cluster, "a", "e").await.unwrap_err().reason, "NOT_JOINED");
    assert!(remove(&mut cluster, "a", "e").await.unwrap().changed);
    assert!(cluster.status("a").await.members.iter().all(|member| member.name != "e"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_leader_dies_in_a_change_it_is_finished_by_a_repetition() {
    for delay_ms in [0, 6, 20] {
        let mut cluster = Cluster::of(&["a", "b", "c"]).await;
        start_learner(&mut cluster, "d");
        cluster.core("d").await;
        transfer(&mut cluster, "a", "a").await.unwrap();
        let mut client = cluster.client("a");
        let request = v1::ReplaceMemberRequest { old: "c".to_owned(), new: "d".to_owned(), only_voter: false };
        let asked = tokio::spawn(async move { client.replace_member(request).await });
        // A moment of the change: any is as good as any other.
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        cluster.kill("a");
        _ = asked.await.unwrap();
        assert!(replace(&mut cluster, "b", "c", "d").await.is_ok());
        ended_as(&mut cluster, "c", "REMOVED_MEMBER").await;
        let view = cluster.core("b").await.read(soon()).await.unwrap();
        let rows: Vec<&str> = view.state.members.values().map(|row| row.name.as_str()).collect();
        assert_eq!(rows, ["a", "b", "d"], "killed after {delay_ms} ms");
        cluster.core("d").await.propose(open_session("after"), soon()).await.unwrap();
        cluster.start("a", Start::Resume);
        cluster.core("a").await;
        voters_are(&mut cluster, "a", &["a", "b", "d"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moved_to_another_address_is_found_there() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    for (name, address) in [("c", "c2:7400"), ("c", "c:7400"), ("a", "a2:7400")] {
        cluster.stop(name);
        let mut config = cluster.config(name, Start::Resume);
        config.listen = address.to_owned();
        cluster.members.insert(name.to_owned(), run(config));
        cluster.core(name).await;
        cluster
            .status_until("b", |status| {
                let member = status.members.iter().find(|member| member.name == name);
                member.is_some_and(|m| m.address == address && m.reachable && m.lag == 0) && status.has_quorum
            })
            .await;
        // Raft's own membership, too: a leader that comes later finds it.
        let core = cluster.core("b").await;
        let deadline = soon();
        loop {
            let view = core.read(deadline).await.unwrap();
            let id = view.state.members.values().find(|row| row.name.as_str() == name).unwrap().id;
            if view.membership.membership().get_node(&id).is_some_and(|node| node.address == address) {
                break;
            }
            assert!(Instant::now() < deadline, "the seat of {name} stays where it was");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // It takes part from there: without one of the others a majority needs it.
    cluster.kill("c");
    cluster.core("b").await.propose(open_session("with a"), soon()).await.unwrap();
}
