//! `sdm explain`, with real processes: everything that has an id or a name says what it is and what to do next.

mod cluster;
mod host;

use cluster::Cluster;
use cluster::Shape;
use cluster::request_id;
use cluster::text_of;
use serde_json::Value;

#[test]
fn everything_that_has_a_name_or_an_id_explains_itself() {
    let cluster = Cluster::start(&Shape::smallest());
    let sdm = cluster.sdm();
    cluster.make_domain("shelf-1");
    let id = request_id(&sdm);
    sdm.done(&["disk", "create", "web-01", "--domain", "shelf-1", "--size", "1MiB", "--request-id", &id]);
    let disk = sdm.done(&["disk", "show", "web-01"]);
    let explain = |object: &str| sdm.done(&["explain", object]);
    let of = |object: &str, kind: &str| {
        let told = explain(object);
        assert_eq!(text_of(&told, "kind"), kind, "{object}: {told}");
        assert!(!text_of(&told, "title").is_empty() && !text_of(&told, "state").is_empty(), "{object}: {told}");
        told
    };
    let told = of("web-01", "disk");
    assert_eq!(text_of(&told, "id"), text_of(&disk, "id"));
    assert!(told["events"].as_array().is_some_and(|events| !events.is_empty()), "{told}");
    of("shelf-1", "domain");
    of("worker/host-1", "worker");
    let told = of(&id, "transaction");
    assert_eq!(text_of(&told, "state"), "committed");
    let event = told["events"][0]["index"].as_u64().expect("an event");
    of(&format!("event/{event}"), "event");
    let member = cluster.member_names().remove(0);
    of(&format!("member/{member}"), "member");
    let session = told_session(&of("host-1", "worker"));
    of(&format!("session/{session}"), "session");
    let placement = text_of(&of("disk/web-01", "disk")["chain"][0], "id").to_owned();
    of(&placement, "placement");
    assert_eq!(text_of(&explain("user/nobody"), "state"), "free");
    let people = sdm.run_for_people(&["explain", "web-01"]);
    assert!(people.stdout.starts_with("disk/web-01  free  ") && people.stdout.contains("lies in"), "{people:?}");
}

fn told_session(worker: &Value) -> String {
    let links = worker["chain"].as_array().expect("a chain");
    let session = links.iter().find(|link| text_of(link, "kind") == "session").expect("its lease");
    text_of(session, "id").to_owned()
}

#[test]
fn what_is_unknown_or_ambiguous_is_refused_with_where_to_look() {
    let cluster = Cluster::start(&Shape::smallest());
    let sdm = cluster.sdm();
    cluster.make_domain("same");
    sdm.done(&["disk", "create", "same", "--domain", "same", "--size", "1MiB"]);
    let refused = sdm.refused(&["explain", "same"]);
    refused.says(4, "AMBIGUOUS", &["disk/same", "domain/same"]);
    assert_eq!(refused.blockers().len(), 2);
    let refused = sdm.refused(&["explain", "nothing-like-it"]);
    refused.says(3, "NOTHING_KNOWN", &["nothing-like-it"]);
    assert!(refused.hint().contains("looked for among"), "{}", refused.hint());
    let refused = sdm.refused(&["explain", "0f0f0f0f-1111-4222-8333-444444444444"]);
    assert!(refused.hint().contains("remembered for 24 h"), "{}", refused.hint());
}
