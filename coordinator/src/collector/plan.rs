//! What to collect now, and when to look again: a pure function of the state and the time.

use sdm_proto::token::Token;
use sdm_state::State;
use sdm_state::garbage::Garbage;
use std::fmt;

/// Deletions in one command at most; the rest come with the next. `apply` takes no more at once
/// either, and one entry stays small.
const BATCH_MAX: usize = 256;

/// Garbage looked at in one place, so that a heap of it costs no more than a little: a batch, and as many
/// again of which it is told that they are left.
const LOOKED_AT_MAX: usize = 2 * BATCH_MAX;

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be deleted now, by rising id.
    pub collect: Vec<Token>,
    /// Due as well, for a later command; of a heap at least so many.
    pub postponed: usize,
    /// Due, but no live worker reaches it: only a change of the state helps. Of a heap at least so many.
    pub unreached: usize,
    /// When the next of the others falls due, on the cluster's clock.
    pub next_due_ms: Option<u64>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to collect, {} postponed, {} out of reach", self.collect.len(), self.postponed, self.unreached)
    }
}

/// The plan for this moment of the cluster's clock. The clock is given, because the state's own moves
/// only with entries; what is due by it, `apply` finds due by the stamp of the entry that asks.
#[must_use]
pub fn plan(state: &State, clock_ms: u64) -> Plan {
    let most = usize::try_from(state.meta.settings.work_per_entry).unwrap_or(usize::MAX).clamp(1, BATCH_MAX);
    let mut plan = Plan::default();
    if state.is_suspended() {
        return plan;
    }
    let waiting = state.waiting_garbage();
    for place in waiting.places() {
        // All of a domain's garbage has the same deleters; each folder of no domain has its own.
        let reached = place.map(|domain| state.workers_reaching(domain).next().is_some());
        let most_looked_at = place.map_or(usize::MAX, |_| LOOKED_AT_MAX);
        let due = waiting.at(place).take_while(|(from_ms, _)| *from_ms <= clock_ms);
        for (_, id) in due.take(most_looked_at) {
            let deleted = || state.garbage.get(&id).is_some_and(|garbage| deleter_exists(state, garbage));
            if !reached.unwrap_or_else(deleted) {
                plan.unreached += 1;
            } else if plan.collect.len() < most {
                plan.collect.push(id);
            } else {
                plan.postponed += 1;
            }
        }
        let next = waiting.from(place, clock_ms.saturating_add(1)).next();
        plan.next_due_ms = [plan.next_due_ms, next.map(|(from_ms, _)| from_ms)].into_iter().flatten().min();
    }
    plan.collect.sort_unstable();
    plan
}

/// Whether some live worker could delete it.
pub(crate) fn deleter_exists(state: &State, garbage: &Garbage) -> bool {
    let place = &garbage.place;
    state.workers.values().any(|worker| {
        if place.whole_domain {
            worker.is_live() && worker.owns_path(&place.path)
        } else {
            worker.reaches(place.domain)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_state::work::Report;

    fn now(sample: &Sample) -> Plan {
        plan(&sample.state, sample.state.meta.clock_ms)
    }

    #[test]
    fn what_is_due_is_collected_once() {
        let mut sample = Sample::with_disk();
        assert_eq!(now(&sample), Plan::default());
        sample.delete("web-01");
        let id = sample.only_garbage().id;
        assert_eq!(now(&sample).collect, [id]);
        sample.collect();
        assert_eq!(now(&sample), Plan::default());
    }

    #[test]
    fn a_failed_deletion_is_tried_again_after_its_pause_and_not_before() {
        let mut sample = Sample::with_disk();
        sample.delete("web-01");
        sample.collect();
        sample.report(Report::Failed { reason: "EBUSY".into(), message: "in use".into(), hint: String::new() });
        let retry_at_ms = sample.only_garbage().work.retry_at_ms;
        let plan_then = plan(&sample.state, retry_at_ms - 1);
        assert_eq!((plan_then.collect.len(), plan_then.next_due_ms), (0, Some(retry_at_ms)));
        assert_eq!(plan(&sample.state, retry_at_ms).collect.len(), 1);
    }

    #[test]
    fn what_nobody_reaches_is_left_alone_until_somebody_does() {
        let mut sample = Sample::with_disk();
        sample.delete("web-01");
        sample.see("a", "nfs1", Some("gone"));
        assert_eq!(now(&sample), Plan { unreached: 1, ..Plan::default() });
        sample.see("a", "nfs1", None);
        assert_eq!(now(&sample).collect.len(), 1);
    }

    #[test]
    fn the_names_of_a_domain_that_never_came_to_be_need_a_worker_for_its_path() {
        let mut sample = Sample::new();
        sample.begin_domain("nfs3");
        sample.report(Report::Stopped);
        assert!(sample.only_garbage().place.whole_domain);
        assert_eq!(now(&sample).collect.len(), 1);
        sample.lose("a");
        assert!(now(&sample).collect.is_empty());
    }

    #[test]
    fn one_command_asks_for_no_more_than_one_entry_may_do() {
        let mut sample = Sample::with_disk();
        sample.begin_disk("web-02");
        sample.report(Report::Stopped);
        sample.delete("web-01");
        sample.state.meta.settings.work_per_entry = 1;
        let plan = now(&sample);
        assert_eq!((plan.collect.len(), plan.postponed), (1, 1));
    }
}
