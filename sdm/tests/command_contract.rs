//! What scripts rely on: the form of every result, complete lists, pages of the API.

mod cluster;
mod host;

use cluster::Sdm;
use cluster::Shared;
use cluster::items;
use cluster::list;
use cluster::names;
use cluster::request_id;
use host::text;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;
use serde_json::Value;
use std::collections::BTreeSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// Disks in a list that needs more than one page of the API's usual size.
const MANY: usize = 110;

/// Operators that make them.
const OPERATORS: usize = 8;

/// Keys whose values are numbers, however large.
const NUMBERS: [&str; 24] = [
    "id",
    "applied_index",
    "lag",
    "epoch",
    "revision",
    "feature_level",
    "feature_level_max",
    "hash_index",
    "clock_ms",
    "term",
    "virtual_size",
    "file_size",
    "allocated_bytes",
    "total_bytes",
    "free_bytes",
    "reserved_bytes",
    "disks",
    "bytes",
    "attempts",
    "began_ms",
    "finished_ms",
    "deadline_ms",
    "retry_at_ms",
    "remembered_ms",
];

fn check_form(value: &Value, place: &str) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let snake = key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                assert!(snake, "{place}: key {key}");
                // A member's id is a number, all others are UUIDs or tokens.
                let numeric = NUMBERS.contains(&key.as_str()) && (key != "id" || place.contains("members"));
                assert!(!numeric || value.is_u64(), "{place}.{key} is {value}");
                check_form(value, &format!("{place}.{key}"));
            }
        }
        Value::Array(array) => array.iter().for_each(|value| check_form(value, place)),
        _ => {}
    }
}

#[test]
fn results_are_snake_case_with_numbers_as_numbers_and_lists_with_items() {
    let cluster = Shared::cluster();
    cluster.make_domain("formed");
    let sdm = cluster.sdm();
    let id = request_id(&sdm);
    let line = ["disk", "create", "formed", "--domain", "formed", "--size", "1M", "--request-id", &id];
    let file = cluster.path("formed.raw");
    let mut results = vec![
        ("create".to_owned(), sdm.done(&line)),
        ("export".to_owned(), sdm.done(&["disk", "export", "formed", text(&file)])),
        ("show".to_owned(), sdm.done(&["disk", "show", "formed"])),
        ("domain".to_owned(), sdm.done(&["domain", "show", "formed"])),
        ("story".to_owned(), sdm.done(&["txn", "show", &id])),
        ("status".to_owned(), sdm.done(&["status"])),
        ("request-id".to_owned(), sdm.done(&["request-id"])),
        ("run".to_owned(), sdm.done(&["gc", "run"])),
    ];
    for noun in ["member", "worker", "domain", "disk", "lock", "txn", "job", "gc"] {
        let listed = sdm.done(&[noun, "list"]);
        assert!(listed["items"].is_array() && listed["revision"].is_u64(), "{noun}: {listed}");
        results.push((format!("{noun} list"), listed));
    }
    for (place, value) in &results {
        check_form(value, place);
    }
    let status = sdm.done(&["status"]);
    assert_eq!(items(&sdm.done(&["member", "list"])).len(), 3);
    let keys = |value: &Value| value.as_object().map(|all| all.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let member = sdm.done(&["member", "list"])["items"][0].clone();
    assert_eq!(keys(&status["members"][0]), keys(&member), "status and member list tell members differently");
    for key in ["name", "id", "address", "role", "reachable", "applied_index", "lag"] {
        assert!(member.get(key).is_some(), "no {key} in {member}");
    }
}

#[test]
fn people_read_tables_and_errors_on_stderr() {
    let cluster = Shared::cluster();
    cluster.make_domain("for-people");
    let sdm = cluster.sdm();
    sdm.done(&["disk", "create", "for-people", "--domain", "for-people", "--size", "1M"]);
    for noun in ["member", "worker", "domain", "disk", "lock", "txn", "job", "gc"] {
        let shown = sdm.run_for_people(&[noun, "list"]);
        assert!(shown.code == 0 && shown.stderr.is_empty() && !shown.stdout.is_empty(), "{shown:?}");
    }
    let status = sdm.run_for_people(&["status"]);
    for part in ["members", "3 voters", "node-a", "leader", "workers"] {
        assert!(status.stdout.contains(part), "no {part} in {}", status.stdout);
    }
    let shown = sdm.run_for_people(&["disk", "show", "for-people"]);
    assert!(shown.stdout.contains("1048576 bytes"), "{shown:?}");
    let failed = sdm.run_for_people(&["disk", "show", "unknown"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (3, ""), "{failed:?}");
    let lines: Vec<&str> = failed.stderr.lines().collect();
    assert!(lines[0].starts_with("error: ") && lines[0].ends_with("[DISK_NOT_FOUND]"), "{failed:?}");
    assert!(lines.iter().any(|line| line.starts_with("hint: ")), "{failed:?}");
    // A name is never taken for a command to the terminal.
    let evil = sdm.run_for_people(&["disk", "show", "--", "x\u{1b}[2J"]);
    assert!(!evil.stderr.contains('\u{1b}'), "{evil:?}");
}

fn make_many(sdm: &Sdm, operator: usize) {
    for number in (operator..MANY).step_by(OPERATORS) {
        sdm.done(&["disk", "create", &format!("many-{number:03}"), "--domain", "many", "--size", "4K"]);
    }
}

#[test]
fn lists_are_complete_over_all_pages() {
    let cluster = Shared::cluster();
    cluster.make_domain("many");
    let sdm = cluster.sdm();
    std::thread::scope(|scope| {
        for operator in 0..OPERATORS {
            let sdm = sdm.clone();
            scope.spawn(move || make_many(&sdm, operator));
        }
    });
    let of_domain = items(&sdm.done(&["disk", "list", "--domain", "many"]));
    let expected: BTreeSet<String> = (0..MANY).map(|number| format!("many-{number:03}")).collect();
    assert_eq!(names(&of_domain).into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(of_domain.len(), MANY, "some are listed twice");
    let all: BTreeSet<String> = names(&list(&sdm, "disk")).into_iter().collect();
    assert!(all.is_superset(&expected));
    assert!(list(&sdm, "txn").len() >= MANY);

    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    for page_size in [0, 1, 7, 100, 1000, u32::MAX] {
        let (found, pages) = runtime.block_on(walk(&sdm.endpoints[1], page_size));
        assert_eq!(found.len(), MANY, "with pages of {page_size}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "with pages of {page_size}");
        let most = match page_size {
            0 => 100,
            size => usize::try_from(size).unwrap_or(usize::MAX).min(1000),
        };
        assert_eq!(pages, MANY.div_ceil(most), "with pages of {page_size}");
    }
}

/// Follows the pages of the API; answers with the names and how many pages there were.
async fn walk(endpoint: &str, page_size: u32) -> (Vec<String>, usize) {
    let channel = tonic::transport::Endpoint::new(format!("http://{endpoint}")).expect("an address").connect_lazy();
    let mut client = DiskServiceClient::new(channel);
    let (mut found, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let page = Some(v1::PageRequest { page_size, page_token });
        let request = v1::ListDisksRequest { page, domain: "many".to_owned(), ..Default::default() };
        let answer = client.list_disks(request).await.expect("a page").into_inner();
        found.extend(answer.items.into_iter().map(|disk| disk.name));
        pages += 1;
        page_token = answer.page.unwrap_or_default().next_page_token;
        if page_token.is_empty() {
            return (found, pages);
        }
    }
}

#[test]
fn every_member_tells_its_health_and_its_services() {
    let cluster = Shared::cluster();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    for endpoint in cluster.sdm().endpoints {
        let services = runtime.block_on(services_of(&endpoint));
        for service in ["ClusterService", "DiskService", "DomainService", "TransactionService", "GcService"] {
            assert!(services.contains(&format!("sdm.v1.{service}")), "{endpoint}: no {service} in {services:?}");
        }
    }
}

/// What a member's reflection lists, once its health says that it serves.
async fn services_of(endpoint: &str) -> Vec<String> {
    let address = tonic::transport::Endpoint::new(format!("http://{endpoint}")).expect("an address");
    let channel = address.connect_lazy();
    let mut health = HealthClient::new(channel.clone());
    let answer = health.check(HealthCheckRequest { service: String::new() }).await.expect("an answer").into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving, "{endpoint}");
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(tokio_stream::once(ask)).await.expect("a stream");
    let answer = answers.into_inner().message().await.expect("an answer").expect("one answer");
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => list.service.into_iter().map(|one| one.name).collect(),
        other => panic!("{endpoint}: {other:?}"),
    }
}
