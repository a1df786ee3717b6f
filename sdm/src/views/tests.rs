//! The JSON of every noun holds every field of its message, also where a field is zero or empty.

use super::*;
use prost::Message;
use sdm_proto::wire::DESCRIPTORS;
use sdm_proto::wire::v1;
use serde::Serialize;
use serde_json::Value;

fn field_names(message: &str) -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut messages = set.file.iter().filter(|file| file.package() == "sdm.v1").flat_map(|file| &file.message_type);
    let descriptor = messages.find(|of| of.name() == message).unwrap_or_else(|| panic!("no message {message}"));
    descriptor.field.iter().map(|field| field.name().to_owned()).collect()
}

fn json(view: &impl Serialize) -> Value {
    serde_json::to_value(view).unwrap()
}

fn holds_every_field(message: &str, value: &Value) {
    let object = value.as_object().unwrap_or_else(|| panic!("{message} is {value}"));
    for name in field_names(message) {
        assert!(object.contains_key(&name), "{message}.{name} is left out of {value}");
    }
}

#[test]
fn empty_messages_keep_all_their_keys() {
    holds_every_field("Member", &json(&MemberView::from(v1::Member::default())));
    holds_every_field("Domain", &json(&DomainView::from(v1::Domain::default())));
    holds_every_field("Disk", &json(&DiskView::from(v1::Disk::default())));
    holds_every_field("Snapshot", &json(&SnapshotView::from(v1::Snapshot::default())));
    holds_every_field("DryRun", &json(&DryRunView::from(v1::DryRun::default())));
    holds_every_field("Lock", &json(&LockView::from(v1::Lock::default())));
    holds_every_field("Job", &json(&JobView::from(v1::Job::default())));
    holds_every_field("Worker", &json(&WorkerView::from(v1::Worker::default())));
    holds_every_field("Garbage", &json(&GarbageView::from(v1::Garbage::default())));
    holds_every_field("Transaction", &json(&TransactionView::from(v1::Transaction::default())));
    holds_every_field("GetStatusResponse", &json(&StatusView::from(v1::GetStatusResponse::default())));
    holds_every_field("Counts", &json(&StatusView::from(v1::GetStatusResponse::default()))["counts"]);
}

#[test]
fn nested_messages_keep_all_their_keys() {
    let refusal = v1::Refusal { blockers: vec![v1::Blocker::default()], ..Default::default() };
    let txn = json(&TransactionView::from(v1::Transaction {
        attempt: Some(v1::Attempt::default()),
        refusal: Some(refusal),
        outcome: Some(v1::Outcome::default()),
        transfer: Some(v1::Transfer::default()),
        history: vec![v1::Event::default()],
        ..Default::default()
    }));
    for (message, key) in
        [("Attempt", "attempt"), ("Refusal", "refusal"), ("Outcome", "outcome"), ("Transfer", "transfer")]
    {
        holds_every_field(message, &txn[key]);
    }
    holds_every_field("Event", &txn["history"][0]);
    holds_every_field("Blocker", &txn["refusal"]["blockers"][0]);

    let disk = v1::Disk { volumes: vec![v1::Volume::default()], ..Default::default() };
    holds_every_field("Volume", &json(&DiskView::from(disk))["volumes"][0]);
    let job = v1::Job { progress: Some(v1::JobProgress::default()), ..Default::default() };
    holds_every_field("JobProgress", &json(&JobView::from(job))["progress"]);
    let lock = v1::Lock { resources: vec![v1::LockedResource::default()], ..Default::default() };
    holds_every_field("LockedResource", &json(&LockView::from(lock))["resources"][0]);
    let worker = v1::Worker { domains: vec![v1::WorkerDomain::default()], ..Default::default() };
    holds_every_field("WorkerDomain", &json(&WorkerView::from(worker))["domains"][0]);
    let check = v1::GetStatusResponse { checks: vec![v1::HealthCheck::default()], ..Default::default() };
    holds_every_field("HealthCheck", &json(&StatusView::from(check))["checks"][0]);
}

#[test]
fn large_numbers_are_numbers_and_bytes_are_hex() {
    let disk = json(&DiskView::from(v1::Disk { virtual_size: u64::MAX, ..Default::default() }));
    assert_eq!(disk["virtual_size"], serde_json::json!(u64::MAX));
    let transfer = v1::Transfer { ticket: vec![0, 0xab].into(), ..Default::default() };
    let txn = json(&TransactionView::from(v1::Transaction { transfer: Some(transfer), ..Default::default() }));
    assert_eq!(txn["transfer"]["ticket"], "00ab");
}

#[test]
fn a_list_is_an_object_with_items_and_revision() {
    let list = List { items: vec![MemberView::from(v1::Member::default())], revision: 7 };
    let value = json(&list);
    assert_eq!(value["revision"], 7);
    assert_eq!(value["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn status_health_is_told_by_the_worst_check_and_by_the_quorum() {
    let status = |has_quorum, severities: &[&str]| {
        let check = |severity: &&str| v1::HealthCheck { severity: (*severity).to_owned(), ..Default::default() };
        let checks = severities.iter().map(check).collect();
        StatusView::from(v1::GetStatusResponse { has_quorum, checks, ..Default::default() }).check().number()
    };
    assert_eq!(status(true, &[]), 0);
    assert_eq!(status(true, &["warn", "warn"]), 10);
    assert_eq!(status(true, &["warn", "error"]), 11);
    assert_eq!(status(false, &[]), 11);
}

#[test]
fn an_unreachable_member_is_a_line_like_any_other() {
    use crate::output::Report;
    let member = |name: &str, reachable| v1::Member {
        name: name.to_owned(),
        role: "follower".to_owned(),
        reachable,
        error: if reachable { String::new() } else { "connection refused".to_owned() },
        ..Default::default()
    };
    let status = v1::GetStatusResponse { members: vec![member("a", true), member("b", false)], ..Default::default() };
    let text = StatusView::from(status).text();
    assert!(text.starts_with("NO QUORUM"), "{text}");
    assert!(text.lines().any(|line| line.contains("b") && line.contains("unreachable") && line.contains("refused")));
}

#[test]
fn what_a_cluster_tolerates_counts_only_voters_that_answer() {
    use crate::output::Report;
    let text = |roles: &[(&str, bool)]| {
        let member = |(role, reachable): &(&str, bool)| v1::Member {
            role: (*role).to_owned(),
            reachable: *reachable,
            ..Default::default()
        };
        let members = roles.iter().map(member).collect();
        let status = StatusView::from(v1::GetStatusResponse { has_quorum: true, members, ..Default::default() }).text();
        let line = status.lines().find(|line| line.starts_with("members")).map(str::to_owned);
        line.and_then(|line| line.rsplit_once("; ").map(|(_, last)| last.to_owned())).unwrap_or_default()
    };
    let (leader, follower, dead) = (("leader", true), ("follower", true), ("follower", false));
    assert_eq!(text(&[leader, follower, follower]), "tolerates 1 failure");
    assert_eq!(text(&[leader, follower, dead]), "tolerates 0 failures");
    assert_eq!(text(&[leader, dead, dead]), "no quorum");
    assert_eq!(text(&[leader, ("learner", true)]), "tolerates 0 failures");
}
