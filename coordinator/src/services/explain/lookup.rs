//! From an id or a name to what it is. Ids of several kinds can look alike (locks, jobs, sessions, members and events
//! are numbered by log entries) and names may be given to several things: then all of them are found.

use super::parts::link;
use crate::services::lock::resource;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::Id;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::ids::WorkerId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::request_id::issued_at_ms;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::locks::Resource;
use uuid::Uuid;

/// What words can mean.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Thing {
    Lock(u64),
    Resource(Resource),
    Session(u64),
    Txn(TxnId),
    Job(u64),
    Attempt(Token),
    Event(u64),
    Member(u64),
    Worker(WorkerId),
    Domain(DomainId),
    Disk(DiskId),
    Volume(VolumeId),
    Placement(PlacementId),
    Garbage(Token),
    Attachment(Token),
}

/// Longest words that are looked for.
const OBJECT_BYTES_MAX: usize = 256;

/// Nouns that may stand in front.
const NOUNS: &str = "lock, session, txn, job, token, event, member, worker, domain, disk, snapshot, volume, placement, \
                     garbage, attachment, user, name, resource";

/// Everything that these words mean; never nothing.
pub(super) fn find(state: &State, text: &str) -> Result<Vec<Thing>, Refusal> {
    if text.is_empty() || text.len() > OBJECT_BYTES_MAX {
        let message = format!("an id or a name has 1 to {OBJECT_BYTES_MAX} bytes");
        return Err(Refusal::new(Class::Invalid, "BAD_OBJECT", message).hint("sdm explain disk/web-01"));
    }
    let found = match text.split_once('/') {
        Some(("user" | "name", _)) => vec![Thing::Resource(resource(state, text)?)],
        Some(("resource", rest)) => vec![Thing::Resource(resource(state, rest)?)],
        Some((noun, rest)) if is_noun(noun) => of_noun(state, noun, rest),
        Some(_) => Vec::new(),
        None => [
            "lock",
            "session",
            "txn",
            "job",
            "token",
            "event",
            "member",
            "worker",
            "domain",
            "disk",
            "volume",
            "placement",
            "garbage",
            "attachment",
            "snapshot",
        ]
        .into_iter()
        .flat_map(|noun| of_noun(state, noun, text))
        .collect(),
    };
    let found = without_the_forgotten(state, found);
    if found.is_empty() { Err(unknown(state, text)) } else { Ok(found) }
}

/// A domain that was forgotten is meant where nothing else is: its name may have been given to something new.
fn without_the_forgotten(state: &State, mut found: Vec<Thing>) -> Vec<Thing> {
    let is_there = |thing: &Thing| !matches!(thing, Thing::Domain(id) if !state.domains.contains(id));
    if found.iter().any(is_there) {
        found.retain(is_there);
    }
    found
}

fn is_noun(noun: &str) -> bool {
    NOUNS.split(", ").any(|known| known == noun.trim()) || matches!(noun, "transaction" | "request")
}

/// What the words mean after this noun.
fn of_noun(state: &State, noun: &str, text: &str) -> Vec<Thing> {
    let number = text.parse::<u64>().ok();
    let token = text.parse::<Token>().ok();
    let uuid = Uuid::try_parse(text).ok();
    let name = text.parse::<Name>().ok();
    let one = |thing: Option<Thing>| thing.into_iter().collect();
    match noun {
        "lock" => {
            let by_number = number.filter(|id| state.locks.contains(id));
            let of_token = |token| state.locks.values().find(|lock| lock.granted.is_some_and(|own| own.token == token));
            one(by_number.or_else(|| token.and_then(of_token).map(|lock| lock.id)).map(Thing::Lock))
        }
        "session" => one(number.filter(|id| state.sessions.contains(id)).map(Thing::Session)),
        "txn" | "transaction" | "request" => {
            one(uuid.map(Id::from_uuid).filter(|id| state.txns.contains(id)).map(Thing::Txn))
        }
        "job" => one(number.filter(|id| state.jobs.contains(id)).map(Thing::Job)),
        "token" => one(token.filter(|token| state.attempt(*token).is_some()).map(Thing::Attempt)),
        "event" => {
            let has_events =
                |index: &u64| state.events.from_key(&(*index, 0)).next().is_some_and(|(key, _)| key.0 == *index);
            one(number.filter(has_events).map(Thing::Event))
        }
        "member" => {
            let by_name = || state.members.values().find(|member| member.name.as_str() == text).map(|member| member.id);
            one(number.filter(|id| state.members.contains(id)).or_else(by_name).map(Thing::Member))
        }
        "worker" => {
            let by_name =
                || state.workers.values().find(|row| row.identity.name.as_str() == text).map(|row| row.identity.id);
            one(uuid.map(Id::from_uuid).filter(|id| state.workers.contains(id)).or_else(by_name).map(Thing::Worker))
        }
        "domain" => {
            let by_name = || name.as_ref().and_then(|name| state.domain_named(name)).map(|domain| domain.id);
            let known = |id: &DomainId| state.domains.contains(id) || state.forgotten.contains(id);
            // Of those that were given up the last one: its name may have been another's before.
            let forgotten = || {
                let named = state.forgotten.values().filter(|row| name.as_ref() == Some(&row.name));
                named.max_by_key(|row| row.at_ms).map(|row| row.domain)
            };
            let found = uuid.map(Id::from_uuid).filter(known).or_else(by_name).or_else(forgotten);
            one(found.map(Thing::Domain))
        }
        "disk" => {
            let by_name = || name.as_ref().and_then(|name| state.disk_named(name)).map(|disk| disk.id);
            one(uuid.map(Id::from_uuid).filter(|id| state.disks.contains(id)).or_else(by_name).map(Thing::Disk))
        }
        "volume" => one(uuid.map(Id::from_uuid).filter(|id| state.volumes.contains(id)).map(Thing::Volume)),
        "snapshot" => snapshots(state, text),
        "placement" => one(uuid.map(Id::from_uuid).filter(|id| state.placements.contains(id)).map(Thing::Placement)),
        "garbage" => one(token.filter(|id| state.garbage.contains(id)).map(Thing::Garbage)),
        "attachment" => one(token.filter(|id| state.attachments.contains(id)).map(Thing::Attachment)),
        _ => Vec::new(),
    }
}

/// Snapshots of this name, on any disk or (DISK/NAME) on one.
fn snapshots(state: &State, text: &str) -> Vec<Thing> {
    let (disk, name) = text.split_once('/').map_or((None, text), |(disk, name)| (Some(disk), name));
    if name.parse::<Name>().is_err() {
        return Vec::new();
    }
    let of_disk = |volume: &&sdm_state::catalog::Volume| {
        disk.is_none_or(|disk| state.disks.get(&volume.disk).is_some_and(|row| row.name.as_str() == disk))
    };
    let named = state
        .volumes
        .values()
        .filter(|volume| volume.snapshot.as_ref().is_some_and(|snapshot| snapshot.name.as_str() == name));
    named.filter(of_disk).map(|volume| Thing::Volume(volume.id)).take(super::parts::NAMED_MAX).collect()
}

/// The thing among others of its name: with the noun to ask for it.
pub(super) fn candidate(state: &State, thing: &Thing) -> v1::ExplainedLink {
    let numbered = |kind: &str, id: &dyn std::fmt::Display| link("", kind, id, format!("{kind}/{id}"));
    match thing {
        Thing::Lock(id) => {
            let lock = state.locks.get(id);
            v1::ExplainedLink {
                text: lock.map(|lock| state.resources_in_words(lock)).unwrap_or_default(),
                ..numbered("lock", id)
            }
        }
        Thing::Resource(resource) => numbered("resource", resource),
        Thing::Session(id) => numbered("session", id),
        Thing::Txn(id) => super::parts::txn_link(state, "", *id),
        Thing::Job(id) => numbered("job", id),
        Thing::Attempt(token) => numbered("token", token),
        Thing::Event(index) => numbered("event", index),
        Thing::Member(id) => {
            let name = state.members.get(id).map(|member| member.name.to_string()).unwrap_or_default();
            link("", "member", id, format!("member/{name}"))
        }
        Thing::Worker(id) => link("", "worker", id, format!("worker/{}", state.worker_word(*id))),
        Thing::Domain(id) => match state.forgotten.get(id) {
            Some(row) => {
                let text = format!("{}, forgotten", row.name);
                v1::ExplainedLink { text, ..numbered("domain", id) }
            }
            None => link("", "domain", id, state.resource_word(&Resource::Domain(*id))),
        },
        Thing::Disk(id) => link("", "disk", id, state.disk_word(*id)),
        Thing::Volume(id) => {
            let of = state.volumes.get(id).map(|volume| state.disk_word(volume.disk)).unwrap_or_default();
            v1::ExplainedLink { text: format!("of {of}"), ..numbered("volume", id) }
        }
        Thing::Placement(id) => numbered("placement", id),
        Thing::Garbage(id) => numbered("garbage", id),
        Thing::Attachment(id) => numbered("attachment", id),
    }
}

fn unknown(state: &State, text: &str) -> Refusal {
    let shown: String = text.chars().take(80).collect();
    let message = format!("nothing is known as {shown:?}");
    let hint = match text.rsplit('/').next().and_then(|id| id.parse::<TxnId>().ok()) {
        Some(id) => {
            let hours = state.meta.settings.request_window_ms / 3_600_000;
            let issued = issued_at_ms(id).map(|at| {
                let ago = state.meta.clock_ms.saturating_sub(at) / 1000;
                format!("; as a request id it was issued {ago} s ago")
            });
            format!(
                "looked for among transactions, disks, domains, volumes, placements and workers; results of transactions \
                 are remembered for {hours} h at most, and {} of them; a request that was refused before it began is recorded \
                 nowhere{}",
                state.meta.settings.finished_txns_max,
                issued.unwrap_or_default()
            )
        }
        None => format!("looked for among: {NOUNS}; see sdm disk list, sdm lock list, sdm txn list, sdm events"),
    };
    Refusal::new(Class::NotFound, "NOTHING_KNOWN", message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn everything_is_found_by_its_id_and_by_its_name() {
        let mut sample = Sample::with_disk();
        let mover = sample.begin_move("web-01", "nfs2");
        let state = &sample.state;
        let disk = sample.disk("web-01").clone();
        let lock = state.txns.get(&mover).unwrap().lock.unwrap();
        let find = |text: String| find(state, &text).unwrap_or_else(|refusal| panic!("{text}: {refusal}"));
        assert_eq!(find("web-01".into()), [Thing::Disk(disk.id)]);
        assert_eq!(find(disk.id.to_string()), [Thing::Disk(disk.id)]);
        assert_eq!(find("disk/web-01".into()), [Thing::Disk(disk.id)]);
        assert_eq!(find("nfs1".into()), [Thing::Domain(sample.domain("nfs1").id)]);
        assert_eq!(find(disk.placement.to_string()), [Thing::Placement(disk.placement)]);
        assert_eq!(find(disk.volumes[0].to_string()), [Thing::Volume(disk.volumes[0])]);
        assert_eq!(find(mover.to_string()), [Thing::Txn(mover)]);
        assert_eq!(find("a".into()), [Thing::Worker(sample.worker("a").identity.id)]);
        assert_eq!(find("m1".into()), [Thing::Member(1)]);
        assert_eq!(find(format!("lock/{lock}")), [Thing::Lock(lock)]);
        let both = find(lock.to_string());
        assert!(both.contains(&Thing::Lock(lock)) && both.contains(&Thing::Job(lock)), "{both:?}");
        let attempt = sample.only_job().work.attempt.as_ref().unwrap().token;
        assert_eq!(find(attempt.to_string()), [Thing::Attempt(attempt)]);
        let session = sample.session("a").id;
        assert!(find(session.to_string()).contains(&Thing::Session(session)));
        assert_eq!(find("resource/disk/web-01".into()), [Thing::Resource(Resource::Disk(disk.id))]);
        assert_eq!(find("user/backup".into()), [Thing::Resource(Resource::User("backup".into()))]);
    }

    #[test]
    fn what_is_unknown_is_refused_with_where_it_was_looked_for() {
        let sample = Sample::with_disk();
        let refusal = find(&sample.state, "nothing").unwrap_err();
        assert_eq!((refusal.class, refusal.reason.as_str()), (Class::NotFound, "NOTHING_KNOWN"));
        assert!(refusal.hint.contains("looked for among: lock, session"), "{refusal}");
        let refusal = find(&sample.state, "0f0f0f0f-1111-4222-8333-444444444444").unwrap_err();
        assert!(refusal.hint.contains("remembered for 24 h"), "{refusal}");
        assert_eq!(find(&sample.state, "").unwrap_err().reason, "BAD_OBJECT");
    }

    #[test]
    fn a_forgotten_domain_is_found_by_its_id_and_by_its_name() {
        let mut sample = Sample::new();
        sample.state.meta.feature_level = 2;
        let domain = sample.domain("nfs1").id;
        sample.see("a", "nfs1", Some("it is gone"));
        let txn =
            sample.begin(sdm_state::txns::Spec::Domain(sdm_state::domain_change::DomainChange::Forget { domain }));
        assert!(!sample.state.domains.contains(&domain), "{:?}", sample.state.txns.get(&txn));
        for text in [domain.to_string(), "nfs1".into(), "domain/nfs1".into()] {
            assert_eq!(find(&sample.state, &text), Ok(vec![Thing::Domain(domain)]), "{text}");
        }
        let told = super::super::catalog::of_domain(&sample.state, domain);
        assert_eq!((told.state.as_str(), told.name.as_str()), ("forgotten", "domain/nfs1"));
        assert!(told.facts.iter().any(|fact| fact.value == "op@example:1"), "{told:?}");
        assert!(told.ways_out.iter().any(|way| way.command == format!("sdm txn show {txn}")), "{told:?}");
    }
}
