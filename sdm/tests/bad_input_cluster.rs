//! Processes and commands that do not belong to the cluster, or not yet, or not under that name.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shape;
use cluster::list;
use cluster::names;
use host::PATIENCE;
use host::Scratch;
use host::text;
use host::until;
use sdm_proto::wire::internal::v1 as internal;
use sdm_proto::wire::internal::v1::member_service_client::MemberServiceClient;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::transfer_service_client::TransferServiceClient;
use serde_json::Value;

#[test]
fn a_second_worker_under_a_live_workers_name_is_sent_away() {
    let mut cluster = Cluster::start(&Shape::smallest());
    cluster.make_domain("shelf-1");
    let before = list(&cluster.sdm(), "worker");
    cluster.add_worker_named("other-folder", "host-1", &[]);
    cluster.start_node("other-folder");
    let status = cluster.process("other-folder").expect("it was started").ended(PATIENCE);
    assert_eq!(status.code(), Some(4), "{}", cluster.said("other-folder"));
    let said = cluster.said("other-folder");
    for part in ["WORKER_NAME_IN_USE", "host-1", cluster.address_of("host-1"), "hint"] {
        assert!(said.contains(part), "no word of {part:?} in {said}");
    }
    let after = list(&cluster.sdm(), "worker");
    let identity = |workers: &[Value]| -> Vec<(String, String)> {
        workers.iter().map(|worker| (worker["id"].to_string(), worker["session_id"].to_string())).collect()
    };
    assert_eq!(identity(&before), identity(&after), "the first worker lost its session");
    cluster.sdm().done(&["disk", "create", "web-01", "--domain", "shelf-1", "--size", "1M"]);

    // The name is a label: when its bearer is gone, another may bear it.
    cluster.kill("host-1");
    cluster.await_worker_state("host-1", "lost");
    cluster.kill("other-folder");
    cluster.start_node("other-folder");
    cluster.await_worker("host-1");
    cluster.await_reach("shelf-1", &["host-1"]);
    cluster.sdm().done(&["disk", "create", "web-02", "--domain", "shelf-1", "--size", "1M"]);
}

/// Calls without a secret what commands never call themselves: a worker's byte streams, and what
/// members say to each other.
async fn call_inner_services(member: &str, worker: &str) -> Vec<tonic::Code> {
    let channel = |address: &str| {
        tonic::transport::Endpoint::new(format!("http://{address}")).expect("an address").connect_lazy()
    };
    let open = v1::DownloadRequest { ticket: vec![7; 32].into(), token: "1-1-0".to_owned() };
    let download = TransferServiceClient::new(channel(worker)).download(open).await.map(|_| ());
    let join = internal::JoinRequest { name: "node-x".to_owned(), ..Default::default() };
    let join = MemberServiceClient::new(channel(member)).join(join).await.map(|_| ());
    [download, join].into_iter().map(|answer| answer.err().map_or(tonic::Code::Ok, |status| status.code())).collect()
}

#[test]
fn whoever_does_not_know_the_secret_is_sent_away() {
    let mut cluster = Cluster::start(&Shape::usual().secret());
    cluster.make_domain("shelf-1");
    let scratch = Scratch::new("secrets");
    let wrong = scratch.join("wrong");
    std::fs::write(&wrong, "a secret that is another cluster's").unwrap();
    let endpoints = cluster.sdm().endpoints;
    for secret in [None, Some(wrong.clone())] {
        let stranger = Sdm { endpoints: endpoints.clone(), secret: secret.clone() };
        let lines: [&[&str]; 5] = [
            &["status"],
            &["disk", "list"],
            &["request-id"],
            &["gc", "run"],
            &["disk", "create", "x", "--domain", "shelf-1", "--size", "1M"],
        ];
        for line in lines {
            stranger.refused(line).says(6, "BAD_SECRET", &["secret"]);
        }
    }
    assert_eq!(list(&cluster.sdm(), "disk"), Vec::<Value>::new());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    for code in runtime.block_on(call_inner_services(&endpoints[0], cluster.address_of("host-1"))) {
        assert_eq!(code, tonic::Code::PermissionDenied);
    }

    let short = scratch.join("short");
    std::fs::write(&short, "short").unwrap();
    for secret in [short, scratch.join("missing")] {
        let operator = Sdm { endpoints: endpoints.clone(), secret: Some(secret.clone()) };
        operator.refused(&["status"]).says(2, "BAD_SECRET_FILE", &[text(&secret)]);
    }

    // Neither a worker nor a member comes in with another secret.
    cluster.secret_for_new_nodes(&wrong);
    cluster.add_worker("stranger", &[]);
    cluster.add_learner("node-s");
    for name in ["stranger", "node-s"] {
        cluster.start_node(name);
        until("it is refused", || {
            let said = cluster.said(name);
            if said.contains("BAD_SECRET") { Ok(()) } else { Err(said) }
        });
    }
    assert_eq!(names(&list(&cluster.sdm(), "worker")), ["host-1"]);
    assert_eq!(list(&cluster.sdm(), "member").len(), 3);
    cluster.sdm().done(&["disk", "create", "x", "--domain", "shelf-1", "--size", "1M"]);
    for name in cluster.member_names() {
        assert!(!cluster.said(&name).contains("only for this test"), "{name} logs the secret");
    }
}

#[test]
fn with_a_secret_a_member_may_listen_beyond_this_host() {
    let mut cluster = Cluster::prepare(&Shape::usual().hosts(&[]).secret());
    let advertised = cluster.address_of("node-a").to_owned();
    cluster.listen_everywhere("node-a");
    cluster.start_node("node-a");
    let port = until("it says where it listens", || {
        let said = cluster.said("node-a");
        let bound = said.split_once("bound=0.0.0.0:").and_then(|(_, rest)| rest.split(' ').next().map(str::to_owned));
        bound.ok_or(said)
    });
    let sdm = Sdm { endpoints: vec![format!("127.0.0.1:{port}")], ..cluster.sdm() };
    let status = until("it serves", || {
        let status = sdm.run(&["status"]);
        if status.code == 0 { Ok(status.result()) } else { Err(status.stderr) }
    });
    assert_eq!(status["members"][0]["address"], advertised.as_str(), "{status}");
}

#[test]
fn who_would_join_at_a_worker_is_told_so_and_leaves_no_member() {
    let mut cluster = Cluster::start(&Shape::smallest());
    cluster.await_worker("host-1");
    cluster.add_joining("node-x", "host-1");
    cluster.start_node("node-x");
    let address = cluster.address_of("host-1").to_owned();
    let ended = cluster.process("node-x").expect("it was started").ended(std::time::Duration::from_secs(60));
    let said = cluster.said("node-x");
    assert_eq!(ended.code(), Some(2), "{said}");
    assert!(said.contains("NOT_A_MEMBER") && said.contains(&format!("a worker answers at {address}")), "{said}");
    cluster.kill("node-x");
    assert!(!cluster.path("node-x").join("identity.json").exists());
}

#[test]
fn an_endpoint_that_is_dead_or_no_member_yet_is_passed_over() {
    let mut cluster = Cluster::start(&Shape::usual().hosts(&[]));
    cluster.add_learner("node-l");
    // A member that can join nobody: what it would join is dead.
    cluster.kill("node-a");
    cluster.leader_other_than("node-a");
    cluster.start_node("node-l");
    until("it listens", || {
        let said = cluster.said("node-l");
        if said.contains("listening") { Ok(()) } else { Err(said) }
    });
    let mut sdm = cluster.sdm_at(&["node-a", "node-l", "node-b", "node-c"]);
    sdm.endpoints.insert(0, "127.0.0.1:1".to_owned());
    for line in [&["status"][..], &["disk", "list"], &["member", "list"], &["request-id"]] {
        sdm.done(line);
    }
    let refused = cluster.sdm_at(&["node-l"]).refused(&["disk", "list"]);
    assert_eq!(refused.code, 20, "{refused:?}");
    assert!(refused.blockers()[0].contains("NOT_A_MEMBER_YET"), "{refused:?}");
    cluster.start_node("node-a");
    until("it was admitted", || {
        let status = cluster.sdm_at(&["node-l"]).run(&["disk", "list"]);
        if status.code == 0 { Ok(()) } else { Err(status.stderr) }
    });
}
