//! From what a user writes to an id: a UUID is an id, everything else must be a name, so the two
//! cannot be confused. What is unknown is refused with what there is instead.

use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_state::State;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Domain;
use sdm_state::catalog::Volume;
use sdm_state::workers::Worker;
use uuid::Uuid;

/// Names that a refusal lists at most.
const SUGGESTIONS_MAX: usize = 5;

/// Rows that are looked at for names like the one that was meant: bounds a refusal's cost.
const ROWS_LOOKED_AT_MAX: usize = 2_000;

/// A new name, checked.
///
/// # Errors
/// It is no name.
pub(crate) fn new_name(text: &str) -> Result<Name, Refusal> {
    text.parse::<Name>().map_err(|error| {
        Refusal::new(Class::Invalid, "BAD_NAME", error.to_string())
            .hint("a name has 1 to 128 letters, digits, '.', '_' or '-', and begins with a letter or digit")
    })
}

/// A transaction's id.
///
/// # Errors
/// It is no UUID.
pub(crate) fn txn_id(text: &str) -> Result<TxnId, Refusal> {
    text.parse().map_err(|_| {
        let message = format!("{:?} is not the id of a transaction", short(text));
        Refusal::new(Class::Invalid, "BAD_REQUEST_ID", message).hint("it is a UUID; see sdm txn list")
    })
}

/// The domain that this text names.
///
/// # Errors
/// It is neither a name nor an id, or there is no such domain.
pub(crate) fn domain<'a>(state: &'a State, text: &str) -> Result<&'a Domain, Refusal> {
    let found = match Reference::parse(text)? {
        Reference::Id(uuid) => state.domains.get(&sdm_proto::ids::Id::from_uuid(uuid)),
        Reference::Name(name) => state.domain_named(&name),
    };
    found.ok_or_else(|| {
        let names = state.domains.values().map(|domain| domain.name.as_str());
        unknown("domain", "DOMAIN_NOT_FOUND", text, state.domains.len(), names)
    })
}

/// The disk that this text names.
///
/// # Errors
/// It is neither a name nor an id, or there is no such disk.
pub(crate) fn disk<'a>(state: &'a State, text: &str) -> Result<&'a Disk, Refusal> {
    let found = match Reference::parse(text)? {
        Reference::Id(uuid) => state.disks.get(&sdm_proto::ids::Id::from_uuid(uuid)),
        Reference::Name(name) => state.disk_named(&name),
    };
    found.filter(|disk| !state.is_hidden(disk)).ok_or_else(|| {
        let names = state.disks.values().map(|disk| disk.name.as_str());
        unknown("disk", "DISK_NOT_FOUND", text, state.disks.len(), names)
    })
}

/// The worker that this text names.
///
/// # Errors
/// It is neither a name nor an id, or there is no such worker.
pub(crate) fn worker<'a>(state: &'a State, text: &str) -> Result<&'a Worker, Refusal> {
    let found = match Reference::parse(text)? {
        Reference::Id(uuid) => state.workers.get(&sdm_proto::ids::Id::from_uuid(uuid)),
        // Names are labels: of several that had one, the live one is meant, or the one that was lost last.
        Reference::Name(name) => state
            .workers
            .values()
            .filter(|worker| worker.identity.name == name)
            .max_by_key(|worker| (worker.is_live(), worker.since_ms, worker.identity.id)),
    };
    found.ok_or_else(|| {
        let names = state.workers.values().map(|worker| worker.identity.name.as_str());
        unknown("worker", "WORKER_NOT_FOUND", text, state.workers.len(), names)
    })
}

/// The domain where a disk lies.
///
/// # Errors
/// It is nowhere: a defect.
pub(crate) fn domain_of<'a>(state: &'a State, disk: &Disk) -> Result<&'a Domain, Refusal> {
    state
        .domain_of(disk)
        .ok_or_else(|| Refusal::new(Class::Internal, "DISK_NOWHERE", format!("disk {} lies in no domain", disk.name)))
}

/// The snapshot of a disk that this text names: its volume.
///
/// # Errors
/// It is neither a name nor an id, or the disk has no such snapshot.
pub(crate) fn snapshot<'a>(state: &'a State, disk: &Disk, text: &str) -> Result<&'a Volume, Refusal> {
    let reference = Reference::parse(text)?;
    let chain = || disk.volumes.iter().filter_map(|id| state.volumes.get(id));
    let own = || chain().filter(|volume| volume.disk == disk.id && volume.snapshot.is_some());
    let named = |volume: &Volume| match &reference {
        Reference::Id(uuid) => volume.id == sdm_proto::ids::Id::from_uuid(*uuid),
        Reference::Name(name) => volume.snapshot.as_ref().is_some_and(|snapshot| snapshot.name == *name),
    };
    if let Some(found) = own().find(|volume| named(volume)) {
        return Ok(found);
    }
    let message = match chain().find(|volume| named(volume)) {
        Some(volume) if volume.disk != disk.id => {
            let owner = state.disks.get(&volume.disk).map_or("a deleted disk", |owner| owner.name.as_str());
            format!("{text} is a snapshot of {owner}, which disk {} shares, and none of its own", disk.name)
        }
        Some(_) => format!("volume {text} of disk {} is no snapshot", disk.name),
        None => format!("disk {} has no snapshot {text}", disk.name),
    };
    let names: Vec<&str> =
        own().filter_map(|volume| Some(volume.snapshot.as_ref()?.name.as_str())).take(SUGGESTIONS_MAX).collect();
    let is_layer = |volume: &Volume| named(volume) && disk.volumes.last() != Some(&volume.id);
    let hint = match names.as_slice() {
        _ if chain().any(is_layer) => format!("to have it taken into the layer above: sdm disk flatten {}", disk.name),
        [] => format!("it has none; sdm disk tree {}", disk.name),
        names => format!("there is {}; sdm snapshot list {}", names.join(", "), disk.name),
    };
    Err(Refusal::new(Class::NotFound, "SNAPSHOT_NOT_FOUND", message).hint(hint))
}

/// The same where none may be named.
///
/// # Errors
/// As `snapshot`.
pub(crate) fn snapshot_if_any(state: &State, disk: &Disk, text: &str) -> Result<Option<VolumeId>, Refusal> {
    if text.is_empty() { Ok(None) } else { snapshot(state, disk, text).map(|volume| Some(volume.id)) }
}

/// The volume of this id.
///
/// # Errors
/// It is no id, or there is no such volume.
pub(crate) fn volume<'a>(state: &'a State, text: &str) -> Result<&'a Volume, Refusal> {
    let Ok(uuid) = Uuid::try_parse(text) else {
        let message = format!("{:?} is not the id of a volume", short(text));
        return Err(Refusal::new(Class::Invalid, "BAD_VOLUME_ID", message).hint("it is a UUID; see sdm disk tree DISK"));
    };
    state.volumes.get(&sdm_proto::ids::Id::from_uuid(uuid)).ok_or_else(|| {
        Refusal::new(Class::NotFound, "VOLUME_NOT_FOUND", format!("there is no volume {text}"))
            .hint("those of a disk: sdm disk tree DISK")
    })
}

/// A transaction that is not there, or not any more.
pub(crate) fn unknown_txn(state: &State, id: TxnId) -> Refusal {
    let settings = &state.meta.settings;
    Refusal::new(Class::NotFound, "TXN_NOT_FOUND", format!("there is no transaction {id}")).hint(format!(
        "a request that was refused before it began (a name that is not there, a bad value) is recorded nowhere and changed \
         nothing; finished transactions are forgotten after {} h, and when {} others finished later; sdm txn list",
        settings.request_window_ms / 3_600_000,
        settings.finished_txns_max
    ))
}

enum Reference {
    Id(Uuid),
    Name(Name),
}

impl Reference {
    fn parse(text: &str) -> Result<Self, Refusal> {
        match Uuid::try_parse(text) {
            Ok(uuid) => Ok(Self::Id(uuid)),
            Err(_) => new_name(text).map(Self::Name),
        }
    }
}

fn unknown<'a>(noun: &str, reason: &str, text: &str, count: usize, names: impl Iterator<Item = &'a str>) -> Refusal {
    let message = format!("there is no {noun} {text}");
    let (list, first) = match noun {
        "worker" => ("sdm worker list", "start one on a host: `sdm worker`"),
        "domain" => ("sdm domain list", "make one: sdm domain create NAME --path PATH"),
        _ => ("sdm disk list", "make one: sdm disk create NAME --domain DOMAIN --size 40GiB"),
    };
    let hint = if count == 0 {
        format!("there is no {noun} at all yet; {first}")
    } else {
        let mut near: Vec<&str> = names.take(ROWS_LOOKED_AT_MAX).collect();
        if count > SUGGESTIONS_MAX {
            near.retain(|name| is_like(name, text));
            near.truncate(SUGGESTIONS_MAX);
        }
        near.sort_unstable();
        match (near.is_empty(), count > SUGGESTIONS_MAX) {
            (true, _) => format!("see {list}"),
            (false, true) => format!("did you mean {}? See {list}", near.join(" or ")),
            (false, false) => format!("there is {}", near.join(", ")),
        }
    };
    Refusal::new(Class::NotFound, reason, message).hint(hint)
}

/// Whether a slip of the hand could have made one of the other: they begin and end alike up to one
/// place, or one begins with the other.
fn is_like(name: &str, text: &str) -> bool {
    let (name, text) = (name.to_ascii_lowercase(), text.to_ascii_lowercase());
    if name.starts_with(&text) || text.starts_with(&name) {
        return true;
    }
    let alike =
        |a: &mut dyn Iterator<Item = u8>, b: &mut dyn Iterator<Item = u8>| a.zip(b).take_while(|(x, y)| x == y).count();
    let front = alike(&mut name.bytes(), &mut text.bytes());
    let back = alike(&mut name.bytes().rev(), &mut text.bytes().rev());
    front + back + 1 >= name.len().max(text.len())
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn a_disk_is_found_by_its_name_and_by_its_id() {
        let sample = Sample::with_disk();
        let by_name = disk(&sample.state, "web-01").unwrap();
        let by_id = disk(&sample.state, &by_name.id.to_string()).unwrap();
        assert_eq!(by_name, by_id);
    }

    #[test]
    fn an_unknown_domain_is_refused_with_those_there_are() {
        let sample = Sample::with_disk();
        let refusal = domain(&sample.state, "nfs3").unwrap_err();
        assert_eq!((refusal.class, refusal.reason.as_str()), (Class::NotFound, "DOMAIN_NOT_FOUND"));
        assert_eq!(refusal.hint, "there is nfs1, nfs2");
        let refusal = domain(&State::default(), "nfs1").unwrap_err();
        assert!(refusal.hint.contains("sdm domain create"), "{}", refusal.hint);
    }

    #[test]
    fn an_id_of_nothing_is_not_found_and_no_name_is_invalid() {
        let sample = Sample::with_disk();
        let nobody = "0f0f0f0f-1111-4222-8333-444444444444";
        assert_eq!(disk(&sample.state, nobody).unwrap_err().reason, "DISK_NOT_FOUND");
        for text in ["", "../x", "a b"] {
            assert_eq!(disk(&sample.state, text).unwrap_err().reason, "BAD_NAME", "{text:?}");
        }
    }

    #[test]
    fn slips_of_the_hand_are_recognized() {
        assert!(is_like("web-01", "web-1"));
        assert!(is_like("web-01", "web-02"));
        assert!(is_like("web-01", "wb-01"));
        assert!(is_like("web-01", "WEB"));
        assert!(!is_like("web-01", "db-7"));
    }
}
