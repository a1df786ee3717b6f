//! What the catalog knows: domains, disks, volumes, placements, attachments, garbage.

use super::lock::of_resource;
use super::parts::NAMED_MAX;
use super::parts::events;
use super::parts::fact;
use super::parts::link;
use super::parts::lock_link;
use super::parts::txn_link;
use super::parts::way;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::VolumeId;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::locks::Resource;

fn domain_word(state: &State, id: DomainId) -> String {
    state.resource_word(&Resource::Domain(id))
}

fn domain_link(state: &State, role: &str, id: DomainId) -> v1::ExplainedLink {
    let path = state.domains.get(&id).map(|domain| domain.path.clone()).unwrap_or_default();
    v1::ExplainedLink { text: path, ..link(role, "domain", id, domain_word(state, id)) }
}

pub(super) fn of_domain(state: &State, id: DomainId) -> v1::Explanation {
    let Some(domain) = state.domains.get(&id) else { return of_forgotten(state, id) };
    let name = domain_word(state, id);
    let reached: Vec<String> = state
        .workers
        .values()
        .filter(|worker| worker.reaches(id))
        .take(NAMED_MAX)
        .map(|worker| worker.identity.name.to_string())
        .collect();
    let locks = state.locks_at(&Resource::Domain(id));
    let mut told = v1::Explanation {
        kind: "domain".to_owned(),
        id: id.to_string(),
        title: format!("a storage domain at {}", domain.path),
        state: if reached.is_empty() { "unreachable" } else { "reachable" }.to_owned(),
        facts: vec![
            fact("disks", state.disks_in(id).to_string()),
            fact("reached by", if reached.is_empty() { "no live worker".to_owned() } else { reached.join(", ") }),
        ],
        events: events(state, std::slice::from_ref(&name), None),
        chain: vec![txn_link(state, "made by", domain.created_by)],
        ..Default::default()
    };
    for lock in locks.into_iter().take(NAMED_MAX) {
        match lock.granted {
            Some(_) => told.chain.push(lock_link(state, "held as", lock)),
            None => told.blocks.push(lock_link(state, "waits", lock)),
        }
    }
    if reached.is_empty() {
        told.ways_out.push(way("see which workers there are, and why they do not reach it", "sdm worker list"));
    }
    told.ways_out.push(way("its space and state", format!("sdm domain show {}", domain.name)));
    told.name = name;
    told
}

/// A domain that was given up for good: who did it, when, why, and what to do should its storage come back.
fn of_forgotten(state: &State, id: DomainId) -> v1::Explanation {
    let Some(row) = state.forgotten.get(&id) else { return v1::Explanation::default() };
    let ago = super::parts::seconds(state.meta.clock_ms, row.at_ms);
    v1::Explanation {
        kind: "domain".to_owned(),
        id: id.to_string(),
        name: format!("domain/{}", row.name),
        title: format!("a storage domain that was at {}, forgotten {ago} s ago", row.path),
        state: "forgotten".to_owned(),
        facts: vec![
            fact("forgotten by", row.by.clone()),
            fact("reason", row.reason.clone()),
            fact(
                "should its storage come back",
                format!(
                    "nothing of it is taken for this cluster's again: save what is needed, then remove the folder {id} there \
                     by hand"
                ),
            ),
        ],
        chain: vec![txn_link(state, "forgotten by", row.txn)],
        ways_out: vec![
            way("how that went", format!("sdm txn show {}", row.txn)),
            way("save a file of it", "sdm disk import FILE --name NAME --domain ANOTHER --format FORMAT"),
        ],
        events: events(state, &[format!("txn/{}", row.txn)], Some(row.txn)),
        ..Default::default()
    }
}

pub(super) fn of_disk(state: &State, id: DiskId, now_ms: u64) -> v1::Explanation {
    let Some(disk) = state.disks.get(&id) else { return v1::Explanation::default() };
    let name = state.disk_word(id);
    let held = of_resource(state, &Resource::Disk(id), now_ms);
    let size = disk.volumes.last().and_then(|leaf| state.volumes.get(leaf)).map_or(0, |leaf| leaf.virtual_size);
    let mut told = v1::Explanation {
        kind: "disk".to_owned(),
        id: id.to_string(),
        title: format!("a disk of {size} bytes, {} volumes", disk.volumes.len()),
        state: if held.kind == "lock" { "locked" } else { "free" }.to_owned(),
        events: events(state, std::slice::from_ref(&name), None),
        ways_out: held.ways_out,
        not_safe: held.not_safe,
        blocks: held.blocks,
        ..Default::default()
    };
    if held.kind == "lock" {
        let lock = held.id.parse().ok().and_then(|id: u64| state.locks.get(&id));
        told.chain.extend(lock.map(|lock| lock_link(state, "locked by", lock)));
        told.chain.extend(held.chain);
    } else {
        told.chain.extend(held.chain);
        told.ways_out = vec![way("all of it", format!("sdm disk show {}", disk.name))];
    }
    if let Some(placement) = state.placements.get(&disk.placement) {
        told.chain.push(link("lies in", "placement", placement.id, format!("placement/{}", placement.id)));
        told.chain.push(domain_link(state, "of", placement.domain));
    }
    told.chain.push(txn_link(state, "made by", disk.created_by));
    for attachment in state.attachments.values().filter(|attachment| attachment.disk == id).take(NAMED_MAX) {
        told.chain.push(attachment_link(state, attachment));
    }
    told.facts.extend(disk.volumes.iter().take(NAMED_MAX).map(|volume| fact("volume", volume.to_string())));
    told.name = name;
    told
}

fn attachment_link(state: &State, attachment: &sdm_state::attachments::Attachment) -> v1::ExplainedLink {
    v1::ExplainedLink {
        state: attachment.state.word().to_owned(),
        since_ms: attachment.since_ms,
        text: format!(
            "{} at worker {}, by {}: {}",
            attachment.access.word(),
            state.worker_word(attachment.worker),
            attachment.by,
            attachment.why
        ),
        ..link("attached as", "attachment", attachment.token, format!("attachment/{}", attachment.token))
    }
}

pub(super) fn of_volume(state: &State, id: VolumeId) -> v1::Explanation {
    let Some(volume) = state.volumes.get(&id) else { return v1::Explanation::default() };
    let users: Vec<DiskId> = state.users_of(id).take(NAMED_MAX).collect();
    let snapshot = volume.snapshot.as_ref();
    let mut told = v1::Explanation {
        kind: if snapshot.is_some() { "snapshot" } else { "volume" }.to_owned(),
        id: id.to_string(),
        name: snapshot.map_or_else(|| format!("volume/{id}"), |snapshot| format!("snapshot/{}", snapshot.name)),
        title: format!("a {} volume of {} bytes", volume.format.word(), volume.virtual_size),
        state: if volume.legal { "legal" } else { "illegal" }.to_owned(),
        facts: vec![fact("allocated bytes", volume.allocated_bytes.to_string())],
        ..Default::default()
    };
    told.facts.extend(volume.parent.map(|parent| fact("parent", parent.to_string())));
    if let Some(snapshot) = snapshot {
        told.facts.push(fact("description", snapshot.description.clone()));
        told.chain.push(txn_link(state, "made by", snapshot.txn));
    }
    told.chain.extend(users.iter().map(|disk| link("used by", "disk", disk, state.disk_word(*disk))));
    if let Some(disk) = users.first() {
        told.ways_out.push(way("its disk", format!("sdm explain {}", state.disk_word(*disk))));
    }
    told
}

pub(super) fn of_placement(state: &State, id: PlacementId) -> v1::Explanation {
    let Some(placement) = state.placements.get(&id) else { return v1::Explanation::default() };
    let name = format!("placement/{id}");
    v1::Explanation {
        kind: "placement".to_owned(),
        id: id.to_string(),
        title: format!("where {} lies", state.disk_word(placement.disk)),
        state: "current".to_owned(),
        chain: vec![
            link("of", "disk", placement.disk, state.disk_word(placement.disk)),
            domain_link(state, "in", placement.domain),
            txn_link(state, "made by", placement.txn),
        ],
        facts: vec![fact("token", placement.token.to_string())],
        events: events(state, std::slice::from_ref(&name), None),
        name,
        ..Default::default()
    }
}

pub(super) fn of_garbage(state: &State, id: Token) -> v1::Explanation {
    let Some(garbage) = state.garbage.get(&id) else { return v1::Explanation::default() };
    let name = format!("garbage/{id}");
    let deleting = garbage.work.attempt.as_ref();
    let left = garbage.due_ms.saturating_sub(state.meta.clock_ms).div_ceil(1000);
    let mut told = v1::Explanation {
        kind: "garbage".to_owned(),
        id: id.to_string(),
        title: format!("{}: {}", garbage.kind.word(), garbage.evidence),
        state: match (deleting, left) {
            (Some(_), _) => "being deleted",
            (None, 0) => "due",
            (None, _) => "kept",
        }
        .to_owned(),
        chain: vec![txn_link(state, "left by", garbage.txn), domain_link(state, "in", garbage.place.domain)],
        facts: vec![fact("bytes", garbage.bytes.to_string()), fact("made by token", garbage.made_by.to_string())],
        events: events(state, std::slice::from_ref(&name), None),
        name,
        ..Default::default()
    };
    if left > 0 {
        told.facts.push(fact("kept for", format!("{left} s more")));
    }
    told.facts.extend(garbage.work.last_error.iter().map(|error| fact("last error", error.clone())));
    if let Some(attempt) = deleting {
        told.chain.extend(super::parts::worker_links(state, attempt));
    }
    told.ways_out.push(way("all garbage", "sdm gc list"));
    told
}

pub(super) fn of_attachment(state: &State, id: Token) -> v1::Explanation {
    let Some(attachment) = state.attachments.get(&id) else { return v1::Explanation::default() };
    let disk = state.disk_word(attachment.disk);
    let name = format!("attachment/{id}");
    v1::Explanation {
        kind: "attachment".to_owned(),
        id: id.to_string(),
        title: format!(
            "{} access to {disk} at worker {}",
            attachment.access.word(),
            state.worker_word(attachment.worker)
        ),
        state: attachment.state.word().to_owned(),
        chain: vec![
            link("to", "disk", attachment.disk, disk.clone()),
            link("at", "worker", attachment.worker, format!("worker/{}", state.worker_word(attachment.worker))),
            txn_link(state, "given by", attachment.txn),
        ],
        facts: vec![fact("by", attachment.by.clone()), fact("why", attachment.why.clone())],
        ways_out: vec![way("who has the disk", format!("sdm explain {disk}"))],
        events: events(state, std::slice::from_ref(&name), None),
        name,
        ..Default::default()
    }
}
