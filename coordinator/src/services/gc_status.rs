//! Garbage in numbers: by kind, by state and by domain, with what is in the way of each domain's
//! collection.

use crate::services::present;
use sdm_proto::ids::DomainId;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::garbage::Garbage;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Obstacles that are told of one domain; the rest are like them.
const OBSTACLES_MAX: usize = 4;

#[derive(Default)]
struct Sum {
    count: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, row: &Garbage) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(row.bytes);
    }

    fn told(self, name: &str) -> v1::GarbageSum {
        v1::GarbageSum { name: name.to_owned(), count: self.count, bytes: self.bytes }
    }
}

#[derive(Default)]
struct Place {
    sum: Sum,
    states: BTreeMap<&'static str, u64>,
    next_due_ms: u64,
    obstacles: BTreeSet<String>,
}

impl Place {
    fn add(&mut self, state: &State, row: &Garbage) {
        self.sum.add(row);
        *self.states.entry(present::garbage_state(state, row)).or_default() += 1;
        if row.due_ms > state.meta.clock_ms && (self.next_due_ms == 0 || row.due_ms < self.next_due_ms) {
            self.next_due_ms = row.due_ms;
        }
        if self.obstacles.len() < OBSTACLES_MAX {
            let obstacle = present::garbage_obstacle(state, row);
            self.obstacles.extend(Some(obstacle).filter(|obstacle| !obstacle.is_empty()));
        }
    }

    fn told(self, state: &State, id: Option<DomainId>) -> v1::GarbageDomain {
        let of = |word| self.states.get(word).copied().unwrap_or(0);
        let domain = id.and_then(|id| state.domains.get(&id));
        v1::GarbageDomain {
            domain_id: id.map(|id| id.to_string()).unwrap_or_default(),
            domain: domain.map(|domain| domain.name.to_string()).unwrap_or_default(),
            count: self.sum.count,
            bytes: self.sum.bytes,
            due: of("due"),
            deleting: of("deleting"),
            trash: of("trash"),
            held: of("held"),
            next_due_ms: self.next_due_ms,
            retention_ms: id.map_or(0, |id| state.retention_ms(id)),
            blocked_by: self.obstacles.into_iter().collect(),
        }
    }
}

/// All of it.
pub(super) fn of(state: &State) -> v1::GetGarbageStatusResponse {
    let mut total = Sum::default();
    let mut kinds: BTreeMap<&str, Sum> = BTreeMap::new();
    let mut states: BTreeMap<&str, Sum> = BTreeMap::new();
    // Every domain is told, also one without garbage: its retention is of interest.
    let mut places: BTreeMap<Option<DomainId>, Place> =
        state.domains.values().map(|domain| (Some(domain.id), Place::default())).collect();
    let mut oldest_ms = u64::MAX;
    for row in state.garbage.values() {
        total.add(row);
        kinds.entry(row.kind.word()).or_default().add(row);
        states.entry(present::garbage_state(state, row)).or_default().add(row);
        let place = Some(row.place.domain).filter(|_| !row.place.whole_domain);
        places.entry(place).or_default().add(state, row);
        oldest_ms = oldest_ms.min(row.since_ms);
    }
    let sums = |sums: BTreeMap<&str, Sum>| sums.into_iter().map(|(name, sum)| sum.told(name)).collect();
    v1::GetGarbageStatusResponse {
        total: Some(total.told("")),
        kinds: sums(kinds),
        states: sums(states),
        domains: places.into_iter().map(|(id, place)| place.told(state, id)).collect(),
        clock_ms: state.meta.clock_ms,
        oldest_ms: if state.garbage.is_empty() { 0 } else { oldest_ms },
        revision: state.applied_index(),
        suspended: state.is_suspended(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn each_domain_is_told_with_what_is_in_the_way() {
        let mut sample = Sample::with_disk();
        sample.delete("web-01");
        sample.lose("a");
        let status = of(&sample.state);
        assert_eq!(status.total.as_ref().map(|sum| (sum.count, sum.bytes)), Some((1, 1 << 20)));
        assert_eq!(status.kinds[0].name, "deleted");
        let [one, other] = &status.domains[..] else { panic!("both domains: {status:?}") };
        let (full, empty) = if one.domain == "nfs1" { (one, other) } else { (other, one) };
        assert_eq!((full.due, full.blocked_by.as_slice()), (1, &["no live worker reaches domain nfs1".to_owned()][..]));
        assert_eq!((empty.count, empty.blocked_by.len()), (0, 0));
    }
}
