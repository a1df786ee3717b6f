//! What an operation would do, as the public contract shows it.

use super::domain_word;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::dry_run::PlacementShown;
use sdm_state::dry_run::PlanShown;
use sdm_state::locks::LockSet;
use sdm_state::locks::Mode;
use sdm_state::locks::Resource;

/// A plan that was made and is not carried out.
pub(crate) fn dry_run(state: &State, plan: PlanShown) -> v1::DryRun {
    let reserved = plan.placements.iter().map(|placement| placement.reserved_bytes);
    v1::DryRun {
        reserved_bytes: reserved.fold(0, u64::saturating_add),
        summary: plan.summary,
        objects: plan.objects,
        locks: plan.locks.into_iter().map(|(resource, mode)| lock(state, &resource, mode)).collect(),
        steps: plan.steps,
        placements: plan.placements.into_iter().map(|placement| of_placement(state, placement)).collect(),
        log_entries: plan.log_entries,
        would_wait_for: plan.waits_for.iter().filter_map(|id| state.locks.get(id)).map(|l| holder(state, l)).collect(),
        warnings: plan.warnings,
        revision: state.applied_index(),
    }
}

fn lock(state: &State, resource: &Resource, mode: Mode) -> v1::PlannedLock {
    let name = match resource {
        Resource::Domain(id) => format!("domain/{}", domain_word(state, *id)),
        Resource::Disk(id) => {
            let name = state.disks.get(id).map_or_else(|| id.to_string(), |disk| disk.name.to_string());
            format!("disk/{name}")
        }
        Resource::Name(_) | Resource::User(_) => resource.to_string(),
    };
    v1::PlannedLock { resource: resource.to_string(), name, mode: mode.to_string() }
}

fn of_placement(state: &State, placement: PlacementShown) -> v1::PlannedPlacement {
    let PlacementShown { domain, layers, reserved_bytes } = placement;
    v1::PlannedPlacement { domain_id: domain.to_string(), domain: domain_word(state, domain), layers, reserved_bytes }
}

fn holder(state: &State, lock: &LockSet) -> v1::Blocker {
    let since = lock.granted.map_or(lock.asked_ms, |granted| granted.at_ms);
    let seconds = state.meta.clock_ms.saturating_sub(since) / 1000;
    let verb = if lock.granted.is_some() { "held" } else { "asked for" };
    v1::Blocker {
        kind: "lock".to_owned(),
        id: lock.id.to_string(),
        description: format!("{verb} for {seconds} s by {}", state.owner_words(lock)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_state::txns::Spec;

    #[test]
    fn a_plan_names_locks_by_name_and_changes_nothing() {
        let sample = Sample::with_disk();
        let spec = Spec::MoveDisk { disk: sample.disk("web-01").id, to: sample.domain("nfs2").id };
        let before = sample.state.hash();
        let shown = dry_run(&sample.state, sample.state.dry_run(&spec, None).unwrap());
        let locks: Vec<_> = shown.locks.iter().map(|lock| format!("{} {}", lock.name, lock.mode)).collect();
        for expected in ["domain/nfs1 IX", "domain/nfs2 IX", "disk/web-01 X"] {
            assert!(locks.iter().any(|lock| lock == expected), "{locks:?}");
        }
        assert_eq!((shown.reserved_bytes, shown.would_wait_for.len()), (1 << 20, 0));
        assert_eq!(shown.placements[0].domain, "nfs2");
        assert_eq!(sample.state.hash(), before);
    }

    #[test]
    fn a_plan_names_whom_it_would_wait_for_and_refuses_what_is_not_allowed() {
        let mut sample = Sample::with_disk();
        let spec = Spec::MoveDisk { disk: sample.disk("web-01").id, to: sample.domain("nfs2").id };
        sample.begin_export("web-01");
        let shown = dry_run(&sample.state, sample.state.dry_run(&spec, None).unwrap());
        assert!(shown.would_wait_for[0].description.contains("export disk web-01"), "{shown:?}");
        let there = Spec::MoveDisk { disk: sample.disk("web-01").id, to: sample.domain("nfs1").id };
        assert_eq!(sample.state.dry_run(&there, None).unwrap_err().reason, "ALREADY_THERE");
    }
}
