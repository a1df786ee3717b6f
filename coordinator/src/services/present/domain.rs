//! A storage domain as it is shown: who reaches it, what lies in it, how much room there is.

use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::catalog::Domain;
use sdm_state::catalog::DomainState;

/// The domain, at this time of the cluster's clock.
pub(crate) fn domain(state: &State, domain: &Domain, now_ms: u64) -> v1::Domain {
    let reaching = || state.workers_reaching(domain.id);
    let workers: Vec<String> = reaching().map(|worker| worker.identity.name.to_string()).collect();
    // The freshest look has no order; workers of one file system agree up to what is being written.
    let space = reaching().filter_map(|worker| worker.domains.get(&domain.id)).find(|sight| sight.total_bytes > 0);
    let reachable = !workers.is_empty();
    v1::Domain {
        id: domain.id.to_string(),
        name: domain.name.to_string(),
        r#type: "file".to_owned(),
        path: domain.path.clone(),
        local: domain.local,
        state: if let DomainState::Leaving(_) = domain.state {
            "leaving"
        } else if let DomainState::Arriving { .. } = domain.state {
            "arriving"
        } else if !domain.state.is_active() {
            "maintenance"
        } else if reachable {
            "reachable"
        } else {
            "unreachable"
        }
        .to_owned(),
        state_reason: if reachable { String::new() } else { why_unreachable(state, domain) },
        total_bytes: space.map_or(0, |sight| sight.total_bytes),
        free_bytes: space.map_or(0, |sight| sight.free_bytes),
        space_age_ms: space
            .filter(|sight| sight.seen_ms > 0)
            .map_or(0, |sight| now_ms.saturating_sub(sight.seen_ms).max(1)),
        reserved_bytes: state.promised_bytes(domain.id),
        disks: state.disks_in(domain.id),
        workers,
        created_by: domain.created_by.to_string(),
        retention_ms: state.retention_ms(domain.id),
        retention_is_own: domain.retention_ms.is_some(),
        maintenance: maintenance(domain),
        projection_pending: domain.describing.is_some(),
    }
}

fn maintenance(domain: &Domain) -> Option<v1::DomainMaintenance> {
    let DomainState::Maintenance(maintenance) = &domain.state else { return None };
    Some(v1::DomainMaintenance {
        since_ms: maintenance.since_ms,
        by: maintenance.by.clone(),
        reason: maintenance.reason.clone(),
        transaction_id: maintenance.txn.to_string(),
    })
}

fn why_unreachable(state: &State, domain: &Domain) -> String {
    let concerned = state.workers.values().filter(|worker| worker.owns_path(&domain.path));
    let causes: Vec<String> = concerned
        .map(|worker| {
            let cause = match worker.domains.get(&domain.id) {
                _ if !worker.is_live() => "is lost",
                Some(sight) => sight.error.as_deref().unwrap_or("reaches it"),
                None => "has not looked yet",
            };
            format!("{}: {cause}", worker.identity.name)
        })
        .collect();
    if causes.is_empty() {
        return format!("no worker has {} beneath its --reach prefixes", domain.path);
    }
    causes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn shown(sample: &Sample, name: &str) -> v1::Domain {
        domain(&sample.state, sample.domain(name), sample.state.meta.clock_ms + 7_000)
    }

    #[test]
    fn a_reachable_domain_shows_its_workers_its_room_and_its_disks() {
        let sample = Sample::with_disk();
        let nfs1 = shown(&sample, "nfs1");
        assert_eq!((nfs1.state.as_str(), nfs1.state_reason.as_str()), ("reachable", ""));
        assert_eq!(nfs1.workers, ["a"]);
        assert_eq!((nfs1.total_bytes, nfs1.disks), (100 << 30, 1));
        assert_eq!(nfs1.space_age_ms, 0, "at the first level nobody notes when it was seen");
        assert_eq!(shown(&sample, "nfs2").disks, 0);
    }

    #[test]
    fn what_is_promised_to_a_running_job_is_shown_and_shrinks_with_its_checkpoints() {
        let mut sample = Sample::with_disk();
        sample.begin_move("web-01", "nfs2");
        assert_eq!(shown(&sample, "nfs2").reserved_bytes, 1 << 20);
        sample.checkpoint(1 << 19);
        assert_eq!(shown(&sample, "nfs2").reserved_bytes, 1 << 19);
    }

    #[test]
    fn an_unreachable_domain_says_why_by_worker() {
        let mut sample = Sample::with_disk();
        sample.see("a", "nfs1", Some("stale file handle"));
        assert_eq!(shown(&sample, "nfs1").state_reason, "a: stale file handle");
        sample.lose("a");
        let nfs1 = shown(&sample, "nfs1");
        assert_eq!((nfs1.state.as_str(), nfs1.state_reason.as_str()), ("unreachable", "a: is lost"));
    }
}
