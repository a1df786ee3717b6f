//! Garbage as it is shown: what it is, the evidence, and who deletes it or why nobody does.

use super::domain_word;
use super::seconds_until;
use crate::collector::deleter_exists;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::garbage::Garbage;
use sdm_state::gc_plans::GcPlan;
use std::collections::BTreeMap;

/// The row.
pub(crate) fn garbage(state: &State, garbage: &Garbage) -> v1::Garbage {
    let work = &garbage.work;
    let mut last_error = work.last_error.clone().unwrap_or_default();
    if is_unreached(state, garbage) {
        let nobody = nobody_reaches(state, garbage);
        last_error = if last_error.is_empty() { nobody } else { format!("{nobody}; before: {last_error}") };
    }
    let trash = garbage.trash.as_deref();
    v1::Garbage {
        id: garbage.id.to_string(),
        domain_id: garbage.place.domain.to_string(),
        domain: if garbage.place.whole_domain { String::new() } else { domain_word(state, garbage.place.domain) },
        kind: garbage.kind.word().to_owned(),
        names: names(state, garbage),
        transaction_id: garbage.txn.to_string(),
        evidence: garbage.evidence.clone(),
        due_ms: garbage.due_ms,
        state: state_word(state, garbage).to_owned(),
        worker: work.attempt.as_ref().map(|attempt| state.worker_word(attempt.worker)).unwrap_or_default(),
        attempts: work.attempts,
        retry_at_ms: if work.attempt.is_some() { 0 } else { work.retry_at_ms },
        last_error,
        bytes: garbage.bytes,
        made_by: garbage.made_by.to_string(),
        since_ms: garbage.since_ms,
        disk_id: trash.map(|trash| trash.disk.id.to_string()).unwrap_or_default(),
        disk: trash.map(|trash| trash.disk.name.to_string()).unwrap_or_default(),
        restorable: state.restorable(garbage).is_ok(),
        hold: garbage.held.as_ref().map(|hold| v1::GarbageHold {
            reason: hold.reason.clone(),
            by: hold.by.clone(),
            transaction_id: hold.txn.to_string(),
            since_ms: hold.since_ms,
        }),
        doomed_ms: garbage.doomed.map_or(0, |doomed| doomed.at_ms),
        doomed_worker: garbage.doomed.map(|doomed| state.worker_word(doomed.worker)).unwrap_or_default(),
        blocked_by: blocked_by(state, garbage),
    }
}

/// Where it stands, in a word.
pub(crate) fn state_word(state: &State, garbage: &Garbage) -> &'static str {
    if garbage.work.attempt.is_some() {
        "deleting"
    } else if garbage.held.is_some() {
        "held"
    } else if garbage.due_ms <= state.meta.clock_ms {
        "due"
    } else if garbage.trash.is_some() {
        "trash"
    } else {
        "waiting"
    }
}

/// What is in the way of its deletion; empty when nothing is, or when its time has not come.
pub(crate) fn blocked_by(state: &State, garbage: &Garbage) -> String {
    let work = &garbage.work;
    if let Some(hold) = &garbage.held {
        return format!("held by {}: {}", hold.by, hold.reason);
    }
    if work.attempt.is_some() || garbage.due_ms > state.meta.clock_ms {
        return String::new();
    }
    if state.is_suspended() {
        return "the cluster was restored from a backup and is suspended (sdm backup reconcile)".to_owned();
    }
    if !garbage.place.whole_domain && state.is_domain_locked(garbage.place.domain) {
        return format!("{} is locked for one transaction alone (sdm lock list)", place_word(state, garbage));
    }
    if is_unreached(state, garbage) {
        return nobody_reaches(state, garbage);
    }
    if work.retry_at_ms > state.meta.clock_ms {
        let error = work.last_error.as_deref().unwrap_or_default();
        let seconds = seconds_until(state, work.retry_at_ms);
        return format!("tried {} times, again in {seconds} s; the last time: {error}", work.attempts);
    }
    String::new()
}

fn is_unreached(state: &State, garbage: &Garbage) -> bool {
    let due = garbage.due_ms <= state.meta.clock_ms;
    due && garbage.work.attempt.is_none() && !deleter_exists(state, garbage)
}

fn nobody_reaches(state: &State, garbage: &Garbage) -> String {
    format!("no live worker reaches {}", place_word(state, garbage))
}

fn names(state: &State, garbage: &Garbage) -> Vec<String> {
    let cluster = garbage.cluster.unwrap_or_else(|| state.cluster_id());
    let dot_name = garbage.made_by.dot_name(cluster);
    let published = if garbage.place.whole_domain {
        Some(garbage.place.domain.to_string())
    } else {
        garbage.placement.map(|placement| placement.to_string())
    };
    std::iter::once(dot_name).chain(published).collect()
}

fn place_word(state: &State, garbage: &Garbage) -> String {
    if garbage.place.whole_domain {
        return garbage.place.path.clone();
    }
    format!("domain {}", domain_word(state, garbage.place.domain))
}

/// A plan of a collection, each row as it is now.
pub(crate) fn collection_plan(state: &State, plan: &GcPlan) -> v1::CollectionPlan {
    let changed: BTreeMap<_, _> =
        if plan.applied.is_some() { BTreeMap::new() } else { state.changed_since(plan).collect() };
    let items: Vec<v1::CollectionItem> = plan
        .items
        .iter()
        .map(|item| {
            let row = state.garbage.get(&item.garbage);
            let only_id = || v1::Garbage { id: item.garbage.to_string(), ..Default::default() };
            v1::CollectionItem {
                garbage: Some(row.map_or_else(only_id, |row| garbage(state, row))),
                changed: changed.get(&item.garbage).cloned().unwrap_or_default(),
                gone: row.is_none(),
            }
        })
        .collect();
    let bytes = items.iter().filter_map(|item| item.garbage.as_ref()).map(|row| row.bytes);
    v1::CollectionPlan {
        id: plan.id,
        transaction_id: plan.txn.to_string(),
        made_ms: plan.made_ms,
        expires_ms: plan.expires_ms,
        domain: plan.domain.map(|domain| domain_word(state, domain)).unwrap_or_default(),
        kind: plan.kind.map(|kind| kind.word().to_owned()).unwrap_or_default(),
        trash: plan.trash,
        bytes: bytes.fold(0, u64::saturating_add),
        items,
        left_out: plan.left_out,
        cut: plan.cut,
        applied_by: plan.applied.map(|txn| txn.to_string()).unwrap_or_default(),
        clock_ms: state.meta.clock_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn garbage_shows_its_names_its_evidence_and_its_deleter() {
        let mut sample = Sample::with_disk();
        let placement = sample.disk("web-01").placement;
        sample.delete("web-01");
        let shown = garbage(&sample.state, sample.only_garbage());
        assert_eq!((shown.kind.as_str(), shown.state.as_str(), shown.worker.as_str()), ("deleted", "due", ""));
        assert_eq!((shown.domain.as_str(), shown.last_error.as_str()), ("nfs1", ""));
        assert!(shown.names[0].starts_with(".sdm-"));
        assert_eq!(shown.names[1], placement.to_string());
        sample.collect();
        let shown = garbage(&sample.state, sample.only_garbage());
        assert_eq!((shown.state.as_str(), shown.worker.as_str(), shown.attempts), ("deleting", "a", 1));
        assert_eq!(shown.blocked_by, "");
    }

    #[test]
    fn garbage_that_nobody_reaches_says_so() {
        let mut sample = Sample::with_disk();
        sample.delete("web-01");
        sample.lose("a");
        let shown = garbage(&sample.state, sample.only_garbage());
        assert_eq!(shown.last_error, "no live worker reaches domain nfs1");
        assert_eq!(shown.blocked_by, shown.last_error);
    }
}
