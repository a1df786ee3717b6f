//! The model held against the state: first what the rules leave open is learned, then everything that is
//! visible must be equal.

use super::Attempt;
use super::Naive;
use super::Phase;
use super::Work;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use sdm_state::State;
use sdm_state::locks::Owner as LockOwner;
use sdm_state::txns;
use sdm_state::work;
use sdm_state::work::Owner;
use std::collections::BTreeSet;

impl Naive {
    /// Learns which worker got what and under which token, and the ids of new garbage.
    pub fn learn(&mut self, state: &State) -> Result<(), String> {
        let all = self.clone();
        let index = self.index;
        let fresh = |token: Token| if token.index == index { Ok(()) } else { Err(format!("token {token} is not new")) };
        for row in &mut self.garbage {
            if row.id == Token::default() {
                let found = state.garbage.values().find(|known| known.made_by == row.made_by);
                row.id = found.map(|known| known.id).ok_or_else(|| format!("no garbage of {}", row.made_by))?;
                fresh(row.id)?;
            }
            let shown = state.work_of(Owner::Deletion(row.id)).and_then(|work| work.attempt.as_ref());
            if let Some(attempt) = row.work.attempt.as_mut().filter(|attempt| attempt.worker.is_empty()) {
                take(attempt, shown, state).and_then(|()| fresh(attempt.token))?;
                if !all.reaches(&attempt.worker, row.domain) {
                    return Err(format!("{} cannot delete garbage {}", attempt.worker, row.id));
                }
            }
        }
        for txn in &mut self.txns {
            let (source, target) = all.ends_of(&txn.spec);
            let Some(attempt) = txn.work.as_mut().and_then(|work| work.attempt.as_mut()) else { continue };
            if !attempt.worker.is_empty() {
                continue;
            }
            take(attempt, shown_work(state, txn.id).and_then(|work| work.attempt.as_ref()), state)?;
            fresh(attempt.token)?;
            let reader = attempt.source.clone().unwrap_or_else(|| attempt.worker.clone());
            let able = all.is_live(&attempt.worker)
                && target.is_none_or(|domain| all.reaches(&attempt.worker, domain))
                && source.is_none_or(|domain| all.reaches(&reader, domain));
            // One who reaches both ends copies alone.
            let alone = source.is_some_and(|from| {
                all.workers
                    .iter()
                    .any(|w| all.reaches(&w.name, from) && target.is_some_and(|to| all.reaches(&w.name, to)))
            });
            if !able || (alone && attempt.source.is_some()) {
                return Err(format!("{attempt:?} cannot do {:?}", txn.spec));
            }
        }
        Ok(())
    }

    /// Everything that is visible, side by side.
    pub fn check(&self, state: &State) -> Result<(), String> {
        same("clock", &self.now, &state.meta.clock_ms)?;
        let locks: BTreeSet<_> = state
            .locks
            .values()
            .map(|lock| (lock.id, format!("{:?}", lock.resources), lock.granted.is_some(), lock.owner))
            .collect();
        let mine = self.locks.iter().map(|lock| {
            let wants: std::collections::BTreeMap<_, _> = lock.wants.iter().cloned().collect();
            (lock.id, format!("{wants:?}"), lock.held, LockOwner::Txn(lock.txn))
        });
        same("locks", &mine.collect::<BTreeSet<_>>(), &locks)?;
        let known: BTreeSet<TxnId> = self.txns.iter().map(|txn| txn.id).collect();
        same("remembered transactions", &known, &state.txns.values().map(|txn| txn.id).collect())?;
        for txn in &self.txns {
            let row = state.txns.get(&txn.id).ok_or("a transaction is missing")?;
            same(&format!("phase of {:?}", txn.spec), &txn.phase, &phase_of(&row.phase))?;
            let shown = shown_work(state, txn.id).filter(|_| !row.phase.is_final());
            same_work(&format!("work of {:?}", txn.spec), txn.work.as_ref(), shown, state)?;
        }
        self.check_catalog(state)?;
        self.check_garbage(state)
    }

    fn check_catalog(&self, state: &State) -> Result<(), String> {
        let disks: BTreeSet<_> = state
            .disks
            .values()
            .map(|disk| {
                let placement = state.placements.get(&disk.placement);
                let domain = placement.map(|placement| (placement.domain, placement.token));
                (disk.id, disk.name.to_string(), disk.placement, domain, disk.volumes.clone())
            })
            .collect();
        let mine = self.disks.iter().map(|disk| {
            (disk.id, disk.name.clone(), disk.placement, Some((disk.domain, disk.made_by)), disk.volumes.clone())
        });
        same("disks", &mine.collect::<BTreeSet<_>>(), &disks)?;
        for disk in &self.disks {
            let name = disk.name.parse().map_err(|_| "a bad name")?;
            same("disk by name", &Some(disk.id), &state.disk_named(&name).map(|disk| disk.id))?;
        }
        let trash = self.garbage.iter().filter_map(|row| row.trash.as_ref());
        let volumes = self.disks.iter().chain(trash).flat_map(|disk| disk.volumes.clone());
        same("volumes", &volumes.collect::<BTreeSet<_>>(), &state.volumes.values().map(|row| row.id).collect())?;
        same("placements", &self.disks.len(), &state.placements.len())?;
        for domain in &self.domains {
            let row = state.domains.get(&domain.id).ok_or("a domain is missing")?;
            same("retention", &domain.retention, &row.retention_ms)?;
        }
        Ok(())
    }

    fn check_garbage(&self, state: &State) -> Result<(), String> {
        same("garbage", &self.garbage.len(), &state.garbage.len())?;
        for row in &self.garbage {
            let shown = state.garbage.get(&row.id).ok_or_else(|| format!("garbage {} is missing", row.id))?;
            let what = format!("garbage {} ({:?})", row.id, row.kind);
            same(&what, &row.kind, &shown.kind)?;
            same(&what, &(row.domain, Some(row.placement)), &(shown.place.domain, shown.placement))?;
            same(&what, &(row.made_by, row.txn, row.due), &(shown.made_by, shown.txn, shown.due_ms))?;
            same(&what, &row.held, &shown.held.as_ref().map(|hold| hold.reason.clone()))?;
            let trash = shown.trash.as_ref().map(|trash| (trash.disk.id, trash.disk.name.to_string()));
            same(&what, &row.trash.as_ref().map(|disk| (disk.id, disk.name.clone())), &trash)?;
            let restorable = row.trash.is_some() && row.work.tries == 0;
            same(&format!("{what} restorable"), &restorable, &state.restorable(shown).is_ok())?;
            same_work(&what, Some(&row.work), Some(&shown.work), state)?;
        }
        same("plans", &self.plans.len(), &state.gc_plans.len())?;
        for plan in &self.plans {
            let shown = state.gc_plans.get(&plan.id).ok_or_else(|| format!("plan {} is missing", plan.id))?;
            let rows: BTreeSet<Token> = shown.items.iter().map(|item| item.garbage).collect();
            same("plan", &plan.rows.iter().map(|row| row.0).collect(), &rows)?;
            same("plan", &(plan.applied, plan.until), &(shown.applied.is_some(), shown.expires_ms))?;
        }
        Ok(())
    }
}

fn shown_work(state: &State, id: TxnId) -> Option<&work::Work> {
    let txn = state.txns.get(&id)?;
    state.work_of(txn.job.map_or(Owner::Step(id), Owner::Job))
}

fn take(attempt: &mut Attempt, shown: Option<&work::Attempt>, state: &State) -> Result<(), String> {
    let shown = shown.ok_or("nobody was told to do what somebody could")?;
    attempt.token = shown.token;
    attempt.worker = state.worker_word(shown.worker);
    attempt.source = shown.source_worker.map(|worker| state.worker_word(worker));
    Ok(())
}

fn same_work(what: &str, mine: Option<&Work>, shown: Option<&work::Work>, state: &State) -> Result<(), String> {
    let shown = shown.map(|work| Work {
        attempt: work.attempt.as_ref().map(|attempt| Attempt {
            token: attempt.token,
            worker: state.worker_word(attempt.worker),
            source: attempt.source_worker.map(|worker| state.worker_word(worker)),
            since: attempt.assigned_ms,
            unreachable_since: attempt.unreachable_since_ms,
        }),
        tries: work.attempts,
        retry_at: work.retry_at_ms,
        idle_since: work.unassigned_since_ms,
    });
    same(what, &mine, &shown.as_ref())
}

pub fn phase_of(phase: &txns::Phase) -> Phase {
    match phase {
        txns::Phase::Waiting { .. } => Phase::Waiting,
        txns::Phase::Running => Phase::Running,
        txns::Phase::Committed(_) => Phase::Committed,
        txns::Phase::Aborted(refusal) => Phase::Aborted(refusal.reason.clone()),
        txns::Phase::Refused(refusal) => Phase::Refused(refusal.reason.clone()),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, model: &T, state: &T) -> Result<(), String> {
    if model == state { Ok(()) } else { Err(format!("{what}: the model has\n  {model:?}\nthe state has\n  {state:?}")) }
}
