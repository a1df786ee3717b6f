//! Orders about garbage are carried out: the entry that begins such a transaction also ends it.

use crate::apply::Turn;
use crate::garbage::Garbage;
use crate::garbage::Hold;
use crate::garbage::Kind;
use crate::garbage_order::GarbageOrder;
use crate::gc_plans::GcPlan;
use crate::gc_plans::PlanItem;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Txn;
use crate::work::Owner;
use sdm_proto::ids::DomainId;
use sdm_proto::token::Token;

/// What a plan takes in.
struct PlannedRows<'s> {
    /// By rising id.
    rows: Vec<&'s Garbage>,
    /// How many were seen that found no place.
    left_out: u64,
    /// There is more that was not looked at.
    cut: bool,
}

impl State {
    /// Does it; its plan was asked in this very entry.
    pub(super) fn commit_garbage_order(&mut self, turn: &mut Turn, mut txn: Txn, order: GarbageOrder) {
        let outcome = match order {
            GarbageOrder::RestoreDisk { garbage, name } => self.restore_trash(garbage, name),
            GarbageOrder::PurgeTrash { garbage } => self.purge_trash(turn, &mut txn, &garbage),
            GarbageOrder::Hold { garbage, reason } => self.hold_garbage(&txn, garbage, Some(reason)),
            GarbageOrder::Unhold { garbage } => self.hold_garbage(&txn, garbage, None),
            GarbageOrder::PlanCollection { domain, kind, trash } => self.make_gc_plan(&mut txn, domain, kind, trash),
            GarbageOrder::ApplyPlan { plan, .. } => self.apply_gc_plan(turn, &mut txn, plan),
            GarbageOrder::AdoptOrphans { domain, orphans } => self.adopt_orphans(turn, &mut txn, domain, &orphans),
            GarbageOrder::SetRetention { domain, retention_ms } => self.set_retention(domain, retention_ms),
        };
        self.note(&mut txn, "committed");
        self.end(turn, txn, Phase::Committed(outcome));
    }

    fn hold_garbage(&mut self, txn: &Txn, id: Token, reason: Option<String>) -> Outcome {
        let Some(mut row) = self.garbage.get(&id).cloned() else { return Outcome::default() };
        // Held again: since when and by whom first stays, so that a repetition changes nothing.
        row.held = match (reason, row.held.take()) {
            (Some(reason), Some(known)) if known.reason == reason => Some(known),
            (Some(reason), _) => {
                let (by, since_ms) = (txn.initiator.clone(), self.meta.clock_ms);
                Some(Hold { reason, by, txn: txn.id, since_ms })
            }
            (None, _) => None,
        };
        let domain = Some(row.place.domain).filter(|_| !row.place.whole_domain);
        self.put_garbage(row);
        Outcome { domain, ..Outcome::default() }
    }

    fn set_retention(&mut self, id: DomainId, retention_ms: Option<u64>) -> Outcome {
        let Some(mut domain) = self.domains.get(&id).cloned() else { return Outcome::default() };
        domain.retention_ms = retention_ms;
        self.put_domain(domain);
        Outcome { domain: Some(id), ..Outcome::default() }
    }

    fn make_gc_plan(&mut self, txn: &mut Txn, domain: Option<DomainId>, kind: Option<Kind>, trash: bool) -> Outcome {
        let now = self.meta.clock_ms;
        let settings = &self.meta.settings;
        let (plans_max, items_max) = (settings.gc_plans_max, settings.gc_plan_items_max);
        let expires_ms = now.saturating_add(settings.gc_plan_kept_ms);
        let most = usize::try_from(items_max).unwrap_or(usize::MAX);
        let PlannedRows { rows, left_out, cut } = self.rows_for_plan(domain, kind, trash, most);
        let bytes = rows.iter().map(|row| row.bytes).fold(0, u64::saturating_add);
        let item = |row: &&Garbage| PlanItem { garbage: row.id, placement: row.placement, hash: row.content_hash() };
        let items: Vec<PlanItem> = rows.iter().map(item).collect();
        let ids: Vec<u64> = self.gc_plans.values().filter(|plan| plan.expires_ms > now).map(|plan| plan.id).collect();
        let kept = usize::try_from(plans_max).unwrap_or(usize::MAX).saturating_sub(1);
        let first_kept = ids.len().saturating_sub(kept);
        let keep = ids.get(first_kept..).unwrap_or_default();
        for id in self.gc_plans.values().map(|plan| plan.id).filter(|id| !keep.contains(id)).collect::<Vec<_>>() {
            self.remove_gc_plan(id);
        }
        let id = self.meta.applied_index;
        let least = if cut { "at least " } else { "" };
        self.note(txn, format!("plan {id}: {} rows, {bytes} bytes, {least}{left_out} left out", items.len()));
        let (made_ms, applied) = (now, None);
        let plan = GcPlan { id, txn: txn.id, made_ms, expires_ms, domain, kind, trash, items, left_out, cut, applied };
        self.put_gc_plan(plan);
        Outcome { domain, bytes, ..Outcome::default() }
    }

    /// What a plan takes in; no more is looked at than a few plans' worth.
    fn rows_for_plan(&self, domain: Option<DomainId>, kind: Option<Kind>, trash: bool, most: usize) -> PlannedRows<'_> {
        let now = self.meta.clock_ms;
        let waiting = &self.index.waiting_garbage;
        // What failed is due all the same, and in a pause: behind all that is not, as is what will only be due then.
        let until = if trash { u64::MAX } else { now.saturating_add(self.meta.settings.retry_max_ms) };
        let wanted = |row: &&Garbage| {
            let is_due = row.due_ms <= now || (trash && row.trash.is_some());
            let in_place = domain.is_none_or(|domain| row.place.domain == domain);
            is_due && in_place && row.held.is_none()
        };
        let places = || waiting.places().filter(|place| domain.is_none() || place.is_none() || *place == domain);
        let between = |from_ms: u64, until_ms: u64| {
            let at = move |place| waiting.of_kind(kind, place, from_ms).take_while(move |(ms, _)| *ms <= until_ms);
            places().flat_map(at)
        };
        let mut rows = between(0, now).chain(between(now.saturating_add(1), until));
        let looked_at = rows.by_ref().take(most.saturating_mul(LOOKED_AT_FOR_ONE));
        let mut found: Vec<&Garbage> = looked_at.filter_map(|(_, id)| self.garbage.get(&id)).filter(wanted).collect();
        let left_out = found.len().saturating_sub(most) as u64;
        found.truncate(most);
        found.sort_unstable_by_key(|row| row.id);
        PlannedRows { rows: found, left_out, cut: rows.next().is_some() }
    }

    fn apply_gc_plan(&mut self, turn: &mut Turn, txn: &mut Txn, id: u64) -> Outcome {
        let Some(mut plan) = self.gc_plans.get(&id).cloned() else { return Outcome::default() };
        let changed: Vec<Token> = self.changed_since(&plan).map(|(id, _)| id).collect();
        let ids: Vec<Token> = plan.items.iter().map(|item| item.garbage).filter(|id| !changed.contains(id)).collect();
        let bytes = ids.iter().filter_map(|id| self.garbage.get(id)).map(|row| row.bytes).fold(0, u64::saturating_add);
        let (assigned, left) = self.make_due(turn, &ids);
        let gone = ids.len().saturating_sub(assigned).saturating_sub(left);
        self.note(
            txn,
            format!(
                "of {} rows {assigned} deletions are assigned, {left} follow, {gone} were begun or done before, {} were skipped",
                plan.items.len(),
                changed.len()
            ),
        );
        plan.applied = Some(txn.id);
        self.put_gc_plan(plan);
        Outcome { bytes, ..Outcome::default() }
    }

    /// Makes rows due and assigns their deletion, as many as one entry may. Answers how many were assigned
    /// and how many are left to the collectors.
    pub(super) fn make_due(&mut self, turn: &mut Turn, ids: &[Token]) -> (usize, usize) {
        let most = usize::try_from(self.meta.settings.work_per_entry).unwrap_or(usize::MAX);
        let (mut assigned, mut left) = (0, 0);
        for id in ids {
            let Some(mut row) = self.garbage.get(id).cloned().filter(|row| row.work.attempt.is_none()) else {
                continue;
            };
            if row.due_ms > self.meta.clock_ms {
                row.due_ms = self.meta.clock_ms;
                self.put_garbage(row);
            }
            if assigned < most && self.collect_one(turn, *id) {
                assigned += 1;
            } else {
                left += 1;
            }
        }
        (assigned, left)
    }

    /// Whether a retry would only meet what earlier attempts of this very work left behind: where space is
    /// short, that goes first. Has it deleted, as far as that is not under way.
    pub(crate) fn frees_own_space(&mut self, turn: &mut Turn, owner: Owner) -> bool {
        let Owner::Job(id) = owner else { return false };
        let Some((txn, Some(target))) = self.jobs.get(&id).map(|job| (job.txn, job.target)) else { return false };
        if self.check_space(target, 1).is_ok() {
            return false;
        }
        let own = self.index.attempt_garbage.range((txn, Token::default())..).take_while(|(of, _)| *of == txn);
        let own: Vec<Token> = own.map(|(_, id)| *id).collect();
        let mut waits = false;
        for id in own {
            self.collect_one(turn, id);
            let tried = self.garbage.get(&id).filter(|row| row.held.is_none()).map(|row| row.work.attempts);
            // What cannot be deleted must not hold the work up for good.
            waits |= tried.is_some_and(|tried| tried <= OWN_GARBAGE_TRIES_MAX);
        }
        waits
    }
}

/// Rows that a plan looks at for each one that it can hold.
const LOOKED_AT_FOR_ONE: usize = 8;

/// Deletions of its own garbage that work waits for.
const OWN_GARBAGE_TRIES_MAX: u32 = 2;
